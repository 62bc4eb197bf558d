//! Values as the database keeps them.

use procid_common::socket::{Address, V4_MAPPED};
use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Value, ValueRef},
};

use crate::connections::Outcome;

/// Bits of `flows.marks`.
pub(super) mod marks {
    /// The end is that of the last descriptor.
    pub(crate) const RELEASED: i64 = 1;
    /// Written later than [`super::LATE_NS`] after flows that began later.
    pub(crate) const LATE: i64 = 2;
    /// Denied, or noted as what would be.
    pub(crate) const NOTED: i64 = 4;
    /// It stands beside the flow that it was tried on.
    pub(crate) const USE: i64 = 8;
}

/// Flows are written in the order of their start, but for this long.
pub(super) const LATE_NS: i64 = 4_000_000_000;
/// Flows that lasted longer are found by their end.
pub(super) const LONG_NS: i64 = 2_000_000_000;
/// `id >> BUCKET_BITS` begins the indexes of flows.
pub(super) const BUCKET_BITS: u32 = 15;

/// An address: IPv4 as a signed number, IPv6 as a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stored(pub(super) Address);

impl Stored {
    /// The number of an IPv4 address.
    pub(super) fn v4(self) -> Option<i64> {
        let (prefix, v4) = self.0.split_at(V4_MAPPED.len());
        let v4: [u8; 4] = v4.try_into().ok()?;
        (prefix == V4_MAPPED).then(|| i64::from(i32::from_be_bytes(v4)))
    }
}

impl ToSql for Stored {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.v4() {
            Some(number) => ToSqlOutput::Owned(Value::Integer(number)),
            None => ToSqlOutput::Borrowed(ValueRef::Blob(&self.0)),
        })
    }
}

impl FromSql for Stored {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Integer(number) => {
                let number = i32::try_from(number).map_err(|_| FromSqlError::OutOfRange(number))?;
                let mut address = [0; 16];
                let (prefix, v4) = address.split_at_mut(V4_MAPPED.len());
                prefix.copy_from_slice(&V4_MAPPED);
                v4.copy_from_slice(&number.to_be_bytes());
                Ok(Self(address))
            }
            ValueRef::Blob(bytes) => bytes
                .try_into()
                .map(Self)
                .map_err(|_| FromSqlError::InvalidType),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// `flows.outcome`.
pub(super) const fn outcome_number(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Success => 0,
        Outcome::Failure(errno) => errno as i64,
        Outcome::Abandoned => -1,
        Outcome::Denied => DENIED,
        Outcome::Unknown => -3,
        Outcome::Found => -4,
        Outcome::Pending => -5,
    }
}

/// [`Outcome::Denied`].
pub(super) const DENIED: i64 = -2;

pub(super) fn outcome_of(number: i64) -> Outcome {
    match number {
        0 => Outcome::Success,
        -1 => Outcome::Abandoned,
        DENIED => Outcome::Denied,
        -4 => Outcome::Found,
        -5 => Outcome::Pending,
        errno => match i32::try_from(errno) {
            Ok(errno @ 1..) => Outcome::Failure(errno),
            _ => Outcome::Unknown,
        },
    }
}

/// Nanoseconds since boot; they fit for 292 years.
pub(super) fn ns(boot_ns: u64) -> i64 {
    i64::try_from(boot_ns).unwrap_or(i64::MAX)
}

/// The other way.
pub(super) fn boot(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept() {
        for text in [
            "0.0.0.0",
            "10.0.0.7",
            "203.0.113.7",
            "255.255.255.255",
            "::",
            "fd00::1",
        ] {
            let ip: std::net::IpAddr = text.parse().unwrap();
            let address = match ip {
                std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                std::net::IpAddr::V6(v6) => v6.octets(),
            };
            let value = Stored(address);
            let sql = value.to_sql().unwrap();
            let ToSqlOutput::Owned(sql) = (match sql {
                ToSqlOutput::Borrowed(borrowed) => ToSqlOutput::Owned(borrowed.try_into().unwrap()),
                owned => owned,
            }) else {
                panic!("a value");
            };
            assert_eq!(matches!(sql, Value::Integer(_)), ip.is_ipv4());
            assert_eq!(Stored::column_result((&sql).into()).unwrap(), value);
        }
        assert!(Stored::column_result(ValueRef::Integer(1 << 40)).is_err());
        assert!(Stored::column_result(ValueRef::Blob(&[1; 4])).is_err());
    }

    #[test]
    fn outcomes_are_kept() {
        for outcome in [
            Outcome::Success,
            Outcome::Failure(libc::ECONNREFUSED),
            Outcome::Abandoned,
            Outcome::Denied,
            Outcome::Unknown,
            Outcome::Found,
            Outcome::Pending,
        ] {
            assert_eq!(outcome_of(outcome_number(outcome)), outcome);
        }
    }
}

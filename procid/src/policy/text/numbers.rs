//! Numbers and what is counted: ports, users, networks, times.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::{IpNet, Ipv4Net};
use jiff::Zoned;
use toml::de::{DeInteger, DeValue};

use super::{
    diagnostic::Wrong,
    words::{a_kind, quoted},
};
use crate::time;

/// The last uid and gid; the next number means none.
const ID_MAX: u32 = u32::MAX - 1;

/// A number that fits; negative ones never do.
fn number<T: TryFrom<u64>>(integer: &DeInteger<'_>) -> Option<T> {
    let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    number.try_into().ok()
}

/// Text that is nothing but digits.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

/// `NUMBER` or `FIRST-LAST`, of digits only; each end is `None` where it does
/// not fit. `None` for all other text.
fn range<T: std::str::FromStr>(text: &str) -> Option<(Option<T>, Option<T>)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((digits(first)?.parse().ok(), digits(last)?.parse().ok()))
}

/// The range between two numbers of which the first must not be the greater.
fn ordered<T: Ord>(first: T, last: T, text: &str) -> Result<RangeInclusive<T>, Wrong> {
    if first > last {
        return Err(Wrong::new(
            format!("the range {} runs backwards", quoted(text)),
            "write the smaller number first",
        ));
    }
    Ok(first..=last)
}

pub(super) fn port(value: &DeValue<'_>) -> Result<RangeInclusive<u16>, Wrong> {
    let help = "write a number from 1 to 65535, or a range such as \"8000-8999\"";
    let no_port = |text: &str| Wrong::new(format!("{} is not a port", quoted(text)), help);
    match value {
        DeValue::Integer(integer) => match number(integer) {
            Some(0) | None => Err(no_port(&integer.to_string())),
            Some(port) => Ok(port..=port),
        },
        DeValue::String(text) => match range(text) {
            Some((Some(first), Some(last))) if first > 0 && last > 0 => ordered(first, last, text),
            _ => Err(no_port(text)),
        },
        other => Err(Wrong::kind("a number or a range", other, help)),
    }
}

/// A user or a group (`kind`) by number, by name or as a range of numbers.
pub(super) fn id(
    value: &DeValue<'_>,
    kind: &str,
    by_name: impl Fn(&str) -> Option<u32>,
) -> Result<RangeInclusive<u32>, Wrong> {
    let help =
        format!("write a number from 0 to {ID_MAX}, a name, or a range such as \"1000-1999\"");
    let no_id = |text: &str| {
        Wrong::new(
            format!("{} is not the id of a {kind}", quoted(text)),
            &*help,
        )
    };
    let fits = |id: &u32| *id <= ID_MAX;
    match value {
        DeValue::Integer(integer) => number(integer)
            .filter(fits)
            .map(|id| id..=id)
            .ok_or_else(|| no_id(&integer.to_string())),
        DeValue::String(text) => match range::<u32>(text) {
            Some((first, last)) => match (first.filter(fits), last.filter(fits)) {
                (Some(first), Some(last)) => ordered(first, last, text),
                _ => Err(no_id(text)),
            },
            None => by_name(text).map(|id| id..=id).ok_or_else(|| {
                Wrong::new(
                    format!("this host has no {kind} {}", quoted(text)),
                    format!("add the {kind} first, or write its number"),
                )
            }),
        },
        other => Err(Wrong::kind("a number, a name or a range", other, help)),
    }
}

/// A network, or an address alone; v4-mapped ones become IPv4.
pub(super) fn network(value: &DeValue<'_>) -> Result<IpNet, Wrong> {
    let help = "write it as \"10.1.2.0/24\" or \"fd00::/8\"";
    let DeValue::String(text) = value else {
        return Err(Wrong::kind("a network", value, help));
    };
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => {
                let wrong = format!("{} is not a network", quoted(text));
                return Err(Wrong::new(wrong, help));
            }
        },
    };
    if network != network.trunc() {
        return Err(Wrong::new(
            format!("{} has bits set behind its prefix", quoted(text)),
            format!(
                "write \"{}\" for the network, or \"{}\" for the one address",
                network.trunc(),
                IpNet::from(network.addr())
            ),
        ));
    }
    Ok(unmapped(network))
}

fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let v4 = v6
        .addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, len)| Ipv4Net::new(address, len).ok())
        .map_or(network, IpNet::V4)
}

/// A time that is the same whenever the file is read, nanoseconds since the
/// epoch.
pub(super) fn moment(value: &DeValue<'_>, now: &Zoned) -> Result<i128, Wrong> {
    let help = "write a date and time, such as \"2026-11-22T15:04:05Z\"";
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        other => {
            let wrong = format!("must be a time, not {}", a_kind(other));
            return Err(Wrong::new(wrong, help));
        }
    };
    let text = text.trim();
    if !is_absolute(text) {
        return Err(Wrong::new(
            format!("{} names no time of its own date", quoted(text)),
            help,
        ));
    }
    match time::moment_at(text, now) {
        Ok(ns) => Ok(ns.into()),
        Err(time::MomentError::Range(_)) => Err(Wrong::new(
            format!("{} is out of range", quoted(text)),
            "write a time between the years 1678 and 2261",
        )),
        Err(_) => Err(Wrong::new(format!("{} is not a time", quoted(text)), help)),
    }
}

/// Begins with a date or `@`: other moments depend on when they are read.
fn is_absolute(text: &str) -> bool {
    let year = text.get(..4).is_some_and(|year| digits(year).is_some());
    text.starts_with('@') || (year && text.get(4..5) == Some("-"))
}

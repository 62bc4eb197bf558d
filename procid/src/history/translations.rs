//! The table `translations`.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use rusqlite::{Connection as Database, Result, Row, params, types::Value};

use super::value::Stored;
use crate::{
    connections::Nat,
    conntrack::{End, Translation},
};

/// Columns that [`read`] reads; the table is `t`.
pub(super) const COLUMNS: &str = "t.grade, t.local, t.local_port, t.remote, t.remote_port";

const EXACT: &str = "exact";
const INFERRED: &str = "inferred";
const AMBIGUOUS: &str = "ambiguous";

/// Writes what is known of a flow.
pub(super) fn write(database: &Database, flow: i64, nat: Option<&Nat>) -> Result<()> {
    let (grade, translation) = match nat {
        None => return Ok(()),
        Some(Nat::Ambiguous) => (AMBIGUOUS, Translation::default()),
        Some(Nat::Exact(translation) | Nat::Inferred(translation))
            if *translation == Translation::default() =>
        {
            return Ok(());
        }
        Some(Nat::Exact(translation)) => (EXACT, *translation),
        Some(Nat::Inferred(translation)) => (INFERRED, *translation),
    };
    let (local, remote) = (translation.local, translation.remote);
    database
        .prepare_cached("INSERT OR REPLACE INTO translations VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            flow,
            grade,
            local.map(|(ip, _)| stored(ip)),
            local.map(|(_, port)| port),
            remote.map(|(ip, _)| stored(ip)),
            remote.map(|(_, port)| port),
        ])?;
    Ok(())
}

/// Reads it from the columns that begin there.
pub(super) fn read(row: &Row<'_>, at: usize) -> Result<Option<Arc<Nat>>> {
    let Some(grade) = row.get::<_, Option<String>>(at)? else {
        return Ok(None);
    };
    let end = |at: usize| -> Result<Option<End>> {
        let address: Option<Stored> = row.get(at)?;
        let port: Option<u16> = row.get(at + 1)?;
        let ip = |Stored(address)| IpAddr::V6(Ipv6Addr::from(address)).to_canonical();
        Ok(address.map(ip).zip(port))
    };
    let translation = Translation {
        local: end(at + 1)?,
        remote: end(at + 3)?,
    };
    Ok(match &*grade {
        EXACT => Some(Arc::new(Nat::Exact(translation))),
        INFERRED => Some(Arc::new(Nat::Inferred(translation))),
        AMBIGUOUS => Some(Arc::new(Nat::Ambiguous)),
        // It is not known what is meant.
        _ => None,
    })
}

/// Flows of a bucket (`?1`, numbers from `?2` to `?3`) of which one translated
/// end has this address, of a range, and this port.
pub(super) fn put_search(
    range: Option<(Value, Value)>,
    port: Option<u16>,
    text: &mut String,
    values: &mut Vec<Value>,
) {
    let mut put = |value: Value| {
        values.push(value);
        values.len()
    };
    let port = port.map(|port| put(i64::from(port).into()));
    let range = range.map(|(from, to)| (put(from), put(to)));
    for (number, end) in ["local", "remote"].into_iter().enumerate() {
        if number > 0 {
            text.push_str(" UNION ALL ");
        }
        text.push_str("SELECT flow FROM translations WHERE flow >> 15 = ?1");
        if let Some((from, to)) = range {
            text.push_str(&format!(" AND {end} BETWEEN ?{from} AND ?{to}"));
        }
        if let Some(port) = port {
            text.push_str(&format!(" AND {end}_port = ?{port}"));
        }
    }
}

fn stored(ip: IpAddr) -> Stored {
    Stored(match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    })
}

//! Ports and addresses.

use ipnet::IpNet;
use rusqlite::{Result, types::Value};

use crate::{
    flow::{End, Query},
    history::{reader::Reader, translations, value::Stored},
};

/// Rows counted to choose an index.
const PROBE: i64 = 256;

/// What is asked of both ends of a flow, as this host sees them.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    /// `addresses.id` of those asked for.
    local: Option<Vec<i64>>,
    local_port: Option<u16>,
    remote: Option<(Value, Value)>,
    remote_port: Option<u16>,
    /// Instead of all that: what either end is translated to.
    translated: Option<End>,
}

/// An index, and what it is asked for.
#[derive(Clone, Copy, Debug)]
enum Driver {
    LocalPort,
    RemotePort,
    Remote,
}

/// The ways in which a question's ends may lie; `None`: in none.
pub(super) fn ends(reader: &Reader, query: &Query) -> Result<Option<Vec<Ends>>> {
    let mut ways = as_they_are(reader, query)?;
    ways.extend(as_translated(reader, query)?);
    Ok((!ways.is_empty()).then_some(ways))
}

/// Of a flow that one of the ends asked for finds by what it is translated to.
fn as_translated(reader: &Reader, query: &Query) -> Result<Vec<Ends>> {
    let has_any: bool = reader
        .database
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM translations)")?
        .query_row([], |row| row.get(0))?;
    let asked = [&query.either, &query.source, &query.destination];
    let asked = asked.into_iter().flatten().filter(|_| has_any);
    let ways = asked.map(|end| Ends {
        translated: Some(end.clone()),
        ..Ends::default()
    });
    Ok(ways.collect())
}

fn as_they_are(reader: &Reader, query: &Query) -> Result<Vec<Ends>> {
    let mut ways = Vec::new();
    for (local, remote) in [
        (&query.source, &query.destination),
        (&query.destination, &query.source),
    ] {
        let mut way = Ends::default();
        let is_possible = match local {
            Some(end) => way.put_local(reader, end)?,
            None => true,
        };
        if let Some(end) = remote {
            way.put_remote(end);
        }
        if is_possible {
            ways.push(way);
        }
        if query.source.is_none() && query.destination.is_none() {
            break;
        }
    }
    let Some(either) = &query.either else {
        return Ok(ways);
    };
    if query.source.is_some() || query.destination.is_some() {
        // All three are asked for: two narrow it enough.
        return Ok(ways);
    }
    let mut ways = Vec::new();
    let mut local = Ends::default();
    if local.put_local(reader, either)? {
        ways.push(local);
    }
    let mut remote = Ends::default();
    remote.put_remote(either);
    ways.push(remote);
    Ok(ways)
}

impl Ends {
    /// False where this host never had such an address.
    fn put_local(&mut self, reader: &Reader, end: &End) -> Result<bool> {
        self.local_port = end.port;
        let Some(net) = &end.address else {
            return Ok(true);
        };
        let (from, to) = range(net);
        let ids: Vec<i64> = reader
            .database
            .prepare_cached("SELECT id FROM addresses WHERE address BETWEEN ?1 AND ?2")?
            .query_map([from, to], |row| row.get(0))?
            .collect::<Result<_>>()?;
        let is_possible = !ids.is_empty();
        self.local = Some(ids);
        Ok(is_possible)
    }

    fn put_remote(&mut self, end: &End) {
        self.remote_port = end.port;
        self.remote = end.address.as_ref().map(range);
    }

    /// Begins a search of one bucket (`?1`, numbers from `?2` to `?3`) with the
    /// index that finds the fewest rows; false where none helps.
    pub(super) fn put_driver(
        &self,
        reader: &Reader,
        bucket: i64,
        text: &mut String,
        values: &mut Vec<Value>,
    ) -> Result<bool> {
        if let Some(end) = &self.translated {
            text.push_str("WHERE id IN (");
            let range = end.address.as_ref().map(range);
            translations::put_search(range, end.port, text, values);
            text.push_str(") AND id BETWEEN ?2 AND ?3");
            return Ok(true);
        }
        let drivers = [
            self.local_port.map(|_| Driver::LocalPort),
            self.remote_port.map(|_| Driver::RemotePort),
            self.remote.as_ref().map(|_| Driver::Remote),
        ];
        let drivers: Vec<Driver> = drivers.into_iter().flatten().collect();
        let mut best = None;
        for driver in &drivers {
            let count = if drivers.len() == 1 {
                0
            } else {
                self.count(reader, bucket, *driver)?
            };
            if best.is_none_or(|(fewest, _)| count < fewest) {
                best = Some((count, *driver));
            }
        }
        let Some((_, driver)) = best else {
            return Ok(false);
        };
        self.put_index(driver, text, values);
        text.push_str(" AND id BETWEEN ?2 AND ?3");
        Ok(true)
    }

    fn count(&self, reader: &Reader, bucket: i64, driver: Driver) -> Result<i64> {
        let mut text = String::from("SELECT count(*) FROM (SELECT 1 FROM flows ");
        let mut values = vec![bucket.into()];
        self.put_index(driver, &mut text, &mut values);
        text.push_str(&format!(" LIMIT {PROBE})"));
        reader
            .database
            .prepare_cached(&text)?
            .query_row(rusqlite::params_from_iter(values), |row| row.get(0))
    }

    fn put_index(&self, driver: Driver, text: &mut String, values: &mut Vec<Value>) {
        let mut put = |value: Value| {
            values.push(value);
            values.len()
        };
        let part = match driver {
            Driver::LocalPort => {
                let port = put(i64::from(self.local_port.unwrap_or(0)).into());
                format!("flows_local_port WHERE id >> 15 = ?1 AND local_port = ?{port}")
            }
            Driver::RemotePort => {
                let port = put(i64::from(self.remote_port.unwrap_or(0)).into());
                format!("flows_remote_port WHERE id >> 15 = ?1 AND remote_port = ?{port}")
            }
            Driver::Remote => match (self.remote.clone(), self.remote_port) {
                (Some((from, to)), Some(port)) if from == to => {
                    let (address, port) = (put(from), put(i64::from(port).into()));
                    format!(
                        "flows_remote WHERE id >> 15 = ?1 AND remote = ?{address} \
                         AND remote_port = ?{port}"
                    )
                }
                (range, _) => {
                    let (from, to) = range.unwrap_or((Value::Null, Value::Null));
                    let (from, to) = (put(from), put(to));
                    format!("flows_remote WHERE id >> 15 = ?1 AND remote BETWEEN ?{from} AND ?{to}")
                }
            },
        };
        text.push_str("INDEXED BY ");
        text.push_str(&part);
    }

    /// All that is asked of the ends, for rows that another index finds.
    pub(super) fn put_conditions(&self, text: &mut String, values: &mut Vec<Value>) {
        let mut put = |value: Value| {
            values.push(value);
            values.len()
        };
        if let Some(ids) = &self.local {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            text.push_str(&format!(" AND local IN ({})", ids.join(",")));
        }
        if let Some(port) = self.local_port {
            let at = put(i64::from(port).into());
            text.push_str(&format!(" AND local_port = ?{at}"));
        }
        if let Some((from, to)) = &self.remote {
            let (from, to) = (put(from.clone()), put(to.clone()));
            text.push_str(&format!(" AND remote BETWEEN ?{from} AND ?{to}"));
        }
        if let Some(port) = self.remote_port {
            let at = put(i64::from(port).into());
            text.push_str(&format!(" AND remote_port = ?{at}"));
        }
    }
}

/// The first and the last address of a network, as they are kept.
fn range(net: &IpNet) -> (Value, Value) {
    match net {
        // Signed numbers: only a network of all addresses is not one range.
        IpNet::V4(net) if net.prefix_len() == 0 => {
            (i64::from(i32::MIN).into(), i64::from(i32::MAX).into())
        }
        IpNet::V4(net) => {
            let number = |address: std::net::Ipv4Addr| {
                let mapped = Stored(address.to_ipv6_mapped().octets());
                Value::from(mapped.v4().unwrap_or(0))
            };
            (number(net.network()), number(net.broadcast()))
        }
        IpNet::V6(net) => {
            let blob = |address: std::net::Ipv6Addr| Value::from(address.octets().to_vec());
            (blob(net.network()), blob(net.broadcast()))
        }
    }
}

//! What was at the other end of a flow of the past.

use std::{collections::HashSet, net::IpAddr, ops::ControlFlow};

use super::{Past, absent};
use crate::{
    connections::{Connections, Key, NoPeer},
    flow::{End, Query},
    history::{Reader, restore::PastFlow},
    identity::image::Provenance,
    records::Record,
};

/// Most flows that are read to find the other end of one.
const LOOK_MAX: usize = 16;
/// Most flows of one run whose other ends are looked for: the newest.
const LOOKED_MAX: usize = 1_000;

/// Flows with both ends on the host.
#[derive(Debug, Default)]
pub(super) struct Local {
    flows: Connections,
    looked: usize,
    /// Not looked for.
    left: HashSet<Key>,
}

impl Past<'_> {
    pub(super) fn put_peer(&self, record: &mut Record, key: &Key) {
        self.renderer().put_peer(record, key, &self.local.flows);
        if self.local.left.contains(key)
            && let Some(procid) = record.procid.as_deref_mut()
            && procid.peer.is_none()
        {
            let reason = "it was not looked for: the answer has too many connections of this host";
            absent(procid, "procid.peer", reason);
        }
    }

    /// Reads the flows that may be the other end of this one: both ends of a
    /// connection have the same source.
    pub(super) fn find_peer(&mut self, reader: &Reader, flow: &PastFlow) -> rusqlite::Result<()> {
        if flow.is_denied_use {
            return Ok(());
        }
        let local = &mut self.local;
        local.flows.restore(flow.key, flow.connection.clone());
        if local.flows.peer(&flow.key) != Err(NoPeer::NotSeen) {
            return Ok(());
        }
        if local.looked == LOOKED_MAX {
            local.left.insert(flow.key);
            return Ok(());
        }
        local.looked += 1;
        let connection = &flow.connection;
        let clock = &self.frame.clock;
        let ended_ns = connection.ended_ns.map(std::num::NonZero::get);
        let query = |source: (Option<IpAddr>, Option<u16>)| Query {
            source: Some(End {
                address: source.0.map(Into::into),
                port: source.1,
            }),
            since: Some(clock.at(connection.started_ns)),
            until: ended_ns.map(|ended_ns| clock.at(ended_ns)),
            ..Query::default()
        };
        let mut questions = vec![query((connection.source_ip(), connection.source_port()))];
        if connection.provenance == Provenance::Snapshot {
            // Which of its ends opened it is not known.
            questions.push(query((
                connection.destination_ip(),
                connection.destination_port(),
            )));
        }
        for query in &questions {
            let mut found = Vec::new();
            reader.search(query, std::slice::from_ref(self.run), &mut |id| {
                if id != flow.id {
                    found.extend(reader.flow(id)?);
                }
                Ok(if found.len() < LOOK_MAX {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                })
            })?;
            for other in found {
                if other.run == flow.run && !other.is_denied_use {
                    self.learn(reader, &other)?;
                    self.local.flows.restore(other.key, other.connection);
                }
            }
        }
        Ok(())
    }
}

//! What is known, to who asks.

use std::collections::BTreeMap;

use super::Engine;
use crate::{
    agent::{
        handle::{Fill, Status},
        render::{self, Telling, hex},
    },
    connections::{Connection, Key},
    flow::{Facts, Query},
    identity::{hash::FileHash, image::Provenance},
    records::{Coverage, Record, escape::escape},
    time::rfc3339_ns,
};

/// Most connections in one answer, so that no question makes the agent grow;
/// the newest are given, and the coverage record counts the others.
pub const WHO_MAX: usize = 10_000;
/// Name of that count among what an answer could have missed.
const OVER_LIMIT: &str = "over-answer-limit";

impl Engine {
    /// Connections that match, oldest first; the last record is the coverage.
    pub fn who(&self, query: &Query) -> Vec<Record> {
        let mut found: Vec<(&Key, &Connection)> = self
            .connections
            .iter()
            .filter(|(_, connection)| self.matches(query, connection))
            .collect();
        found.sort_by_key(|(key, connection)| (connection.started_ns, **key));
        let over = found.len().saturating_sub(WHO_MAX);
        let renderer = self.renderer();
        let mut records: Vec<Record> = found[over..]
            .iter()
            .map(|(key, connection)| renderer.connection(**key, connection, Telling::Answer))
            .collect();
        records.push(render::coverage(self.coverage(over as u64)));
        records
    }

    /// The image of that entity id, as it is known now.
    pub fn process(&self, entity_id: &str) -> Option<Record> {
        let image = self.images.by_entity(entity_id)?;
        Some(self.renderer().image(&image.id))
    }

    /// What the engine knows of the agent's state; the run loop adds the rest.
    pub fn status(&self) -> Status {
        let fill = |used: usize, capacity: usize| Fill {
            used: used as u64,
            capacity: capacity as u64,
        };
        Status {
            version: self.frame.origin.agent.version.clone(),
            pid: std::process::id(),
            since: rfc3339_ns(self.frame.clock.at(self.since_ns)),
            backend: self.ready.backend.clone(),
            uncovered: self.ready.uncovered.clone(),
            emitted: self.emitted,
            lost: self.lost.clone(),
            fill: BTreeMap::from([
                (
                    "connections".to_owned(),
                    fill(self.connections.open(), self.connections.capacity()),
                ),
                (
                    "images".to_owned(),
                    fill(self.images.len(), self.images.capacity()),
                ),
            ]),
            ..Status::default()
        }
    }

    fn coverage(&self, over_limit: u64) -> Coverage {
        let from_ns = self.since_ns.max(self.connections.since_ns());
        let mut lost = self.lost.clone();
        if over_limit > 0 {
            lost.insert(OVER_LIMIT.to_owned(), over_limit);
        }
        Coverage {
            from: Some(rfc3339_ns(self.frame.clock.at(from_ns))),
            to: rfc3339_ns(self.frame.clock.at(self.now_ns)),
            lost,
            uncovered: self.ready.uncovered.clone(),
            provenance: "live".to_owned(),
        }
    }

    /// Text is made only where it is asked for.
    fn matches(&self, query: &Query, connection: &Connection) -> bool {
        let image = self.images.get(&connection.image);
        let path = image
            .filter(|_| query.exe.is_some())
            .and_then(|image| image.path.as_deref())
            .map(escape);
        let name = path.as_deref().and_then(|path| path.rsplit('/').next());
        let sha256 = match image.map(|image| image.hash) {
            Some(FileHash::Known { sha256, .. }) if query.sha256.is_some() => Some(hex(&sha256)),
            _ => None,
        };
        let community_id = query
            .community_id
            .as_ref()
            .and_then(|_| render::community_id_of(connection));
        let is_live = connection.provenance == Provenance::Live;
        query.matches(&Facts {
            source_ip: connection.source_ip(),
            source_port: connection.source_port(),
            destination_ip: Some(connection.destination_ip()),
            destination_port: connection.destination_port(),
            community_id: community_id.as_deref(),
            pid: render::pid(connection),
            executable: path.as_deref(),
            name,
            sha256: sha256.as_deref(),
            uid: render::uid(connection),
            container: None,
            verdict: is_live.then_some("allow"),
            start: Some(self.frame.clock.at(connection.started_ns)),
            end: connection
                .ended_ns
                .map(|ended_ns| self.frame.clock.at(ended_ns.get())),
        })
    }
}

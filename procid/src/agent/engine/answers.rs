//! What is known, to who asks.

use std::collections::{BTreeMap, HashMap};

use procid_common::{image::ImageId, process::Actor};

use super::{
    Engine,
    chain::{CHAINED_MAX, Chains},
};
use crate::{
    agent::{
        handle::{AnswerCounts, Fill, Memory, Status},
        render::{self, Seen, Telling},
    },
    connections::{Connection, Speaker},
    flow::Query,
    records::{Coverage, Record},
    time::rfc3339_ns,
};

/// Most connections or images in one answer, so that no question makes the agent
/// grow; the newest are given, and the coverage record counts the others.
pub const ANSWER_MAX: usize = 10_000;
/// Name of that count among what an answer could have missed.
const OVER_LIMIT: &str = "over-answer-limit";

impl Engine {
    /// Connections that match, and further images that used them, oldest first; the last record is the coverage.
    pub fn who(&self, query: &Query) -> Vec<Record> {
        self.answer(query, Telling::Answer)
    }

    /// The same of those that are open, with what they have sent and received as
    /// it was last [counted](Self::refresh).
    pub fn connections(&self, query: &Query) -> Vec<Record> {
        self.answer(query, Telling::Counted)
    }

    fn answer(&self, query: &Query, telling: Telling) -> Vec<Record> {
        let mut found = Vec::new();
        for (key, connection) in self.connections.iter() {
            if telling == Telling::Counted && connection.ended_ns.is_some() {
                continue;
            }
            if self.matches(query, connection, None) {
                found.push((connection.started_ns, key, connection, None));
            }
            for speaker in connection.speakers.iter().flat_map(|all| all.iter()) {
                if self.matches(query, connection, Some(speaker)) {
                    found.push((speaker.at_ns, key, connection, Some(speaker)));
                }
            }
        }
        found.sort_by_key(|(at_ns, key, ..)| (*at_ns, **key));
        let over = found.len().saturating_sub(ANSWER_MAX);
        let found = &found[over..];
        let renderer = self.renderer();
        let mut acts: Vec<(Record, ImageId, Actor)> = found
            .iter()
            .map(|(_, key, connection, speaker)| match speaker {
                None => (
                    renderer.connection(**key, connection, telling),
                    connection.image,
                    connection.actor,
                ),
                Some(speaker) => (
                    renderer.used(**key, connection, speaker),
                    speaker.image,
                    speaker.actor,
                ),
            })
            .collect();
        self.put_logins(&mut acts);
        let mut records: Vec<Record> = acts.into_iter().map(|(record, ..)| record).collect();
        for (record, (_, key, ..)) in records.iter_mut().zip(found) {
            renderer.put_peer(record, key, &self.connections);
            self.put_context(record);
        }
        if telling == Telling::Answer && !found.is_empty() {
            let chains = Chains::new(self);
            let chained = records.iter_mut().zip(found).rev().take(CHAINED_MAX);
            for (record, (_, key, connection, speaker)) in chained {
                let image = speaker.map_or(connection.image, |speaker| speaker.image);
                if speaker.is_none_or(|speaker| speaker.denied.is_none()) {
                    chains.put(record, **key, image);
                }
            }
        }
        records.push(render::coverage(self.coverage(over as u64)));
        records
    }

    /// The same, for an answer that history is to be joined to.
    pub fn memory(&self, query: &Query) -> Memory {
        let mut records = self.who(query);
        let last = records.pop().and_then(|record| record.procid);
        Memory {
            records,
            coverage: last.and_then(|procid| procid.coverage).unwrap_or_default(),
            run: self
                .frame
                .origin
                .agent
                .ephemeral_id
                .clone()
                .unwrap_or_default(),
            forgotten_ns: self.connections.since_ns(),
            written: None,
            gap: None,
        }
    }

    /// The images that run now, oldest first, as [`Self::who`] gives connections.
    pub fn processes(&self) -> Vec<Record> {
        let mut sockets: HashMap<ImageId, u64> = HashMap::new();
        for (_, connection) in self.connections.iter() {
            if connection.ended_ns.is_none() {
                for image in connection.images() {
                    *sockets.entry(image).or_default() += 1;
                }
            }
        }
        let mut images: Vec<ImageId> = self.images.live().map(|image| image.id).collect();
        images.sort_unstable();
        let over = images.len().saturating_sub(ANSWER_MAX);
        let renderer = self.renderer();
        let mut records = Vec::with_capacity(images.len() - over + 1);
        for id in &images[over..] {
            let mut record = renderer.image(id);
            self.put_context(&mut record);
            if let Some(procid) = &mut record.procid {
                procid.sockets = Some(sockets.get(id).copied().unwrap_or(0));
            }
            records.push(record);
        }
        records.push(render::coverage(self.coverage(over as u64)));
        records
    }

    /// The image of that entity id, as it is known now.
    pub fn process(&self, entity_id: &str) -> Option<Record> {
        let image = self.images.by_entity(entity_id)?;
        let mut record = self.renderer().image(&image.id);
        self.put_context(&mut record);
        Some(record)
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
            actions: self.actions.clone(),
            lost: self.lost.clone(),
            answers: AnswerCounts {
                read: self.names.answers(),
                unreadable: self.names.unreadable(),
            },
            fill: BTreeMap::from([
                (
                    "connections".to_owned(),
                    fill(self.connections.open(), self.connections.capacity()),
                ),
                ("names".to_owned(), {
                    let (used, capacity) = self.names.fill();
                    fill(used, capacity)
                }),
                (
                    "images".to_owned(),
                    fill(self.images.len(), self.images.capacity()),
                ),
                (
                    "images-live".to_owned(),
                    fill(self.images.live().count(), self.images.capacity()),
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
            gaps: Vec::new(),
            uncovered: self.ready.uncovered.clone(),
            provenance: "live".to_owned(),
        }
    }

    fn matches(&self, query: &Query, connection: &Connection, by: Option<&Speaker>) -> bool {
        let denied = by.and_then(|speaker| speaker.denied.as_deref());
        let (connection, by) = match denied {
            Some(denied) => (denied, None),
            None => (connection, by),
        };
        let cgroup = by.map_or_else(
            || render::cgroup(connection),
            |speaker| Some(speaker.actor.cgroup),
        );
        let context = cgroup.and_then(|cgroup| self.contexts.get(cgroup));
        self.renderer().is_answer(
            query,
            &Seen {
                connection,
                by,
                context: context.map(AsRef::as_ref),
                until: None,
            },
        )
    }
}

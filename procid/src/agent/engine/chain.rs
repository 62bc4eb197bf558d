//! From one connection to the next, through the processes of this host.
//!
//! That two sockets are the two ends of one connection is known. That what one
//! process does on one connection has to do with what it does on another is not:
//! such a step is `inferred`, from the process and the times alone, and all that
//! could be it are given, the nearest in time first.
//!
//! *Onward* of a connection that a process opened lies its other end; of one that
//! it accepted, what it opened since, or had open already. *Back* of one that it
//! opened lies what it had accepted by then; of one that it accepted, its other
//! end.

use std::collections::{HashMap, HashSet};

use procid_common::image::ImageId;

use super::Engine;
use crate::{
    agent::render::{Renderer, put_cut},
    connections::{Connection, Connections, Key, Outcome, Speaker},
    identity::image::Provenance,
    records::{Hop, Record},
};

/// Most records of one answer that have a chain: the newest.
pub(super) const CHAINED_MAX: usize = 1_000;
/// Most connections of one process that one step leads to.
const FAN_MAX: usize = 8;
/// Most processes in a row.
const DEPTH_MAX: usize = 4;
/// Most steps of one chain, either way.
const HOPS_MAX: usize = 32;
/// Most connections of one process that are looked at for one step.
const LOOK_MAX: usize = 1_024;

/// Where a chain leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Toward {
    Onward,
    Back,
}

impl Toward {
    const fn name(self) -> &'static str {
        match self {
            Self::Onward => "onward",
            Self::Back => "back",
        }
    }
}

/// All connections, by who uses them.
#[derive(Debug)]
pub(super) struct Chains<'a> {
    renderer: Renderer<'a>,
    connections: &'a Connections,
    /// With the time of the first use, in order of that.
    by_image: HashMap<ImageId, Vec<(u64, Key)>>,
}

impl<'a> Chains<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        let mut by_image: HashMap<ImageId, Vec<(u64, Key)>> = HashMap::new();
        for (key, connection) in engine.connections.iter() {
            if !has_direction(connection) {
                continue;
            }
            let own = (connection.image, connection.started_ns);
            let speakers = speakers(connection).map(|speaker| (speaker.image, speaker.at_ns));
            for (image, at_ns) in std::iter::once(own).chain(speakers) {
                if image.is_known() {
                    by_image.entry(image).or_default().push((at_ns, *key));
                }
            }
        }
        for flows in by_image.values_mut() {
            flows.sort_unstable();
        }
        Self {
            renderer: engine.renderer(),
            connections: &engine.connections,
            by_image,
        }
    }

    /// Puts into a record of what that image does on a flow where its request may
    /// have come from and gone on.
    pub(super) fn put(&self, record: &mut Record, key: Key, image: ImageId) {
        let mut hops = Vec::new();
        let mut is_cut = false;
        for toward in [Toward::Back, Toward::Onward] {
            let mut walk = Walk {
                chains: self,
                toward,
                hops: Vec::new(),
                seen: HashSet::from([key]),
                is_cut: false,
            };
            walk.from(key, image, 0);
            hops.append(&mut walk.hops);
            is_cut |= walk.is_cut;
        }
        if let Some(procid) = record.procid.as_deref_mut() {
            if is_cut {
                put_cut(procid);
            }
            procid.chain = (!hops.is_empty()).then_some(hops);
        }
    }
}

/// One walk through the tree of what may belong together.
struct Walk<'a> {
    chains: &'a Chains<'a>,
    toward: Toward,
    hops: Vec<Hop>,
    seen: HashSet<Key>,
    is_cut: bool,
}

impl Walk<'_> {
    fn from(&mut self, key: Key, image: ImageId, depth: usize) {
        let Some(connection) = self.chains.connections.get(&key) else {
            return;
        };
        if connection.is_accepted() == (self.toward == Toward::Back) {
            self.across(key, depth);
        } else if has_direction(connection) {
            self.within(key, connection, image, depth);
        }
    }

    /// To the other end, and on from each image that acts there.
    fn across(&mut self, key: Key, depth: usize) {
        let Ok(peer) = self.chains.connections.peer(&key) else {
            return;
        };
        let Some(connection) = self.chains.connections.get(&peer) else {
            return;
        };
        if !self.step(key, peer, None, "peer", "the other end".to_owned()) {
            return;
        }
        let mut images = vec![connection.image];
        images.extend(speakers(connection).map(|speaker| speaker.image));
        images.dedup();
        for image in images {
            self.from(peer, image, depth);
        }
    }

    /// To other connections of the same process, and on to their other ends.
    fn within(&mut self, key: Key, own: &Connection, image: ImageId, depth: usize) {
        if !image.is_known() {
            return;
        }
        if depth == DEPTH_MAX {
            self.is_cut = true;
            return;
        }
        let own_ns = used_ns(own, image);
        let mut found = match self.toward {
            Toward::Onward => {
                let ended_ns = own.ended_ns.map_or(u64::MAX, std::num::NonZero::get);
                let mut found = self.after(own_ns, ended_ns, image);
                found.extend(self.open_at(own_ns, image));
                found
            }
            Toward::Back => self.open_at(own_ns, image),
        };
        found.retain(|(_, other)| *other != key);
        self.is_cut |= found.len() > FAN_MAX;
        for (at_ns, other) in found.into_iter().take(FAN_MAX) {
            let Some(connection) = self.chains.connections.get(&other) else {
                continue;
            };
            let by = speakers(connection)
                .find(|speaker| speaker.image == image && connection.image != image);
            let what = match (by, connection.is_accepted()) {
                (Some(_), _) => "first used",
                (None, true) => "accepted",
                (None, false) => "opened",
            };
            let why = if at_ns >= own_ns {
                format!("same process, {what} {} after", span(at_ns - own_ns))
            } else {
                let still = match self.toward {
                    Toward::Onward => " and still open",
                    Toward::Back => "",
                };
                format!(
                    "same process, {what} {} before{still}",
                    span(own_ns - at_ns)
                )
            };
            if self.step(key, other, by, "inferred", why) {
                self.across(other, depth + 1);
            }
        }
    }

    /// Notes a step; false where that flow was passed already, or there are too
    /// many.
    fn step(
        &mut self,
        of: Key,
        to: Key,
        by: Option<&Speaker>,
        relation: &str,
        why: String,
    ) -> bool {
        if self.hops.len() == HOPS_MAX {
            self.is_cut = true;
            return false;
        }
        let Some(connection) = self.chains.connections.get(&to) else {
            return false;
        };
        if !self.seen.insert(to) {
            return false;
        }
        self.hops.push(Hop {
            of: of.to_string(),
            relation: relation.to_owned(),
            toward: self.toward.name().to_owned(),
            why,
            ..self.chains.renderer.hop(to, connection, by)
        });
        true
    }

    /// What that image has begun to use in a time, the earliest first.
    fn after(&self, from_ns: u64, to_ns: u64, image: ImageId) -> Vec<(u64, Key)> {
        let flows = self.flows(image);
        let first = flows.partition_point(|(at_ns, _)| *at_ns < from_ns);
        flows[first..]
            .iter()
            .take(LOOK_MAX)
            .take_while(|(at_ns, _)| *at_ns <= to_ns)
            .filter(|(_, key)| self.leads_on(key))
            .take(FAN_MAX + 1)
            .copied()
            .collect()
    }

    /// What that image had begun to use before, and was open then, the latest first.
    fn open_at(&self, at_ns: u64, image: ImageId) -> Vec<(u64, Key)> {
        let flows = self.flows(image);
        let end = flows.partition_point(|(used_ns, _)| *used_ns < at_ns);
        flows[..end]
            .iter()
            .rev()
            .take(LOOK_MAX)
            .filter(|(_, key)| self.leads_on(key) && self.was_open(key, at_ns))
            .take(FAN_MAX + 1)
            .copied()
            .collect()
    }

    fn flows(&self, image: ImageId) -> &[(u64, Key)] {
        self.chains.by_image.get(&image).map_or(&[], Vec::as_slice)
    }

    /// Onward go what was opened, back what was accepted.
    fn leads_on(&self, key: &Key) -> bool {
        let connection = self.chains.connections.get(key);
        connection.is_some_and(|it| it.is_accepted() == (self.toward == Toward::Back))
    }

    fn was_open(&self, key: &Key, at_ns: u64) -> bool {
        let connection = self.chains.connections.get(key);
        connection.is_some_and(|it| it.ended_ns.is_none_or(|ended_ns| ended_ns.get() >= at_ns))
    }
}

/// Whether it is known to have been opened or accepted, and not in vain.
fn has_direction(connection: &Connection) -> bool {
    let is_whole = !matches!(
        connection.outcome,
        Outcome::Failure(_) | Outcome::Abandoned | Outcome::Denied
    );
    let is_seen = connection.is_accepted() || !connection.is_use;
    is_whole && is_seen && connection.provenance == Provenance::Live
}

fn speakers(connection: &Connection) -> impl Iterator<Item = &Speaker> {
    let speakers = connection.speakers.iter().flat_map(|all| all.iter());
    speakers.filter(|speaker| speaker.denied.is_none())
}

/// When that image began to use it.
fn used_ns(connection: &Connection, image: ImageId) -> u64 {
    speakers(connection)
        .find(|speaker| speaker.image == image && connection.image != image)
        .map_or(connection.started_ns, |speaker| speaker.at_ns)
}

/// A time between two events, in the unit that suits it.
fn span(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..10_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

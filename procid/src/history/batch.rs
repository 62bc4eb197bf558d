//! Facts that are written together, each thing once: what began and ended
//! within one batch costs one row.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
};

use procid_common::image::ImageId;
use tokio::sync::oneshot;

use super::fact::{Fact, FlowFact, ImageFact, Told, UseFact};
use crate::{connections::Key, identity::hash::settle::Offset, records::Record};

/// Facts of one batch at most: the time a transaction takes is bounded, and so
/// is what a kill loses.
pub const BATCH_MAX: usize = 4_096;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) images: Vec<ImageFact>,
    images_at: HashMap<ImageId, usize>,
    pub(super) flows: Vec<FlowFact>,
    flows_at: HashMap<Key, usize>,
    pub(super) uses: Vec<UseFact>,
    pub(super) clock: Option<Offset>,
    pub(super) losses: Vec<(u64, BTreeMap<String, u64>)>,
    pub(super) changes: Vec<(u64, Box<Record>)>,
    /// Who waits for all this to be written.
    pub(super) waiting: Vec<oneshot::Sender<()>>,
    pub(super) ended_ns: Option<u64>,
    facts: u64,
}

impl Batch {
    pub fn put(&mut self, fact: Fact) {
        self.facts += 1;
        match fact {
            Fact::Image(fact) => self.image(*fact),
            Fact::Flow(fact) => self.flow(*fact),
            Fact::Use(fact) => self.uses.push(*fact),
            Fact::Clock(offset) => self.clock = Some(offset),
            Fact::Lost(at_ns, lost) => self.losses.push((at_ns, lost)),
            Fact::Changed(at_ns, record) => self.changes.push((at_ns, record)),
            Fact::Written(waiting) => {
                self.facts -= 1;
                self.waiting.push(waiting);
            }
            Fact::End(at_ns) => self.ended_ns = Some(at_ns),
        }
    }

    /// A later word on an image stands; only its end is told once.
    fn image(&mut self, fact: ImageFact) {
        match self.images_at.get(&fact.image.id) {
            Some(&at) => {
                let kept = &mut self.images[at];
                let status = fact.status.or(kept.status);
                *kept = ImageFact { status, ..fact };
            }
            None => {
                self.images_at.insert(fact.image.id, self.images.len());
                self.images.push(fact);
            }
        }
    }

    fn flow(&mut self, fact: FlowFact) {
        if fact.told == Told::Denied {
            self.flows.push(fact);
            return;
        }
        match self.flows_at.get(&fact.key) {
            Some(&at) => {
                let kept = &mut self.flows[at];
                *kept = FlowFact {
                    told: match kept.told {
                        Told::New => Told::New,
                        _ => fact.told,
                    },
                    // Of the act: later it may be forgotten.
                    within: mem::take(&mut kept.within),
                    ruling: kept.ruling.take().or(fact.ruling),
                    ..fact
                };
            }
            None => {
                self.flows_at.insert(fact.key, self.flows.len());
                self.flows.push(fact);
            }
        }
    }

    /// The flow's place in [`Self::flows`].
    pub(super) fn flow_at(&self, key: &Key) -> Option<usize> {
        self.flows_at.get(key).copied()
    }

    /// Facts taken in since the last [`Self::clear`].
    pub const fn facts(&self) -> u64 {
        self.facts
    }

    /// Rows to be written, or nearly so.
    pub fn len(&self) -> usize {
        self.images.len()
            + self.flows.len()
            + self.uses.len()
            + self.losses.len()
            + self.changes.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= BATCH_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.facts == 0 && self.waiting.is_empty()
    }

    /// Forgets all of it but the room, and tells who waits.
    pub fn clear(&mut self) {
        self.images.clear();
        self.images_at.clear();
        self.flows.clear();
        self.flows_at.clear();
        self.uses.clear();
        self.clock = None;
        self.losses.clear();
        self.changes.clear();
        self.ended_ns = None;
        self.facts = 0;
        self.answer();
    }

    /// Tells who waits that no more will come of it.
    pub fn answer(&mut self) {
        for waiting in self.waiting.drain(..) {
            // Who asked may have gone.
            let _gone = waiting.send(());
        }
    }
}

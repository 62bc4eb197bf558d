//! What history is told: with each record, the facts that it was made of.

use std::{collections::BTreeMap, num::NonZero};

use procid_common::{image::ImageId, process::Actor, socket};

use super::{Engine, Item};
use crate::{
    agent::settings::Args,
    connections::{Connection, Judged, Key, Outcome, Speaker},
    history::{
        Fact,
        fact::{FlowFact, ImageFact, Ruling, Run, Told, UseFact},
    },
    identity::context::Within,
    records::Record,
};

/// What a record was about.
#[derive(Debug)]
pub(super) enum Tell {
    Image(ImageId, Option<u32>),
    /// A flow that has not been told of before.
    New(Key),
    Again(Key),
    Used(Key, Box<Speaker>),
    Denied(Box<(Key, Connection)>),
    Lost(BTreeMap<String, u64>),
    Change,
    Nothing,
}

impl Tell {
    pub(super) fn of(what: &Item) -> Self {
        match what {
            Item::Fork(id) | Item::Exec(id) | Item::Hash(id) | Item::Row(id) => {
                Self::Image(*id, None)
            }
            Item::Exit(id, status) => Self::Image(*id, Some(*status)),
            Item::Opened(key) => Self::New(*key),
            Item::Update(key) | Item::Closed(key) => Self::Again(*key),
            Item::Used(key, speaker) => Self::Used(*key, speaker.clone()),
            Item::Loss(lost) => Self::Lost(lost.clone()),
            Item::Policy(_) => Self::Change,
            Item::Standalone(row) if row.1.outcome == Outcome::Denied => Self::Denied(row.clone()),
            // A run is told as a whole. A socket without a name cannot be found again.
            Item::Ready(_) | Item::Standalone(_) => Self::Nothing,
        }
    }
}

impl Engine {
    /// This run, as history knows it.
    pub fn run(&self) -> Run {
        Run {
            boot_id: self.frame.boot_id,
            host: self.frame.origin.host.clone(),
            agent: self.frame.origin.agent.clone(),
            keeps_args: self.frame.args == Args::Full,
            backend: self.ready.backend.clone(),
            uncovered: self.ready.uncovered.clone(),
            since_ns: self.since_ns,
            first_offset: self.frame.clock.first(),
            offset: self.frame.clock.offset(),
        }
    }

    /// What there is to tell history, in order.
    pub fn next_fact(&mut self) -> Option<Fact> {
        self.facts.as_mut()?.pop_front()
    }

    /// Tells all images that live again.
    pub fn retell_images(&mut self) {
        let live: Vec<ImageId> = self.images.live().map(|image| image.id).collect();
        for id in live {
            self.tell_image(&id, None);
        }
    }

    /// Where history is kept, it is told that.
    pub(super) fn note(&mut self, fact: Fact) {
        if let Some(facts) = &mut self.facts {
            facts.push_back(fact);
        }
    }

    /// What is learnt of a flow after its record, no record tells.
    pub(super) fn amend(&mut self, event: &socket::Outcome) {
        let key = Key {
            cookie: event.cookie,
            flow: event.flow,
        };
        let told = self.connections.get(&key);
        if told.is_some_and(|connection| connection.sequence.is_some()) {
            self.tell_flow(key, Told::Again);
        }
    }

    /// Tells what a record was made of, now that it has its number.
    pub(super) fn tell(&mut self, news: Tell, record: &Record, at_ns: u64) {
        let sequence = record.event.as_ref().and_then(|event| event.sequence);
        let sequence = sequence.and_then(NonZero::new);
        match news {
            Tell::Image(id, status) => {
                let previous = self.images.get(&id).and_then(|image| image.previous);
                if let Some(previous) = previous {
                    // Its end, which no record tells.
                    self.tell_image(&previous, None);
                }
                self.tell_image(&id, status);
            }
            Tell::New(key) => self.tell_flow(key, Told::New),
            Tell::Again(key) => self.tell_flow(key, Told::Again),
            Tell::Used(key, mut speaker) => {
                speaker.sequence = sequence;
                if let Some(connection) = self.connections.get(&key) {
                    let flow = self.flow_fact(key, connection, Told::Again);
                    let within = self.within(&speaker.actor);
                    self.note(Fact::Use(Box::new(UseFact {
                        flow,
                        speaker: *speaker,
                        within,
                    })));
                }
            }
            Tell::Denied(mut row) => {
                row.1.sequence = sequence;
                let fact = self.flow_fact(row.0, &row.1, Told::Denied);
                self.note(Fact::Flow(Box::new(fact)));
            }
            Tell::Lost(lost) => self.note(Fact::Lost(at_ns, lost)),
            Tell::Change => self.note(Fact::Changed(at_ns, Box::new(record.clone()))),
            Tell::Nothing => {}
        }
    }

    /// What is learnt of images after their records; a script comes with its
    /// `hash` record.
    pub(super) fn tell_amended(&mut self, images: &[ImageId]) {
        for id in images {
            let told = self.images.get(id);
            if told.is_some_and(|image| image.sequence.is_some()) {
                self.tell_image(id, None);
            }
        }
    }

    fn tell_image(&mut self, id: &ImageId, status: Option<u32>) {
        let Some(image) = self.images.get(id).filter(|_| self.facts.is_some()) else {
            return;
        };
        let fact = ImageFact {
            image: image.clone(),
            within: self.within(&image.actor),
            status,
        };
        self.note(Fact::Image(Box::new(fact)));
    }

    pub(super) fn tell_flow(&mut self, key: Key, told: Told) {
        if let Some(connection) = self.connections.get(&key) {
            // It may have been used by others before its outcome was known.
            let told = match told {
                Told::New if connection.speakers.is_some() => Told::Again,
                told => told,
            };
            let fact = self.flow_fact(key, connection, told);
            self.note(Fact::Flow(Box::new(fact)));
        }
    }

    fn within(&self, actor: &Actor) -> Within {
        Within {
            context: self.contexts.get(actor.cgroup).cloned(),
            user: self.users.name(actor.creds.euid).cloned(),
        }
    }

    fn flow_fact(&self, key: Key, connection: &Connection, told: Told) -> FlowFact {
        FlowFact {
            key,
            told,
            connection: Connection {
                // They are told one by one.
                speakers: None,
                ..connection.clone()
            },
            within: self.within(&connection.actor),
            ruling: connection
                .judged
                .as_deref()
                .map(|judged| Box::new(self.ruling(judged))),
        }
    }

    fn ruling(&self, judged: &Judged) -> Ruling {
        let rules = &self.frame.rules;
        let rule = rules.rule(judged.generation, judged.rule);
        let audit = rules.rule(judged.generation, judged.audit);
        Ruling {
            policy: rule.as_ref().map(|rule| rule.version.clone()),
            rule: rule.and_then(|rule| rule.name),
            audit: audit.and_then(|rule| rule.name),
        }
    }
}

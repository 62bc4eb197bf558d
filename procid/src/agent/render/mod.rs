//! From what is known to the records that say it.
//!
//! | module | holds |
//! | --- | --- |
//! | [`process`] | process objects: identity, credentials, hash, parent |
//! | [`connection`] | `connect`, `send`, `close` and rows of sockets |
//! | [`lifecycle`] | `fork`, `exec`, `exit`, `hash` and rows of processes |
//! | [`matching`] | what is known, against a question |
//! | [`peer`] | the other end of a connection |
//! | [`policy`] | `policy` |
//! | [`report`] | `ready`, `loss` and what an answer covers |
//!
//! A record is made when it leaves, from facts, so that it says what is known
//! by then. What is not known is absent; what one would expect and is absent
//! has its reason in `procid.unknown`.

use crate::{
    agent::{clock::Clock, origin::Origin, policy::Generations, settings::Args},
    identity::{entity::BootId, images::Images},
    records::{self, Procid, Record},
    time::rfc3339_ns,
};

mod connection;
mod lifecycle;
mod matching;
mod peer;
mod policy;
mod process;
mod report;

pub(super) use connection::{Telling, cgroup, community_id_of, pid, uid, verdict};
pub(super) use matching::Seen;
pub(super) use peer::put_cut;
pub(super) use policy::PolicyNews;
pub(super) use process::hex;
pub(super) use report::{Ready, coverage};

/// What stays the same from record to record.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) boot_id: BootId,
    pub(super) origin: Origin,
    pub(super) args: Args,
    pub(super) clock: Clock,
    pub(super) rules: Generations,
}

/// The facts that records are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renderer<'a> {
    pub(super) frame: &'a Frame,
    pub(super) images: &'a Images,
}

/// The fields by which actions differ.
struct Head {
    action: &'static str,
    dataset: &'static str,
    category: Option<&'static str>,
    types: &'static [&'static str],
    /// What existed before procid was attached, rather than what happened.
    is_state: bool,
    /// Nanoseconds since boot.
    at_ns: u64,
}

impl Renderer<'_> {
    fn record(&self, head: &Head) -> Record {
        Record {
            timestamp: self.time(head.at_ns),
            ecs: Some(self.frame.origin.ecs.clone()),
            event: Some(records::Event {
                kind: if head.is_state { "state" } else { "event" }.to_owned(),
                category: head.category.map(str::to_owned).into_iter().collect(),
                types: head.types.iter().map(|&word| word.to_owned()).collect(),
                action: head.action.to_owned(),
                module: "procid".to_owned(),
                dataset: head.dataset.to_owned(),
                ..records::Event::default()
            }),
            host: Some(self.frame.origin.host.clone()),
            agent: Some(self.frame.origin.agent.clone()),
            ..Record::default()
        }
    }

    fn time(&self, boot_ns: u64) -> String {
        rfc3339_ns(self.frame.clock.at(boot_ns))
    }
}

/// Notes why a field is absent.
pub(super) fn absent(procid: &mut Procid, field: &str, reason: &str) {
    procid.unknown.insert(field.to_owned(), reason.to_owned());
}

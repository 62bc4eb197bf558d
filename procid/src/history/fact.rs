//! What the agent tells history.
//!
//! Facts, not records: what is kept of a connection or an image is what the
//! agent itself keeps, so that the records made of it later are those that the
//! agent would give.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::oneshot;

use crate::{
    connections::{Connection, Key, Speaker},
    identity::{context::Within, entity::BootId, hash::settle::Offset, image::Image},
    records::{self, Record, Uncovered},
};

/// One run of the agent.
#[derive(Clone, Debug)]
pub struct Run {
    pub boot_id: BootId,
    pub host: records::Host,
    pub agent: records::Agent,
    /// Command lines are kept.
    pub keeps_args: bool,
    pub backend: String,
    pub uncovered: Vec<Uncovered>,
    /// Its hooks were attached, nanoseconds since boot.
    pub since_ns: u64,
    /// The distance of the time of day from the time since boot, at its start
    /// and now.
    pub first_offset: Offset,
    pub offset: Offset,
}

/// Names of the rules of a [`Judged`](crate::connections::Judged).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ruling {
    /// `None`: the default decided.
    pub rule: Option<Arc<str>>,
    /// SHA-256 of the policy; `None`: it was another agent's.
    pub policy: Option<Arc<str>>,
    pub audit: Option<Arc<str>>,
}

/// An image, as it is now.
#[derive(Clone, Debug)]
pub struct ImageFact {
    pub image: Image,
    pub within: Within,
    /// As wait(2) reports it.
    pub status: Option<u32>,
}

/// A flow, as it is now; its speakers are told one by one.
#[derive(Clone, Debug)]
pub struct FlowFact {
    pub key: Key,
    pub told: Told,
    pub connection: Connection,
    pub within: Within,
    pub ruling: Option<Box<Ruling>>,
}

/// How a flow is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// For the first time.
    New,
    /// With what is new of it.
    Again,
    /// An act on a flow that goes on, which a rule denied: it stands beside it.
    Denied,
}

/// A further image that used a flow.
#[derive(Clone, Debug)]
pub struct UseFact {
    /// The flow, for where it has not been told of.
    pub flow: FlowFact,
    pub speaker: Speaker,
    pub within: Within,
}

/// See the [module](self).
#[derive(Debug)]
pub enum Fact {
    Image(Box<ImageFact>),
    Flow(Box<FlowFact>),
    Use(Box<UseFact>),
    Clock(Offset),
    /// Lost at that time (nanoseconds since boot), by cause.
    Lost(u64, BTreeMap<String, u64>),
    /// A change of the policy at that time.
    Changed(u64, Box<Record>),
    /// All that was told before is to be written before this is answered.
    Written(oneshot::Sender<()>),
    /// The run ends cleanly, at that time.
    End(u64),
}

/// What was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Nanoseconds since the epoch; `None`: not known.
    pub from: Option<i64>,
    pub to: i64,
    /// Facts that are missing; `None`: not known.
    pub count: Option<u64>,
    pub cause: String,
}

impl Fact {
    /// Whether it is held at some cost until it is written.
    pub(super) const fn takes_room(&self) -> bool {
        !matches!(self, Self::Clock(_) | Self::Written(_) | Self::End(_))
    }
}

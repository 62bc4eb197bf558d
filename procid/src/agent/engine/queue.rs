//! Records on their way out, in order.

use std::collections::{BTreeMap, VecDeque};

use procid_common::image::ImageId;

use crate::{
    agent::render::{PolicyNews, Ready},
    connections::{Connection, Connections, Key, Speaker},
    identity::images::Images,
};

/// How long a record waits for the hash of its image, and with it all that come
/// after it. Longer, and its hash comes as a record of its own.
pub const HOLD_NS: u64 = 100_000_000;

/// A record to be made.
#[derive(Debug)]
pub(super) enum Item {
    Ready(Box<Ready>),
    Policy(Box<PolicyNews>),
    /// Lost since the last one, by cause.
    Loss(BTreeMap<String, u64>),
    Fork(ImageId),
    Exec(ImageId),
    /// With the status as wait(2) reports it.
    Exit(ImageId, u32),
    Hash(ImageId),
    /// An image found running.
    Row(ImageId),
    Opened(Key),
    Used(Key, Box<Speaker>),
    Update(Key),
    Closed(Key),
    /// What is told of and not kept: a socket found open without a cookie, which
    /// nothing later can name; an act that was denied on a flow that goes on.
    Standalone(Box<(Key, Connection)>),
}

impl Item {
    /// The image that the record is about.
    pub(super) fn subject(&self, connections: &Connections) -> Option<ImageId> {
        match self {
            Self::Ready(_) | Self::Loss(_) => None,
            Self::Policy(news) => news.image,
            Self::Fork(id)
            | Self::Exec(id)
            | Self::Exit(id, _)
            | Self::Hash(id)
            | Self::Row(id) => Some(*id),
            Self::Used(_, speaker) => Some(speaker.image),
            Self::Opened(key) | Self::Update(key) | Self::Closed(key) => {
                connections.get(key).map(|connection| connection.image)
            }
            Self::Standalone(row) => Some(row.1.image),
        }
    }
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) what: Item,
    /// When it happened, nanoseconds since boot.
    pub(super) at_ns: u64,
    /// Until when it may wait for a hash.
    hold_until_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Queued>);

impl Queue {
    pub(super) fn push(&mut self, what: Item, at_ns: u64, now_ns: u64) {
        self.0.push_back(Queued {
            what,
            at_ns,
            hold_until_ns: now_ns.saturating_add(HOLD_NS),
        });
    }

    /// The next item, unless it waits for a hash.
    pub(super) fn pop(
        &mut self,
        now_ns: u64,
        images: &Images,
        connections: &Connections,
    ) -> Option<Queued> {
        let next = self.0.front()?;
        if now_ns < next.hold_until_ns {
            let image = next.what.subject(connections);
            let image = image.and_then(|id| images.get(&id));
            if image.is_some_and(|image| image.is_pending()) {
                return None;
            }
        }
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

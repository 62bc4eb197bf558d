//! Which flow is the other end of which, where both are sockets of this host.
//!
//! The kernel lets no two TCP sockets of one network namespace have the same two
//! ends at one time. So what has the two ends of a flow the other way round, in
//! the same namespace, and was open while that was, is its other end. Where more
//! than one is found, an end of one of them was not seen, and none is named.
//!
//! Indexed is what can have both ends here: addresses of the loopback device, or
//! one address at both ends, which the kernel chooses as the source to an address
//! of the host's own. A program that binds to another one of them is not followed.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
};

use procid_common::socket::{Address, flags::ENDED};

use super::{Connection, Connections, Key, Outcome};
use crate::records::words;

/// Most flows with the same two ends that are looked at: those that began last.
const LOOK_MAX: usize = 16;

/// Why no flow is named as the other end of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPeer {
    /// None is looked for: it is not TCP, or its ends are not both known to be
    /// this host's.
    Elsewhere,
    /// Nothing of this host was seen at the other end.
    NotSeen,
    /// It had ended before it was accepted.
    Ended,
    /// Several could be it.
    Several,
}

/// One end: an address and a port.
type End = (Address, u16);

/// The two ends of one flow, as its own socket sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    netns: u32,
    own: End,
    other: End,
}

impl Ends {
    /// `None` where they are not both of this host, or not known yet.
    fn of(connection: &Connection) -> Option<Self> {
        let source = (connection.source, connection.source_port);
        let mut destination = (connection.destination, connection.destination_port);
        if words::address(destination.0).is_unspecified() {
            // "Any" leads to the host itself: where to exactly, the packets say.
            destination.0 = connection.wire.as_deref().copied().unwrap_or(source.0);
        }
        let is_here = source.0 == destination.0
            || (words::address(source.0).is_loopback()
                && words::address(destination.0).is_loopback());
        let is_whole = source.1 != 0 && destination.1 != 0;
        if !connection.is_stream() || !is_here || !is_whole {
            return None;
        }
        let (own, other) = if connection.is_accepted() {
            (destination, source)
        } else {
            (source, destination)
        };
        Some(Self {
            netns: connection.netns,
            own,
            other,
        })
    }

    const fn turned(self) -> Self {
        Self {
            netns: self.netns,
            own: self.other,
            other: self.own,
        }
    }
}

/// Flows by their ends, then by their beginning.
#[derive(Debug, Default)]
pub(super) struct Index {
    hasher: RandomState,
    /// A hash of the ends: what it leads to is looked at again.
    flows: BTreeSet<(u64, u64, Key)>,
}

impl Index {
    pub(super) fn insert(&mut self, key: Key, connection: &Connection) {
        if let Some(entry) = self.entry(key, connection) {
            self.flows.insert(entry);
        }
    }

    /// To be called before any end of the flow changes, and when it is forgotten.
    pub(super) fn remove(&mut self, key: Key, connection: &Connection) {
        if let Some(entry) = self.entry(key, connection) {
            self.flows.remove(&entry);
        }
    }

    fn entry(&self, key: Key, connection: &Connection) -> Option<(u64, u64, Key)> {
        let ends = Ends::of(connection)?;
        Some((self.hasher.hash_one(ends), connection.started_ns, key))
    }

    /// Those that may have these ends and had begun by then, the last one first.
    fn candidates(&self, ends: Ends, by_ns: u64) -> impl Iterator<Item = Key> {
        let hash = self.hasher.hash_one(ends);
        let first = Key { cookie: 0, flow: 0 };
        let last = Key {
            cookie: u64::MAX,
            flow: u32::MAX,
        };
        self.flows
            .range((hash, 0, first)..=(hash, by_ns, last))
            .rev()
            .take(LOOK_MAX)
            .map(|(_, _, key)| *key)
    }
}

impl Connections {
    /// The flow at the other end of one, where that is a socket of this host and
    /// certain.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn peer(&self, key: &Key) -> Result<Key, NoPeer> {
        let own = self.get(key).ok_or(NoPeer::Elsewhere)?;
        let ends = Ends::of(own).ok_or(NoPeer::Elsewhere)?;
        if !can_be_established(own) {
            let ended = own.flags & ENDED != 0;
            return Err(if ended {
                NoPeer::Ended
            } else {
                NoPeer::Elsewhere
            });
        }
        let peer = self.only_other(key, own, ends)?;
        // What lacks an end of its own may have several.
        let back = self.get(&peer).ok_or(NoPeer::NotSeen)?;
        match self.only_other(&peer, back, ends.turned()) {
            Ok(back) if back == *key => Ok(peer),
            _ => Err(NoPeer::Several),
        }
    }

    fn only_other(&self, key: &Key, own: &Connection, ends: Ends) -> Result<Key, NoPeer> {
        let turned = ends.turned();
        let mut others = self
            .index
            .candidates(turned, ended_ns(own))
            .filter(|other| other != key)
            .filter(|other| {
                self.get(other).is_some_and(|other| {
                    can_be_established(other)
                        && Ends::of(other) == Some(turned)
                        && own.started_ns <= ended_ns(other)
                        && other.started_ns <= ended_ns(own)
                })
            });
        match (others.next(), others.next()) {
            (Some(other), None) => Ok(other),
            (None, _) => Err(NoPeer::NotSeen),
            _ => Err(NoPeer::Several),
        }
    }
}

/// Whether it was, or may have been, a connection with two ends.
fn can_be_established(connection: &Connection) -> bool {
    let outcome = match connection.outcome {
        Outcome::Success | Outcome::Found | Outcome::Pending | Outcome::Unknown => true,
        Outcome::Failure(_) | Outcome::Abandoned | Outcome::Denied => false,
    };
    outcome && connection.flags & ENDED == 0
}

/// When it ended, nanoseconds since boot; later than all where it has not.
fn ended_ns(connection: &Connection) -> u64 {
    connection.ended_ns.map_or(u64::MAX, std::num::NonZero::get)
}

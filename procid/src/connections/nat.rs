//! The ends of a connection, to look them up by, and how they are translated.

use super::Connection;
use crate::{
    conntrack::{End, Translation, Tuple},
    records::words,
};

/// What network address translation makes of a flow's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nat {
    /// The table that translates is that of the socket's network namespace.
    Exact(Translation),
    /// It is that of another one, and has a connection with this tuple.
    Inferred(Translation),
    /// As above, but sockets of several namespaces have this tuple.
    Ambiguous,
}

impl Nat {
    pub const fn translation(&self) -> Option<&Translation> {
        match self {
            Self::Exact(translation) | Self::Inferred(translation) => Some(translation),
            Self::Ambiguous => None,
        }
    }
}

impl Connection {
    /// The connection as its socket has it, to look it up by; `None`: it has no
    /// ports, or its ends are not known yet.
    pub fn tuple(&self) -> Option<Tuple> {
        let source = (self.source_ip()?, self.source_port()?);
        let destination = match self.wire.as_deref() {
            Some(wire) => words::address(*wire),
            None => self.destination_ip()?,
        };
        let destination = (destination, self.destination_port()?);
        let (local, remote) = match self.is_accepted() {
            true => (destination, source),
            false => (source, destination),
        };
        Some(Tuple {
            protocol: words::iana_number(self.protocol)?,
            local,
            remote,
        })
    }

    /// Source and destination on the other side of the translation, where it
    /// changes them.
    pub fn translated(&self) -> (Option<End>, Option<End>) {
        let Some(translation) = self.nat.as_deref().and_then(Nat::translation) else {
            return (None, None);
        };
        match self.is_accepted() {
            true => (translation.remote, translation.local),
            false => (translation.local, translation.remote),
        }
    }
}

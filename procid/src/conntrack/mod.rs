//! What network address translation made of a connection's ends.
//!
//! | module | holds |
//! | --- | --- |
//! | [`message`] | questions and answers as ctnetlink has them |
//! | [`table`] | the kernel's table of this network namespace, asked |
//!
//! The kernel keeps two tuples of each connection that it tracks: the one that
//! its first packet had, and the one that answers have. Where nothing is
//! translated, one is the other turned round; else they are the two faces of
//! one connection, and a socket on this host knows one of them. Either names
//! the entry, so that who has connected and who has accepted are looked up in
//! the same way.

use std::net::IpAddr;

pub mod message;
pub mod table;

pub use table::Table;

/// Address and port.
pub type End = (IpAddr, u16);

/// A connection as the socket of this host has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// IANA's number of a protocol with ports.
    pub protocol: u8,
    /// v4-mapped addresses are IPv4 here.
    pub local: End,
    pub remote: End,
}

impl Tuple {
    /// As packets the other way have it.
    #[must_use]
    pub const fn turned(&self) -> Self {
        Self {
            protocol: self.protocol,
            local: self.remote,
            remote: self.local,
        }
    }
}

/// The ends as they are on the other side of the translation; `None`: it leaves
/// that end as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Translation {
    pub local: Option<End>,
    pub remote: Option<End>,
}

/// What the table says of one tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is no such entry, or none yet, or none any more.
    Missing,
    /// There is one; it may translate nothing.
    Found(Translation),
}

/// Both tuples of one entry; each has its sender's end as the local one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub original: Tuple,
    pub reply: Tuple,
}

impl Entry {
    /// What the entry makes of a connection; `None`: it is another's.
    pub fn translation(&self, of: &Tuple) -> Option<Translation> {
        let other = if self.original == *of {
            self.reply.turned()
        } else if self.reply == *of {
            self.original.turned()
        } else {
            return None;
        };
        Some(Translation {
            local: (other.local != of.local).then_some(other.local),
            remote: (other.remote != of.remote).then_some(other.remote),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn tuple(local: &str, remote: &str) -> Tuple {
        let end = |text: &str| {
            let end: std::net::SocketAddr = text.parse().unwrap();
            (end.ip(), end.port())
        };
        Tuple {
            protocol: 6,
            local: end(local),
            remote: end(remote),
        }
    }

    pub(crate) fn any_tuple() -> impl Strategy<Value = Tuple> {
        let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
        let v6 = any::<[u8; 16]>()
            .prop_map(IpAddr::from)
            .prop_filter("mapped", |ip| ip.to_canonical().is_ipv6());
        let of = |ip: BoxedStrategy<IpAddr>| {
            let ends = (ip.clone(), any::<u16>(), ip, any::<u16>());
            (any::<u8>(), ends).prop_map(|(protocol, (local, lport, remote, rport))| Tuple {
                protocol,
                local: (local, lport),
                remote: (remote, rport),
            })
        };
        prop_oneof![of(v4.boxed()), of(v6.boxed())]
    }

    /// A client behind a masquerade, which asks for a service's address.
    fn entry() -> Entry {
        Entry {
            original: tuple("10.0.0.2:4444", "10.96.0.1:443"),
            reply: tuple("192.0.2.7:6443", "192.0.2.1:61000"),
        }
    }

    #[test]
    fn who_connected_and_who_accepted_find_the_other_face() {
        let end = |text: &str| Some(tuple(text, text).local);
        assert_eq!(
            entry().translation(&tuple("10.0.0.2:4444", "10.96.0.1:443")),
            Some(Translation {
                local: end("192.0.2.1:61000"),
                remote: end("192.0.2.7:6443"),
            })
        );
        assert_eq!(
            entry().translation(&tuple("192.0.2.7:6443", "192.0.2.1:61000")),
            Some(Translation {
                local: end("10.96.0.1:443"),
                remote: end("10.0.0.2:4444"),
            })
        );
    }

    #[test]
    fn an_entry_of_another_connection_says_nothing() {
        for other in [
            // Right, but seen from the other end.
            tuple("10.96.0.1:443", "10.0.0.2:4444"),
            tuple("10.0.0.2:4445", "10.96.0.1:443"),
            Tuple {
                protocol: 17,
                ..entry().original
            },
        ] {
            assert_eq!(entry().translation(&other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_entry_translates_nothing(original in any_tuple()) {
            let entry = Entry { original, reply: original.turned() };
            prop_assert_eq!(entry.translation(&original), Some(Translation::default()));
            prop_assert_eq!(entry.translation(&entry.reply), Some(Translation::default()));
        }

        #[test]
        fn the_faces_of_an_entry_name_each_other(original in any_tuple(), reply in any_tuple()) {
            let entry = Entry { original, reply };
            let seen = entry.translation(&original).unwrap();
            prop_assert_eq!(seen.local.unwrap_or(original.local), reply.remote);
            prop_assert_eq!(seen.remote.unwrap_or(original.remote), reply.local);
        }
    }
}

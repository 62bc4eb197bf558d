//! One connection: what was seen of one flow of one socket.

use std::{fmt, net::IpAddr, num::NonZero, sync::Arc};

use procid_common::{
    image::ImageId,
    process::Actor,
    socket::{
        self, Address, Attempt, Counts, DestinationKey, SocketKind, SocketRow,
        flags::{self, RECEIVED_UNKNOWN, SENT_UNKNOWN},
    },
};

use super::nat::Nat;
use crate::{identity::image::Provenance, names::Domain, records::words};

/// Names one flow: a connect of a stream socket, or the datagrams of a socket
/// to one destination. Printed as `procid.flow_id` is: `COOKIE.COUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub cookie: u64,
    /// 0: the socket was found open, its flows were not counted.
    pub flow: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.cookie, self.flow)
    }
}

/// What the policy said of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub generation: u64,
    /// One of [`procid_common::policy::verdict`].
    pub verdict: u32,
    /// Indexes of rules, or [`procid_common::policy::NO_RULE`].
    pub rule: u32,
    pub audit: u32,
    /// One of [`procid_common::policy::unknown`].
    pub unknown: u32,
}

impl Judged {
    /// `None` where no policy judged.
    fn of(attempt: &Attempt) -> Option<Self> {
        (attempt.generation != 0).then_some(Self {
            generation: attempt.generation,
            verdict: attempt.verdict,
            rule: attempt.rule,
            audit: attempt.audit,
            unknown: attempt.unknown,
        })
    }
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not known yet, not told yet.
    Pending,
    Success,
    /// The errno.
    Failure(i32),
    /// It ended without success; the kernel side could not see the errno.
    Abandoned,
    /// A rule denied it: the caller got `EPERM`.
    Denied,
    /// Not known when it had to be told.
    Unknown,
    /// Found open: its beginning was not seen.
    Found,
}

/// An image that uses a flow without having opened it.
#[derive(Clone, Debug)]
pub struct Speaker {
    pub image: ImageId,
    /// Who its task was at its first send.
    pub actor: Actor,
    /// Kernel time of that send, nanoseconds since boot.
    pub at_ns: u64,
    /// Bits of [`procid_common::socket::flags`].
    pub flags: u32,
    /// A [`procid_common::socket::Hook`].
    pub hook: u32,
    /// `event.sequence` of the record that told of it.
    pub sequence: Option<NonZero<u64>>,
    /// Its act was denied: this is it.
    pub denied: Option<Box<Connection>>,
}

impl Speaker {
    /// An act on a flow that goes on, which a rule denied.
    pub fn of_denial(denied: Connection) -> Self {
        Self {
            image: denied.image,
            actor: denied.actor,
            at_ns: denied.started_ns,
            flags: denied.flags,
            hook: denied.hook,
            sequence: denied.sequence,
            denied: Some(Box::new(denied)),
        }
    }
}

/// What was seen of one flow. Small and without text: there may be 200,000.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The acting image; of a socket found open, its oldest holder.
    pub image: ImageId,
    /// Live: the socket's creator, where it is known and not [`Self::image`].
    /// Found open: all holders, oldest first, where there are several.
    pub others: Box<[ImageId]>,
    /// Who the acting task was at the act; of a socket found open, all zero.
    pub actor: Actor,
    /// Other images that have used it, in the order of their first use. Most
    /// connections have none.
    pub speakers: Option<Box<Vec<Speaker>>>,
    pub source: Address,
    pub destination: Address,
    /// What its packets are addressed to, where that is not what was asked for.
    pub wire: Option<Box<Address>>,
    /// `None`: not looked up, or not found. Most that are found translate
    /// nothing, and share it.
    pub nat: Option<Arc<Nat>>,
    /// What the destination was called, where a DNS answer told it.
    pub domain: Option<Box<Domain>>,
    /// Payload bytes that the socket has sent and received so far; `None`: not known.
    pub sent: Option<u64>,
    pub received: Option<u64>,
    /// Kernel time of the act (or of being found), nanoseconds since boot.
    pub started_ns: u64,
    /// Kernel time of the end; of a failed attempt, that of its failure.
    pub ended_ns: Option<NonZero<u64>>,
    /// Kernel time at which the last descriptor of the socket was closed. An
    /// end at just this time is the fallback for one that was not seen.
    pub released_ns: Option<NonZero<u64>>,
    /// `event.sequence` of the record that told of the act.
    pub sequence: Option<NonZero<u64>>,
    pub outcome: Outcome,
    /// `None`: no policy judged it.
    pub judged: Option<Box<Judged>>,
    /// Bits of [`procid_common::socket::flags`].
    pub flags: u32,
    /// A [`procid_common::socket::Hook`].
    pub hook: u32,
    /// Inode of the socket's network namespace.
    pub netns: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u16,
    pub sock_type: u16,
    pub provenance: Provenance,
    /// TCP state of a socket found open; 0 for a live one.
    pub state: u8,
    /// `AF_INET`, …: the socket's own.
    pub family: u8,
    /// Its beginning was not seen: a send on it was.
    pub is_use: bool,
}

// 100,000 live connections are to fit into 64 MiB, the rest of the agent included.
const _: () = assert!(size_of::<Connection>() <= 272);

/// How an image came to use a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Opener,
    /// It took the connection from accept(2).
    Acceptor,
    /// Another image opened the socket, which was not seen.
    SpeakerOfUnknown,
    /// The image named created the socket, another one uses it.
    Speaker(ImageId),
    /// The socket is older than procid.
    NotSeen,
}

impl Connection {
    pub(super) fn of_attempt(attempt: &Attempt) -> Self {
        let creator = attempt.creator;
        let seen = attempt.flags & (flags::CREATOR_UNSEEN | flags::KERNEL) == 0;
        let others = if seen && creator.is_known() && creator != attempt.image {
            Box::from([creator])
        } else {
            Box::default()
        };
        let image = if is_kernels(attempt.flags) {
            ImageId::UNKNOWN
        } else {
            attempt.image
        };
        Self {
            image,
            others,
            speakers: None,
            actor: attempt.actor,
            source: attempt.source,
            destination: attempt.destination,
            wire: None,
            nat: None,
            domain: None,
            sent: None,
            received: None,
            started_ns: attempt.header.boot_ns,
            ended_ns: None,
            released_ns: None,
            sequence: None,
            outcome: Outcome::Pending,
            judged: Judged::of(attempt).map(Box::new),
            flags: attempt.flags,
            hook: attempt.hook,
            netns: attempt.netns,
            source_port: port(attempt.source_port),
            destination_port: port(attempt.destination_port),
            protocol: attempt.socket.protocol,
            sock_type: attempt.socket.sock_type,
            family: u8::try_from(attempt.socket.family).unwrap_or(0),
            provenance: Provenance::Live,
            state: 0,
            is_use: false,
        }
    }

    /// A connection that has come in: its source is the peer.
    pub(super) fn of_accept(accept: &Attempt) -> Self {
        Self {
            source: accept.destination,
            destination: accept.source,
            source_port: port(accept.destination_port),
            destination_port: port(accept.source_port),
            outcome: Outcome::Success,
            ..Self::of_attempt(accept)
        }
    }

    /// A connection that is known by nothing but a send on it.
    pub(super) fn of_use(event: &Attempt) -> Self {
        Self {
            outcome: Outcome::Success,
            is_use: true,
            ..Self::of_act(event)
        }
    }

    /// An act that a rule denied.
    pub(super) fn of_denial(event: &Attempt) -> Self {
        Self {
            outcome: Outcome::Denied,
            ended_ns: NonZero::new(event.header.boot_ns),
            ..Self::of_act(event)
        }
    }

    fn of_act(event: &Attempt) -> Self {
        if event.flags & flags::ACCEPTED == 0 {
            Self::of_attempt(event)
        } else {
            Self::of_accept(event)
        }
    }

    /// A socket found open, and the images that hold it, oldest first.
    pub fn of_row(row: &SocketRow, holders: &[ImageId]) -> Self {
        let SocketKind {
            protocol,
            sock_type,
            ..
        } = row.socket;
        Self {
            image: holders.first().copied().unwrap_or(ImageId::UNKNOWN),
            others: if holders.len() > 1 {
                Box::from(holders)
            } else {
                Box::default()
            },
            speakers: None,
            actor: NOBODY,
            source: row.source,
            destination: row.destination,
            wire: None,
            nat: None,
            domain: None,
            sent: None,
            received: None,
            started_ns: row.header.boot_ns,
            ended_ns: None,
            released_ns: None,
            sequence: None,
            outcome: Outcome::Found,
            judged: None,
            flags: 0,
            hook: 0,
            netns: row.netns,
            source_port: port(row.source_port),
            destination_port: port(row.destination_port),
            protocol,
            sock_type,
            family: u8::try_from(row.socket.family).unwrap_or(0),
            provenance: Provenance::Snapshot,
            state: u8::try_from(row.state).unwrap_or(0),
            is_use: false,
        }
    }

    /// A datagram, not a connection attempt.
    pub const fn is_send(&self) -> bool {
        self.flags & flags::SEND != 0
    }

    /// It came in, through accept(2).
    pub const fn is_accepted(&self) -> bool {
        self.flags & flags::ACCEPTED != 0
    }

    /// An AF_PACKET socket: its frames go to no address that IP knows.
    pub fn is_packet(&self) -> bool {
        i32::from(self.family) == libc::AF_PACKET
    }

    /// TCP, plain or MPTCP: the kernel keeps its bytes.
    pub const fn is_stream(&self) -> bool {
        matches!(self.protocol, 6 | 262)
    }

    /// Under which name the kernel side keeps this flow's account, where it is
    /// not the socket's first.
    pub(super) const fn account(&self, cookie: u64) -> DestinationKey {
        DestinationKey {
            cookie,
            destination: self.destination,
            port: self.destination_port as u32,
            reserved: 0,
        }
    }

    /// Remembers the record that told of a speaker.
    pub fn tell_speaker(&mut self, image: &ImageId, sequence: Option<NonZero<u64>>) {
        let mut all = self.speakers.iter_mut().flat_map(|all| all.iter_mut());
        if let Some(speaker) = all.find(|one| one.image == *image && one.denied.is_none()) {
            speaker.sequence = sequence;
        }
    }

    /// The same of an act that was denied at that time.
    pub fn tell_denied(&mut self, at_ns: u64, image: &ImageId, sequence: Option<NonZero<u64>>) {
        let all = self.speakers.iter_mut().flat_map(|all| all.iter_mut());
        let is_it = |one: &Speaker| one.at_ns == at_ns && one.image == *image;
        if let Some(denied) = all
            .filter(|one| is_it(one))
            .find_map(|one| one.denied.as_mut())
        {
            denied.sequence = sequence;
        }
    }

    /// Takes over what was counted.
    pub(super) const fn count(&mut self, counts: &Counts) {
        self.sent = match counts.flags & SENT_UNKNOWN {
            0 => Some(counts.sent),
            _ => None,
        };
        self.received = match counts.flags & RECEIVED_UNKNOWN {
            0 => Some(counts.received),
            _ => None,
        };
    }

    /// No process ever created the socket.
    pub const fn is_kernels(&self) -> bool {
        is_kernels(self.flags)
    }

    /// Who connects a socket opens the connection, whoever made the socket; a
    /// datagram is opened by the socket's creator alone.
    pub fn role(&self) -> Role {
        if self.provenance == Provenance::Snapshot {
            return Role::NotSeen;
        }
        if self.is_kernels() {
            return Role::Opener;
        }
        if self.is_use {
            return Role::SpeakerOfUnknown;
        }
        if self.is_accepted() {
            return Role::Acceptor;
        }
        if !self.is_send() {
            return Role::Opener;
        }
        match *self.others {
            [creator, ..] => Role::Speaker(creator),
            [] if self.flags & flags::CREATOR_UNSEEN != 0 => Role::NotSeen,
            [] => Role::Opener,
        }
    }

    /// All images that hold a socket found open, where there are several.
    pub fn holders(&self) -> &[ImageId] {
        match self.provenance {
            Provenance::Snapshot => &self.others,
            Provenance::Live => &[],
        }
    }

    /// The images that this connection's records name.
    pub fn images(&self) -> impl Iterator<Item = ImageId> {
        self.named_by(|_| true)
    }

    /// Those of them that were let use it.
    pub(super) fn users(&self) -> impl Iterator<Item = ImageId> {
        self.named_by(|speaker| speaker.denied.is_none())
    }

    fn named_by(&self, which: impl Fn(&Speaker) -> bool) -> impl Iterator<Item = ImageId> {
        let speakers = self.speakers.iter().flat_map(|all| all.iter());
        std::iter::once(self.image)
            .chain(self.others.iter().copied())
            .chain(speakers.filter(move |one| which(one)).map(|one| one.image))
            .filter(ImageId::is_known)
    }

    pub fn source_ip(&self) -> Option<IpAddr> {
        ip(self.source)
    }

    /// `None` for a protocol without ports, and where the kernel has not
    /// chosen one yet.
    pub fn source_port(&self) -> Option<u16> {
        (self.has_ports() && self.source_port != 0).then_some(self.source_port)
    }

    /// As asked for: 0.0.0.0, which reaches this host, is an address too.
    /// `None`: packets of this socket have no such address.
    pub fn destination_ip(&self) -> Option<IpAddr> {
        (!self.is_packet()).then(|| words::address(self.destination))
    }

    pub fn destination_port(&self) -> Option<u16> {
        self.has_ports().then_some(self.destination_port)
    }

    fn has_ports(&self) -> bool {
        let is_raw = i32::from(self.sock_type) == libc::SOCK_RAW;
        !is_raw
            && matches!(
                words::transport(self.protocol),
                Some("tcp" | "udp" | "udplite" | "sctp" | "dccp")
            )
    }

    /// Takes over what an outcome says of the source, where that is news.
    pub(super) fn learn_source(&mut self, outcome: &socket::Outcome) {
        if ip(outcome.source).is_some() {
            self.source = outcome.source;
        }
        if outcome.source_port != 0 {
            self.source_port = port(outcome.source_port);
        }
    }
}

/// What was accepted, a process has accepted.
const fn is_kernels(flags: u32) -> bool {
    flags & (flags::KERNEL | flags::ACCEPTED) == flags::KERNEL
}

const NOBODY: Actor = Actor {
    creds: procid_common::image::Credentials {
        uid: 0,
        gid: 0,
        euid: 0,
        egid: 0,
        loginuid: u32::MAX,
        sessionid: u32::MAX,
    },
    tid: 0,
    vpid: 0,
    cgroup: 0,
    netns: 0,
    mntns: 0,
    comm: [0; 16],
};

/// The kernel side sends 16 bits in 32; more would be a bug of its own.
fn port(wide: u32) -> u16 {
    u16::try_from(wide).unwrap_or(0)
}

/// An address that is not "any".
fn ip(address: Address) -> Option<IpAddr> {
    Some(words::address(address)).filter(|ip| !ip.is_unspecified())
}

//! Policy: which image may speak to whom.
//!
//! | module | holds |
//! | --- | --- |
//! | this one | a policy as it was meant |
//! | [`compile`] | from the one to the other |
//! | [`places`] | where the host has a path |
//! | [`text`] | a policy as it is written, and what is wrong with it |
//! | [`past`] | an act of the past, judged again |
//! | [`replay`] | what a policy would have done to history |
//! | [`reference`] | what a policy decides, said plainly |
//! | [`tables`] | a policy as the programs read it |
//! | [`lineage`] | what images satisfy that were there before the policy |
//! | [`lookup`] | what the tables decide, without a kernel |
//!
//! It needs no kernel.

use std::{
    net::IpAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;

mod bits;
pub mod compile;
pub mod lineage;
pub mod lookup;
pub mod past;
pub mod places;
pub mod reference;
pub mod replay;
pub mod tables;
pub mod text;

/// What the kernel's command line says where no agent is to be protected,
/// whatever a policy asks for.
pub const UNPROTECT: &str = "procid.protect=0";

/// A policy whose every name is resolved; rules are in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub mode: Mode,
    pub default: Verdict,
    /// Verdict of a rule that turns on a hash that is not known.
    pub unknown_hash: Verdict,
    /// Leave 127.0.0.0/8, `::1` and the host's own addresses alone.
    pub loopback_allow: bool,
    /// Leave connections older than this policy alone.
    pub established_keep: bool,
    /// Verdict when a table the decision needs is full.
    pub on_overflow: Verdict,
    /// Keep other processes from the agent that enforces it.
    pub protect: bool,
    pub rules: Vec<Rule>,
    /// SHA-256 of the file it was read from: `rule.version` of records.
    pub sha256: [u8; 32],
}

impl Policy {
    /// Whether any rule asks for a hash.
    pub fn asks_hash(&self) -> bool {
        self.rules.iter().any(|rule| {
            let process = &rule.process;
            let mut others = process.parents.iter().chain(&process.ancestors);
            !process.sha256.is_empty() || others.any(|it| matches!(it, Matcher::Sha256(_)))
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    /// Decide and record, block nothing.
    Audit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
    /// Noted; the next rule decides.
    Audit,
}

/// Every field that asks must match; one that is empty does not ask; any of its
/// values will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: Arc<str>,
    pub action: Action,
    pub process: Process,
    pub destination: Destination,
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// `direction = "ingress"`: accepted sockets, and no others.
    pub ingress: bool,
    /// Nanoseconds since the Unix epoch.
    pub expires: Option<i128>,
    /// Line of the file, from 1; 0: a temporary rule of `procid block`.
    pub line: usize,
}

/// The calling image at the time of the decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub executables: Vec<Files>,
    pub sha256: Vec<[u8; 32]>,
    pub inodes: Vec<Inode>,
    /// Effective, in the initial user namespace.
    pub uids: Vec<RangeInclusive<u32>>,
    pub gids: Vec<RangeInclusive<u32>>,
    /// Paths from the root of the v2 hierarchy: that cgroup and all below it.
    pub cgroups: Vec<PathBuf>,
    /// Names of systemd units, with their suffix.
    pub units: Vec<String>,
    /// Prefixes of container ids, lower case hexadecimal.
    pub containers: Vec<String>,
    pub parents: Vec<Matcher>,
    pub ancestors: Vec<Matcher>,
    pub roles: Vec<Role>,
    /// Traffic of the kernel's own, and no other.
    pub kernel: bool,
}

impl Process {
    /// Whether `executables` are files in the root of the container that the
    /// image is in, and not the host's.
    pub const fn is_in_root(&self) -> bool {
        !self.containers.is_empty() && !self.executables.is_empty()
    }
}

/// Files by the name that the initial mount namespace has for them, or that a
/// container's root has: see [`Process::is_in_root`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Files {
    Exact(PathBuf),
    /// `/dir/**`: everything below the directory.
    Below(PathBuf),
}

impl Files {
    /// The file's, or the directory's.
    pub fn path(&self) -> &Path {
        match self {
            Self::Exact(path) | Self::Below(path) => path,
        }
    }

    /// Whether a path is one of them.
    pub fn have(&self, path: &Path) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Below(directory) => path != directory && path.starts_with(directory),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    pub major: u32,
    pub minor: u32,
    pub ino: u64,
}

/// An image other than the caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Matcher {
    Executable(Files),
    Sha256([u8; 32]),
    Inode(Inode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Opener,
    Speaker,
    Acceptor,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// `cidr` and `set` together; v4-mapped ones are IPv4.
    pub networks: Vec<IpNet>,
    pub ports: Vec<RangeInclusive<u16>>,
    pub transports: Vec<Transport>,
    pub sockets: Vec<Socket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
    UdpLite,
    Icmp,
    Ipv6Icmp,
    Sctp,
    Dccp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    Raw,
    Packet,
}

/// What a decision is asked about, as far as it is known; for `policy explain`
/// and for tests.
#[derive(Clone, Debug)]
pub struct Facts {
    pub process: ImageFacts,
    /// `None` of AF_PACKET.
    pub destination: Option<IpAddr>,
    /// 0 where the transport has none.
    pub port: u16,
    pub source_port: u16,
    pub transport: Option<Transport>,
    pub socket: Option<Socket>,
    /// `None`: the kernel's own traffic.
    pub role: Option<Role>,
    pub euid: u32,
    pub egid: u32,
    /// From the root of the v2 hierarchy.
    pub cgroup: PathBuf,
    /// Nanoseconds since the Unix epoch.
    pub now: i128,
}

/// The calling image, and those before it.
#[derive(Clone, Debug, Default)]
pub struct ImageFacts {
    pub exe: ExeFacts,
    pub in_root: InRoot,
    /// The image that forked this one.
    pub parent: Option<ExeFacts>,
    /// Images on the fork and exec chain, this process's own earlier ones
    /// included.
    pub ancestors: Vec<ExeFacts>,
}

/// What the root of a container has the calling image's file under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InRoot {
    /// The file is in no container's root.
    #[default]
    No,
    /// That cannot be told.
    Unknown,
    At(PathBuf),
}

/// One executable file.
#[derive(Clone, Debug, Default)]
pub struct ExeFacts {
    /// The name the initial mount namespace has for it; `None`: it has none.
    pub path: Option<PathBuf>,
    /// `None`: not known.
    pub sha256: Option<[u8; 32]>,
    pub inode: Option<Inode>,
}

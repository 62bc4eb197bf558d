//! The compiled policy: what the agent writes and the programs read.
//!
//! Every rule has a bit. For each thing that a decision asks of (a destination
//! address, a port, an executable, …) a table gives the rules which that value
//! satisfies or which do not ask for it. The lowest bit that is set in all of
//! them is the first rule that matches ([`decide`]).
//!
//! Three sets of tables ([`SLOTS`]) are kept apart by a slot number in each
//! key: the active one, the one it falls back to unless it is confirmed, and
//! an idle one to fill. [`active`] names the first.

use crate::image::ImageId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod asked;
pub mod container;
pub mod decide;

/// Rules of a policy, temporary ones included.
pub const RULES_MAX: usize = 1_024;
pub const WORDS: usize = RULES_MAX / 64;

/// Rules, one bit each.
pub type Bits = [u64; WORDS];

pub const NO_RULES: Bits = [0; WORDS];
pub const ALL_RULES: Bits = [u64::MAX; WORDS];

/// Sets of tables.
pub const SLOTS: u32 = 3;

/// The word that says which policy is in force (map `ACTIVE`); 0: none is.
pub mod active {
    /// `generation` is not 0.
    #[inline(always)]
    pub const fn word(slot: u32, generation: u64) -> u64 {
        generation << 2 | slot as u64
    }

    #[inline(always)]
    pub const fn slot(word: u64) -> u32 {
        (word & 3) as u32
    }

    #[inline(always)]
    pub const fn generation(word: u64) -> u64 {
        word >> 2
    }
}

/// Things whose values are looked up by longest prefix (map `FACTS`).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// The destination's address (v4-mapped), 128 bits.
    Destination = 0,
    /// The destination's port, 16 bits, network order.
    Port = 1,
    /// The source port, 16 bits, network order.
    SourcePort = 2,
    /// Effective uid and gid in the initial user namespace, 32 bits, network
    /// order.
    Uid = 3,
    Gid = 4,
}

impl Dimension {
    pub const ALL: [Self; 5] = [
        Self::Destination,
        Self::Port,
        Self::SourcePort,
        Self::Uid,
        Self::Gid,
    ];
    pub const COUNT: usize = Self::ALL.len();

    /// Bits of a value.
    pub const fn width(self) -> u32 {
        match self {
            Self::Destination => 128,
            Self::Port | Self::SourcePort => 16,
            Self::Uid | Self::Gid => 32,
        }
    }
}

/// Key of map `FACTS`, behind the trie's own prefix length.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fact {
    pub slot: u8,
    /// A [`Dimension`].
    pub dimension: u8,
    pub reserved: [u8; 6],
    /// The value, most significant byte first, then zeros.
    pub value: [u8; 16],
}

const _: () = assert!(size_of::<Fact>() == 24);

impl Fact {
    /// Bits before the value.
    pub const HEAD: u32 = 64;
}

/// What a rule asks of the calling image itself, of any image before it, and of
/// the image that forked it: the rules that one executable satisfies in each.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Uses {
    pub own: Bits,
    pub ancestor: Bits,
    pub parent: Bits,
}

const _: () = assert!(size_of::<Uses>() == 3 * size_of::<Bits>());

impl Uses {
    pub const NONE: Self = Self {
        own: NO_RULES,
        ancestor: NO_RULES,
        parent: NO_RULES,
    };
}

/// A name longer than this is matched in pieces of this size.
pub const NAME_PIECE: usize = 64;

/// Key of map `NAMES`: a piece of a name, below a node of the tree that the
/// names of a policy make. Executables begin at [`FILES`], cgroups at
/// [`CGROUPS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Name {
    pub slot: u32,
    /// [`Node::id`] of what is above.
    pub parent: u32,
    /// Filled up with zeros. A piece of [`NAME_PIECE`] bytes without a zero is
    /// followed by another one, perhaps empty, below its node.
    pub piece: [u8; NAME_PIECE],
}

const _: () = assert!(size_of::<Name>() == 72);

/// Above the file systems: the first name is `s_dev` (4 bytes, native order),
/// or [`CONTAINER_ROOT`].
pub const FILES: u32 = 1;
/// In the place of a file system among [`FILES`]: the root of a container, which
/// is of any. (No file system has this number: those without a device count
/// from 1.)
pub const CONTAINER_ROOT: u32 = 0;
/// The root of the cgroup v2 hierarchy.
pub const CGROUPS: u32 = 2;
/// Names of systemd units: one name, at any depth of a cgroup's path.
pub const UNITS: u32 = 3;
/// Beginnings of container ids: one name, and one piece.
pub const CONTAINERS: u32 = 4;
/// The first id of other nodes.
pub const FIRST_NODE: u32 = 16;

/// Value of map `NAMES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Node {
    pub id: u32,
    pub reserved: u32,
    /// Satisfied by the file of this very name.
    pub exact: Uses,
    /// Satisfied by every file below this directory or, as its own node and
    /// those above it say, any directory above. Of cgroups (`own` only): by this
    /// one and all below it, those above included.
    pub below: Uses,
}

const _: () = assert!(size_of::<Node>() == 8 + 2 * size_of::<Uses>());

/// Key of map `HASHES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HashKey {
    pub slot: u32,
    pub reserved: u32,
    pub sha256: [u8; 32],
}

/// Key of map `INODES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InodeKey {
    pub slot: u32,
    /// As in [`crate::image::FileState::dev`].
    pub dev: u32,
    pub ino: u64,
}

/// What a socket speaks, as rules ask for it: index of [`Head::transport`].
pub mod transport {
    pub const TCP: usize = 0;
    pub const UDP: usize = 1;
    pub const UDPLITE: usize = 2;
    pub const ICMP: usize = 3;
    pub const IPV6_ICMP: usize = 4;
    pub const SCTP: usize = 5;
    pub const DCCP: usize = 6;
    pub const OTHER: usize = 7;
    pub const COUNT: usize = 8;
}

/// What a socket is: index of [`Head::kind`].
pub mod kind {
    pub const OTHER: usize = 0;
    pub const RAW: usize = 1;
    pub const PACKET: usize = 2;
    pub const COUNT: usize = 3;
}

/// Who acts: index of [`Head::role`].
pub mod role {
    /// The image connected the socket itself.
    pub const OPENER: usize = 0;
    /// Another image did.
    pub const SPEAKER: usize = 1;
    /// The socket came from accept(2): only rules with `direction = "ingress"`.
    pub const ACCEPTOR: usize = 2;
    /// No process ever made the socket: only rules with `kernel = true`.
    pub const KERNEL: usize = 3;
    pub const COUNT: usize = 4;
}

/// Times at which rules expire, of one policy.
pub const EXPIRIES_MAX: usize = 64;

/// Value of map `EXPIRIES`, at `slot * EXPIRIES_MAX + n`: in order of time; the
/// last one's is `u64::MAX`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Epoch {
    /// Nanoseconds since boot.
    pub until_ns: u64,
    /// Rules in force before that time.
    pub live: Bits,
}

/// What a decision lacked, where it was none of a rule or of the default.
pub mod unknown {
    pub const NOTHING: u32 = 0;
    /// A fact that is not known yet, or cannot be: `unknown_hash` decided.
    pub const FACT: u32 = 1;
    /// Room in a table: `on_overflow` decided.
    pub const ROOM: u32 = 2;
}

/// Bits of [`Head::flags`].
pub mod flags {
    pub const DEFAULT_DENY: u32 = 1 << 0;
    /// `mode = "audit"`.
    pub const AUDIT: u32 = 1 << 1;
    pub const UNKNOWN_DENY: u32 = 1 << 2;
    pub const LOOPBACK_ALLOW: u32 = 1 << 3;
    pub const ESTABLISHED_KEEP: u32 = 1 << 4;
    pub const OVERFLOW_DENY: u32 = 1 << 5;
    /// Some rule asks for an executable's path, hash or inode.
    pub const ASKS_PATH: u32 = 1 << 6;
    pub const ASKS_HASH: u32 = 1 << 7;
    pub const ASKS_INODE: u32 = 1 << 8;
    /// For a cgroup, a unit or a container.
    pub const ASKS_CGROUP: u32 = 1 << 9;
    pub const ASKS_ANCESTOR: u32 = 1 << 10;
    pub const ASKS_PARENT: u32 = 1 << 11;
    /// Some rule has `direction = "ingress"`.
    pub const ASKS_INGRESS: u32 = 1 << 12;
    pub const ASKS_CONTAINER: u32 = 1 << 13;
    /// Some rule asks for an executable in a container's root.
    pub const ASKS_IN_ROOT: u32 = 1 << 14;
    /// `ASKS_DIMENSION << Dimension`: some rule asks for it.
    pub const ASKS_DIMENSION: u32 = 1 << 16;
}

/// What is not in the other tables (map `HEADS`, by slot).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Head {
    pub generation: u64,
    /// The word of [`active`] that is in force instead after the deadline
    /// (map `DEADLINES`, by slot, nanoseconds since boot; 0: none).
    pub fallback: u64,
    /// When it came into force, nanoseconds since boot.
    pub applied_ns: u64,
    /// Words of [`Bits`] in use.
    pub words: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Inode number of the initial mount namespace, which is no container's; 0
    /// where no rule asks.
    pub host_mntns: u32,
    pub reserved: u32,
    /// SHA-256 of the policy's text, without temporary rules.
    pub sha256: [u8; 32],
    /// Rules by action.
    pub allow: Bits,
    pub deny: Bits,
    pub audit: Bits,
    /// Rules that do not ask for a dimension.
    pub unasked: [Bits; Dimension::COUNT],
    /// Rules that ask for no path, no hash, no inode, no cgroup, no unit, no
    /// container.
    pub no_path: Bits,
    pub no_hash: Bits,
    pub no_inode: Bits,
    pub no_cgroup: Bits,
    pub no_unit: Bits,
    pub no_container: Bits,
    /// Rules whose executable is one in a container's root.
    pub in_root: Bits,
    /// Rules that ask for no ancestor, no parent.
    pub no_ancestor: Bits,
    pub no_parent: Bits,
    /// Ancestors and parents are asked for by hash in these rules.
    pub ancestor_by_hash: Bits,
    pub parent_by_hash: Bits,
    pub transport: [Bits; transport::COUNT],
    pub kind: [Bits; kind::COUNT],
    pub role: [Bits; role::COUNT],
}

const _: () = assert!(
    size_of::<Head>()
        == 72
            + size_of::<Bits>()
                * (14 + Dimension::COUNT + transport::COUNT + kind::COUNT + role::COUNT)
);

/// Key of maps `SUBJECTS` and `LINEAGES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SubjectKey {
    pub image: ImageId,
    pub slot: u64,
}

/// Which rules an image satisfies (map `SUBJECTS`), for one generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Subject {
    pub generation: u64,
    /// 1: its hash was known; 0: `maybe` may hold more than `yes`.
    pub hash_known: u64,
    /// Rules whose every question about the image is answered with yes.
    pub yes: Bits,
    /// The same where what is not known is taken for a yes.
    pub maybe: Bits,
}

const _: () = assert!(size_of::<Subject>() == 16 + 2 * size_of::<Bits>());

/// Which rules an image satisfies as what came before others, and which those
/// before it satisfy (map `LINEAGES`); `maybe`: where what is not known is
/// taken for a yes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Lineage {
    pub generation: u64,
    /// Any image before it.
    pub ancestor: Bits,
    pub maybe_ancestor: Bits,
    /// The image that forked it.
    pub parent: Bits,
    pub maybe_parent: Bits,
    /// The image itself, to those after it.
    pub as_ancestor: Bits,
    pub maybe_as_ancestor: Bits,
    pub as_parent: Bits,
    pub maybe_as_parent: Bits,
}

const _: () = assert!(size_of::<Lineage>() == 8 + 8 * size_of::<Bits>());

/// Verdicts, as events carry them.
pub mod verdict {
    pub const ALLOW: u32 = 0;
    pub const DENY: u32 = 1;
    /// A deny in audit mode.
    pub const AUDIT: u32 = 2;
}

/// No rule: the default decided.
pub const NO_RULE: u32 = u32::MAX;

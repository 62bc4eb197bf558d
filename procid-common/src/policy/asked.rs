//! What the agent asks of the programs: the decision, of any task, without the
//! act.

use super::Bits;
use crate::{
    event::Header,
    image::ImageId,
    socket::{Address, SocketKind},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The question (map `ASKED`).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Asked {
    /// The set of tables that is to decide.
    pub slot: u32,
    /// The process, and what it is to do; not asked of open sockets.
    pub tgid: u32,
    pub destination: Address,
    /// Host order; 0: none.
    pub port: u32,
    /// Host order; 0: not bound.
    pub source_port: u32,
    pub socket: SocketKind,
    /// Index of [`super::role`].
    pub role: u32,
    /// Bits of [`given`]: what is to be taken for so, instead of what is.
    pub given: u32,
    pub uid: u32,
    pub gid: u32,
}

const _: () = assert!(size_of::<Asked>() == 56);

/// Bits of [`Asked::given`].
pub mod given {
    pub const UID: u32 = 1 << 0;
    pub const GID: u32 = 1 << 1;
    pub const SOURCE_PORT: u32 = 1 << 2;
}

/// How a question was answered.
pub mod answer {
    /// A table could not be read.
    pub const NONE: u32 = 0;
    pub const JUDGED: u32 = 1;
    /// The policy leaves it alone: `loopback`, `established`, an accepted socket
    /// without a rule for it, or a process that is not watched.
    pub const LEFT_ALONE: u32 = 2;
}

/// What would be decided.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Answer {
    /// One of [`answer`].
    pub answer: u32,
    /// One of [`super::verdict`].
    pub verdict: u32,
    /// As in [`crate::socket::Attempt`].
    pub rule: u32,
    pub audit: u32,
    /// One of [`super::unknown`].
    pub unknown: u32,
    /// Index of [`super::role`].
    pub role: u32,
}

const _: () = assert!(size_of::<Answer>() == 24);

/// [`crate::event::kind::ASKED_ROW`]: a thread of the process that was asked
/// about, and the rules that what it is satisfies, or that do not ask for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AskedRow {
    pub header: Header,
    pub image: ImageId,
    pub answer: Answer,
    pub tid: u32,
    /// Effective, or as given.
    pub uid: u32,
    pub gid: u32,
    /// 0: rules by name perhaps match.
    pub path_known: u32,
    /// 0: rules by hash perhaps match.
    pub hash_known: u32,
    /// 1: the cgroup's name was followed.
    pub cgroup_known: u32,
    pub exe_ino: u64,
    pub exe_dev: u32,
    /// 0: rules by name in a container's root perhaps match.
    pub root_known: u32,
    pub path: Bits,
    pub inode: Bits,
    pub hash: Bits,
    pub descent: Bits,
    /// The same where what is not known is taken for a yes.
    pub maybe_descent: Bits,
    /// Cgroup, unit and container.
    pub cgroup: Bits,
}

const _: () = assert!(size_of::<AskedRow>() == 104 + 6 * size_of::<Bits>());

/// [`crate::event::kind::OPEN_ROW`]: an open connection, a process that holds
/// it, and what would be decided of that one's next send.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OpenRow {
    pub header: Header,
    pub image: ImageId,
    pub cookie: u64,
    pub destination: Address,
    pub port: u32,
    pub netns: u32,
    pub socket: SocketKind,
    pub answer: Answer,
}

const _: () = assert!(size_of::<OpenRow>() == 104);

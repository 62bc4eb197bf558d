//! The socket tag and the events of connections.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    event::Header,
    image::{FileState, ImageId},
    process::Actor,
};

/// An IPv4 address is kept v4-mapped (`::ffff:a.b.c.d`), as dual-stack sockets
/// do, so that one comparison serves both families.
pub type Address = [u8; 16];

/// Prefix of a v4-mapped address.
pub const V4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Which hook saw an act; [`Hook::name`] is what records call it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Connect4 = 1,
    Connect6 = 2,
    Sendmsg4 = 3,
    Sendmsg6 = 4,
    LsmConnect = 10,
    LsmSendmsg = 11,
    LsmFree = 12,
    SetState = 20,
    SendLength = 21,
    SysExitConnect = 22,
    Egress = 23,
    SockRelease = 24,
    Retransmit = 25,
}

impl Hook {
    pub const ALL: [Self; 13] = [
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::LsmConnect,
        Self::LsmSendmsg,
        Self::LsmFree,
        Self::SetState,
        Self::SendLength,
        Self::SysExitConnect,
        Self::Egress,
        Self::SockRelease,
        Self::Retransmit,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "cgroup/connect4",
            Self::Connect6 => "cgroup/connect6",
            Self::Sendmsg4 => "cgroup/sendmsg4",
            Self::Sendmsg6 => "cgroup/sendmsg6",
            Self::LsmConnect => "lsm/socket_connect",
            Self::LsmSendmsg => "lsm/socket_sendmsg",
            Self::LsmFree => "lsm/sk_free_security",
            Self::SetState => "tp_btf/inet_sock_set_state",
            Self::SendLength => "tp_btf/sock_send_length",
            Self::SysExitConnect => "tracepoint/sys_exit_connect",
            Self::Egress => "cgroup_skb/egress",
            Self::SockRelease => "cgroup/sock_release",
            Self::Retransmit => "tp_btf/tcp_retransmit_skb",
        }
    }
}

/// Bits of [`Attempt::flags`] and [`SocketTag::flags`].
pub mod flags {
    /// No process ever created this socket: the kernel owns its traffic.
    pub const KERNEL: u32 = 1 << 0;
    /// The socket's creator was not seen (older than the hooks, or no tag).
    pub const CREATOR_UNSEEN: u32 = 1 << 1;
    /// The acting task is an io_uring worker of the process named.
    pub const IO_WORKER: u32 = 1 << 2;
    /// An attempt on this flow has no outcome yet (tag only).
    pub const PENDING: u32 = 1 << 3;
    /// The pending attempt is a datagram whose source is not known yet (tag only).
    pub const PENDING_SOURCE: u32 = 1 << 4;
    /// The acting task is a kernel thread.
    pub const KTHREAD: u32 = 1 << 5;
    /// A datagram (`send`), not a connection attempt (`connect`).
    pub const SEND: u32 = 1 << 6;
}

/// Kept in socket storage from the socket's creation to its end.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketTag {
    /// The image that called socket(2).
    pub creator: ImageId,
    /// The image of the newest connect.
    pub connector: ImageId,
    pub cookie: u64,
    /// Destination of the newest flow, and of the attempt that is pending.
    pub destination: Address,
    /// Port of `destination`, host order.
    pub port: u32,
    /// Connects and new datagram destinations so far; 0: none yet.
    pub flow: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Inode of the socket's network namespace.
    pub netns: u32,
    pub source: Address,
    pub source_port: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<SocketTag>() == 112);

/// Names one socket's datagrams to one destination (map `DESTINATIONS`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DestinationKey {
    pub cookie: u64,
    pub destination: Address,
    pub port: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<DestinationKey>() == 32);

/// What a socket is.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SocketKind {
    /// `AF_INET` or `AF_INET6`: the socket's own, whatever it talks to.
    pub family: u16,
    /// `SOCK_STREAM`, …
    pub sock_type: u16,
    /// `IPPROTO_TCP`, …
    pub protocol: u16,
    pub reserved: u16,
}

const _: () = assert!(size_of::<SocketKind>() == 8);

/// [`crate::event::kind::ATTEMPT`]: an image is about to connect, or to send a
/// datagram to a destination that is new to the socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Attempt {
    pub header: Header,
    /// The acting image.
    pub image: ImageId,
    /// The image that created the socket.
    pub creator: ImageId,
    pub actor: Actor,
    pub cookie: u64,
    pub socket: SocketKind,
    /// Where to.
    pub destination: Address,
    /// What the socket is bound to so far; all zero where it is not.
    pub source: Address,
    /// Host order.
    pub destination_port: u32,
    /// Host order; 0 when not bound yet.
    pub source_port: u32,
    /// Connect count of the socket; with the cookie it names the flow.
    pub flow: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// A [`Hook`].
    pub hook: u32,
    /// Inode of the socket's network namespace.
    pub netns: u32,
}

const _: () = assert!(size_of::<Attempt>() == 200);

/// [`crate::event::kind::OUTCOME`]: what became of an attempt.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Outcome {
    pub header: Header,
    pub cookie: u64,
    /// The kernel's choice; all zero where it is not known.
    pub source: Address,
    /// Host order; 0 when not known.
    pub source_port: u32,
    pub flow: u32,
    /// 0: done; positive: the errno; [`Outcome::UNDECIDED`]: only the source
    /// is news; [`Outcome::ABANDONED`]: it ended, the errno is not known.
    pub error: i32,
    /// A [`Hook`].
    pub hook: u32,
}

const _: () = assert!(size_of::<Outcome>() == 56);

impl Outcome {
    pub const UNDECIDED: i32 = -1;
    pub const ABANDONED: i32 = -2;
}

/// [`crate::event::kind::CLOSE`]: a connection, or a datagram socket with all
/// its flows, has ended. A named flow from [`Hook::SockRelease`] has lost its
/// last descriptor: TCP itself goes on until its state is CLOSE.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Close {
    pub header: Header,
    pub cookie: u64,
    /// The flow that ended; 0: every flow of the socket.
    pub flow: u32,
    /// A [`Hook`].
    pub hook: u32,
}

const _: () = assert!(size_of::<Close>() == 32);

/// [`crate::event::kind::SOCKET_ROW`]: a socket, and an image that holds a
/// descriptor of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketRow {
    pub header: Header,
    pub image: ImageId,
    /// 0 where the kernel has given it none yet.
    pub cookie: u64,
    pub socket: SocketKind,
    pub destination: Address,
    pub source: Address,
    pub destination_port: u32,
    pub source_port: u32,
    /// `TCP_ESTABLISHED`, …; datagram sockets use 1 (connected) and 7.
    pub state: u32,
    pub netns: u32,
    /// The socket's inode in sockfs, as `/proc/PID/fd` shows it.
    pub inode: u64,
    pub fd: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<SocketRow>() == 120);

/// [`crate::event::kind::FILE_ROW`]: the state of the inode behind one
/// descriptor of one thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FileRow {
    pub header: Header,
    pub file: FileState,
    pub fs_magic: u32,
    /// Bits of [`crate::image::flags`].
    pub flags: u32,
    pub fd: u32,
    pub tid: u32,
}

const _: () = assert!(size_of::<FileRow>() == 80);

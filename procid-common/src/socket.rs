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
    ReceiveLength = 26,
    SysExitAccept = 27,
    LsmGraft = 28,
    Redial = 29,
    SendmsgLocked = 30,
}

impl Hook {
    pub const ALL: [Self; 18] = [
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
        Self::ReceiveLength,
        Self::SysExitAccept,
        Self::LsmGraft,
        Self::Redial,
        Self::SendmsgLocked,
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
            Self::ReceiveLength => "tp_btf/sock_recv_length",
            Self::SysExitAccept => "tracepoint/sys_exit_accept",
            Self::LsmGraft => "lsm/sock_graft",
            Self::Redial => "cgroup/connect",
            Self::SendmsgLocked => "tp_btf/tcp_sendmsg_locked",
        }
    }
}

/// Bits of [`Attempt::flags`], [`SocketTag::flags`] and [`Counts::flags`].
pub mod flags {
    /// No process ever created this socket: the kernel owns its traffic.
    pub const KERNEL: u32 = 1 << 0;
    /// The socket's creator was not seen (older than the hooks, or no tag).
    pub const CREATOR_UNSEEN: u32 = 1 << 1;
    /// The acting task is an io_uring worker of the process named.
    pub const IO_WORKER: u32 = 1 << 2;
    /// The newest connect, or the first datagram of `primary`, has no outcome
    /// yet (tag only).
    pub const PENDING: u32 = 1 << 3;
    /// A datagram is on its way whose flow has no source yet (tag only).
    pub const PENDING_SOURCE: u32 = 1 << 4;
    /// The acting task is a kernel thread.
    pub const KTHREAD: u32 = 1 << 5;
    /// A datagram (`send`), not a connection attempt (`connect`).
    pub const SEND: u32 = 1 << 6;
    /// Flow `primary` is a connection: sends without an address are its (tag only).
    pub const CONNECTED: u32 = 1 << 7;
    /// The socket came from accept(2).
    pub const ACCEPTED: u32 = 1 << 8;
    /// A further subflow of an MPTCP connection.
    pub const SUBFLOW: u32 = 1 << 9;
    /// Packets of more than one peer have reached the socket (tag only).
    pub const MANY_PEERS: u32 = 1 << 10;
    /// What was sent is not counted, or was not from the beginning.
    pub const SENT_UNKNOWN: u32 = 1 << 11;
    /// What was received is not counted, not from the beginning, or came from
    /// one of several peers and nobody asked from whom.
    pub const RECEIVED_UNKNOWN: u32 = 1 << 12;
    /// The socket has more datagram destinations than are kept for one socket
    /// (tag only).
    pub const SCANNER: u32 = 1 << 13;
    /// Some thread has used the socket for a flow other than `primary` (tag only).
    pub const OTHERS: u32 = 1 << 14;
    /// TCP: what lies behind `withheld` in the stream does not leave (tag only).
    pub const WITHHELD: u32 = 1 << 15;
    /// The connection had ended before it was accepted (events of accept(2) only).
    pub const ENDED: u32 = 1 << 16;
    /// Datagrams went to port 53, from a socket that is not connected (tag only).
    pub const ASKS_NAMES: u32 = 1 << 17;
}

/// Datagram destinations of one socket that are kept apart from those of all
/// other sockets; one with more (a scan) competes with other scanners only.
pub const DESTINATIONS_PER_SOCKET: u32 = 4_096;

/// Kept in socket storage from the socket's creation to its end.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketTag {
    /// The image that called socket(2).
    pub creator: ImageId,
    /// The image of the newest connect.
    pub connector: ImageId,
    /// The image that used the socket last, and is known to the reader as one
    /// of its users.
    pub user: ImageId,
    pub cookie: u64,
    /// Destination of flow `primary`, as asked for.
    pub destination: Address,
    /// Destination of flow `redial`.
    pub redial_destination: Address,
    /// The only peer whose packets have reached the socket so far.
    pub peer: Address,
    /// The thread (`pid_tgid`) that is inside a send on `primary` (of TCP: one
    /// that is denied); 0: none.
    pub sender: u64,
    /// The thread that is inside a receive on `primary`; 0: none.
    pub receiver: u64,
    /// Payload bytes of flow `primary`; of TCP the kernel keeps them itself.
    pub sent: u64,
    pub received: u64,
    /// Connects and new datagram destinations so far; 0: none yet.
    pub flow: u64,
    /// Port of `destination`, host order.
    pub port: u32,
    pub redial_port: u32,
    pub peer_port: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Inode of the socket's network namespace.
    pub netns: u32,
    /// The flow whose bytes are counted here: the connected one, else the
    /// first; those of others are in the map of destinations.
    pub primary: u32,
    /// A connect of a datagram socket that may have failed: whether it is the
    /// new `primary`, the socket's own destination tells. 0: none.
    pub redial: u32,
    /// Datagram destinations so far.
    pub destinations: u32,
    /// The flow whose destination on the wire was told.
    pub wired: u32,
    /// Sequence number of the first byte that was denied, where [`flags::WITHHELD`]
    /// says that there is one.
    pub withheld: u32,
    /// When flow `primary` began, nanoseconds since boot; 0: before the hooks.
    pub since_ns: u64,
    /// The last verdict on flow `primary` that let it pass.
    pub judged: Judged,
}

const _: () = assert!(size_of::<SocketTag>() == 280);

/// What a verdict stands on: while all of it is as it was, so is the verdict.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Judged {
    pub image: ImageId,
    /// The policy in force: see [`crate::policy::active`]; 0: no verdict stands.
    pub word: u64,
    /// Nanoseconds since boot.
    pub until_ns: u64,
    /// Effective uid and gid, where the policy asks for one.
    pub uid: u32,
    pub gid: u32,
    /// Id of the cgroup, where the policy asks for it.
    pub cgroup: u64,
    /// Bits of [`crate::policy::flags`]: what the policy asks for.
    pub asks: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<Judged>() == 64);

/// The kernel side's own account of a datagram destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DestinationState {
    /// Payload bytes.
    pub sent: u64,
    pub received: u64,
    pub flow: u32,
    /// 1: its first datagram has no outcome yet.
    pub pending: u32,
}

const _: () = assert!(size_of::<DestinationState>() == 24);

/// Names one socket's datagrams to one destination (maps `DESTINATIONS` and
/// `SCANS`).
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
///
/// [`crate::event::kind::USE`]: an image has sent on a socket that another one
/// opened. [`crate::event::kind::ACCEPT`]: an image has accepted a connection;
/// its `source` is the socket's own end, its `destination` the peer.
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
    /// Of the policy that judged it; 0: none did.
    pub generation: u64,
    /// One of [`crate::policy::verdict`].
    pub verdict: u32,
    /// The index of the rule that decided, or [`crate::policy::NO_RULE`].
    pub rule: u32,
    /// The first audit rule passed on the way, or [`crate::policy::NO_RULE`].
    pub audit: u32,
    /// One of [`crate::policy::unknown`].
    pub unknown: u32,
}

const _: () = assert!(size_of::<Attempt>() == 224);

/// [`crate::event::kind::OUTCOME`]: what became of an attempt.
///
/// [`crate::event::kind::WIRE`]: its packets are addressed to another host than
/// was asked for (source routing): `source` is that address.
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

/// Payload bytes of one flow so far.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Counts {
    pub sent: u64,
    pub received: u64,
    /// The flow counted; of the other flows of the socket, the map of
    /// destinations knows.
    pub flow: u32,
    /// Bits of [`flags`]: what of this is not known.
    pub flags: u32,
}

const _: () = assert!(size_of::<Counts>() == 24);

/// [`crate::event::kind::CLOSE`]: a connection, or a datagram socket with all
/// its flows, has ended. A named flow from [`Hook::SockRelease`] has lost its
/// last descriptor: TCP itself goes on until its state is CLOSE.
///
/// [`crate::event::kind::COUNTS_ROW`]: what a socket that lives on has counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Close {
    pub header: Header,
    pub cookie: u64,
    /// The flow that ended; 0: every flow of the socket.
    pub flow: u32,
    /// A [`Hook`].
    pub hook: u32,
    pub counts: Counts,
}

const _: () = assert!(size_of::<Close>() == 56);

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

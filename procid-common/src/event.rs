//! Header, kinds and loss causes of what the kernel side writes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First field of every event.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u32,
    /// Bytes of the whole event, this header included.
    pub len: u32,
    /// Nanoseconds since boot, suspend included (`bpf_ktime_get_boot_ns`).
    pub boot_ns: u64,
}

const _: () = assert!(size_of::<Header>() == 16);

/// Event kinds: one gapped block per hook family; a number is never reused.
pub mod kind {
    pub const FORK: u32 = 0x101;
    pub const EXEC: u32 = 0x102;
    pub const EXIT: u32 = 0x103;
    /// Row of the task iterator, with the layout of an exec event.
    pub const TASK_ROW: u32 = 0x110;

    pub const ATTEMPT: u32 = 0x201;
    pub const OUTCOME: u32 = 0x202;
    pub const CLOSE: u32 = 0x203;
    /// An image has used a socket for the first time.
    pub const USE: u32 = 0x204;
    pub const ACCEPT: u32 = 0x205;
    /// The address on the wire is not the one asked for.
    pub const WIRE: u32 = 0x206;
    /// Row of the file iterator: a socket and a process that holds it.
    pub const SOCKET_ROW: u32 = 0x210;
    /// Row of the file iterator: the inode state behind one descriptor.
    pub const FILE_ROW: u32 = 0x211;
    /// Row of the socket storage iterator: bytes so far.
    pub const COUNTS_ROW: u32 = 0x212;
    /// A DNS answer has reached a socket.
    pub const ANSWER: u32 = 0x220;

    /// Row of the task iterator: what the policy says of a process.
    pub const ASKED_ROW: u32 = 0x301;
    /// Row of the file iterator: what it says of an open connection.
    pub const OPEN_ROW: u32 = 0x302;
}

/// Why something was not recorded: index into the per-CPU array `LOSSES`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The ring buffer had no room for a process event.
    RingProcess = 0,
    /// The ring buffer had no room for a connection event.
    RingConnection = 1,
    /// The map of live images was full.
    ImagesFull = 2,
    /// Socket storage could not be created (an owner can exhaust it).
    TagMissing = 3,
    /// The map of datagram destinations refused an entry.
    DestinationsFull = 4,
    /// A kernel structure could not be read.
    Unreadable = 5,
    /// The map of connects in progress refused an entry.
    ConnectsFull = 6,
    /// The map of sends and receives under way refused an entry: its bytes
    /// are in no flow.
    ActsFull = 7,
    /// The ring of denials had no room: the call was denied all the same.
    RingDenial = 8,
    /// A table that a decision needs had no room: `on_overflow` decided.
    PolicyOverflow = 9,
    /// The ring of DNS answers had no room.
    RingAnswer = 10,
}

/// Hooks with a second program, for where the kernel skips the first: index
/// into the per-CPU array `REPEATS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Twice {
    Exec = 0,
    Exit = 1,
}

impl Twice {
    pub const ALL: [Self; 2] = [Self::Exec, Self::Exit];

    /// The names of the two programs.
    pub const fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Exec => ["process_exec", "process_exec_again"],
            Self::Exit => ["process_exit", "process_exit_again"],
        }
    }
}

impl Loss {
    pub const ALL: [Self; 11] = [
        Self::RingProcess,
        Self::RingConnection,
        Self::ImagesFull,
        Self::TagMissing,
        Self::DestinationsFull,
        Self::Unreadable,
        Self::ConnectsFull,
        Self::ActsFull,
        Self::RingDenial,
        Self::PolicyOverflow,
        Self::RingAnswer,
    ];

    /// The cause as records and `procid status` print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingProcess => "ring-full-process",
            Self::RingConnection => "ring-full-connection",
            Self::ImagesFull => "images-full",
            Self::TagMissing => "socket-storage-missing",
            Self::DestinationsFull => "destinations-full",
            Self::Unreadable => "kernel-field-unreadable",
            Self::ConnectsFull => "connects-full",
            Self::ActsFull => "acts-full",
            Self::RingDenial => "ring-full-denial",
            Self::PolicyOverflow => "policy-overflow",
            Self::RingAnswer => "ring-full-answer",
        }
    }
}

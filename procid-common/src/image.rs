//! What names a process image, what it may do, and the file it was run from.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One process image on this boot of this kernel.
///
/// `start_boottime` of the thread group's leader and `tgid` name the process
/// even after its pid was given to another (`de_thread` hands the leader's
/// start time to a thread that execs); `self_exec_id`, raised by every exec,
/// names the image within it. All three live in `task_struct`, so that a
/// restarted agent computes the same identity for a process that lived on.
///
/// All zero means "not known".
///
/// - `self_exec_id`: <https://github.com/torvalds/linux/blob/v6.12/fs/exec.c#L1420>
/// - `start_boottime` in `de_thread`: <https://github.com/torvalds/linux/blob/v6.12/fs/exec.c#L1107>
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct ImageId {
    /// Nanoseconds since boot at which the thread group's leader was created.
    pub start_boottime: u64,
    pub self_exec_id: u64,
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<ImageId>() == 24);

impl ImageId {
    pub const UNKNOWN: Self = Self {
        start_boottime: 0,
        self_exec_id: 0,
        tgid: 0,
        reserved: 0,
    };

    pub const fn is_known(&self) -> bool {
        self.tgid != 0
    }
}

/// Credentials at one moment, as ids of the initial user namespace.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub euid: u32,
    pub egid: u32,
    /// Audit login uid; `u32::MAX` when none was set.
    pub loginuid: u32,
    /// Audit session id; `u32::MAX` when none was set.
    pub sessionid: u32,
}

const _: () = assert!(size_of::<Credentials>() == 24);

/// The state of an inode: two reads that agree on every field have read the
/// same bytes, as far as the file system reports its changes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FileState {
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    pub ctime_sec: i64,
    pub mtime_sec: i64,
    pub ctime_nsec: u32,
    pub mtime_nsec: u32,
    /// `super_block.s_dev`, in the kernel's encoding: `major << 20 | minor`.
    pub dev: u32,
    /// `inode.i_generation`: tells an inode from the next one of its number.
    pub generation: u32,
}

const _: () = assert!(size_of::<FileState>() == 48);

impl FileState {
    pub const fn major(&self) -> u32 {
        self.dev >> 20
    }

    pub const fn minor(&self) -> u32 {
        self.dev & ((1 << 20) - 1)
    }
}

/// Names a directory's inode.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Directory {
    /// Inode number; 0: unknown.
    pub ino: u64,
    pub dev: u32,
    pub generation: u32,
}

const _: () = assert!(size_of::<Directory>() == 16);

impl Directory {
    /// Whether a file in this state is that directory.
    pub const fn is(&self, file: &FileState) -> bool {
        self.ino != 0
            && self.ino == file.ino
            && self.dev == file.dev
            && self.generation == file.generation
    }
}

/// Flags of an image and of the file behind it.
pub mod flags {
    /// The file had no name left in its file system when it was run.
    pub const DELETED: u32 = 1 << 0;
    /// The file was made by `memfd_create`.
    pub const MEMFD: u32 = 1 << 1;
    /// The file is on overlayfs.
    pub const OVERLAY: u32 = 1 << 2;
    /// A kernel thread: it has no executable.
    pub const KTHREAD: u32 = 1 << 3;
    /// The kernel will give the next change of this file a ctime of its own
    /// (multigrain timestamps, 6.13), so that no rewrite can hide in a tick:
    /// <https://docs.kernel.org/filesystems/multigrain-ts.html>.
    pub const CTIME_QUERIED: u32 = 1 << 4;
    /// The path was cut: it is deeper or longer than the program follows.
    pub const PATH_TRUNCATED: u32 = 1 << 5;
    /// The arguments were cut at [`crate::process::ARGS_MAX`].
    pub const ARGS_TRUNCATED: u32 = 1 << 6;
    /// The arguments could not be read.
    pub const ARGS_UNREADABLE: u32 = 1 << 7;
    /// No executable could be read from this task.
    pub const NO_EXE: u32 = 1 << 8;
    /// The image was created by fork and has not called exec since.
    pub const FORKED: u32 = 1 << 9;
    /// This row was taken from a process that was already running.
    pub const SNAPSHOT: u32 = 1 << 10;
    /// The parent that the kernel names now may be a reaper, not the forker.
    pub const PARENT_UNSURE: u32 = 1 << 11;
    /// The path leads out of the process's own root directory.
    pub const PATH_UNREACHABLE: u32 = 1 << 12;
    /// The acting task is an io_uring worker of the process.
    pub const IO_WORKER: u32 = 1 << 13;
    /// The hash of this state of the file was known at exec, so that the
    /// agent was not woken to open it.
    pub const FILE_KNOWN: u32 = 1 << 14;
    /// Found running, and forked by init's image of then, or by a clone of it.
    pub const BY_INIT: u32 = 1 << 15;
}

/// What the agent tells the kernel side of a state of a file whose hash it
/// knows (map `KNOWN_FILES`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct KnownFile {
    pub sha256: [u8; 32],
    /// One of [`known`].
    pub kind: u32,
    /// 1: the exec gate has hashed it, and whoever executes it in this state
    /// was held up until then.
    pub gated: u32,
}

const _: () = assert!(size_of::<KnownFile>() == 40);

/// Kinds of known files.
pub mod known {
    /// The agent need not see it run.
    pub const PLAIN: u32 = 0;
    /// It runs scripts, which are found through the process.
    pub const INTERPRETER: u32 = 1;
}

/// What the kernel side keeps of each live image (map `IMAGES`).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ImageRecord {
    pub id: ImageId,
    /// The image that forked this process.
    pub parent: ImageId,
    /// The image this one replaced by exec; unknown for a forked image.
    pub previous: ImageId,
    pub exe: FileState,
    /// `super_block.s_magic` of the file system that holds the executable.
    pub fs_magic: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Inode number of the mount namespace in which its process called exec; 0:
    /// it is not known, or another user namespace than the initial one owns it.
    pub mntns: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<ImageRecord>() == 136);

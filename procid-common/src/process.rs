//! Events of fork, exec and exit.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    event::Header,
    image::{Credentials, Directory, FileState, ImageId, ImageRecord},
};

/// Bytes of a task's name, the terminating NUL included (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;
/// Most path components the kernel side follows from an executable to its root.
pub const PATH_DEPTH_MAX: usize = 48;
/// Bytes kept for an executable's path.
pub const PATH_MAX: usize = 4096;
/// Bytes kept of a command line.
pub const ARGS_MAX: usize = 8192;
/// Bytes kept of a script's path (`PATH_MAX` of the system calls).
pub const SCRIPT_MAX: usize = 4096;

/// Who a task was at one moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Actor {
    pub creds: Credentials,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Thread group id in the process's own pid namespace.
    pub vpid: u32,
    /// Cgroup v2 id; 0 when unknown.
    pub cgroup: u64,
    /// Inode of the process's network namespace; 0 when unknown.
    pub netns: u32,
    /// Inode of the process's mount namespace; 0 when unknown.
    pub mntns: u32,
    /// The thread's name: its own claim.
    pub comm: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<Actor>() == 64);

/// [`crate::event::kind::FORK`]: `image.id` was forked by `image.parent`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fork {
    pub header: Header,
    pub image: ImageRecord,
    /// The child.
    pub actor: Actor,
}

const _: () = assert!(size_of::<Fork>() == 216);

/// How the hash of an exec's file is known inside exec.
pub mod hashed {
    pub const NO: u32 = 0;
    /// The kernel computed it for this exec.
    pub const KERNEL: u32 = 1;
    /// The exec gate computed it before the exec was let go on.
    pub const GATED: u32 = 2;
}

/// [`crate::event::kind::EXEC`] and [`crate::event::kind::TASK_ROW`].
///
/// After it come `path_len` bytes of path components, each a byte of length
/// and that many bytes of name, *leaf first*; then `args_len` bytes of the
/// command line, arguments ended by NUL; then `script_len` bytes: the path that
/// was given to execve(2), where the kernel ran an interpreter of that file.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exec {
    pub header: Header,
    pub image: ImageRecord,
    pub actor: Actor,
    /// The file's hash where it is known; zero otherwise.
    pub sha256: [u8; 32],
    /// One of [`hashed`].
    pub hashed: u32,
    pub path_len: u32,
    pub args_len: u32,
    pub script_len: u32,
    /// The process's root directory at exec.
    pub root: Directory,
    /// Its working directory at exec.
    pub cwd: Directory,
    /// The script's inode as the LSM hook saw it; zero otherwise.
    pub script: FileState,
    pub script_fs_magic: u32,
    /// Bits of [`crate::image::flags`] that tell of the script.
    pub script_flags: u32,
}

const _: () = assert!(size_of::<Exec>() == 352);

/// [`crate::event::kind::EXIT`]: the last thread of the process has ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exit {
    pub header: Header,
    pub id: ImageId,
    /// As `wait(2)` reports it: exit status in bits 8–15, signal in bits 0–6.
    pub status: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<Exit>() == 48);

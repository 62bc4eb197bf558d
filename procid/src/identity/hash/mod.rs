//! SHA-256 of the file that ran.
//!
//! | module | holds |
//! | --- | --- |
//! | [`settle`] | when two sights of one inode state are sights of one content |
//! | [`cache`] | hashes by inode state |
//! | [`open`] | the file that ran, opened again |
//! | [`handle`] | an inode opened by its number, without a name |
//! | [`read`] | an open file, hashed, its state checked before and after |
//! | [`statx`] | an inode's state as stat(2) tells it, where no hook tells it |
//! | [`parked`] | hashes that wait for word that their image lived long enough |
//! | [`pool`] | the threads, their queue, the answers |

use std::{io, os::fd::BorrowedFd, sync::Arc};

use procid_common::image::{FileState, ImageId};

pub mod cache;
pub mod handle;
pub mod open;
pub mod parked;
pub mod pool;
pub mod read;
pub mod settle;
pub mod statx;

/// How a hash is known: see the contract of `procid.hash.grade`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// IMA measured the file inside exec.
    Kernel,
    /// Hashed before the exec was let go on.
    Gated,
    /// Hashed later from the same inode, whose state matches what the kernel
    /// saw at exec, before and after the read.
    Verified,
    /// Of a script: read from the file that its name led to, which has not
    /// changed since before the exec. Not proven to be what was interpreted.
    Named,
}

impl Grade {
    /// As `procid.hash.grade` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Gated => "gated",
            Self::Verified => "verified",
            Self::Named => "named",
        }
    }

    /// The grade of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Kernel, Self::Gated, Self::Verified, Self::Named]
            .into_iter()
            .find(|grade| grade.name() == name)
    }
}

/// Why there is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The file that ran can no longer be opened.
    Gone,
    /// The inode's state is no longer what it was at exec.
    Changed,
    TooLarge,
    Unreadable,
    /// Not hashed yet.
    Pending,
    /// A file system whose content the kernel does not control.
    UntrustedFs,
    /// The file had been modified within one clock tick before the exec and
    /// the image ended within that tick: a rewrite in between cannot be told.
    Unsettled,
    /// The image has no file: a kernel thread, or its exec was not seen.
    NoFile,
}

impl Missing {
    /// As `procid.hash.reason` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Changed => "changed",
            Self::TooLarge => "too-large",
            Self::Unreadable => "unreadable",
            Self::Pending => "pending",
            Self::UntrustedFs => "untrusted-fs",
            Self::Unsettled => "unsettled",
            Self::NoFile => "no-file",
        }
    }

    /// The reason of that name.
    pub fn named(name: &str) -> Option<Self> {
        [
            Self::Gone,
            Self::Changed,
            Self::TooLarge,
            Self::Unreadable,
            Self::Pending,
            Self::UntrustedFs,
            Self::Unsettled,
            Self::NoFile,
        ]
        .into_iter()
        .find(|missing| missing.name() == name)
    }
}

/// The SHA-256 of an image's file, or why it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileHash {
    Known { sha256: [u8; 32], grade: Grade },
    None(Missing),
}

impl FileHash {
    pub const fn is_pending(&self) -> bool {
        matches!(self, Self::None(Missing::Pending))
    }

    /// The kernel gives it at each exec.
    pub const fn is_given(&self) -> bool {
        matches!(
            self,
            Self::Known {
                grade: Grade::Kernel,
                ..
            }
        )
    }
}

/// What the kernel says of the inode behind an open descriptor, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    pub file: FileState,
    pub fs_magic: u32,
    /// Bits of [`procid_common::image::flags`].
    pub flags: u32,
}

/// Reads the state of an inode the way the exec hook reads it, so that the two
/// can be compared whatever the file system tells stat(2).
pub trait Inspect: Send + Sync {
    /// # Errors
    ///
    /// The kernel's refusal.
    fn inspect(&self, fd: BorrowedFd<'_>) -> io::Result<Inspected>;
}

/// A file to hash.
#[derive(Clone, Debug)]
pub struct Request {
    pub id: ImageId,
    /// What the kernel saw at exec.
    pub file: FileState,
    pub fs_magic: u32,
    pub flags: u32,
    /// Path at exec, in the process's own root.
    pub path: Option<Arc<[u8]>>,
    /// Mount namespace the path is to be read in.
    pub mntns: u32,
    /// Time of the exec (snapshot: of the look), nanoseconds since boot.
    pub exec_ns: u64,
    /// Whether the process was found running (its exec was not seen), so that
    /// the state given is the present one.
    pub snapshot: bool,
}

/// The end of one [`Request`].
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub id: ImageId,
    pub hash: FileHash,
}

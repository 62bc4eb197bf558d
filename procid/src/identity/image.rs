//! One process image.

use procid_common::{
    image::{FileState, ImageId},
    process::Actor,
};

use super::hash::FileHash;

/// Whether an image was seen being born or found alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    Live,
    Snapshot,
}

/// One process image, as the kernel told of it.
#[derive(Clone, Debug)]
pub struct Image {
    pub id: ImageId,
    /// The image that forked this process, where it is known.
    pub parent: Option<ImageId>,
    /// The image this one replaced by exec.
    pub previous: Option<ImageId>,
    /// State of the executable's inode as the kernel saw it at exec; `None`
    /// for kernel threads and images whose exec was not seen.
    pub exe: Option<FileState>,
    /// `super_block.s_magic` of the executable's file system; 0 when unknown.
    pub fs_magic: u32,
    /// Bits of [`procid_common::image::flags`].
    pub flags: u32,
    /// Path at exec, raw bytes, in the process's own root.
    pub path: Option<Vec<u8>>,
    /// Arguments at exec, raw bytes.
    pub args: Option<Vec<Vec<u8>>>,
    /// Credentials, ids and name when the image was born (or found).
    pub actor: Actor,
    /// Kernel time of birth (exec or fork), nanoseconds since boot.
    pub born_ns: u64,
    /// Kernel time of the end, nanoseconds since boot.
    pub ended_ns: Option<u64>,
    pub provenance: Provenance,
    pub hash: FileHash,
}

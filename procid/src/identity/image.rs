//! One process image.

use std::{num::NonZero, sync::Arc};

use procid_common::{
    image::{FileState, ImageId, flags},
    process::Actor,
};

use super::{
    entity::EntityId,
    hash::{FileHash, Request},
    script::Script,
};

/// Whether an image was seen being born or found alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    Live,
    Snapshot,
}

/// One process image, as the kernel told of it.
///
/// Path, arguments and script are shared by an image and all its forks.
#[derive(Clone, Debug)]
pub struct Image {
    pub id: ImageId,
    /// What the image is called outside this host.
    pub entity: EntityId,
    /// The image that forked this process, where it is known.
    pub parent: Option<ImageId>,
    /// The image this one replaced by exec.
    pub previous: Option<ImageId>,
    /// The image whose exec loaded this executable: itself, or for a fork the
    /// nearest ancestor that called exec and was known at the fork. Images of
    /// one root share one hash, which is asked for in the root's name.
    pub root: ImageId,
    /// State of the executable's inode as the kernel saw it at exec; `None`
    /// for kernel threads and images whose exec was not seen.
    pub exe: Option<FileState>,
    /// `super_block.s_magic` of the executable's file system; 0 when unknown.
    pub fs_magic: u32,
    /// Bits of [`procid_common::image::flags`].
    pub flags: u32,
    /// Path at exec, raw bytes, in the process's own root.
    pub path: Option<Arc<[u8]>>,
    /// Arguments at exec, raw bytes.
    pub args: Option<Arc<[Vec<u8>]>>,
    /// Credentials, ids and name when the image was born (or found).
    pub actor: Actor,
    /// Kernel time of birth (exec or fork), or of being found, nanoseconds
    /// since boot.
    pub born_ns: u64,
    /// Kernel time of the end, nanoseconds since boot.
    pub ended_ns: Option<u64>,
    pub provenance: Provenance,
    pub hash: FileHash,
    /// The script that this image interprets.
    pub script: Option<Arc<Script>>,
    /// `event.sequence` of the record that told of it; `None`: none has yet.
    pub sequence: Option<NonZero<u64>>,
}

impl Image {
    /// The question to the hash pool about this image's file; `None` where the
    /// answer is known already, or will be that of another image's question.
    pub fn request(&self) -> Option<Request> {
        if !self.hash.is_pending() || self.root != self.id {
            return None;
        }
        self.question()
    }

    /// What would be asked, or was, of the file it was run from.
    pub fn question(&self) -> Option<Request> {
        Some(Request {
            id: self.id,
            file: self.exe?,
            fs_magic: self.fs_magic,
            flags: self.flags,
            path: self.path.clone(),
            mntns: self.actor.mntns,
            exec_ns: self.born_ns,
            // A fork of an image that is not known: its exec was not seen either.
            snapshot: self.provenance == Provenance::Snapshot || self.flags & flags::FORKED != 0,
        })
    }

    /// Something of the files behind this image is still looked for.
    pub fn is_pending(&self) -> bool {
        let script = self.script.as_ref();
        self.hash.is_pending() || script.is_some_and(|script| script.is_pending())
    }

    /// A kernel thread, or a task in which the kernel side found no file.
    pub const fn has_no_file(&self) -> bool {
        self.flags & (flags::KTHREAD | flags::NO_EXE) != 0
    }
}

//! The script that an image interprets.
//!
//! The executable of `python x.py`, or of `./x.sh` with its `#!`, is the
//! interpreter. Which file it was told to read is known from the exec: from
//! the kernel where it chose the interpreter itself, else from the arguments.
//!
//! | module | holds |
//! | --- | --- |
//! | [`interpreters`] | which argument is the script |
//! | [`find`] | the file that its name leads to, in the process's own root |
//! | [`reader`] | the thread that finds and hashes scripts |

use std::sync::{Arc, OnceLock};

use procid_common::{
    image::{Directory, FileState, ImageId},
    process::Exec,
};

use super::{
    hash::{FileHash, Inspected, Missing},
    image::Provenance,
};
use crate::decode::ExecFacts;

pub mod find;
pub mod interpreters;
pub mod reader;

/// A script, shared by the image that was told to run it and all its forks.
#[derive(Debug)]
pub struct Script {
    /// As it was given: relative to the working directory at exec, perhaps.
    pub path: Vec<u8>,
    found: OnceLock<Found>,
}

/// What was found under the name of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub file: Option<FileState>,
    pub hash: FileHash,
}

impl Found {
    const fn nothing(why: Missing) -> Self {
        Self {
            file: None,
            hash: FileHash::None(why),
        }
    }
}

impl Script {
    /// The script of an exec, if it is one's.
    pub fn of(facts: &ExecFacts) -> Option<Arc<Self>> {
        let named = || {
            let args = facts.args.as_deref()?;
            interpreters::script_of(facts.path.as_deref()?, args).map(<[u8]>::to_vec)
        };
        let path = facts.script.clone().or_else(named)?;
        Some(Arc::new(Self {
            path,
            found: OnceLock::new(),
        }))
    }

    /// A script that was kept, and what was found of it.
    pub fn restored(path: Vec<u8>, found: Found) -> Self {
        let script = Self {
            path,
            found: OnceLock::new(),
        };
        if found.hash != FileHash::None(Missing::Pending) {
            script.settle(found);
        }
        script
    }

    /// What is known of its file; pending, where it is still looked for.
    pub fn found(&self) -> Found {
        self.found
            .get()
            .copied()
            .unwrap_or(Found::nothing(Missing::Pending))
    }

    pub fn is_pending(&self) -> bool {
        self.found.get().is_none()
    }

    /// Says what was found. The first word stands.
    pub fn settle(&self, found: Found) {
        // A second word is of no use.
        let _ = self.found.set(found);
    }
}

/// Where, and in what state, the script of an exec was.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub id: ImageId,
    pub root: Directory,
    /// Unknown of a process that was found running: it may have gone elsewhere
    /// since its exec.
    pub cwd: Directory,
    /// Mount namespace of the process.
    pub mntns: u32,
    /// The inode that the kernel saw at exec.
    pub seen: Option<Inspected>,
    /// The script was not read by the interpreter before this time,
    /// nanoseconds since boot: of the exec, or where that was not seen, of the
    /// process's start.
    pub from_ns: u64,
}

impl Place {
    pub fn of(event: &Exec, provenance: Provenance) -> Self {
        let live = provenance == Provenance::Live;
        Self {
            id: event.image.id,
            root: event.root,
            cwd: if live {
                event.cwd
            } else {
                Directory::default()
            },
            mntns: event.actor.mntns,
            seen: (event.script.ino != 0).then_some(Inspected {
                file: event.script,
                fs_magic: event.script_fs_magic,
                flags: event.script_flags,
            }),
            from_ns: if live {
                event.header.boot_ns
            } else {
                event.image.id.start_boottime
            },
        }
    }
}

/// A script to find and hash.
#[derive(Clone, Debug)]
pub struct Request {
    pub script: Arc<Script>,
    pub place: Place,
}

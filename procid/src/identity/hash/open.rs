//! The file that ran, opened again.
//!
//! First through `/proc/TGID/exe`, which leads to the inode whatever became of
//! its name; where the process is gone or runs another file by now, by the
//! path it had at exec, in its own mount namespace; where that namespace or
//! the name is gone too, by the inode's number ([`handle`]).
//!
//! A path leads to what its owner put there since: a device whose open has
//! effects, a FIFO that blocks, a symbolic link to either, a file of a file
//! system that answers when it likes. So every file is first taken with
//! `O_PATH`, which opens nothing, and compared with what the kernel saw at
//! exec; only that very inode is opened for reading. No symbolic link is
//! followed: the kernel's path of an executable has none. Nor is a file system
//! [waited for](quiet) that may not answer.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::{Mutex, PoisonError},
};

use procid_common::image::{FileState, flags};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, stat},
    io::Errno,
};

use super::{Inspect, Missing, Request, handle};
use crate::identity::quiet;

/// File systems whose content the kernel does not control: a server, a
/// hypervisor, another host or another process answers each read, and need
/// neither answer alike twice nor answer at all. virtiofs is a FUSE.
///
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/magic.h>,
/// and for those with a note the file system's own source.
const UNTRUSTED_FS: [u32; 14] = [
    0x6573_5546, // FUSE
    0x6969,      // NFS
    0x0102_1997, // 9P (V9FS)
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x517b,      // SMB
    0x00c3_6400, // CEPH
    0x5346_414f, // AFS
    0x6b41_4653, // AFS (AFS_FS_MAGIC)
    0x7375_7245, // CODA
    0x564c,      // NCP
    0x0116_1970, // GFS2: fs/gfs2, linux/gfs2_ondisk.h
    0x7461_636f, // OCFS2: fs/ocfs2/ocfs2_fs.h
    0x786f_4256, // vboxsf: fs/vboxsf/super.c
];

/// Mount namespaces for which the pid of a member is remembered.
const MEMBERS_MAX: usize = 1024;
/// Processes looked at in search of a member of a mount namespace.
const SCAN_MAX: usize = 8192;
/// Threads looked at in search of one that still has the executable.
const THREADS_MAX: usize = 64;

/// Whether what the kernel says of this file system's files can be relied on.
pub fn is_untrusted(fs_magic: u32) -> bool {
    UNTRUSTED_FS.contains(&fs_magic)
}

/// Finds files again.
#[derive(Debug)]
pub struct Opener {
    /// Inode of this process's own mount namespace; 0 when unknown.
    mntns: u32,
    /// A process in each foreign mount namespace that was looked for.
    members: Mutex<HashMap<u32, u32>>,
}

impl Opener {
    /// An opener that knows which mount namespace it is itself in.
    pub fn of_this_process() -> Self {
        Self {
            mntns: mntns_of("self").unwrap_or(0),
            members: Mutex::default(),
        }
    }

    /// An `O_PATH` descriptor of the inode that ran, in the state it had then.
    ///
    /// # Errors
    ///
    /// Why it cannot be had: gone, changed or unreadable.
    pub fn open(&self, inspector: &dyn Inspect, request: &Request) -> Result<OwnedFd, Missing> {
        match self.open_named(inspector, request) {
            Err(Missing::Gone) => {
                // Why a handle could not be had does not matter: it was the
                // last resort.
                let fd = handle::open_inode(&request.file, request.fs_magic)
                    .map_err(|_| Missing::Gone)?;
                unchanged(inspector, fd, &request.file)
            }
            outcome => outcome,
        }
    }

    /// The same, where a process or a path still leads to it.
    fn open_named(&self, inspector: &dyn Inspect, request: &Request) -> Result<OwnedFd, Missing> {
        let running = match running_exe(request.id.tgid) {
            Ok(fd) => match compare(inspector, &fd, &request.file)? {
                Sight::Same => return Ok(fd),
                Sight::Changed => return Err(Missing::Changed),
                Sight::Other => None,
            },
            Err(errno) => Some(errno),
        };
        // What had no name, or none that the kernel side could follow, is not
        // found by one.
        let named = request.flags & (flags::DELETED | flags::MEMFD) == 0;
        let Some(path) = request.path.as_deref().filter(|_| named) else {
            return Err(running.map_or(Missing::Gone, reason));
        };
        let fd = self.open_path(request.mntns, path).map_err(reason)?;
        unchanged(inspector, fd, &request.file)
    }

    fn open_path(&self, mntns: u32, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let member = if mntns == 0 {
            return Err(Errno::NOENT);
        } else if mntns == self.mntns {
            None
        } else {
            Some(self.member(mntns).ok_or(Errno::NOENT)?)
        };
        let root = match member {
            Some(pid) => format!("/proc/{pid}/root"),
            None => "/".to_owned(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        // Whose root was opened, should the pid have gone to another process?
        // Asked after the open, which holds the root from then on.
        if let Some(pid) = member
            && mntns_of(&pid.to_string()) != Some(mntns)
        {
            return Err(Errno::NOENT);
        }
        let mounts = match member {
            Some(pid) => format!("/proc/{pid}/mountinfo"),
            None => "/proc/self/mountinfo".to_owned(),
        };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        quiet::open(&root, Path::new(OsStr::from_bytes(path)), how, &mounts)
    }

    /// The pid of a live process in a mount namespace.
    fn member(&self, mntns: u32) -> Option<u32> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&pid) = members.get(&mntns)
            && mntns_of(&pid.to_string()) == Some(mntns)
        {
            return Some(pid);
        }
        members.remove(&mntns);
        let pid = fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .take(SCAN_MAX)
            .find(|pid| mntns_of(&pid.to_string()) == Some(mntns))?;
        if members.len() >= MEMBERS_MAX {
            members.clear();
        }
        members.insert(mntns, pid);
        Some(pid)
    }
}

/// Whether the process runs that file, in that state, now.
pub fn is_running(inspector: &dyn Inspect, request: &Request) -> bool {
    running_exe(request.id.tgid)
        .is_ok_and(|fd| compare(inspector, &fd, &request.file) == Ok(Sight::Same))
}

/// `/proc/TGID/exe`. A leader that has exited while its threads go on has none,
/// but its threads do.
fn running_exe(tgid: u32) -> rustix::io::Result<OwnedFd> {
    let open =
        |path: &str| rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let leader = open(&format!("/proc/{tgid}/exe"));
    if !matches!(leader, Err(Errno::NOENT)) {
        return leader;
    }
    let Ok(threads) = fs::read_dir(format!("/proc/{tgid}/task")) else {
        return leader;
    };
    threads
        .take(THREADS_MAX)
        .filter_map(|entry| Some(entry.ok()?.path().join("exe")))
        .find_map(|path| open(path.to_str()?).ok())
        .ok_or(Errno::NOENT)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// The inode, in the state it had at exec.
    Same,
    /// The inode, in another state.
    Changed,
    /// Another inode.
    Other,
}

fn compare(inspector: &dyn Inspect, fd: &OwnedFd, file: &FileState) -> Result<Sight, Missing> {
    let now = inspector
        .inspect(fd.as_fd())
        .map_err(|_| Missing::Unreadable)?
        .file;
    Ok(if now == *file {
        Sight::Same
    } else if (now.dev, now.ino, now.generation) == (file.dev, file.ino, file.generation) {
        Sight::Changed
    } else {
        Sight::Other
    })
}

/// The descriptor, if it is of that file in that state.
fn unchanged(inspector: &dyn Inspect, fd: OwnedFd, file: &FileState) -> Result<OwnedFd, Missing> {
    match compare(inspector, &fd, file)? {
        Sight::Same => Ok(fd),
        Sight::Changed => Err(Missing::Changed),
        Sight::Other => Err(Missing::Gone),
    }
}

/// Why a file cannot be had, from the errno of the attempt.
fn reason(errno: Errno) -> Missing {
    match errno {
        // No such name, or one that leads to something else now.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::SRCH => Missing::Gone,
        _ => Missing::Unreadable,
    }
}

fn mntns_of(pid: &str) -> Option<u32> {
    stat(format!("/proc/{pid}/ns/mnt"))
        .ok()
        .and_then(|stat| u32::try_from(stat.st_ino).ok())
}

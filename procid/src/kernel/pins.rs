//! Pins: what keeps a policy enforced when the agent is killed.
//!
//! An agent that has a policy in force keeps its links in a directory of its
//! own below [`ROOT`], and with them the maps that a later agent reads:
//!
//! ```text
//! /sys/fs/bpf/procid/l4f1c…_c0_t1b2e…/links/connect4
//!                    │      │  │     /maps/ACTIVE
//!                    │      │  └ when it was made, nanoseconds since boot
//!                    │      └ id of the cgroup it watches; 0: the root
//!                    └ hash of the eBPF object: layout of the maps
//! ```
//!
//! It holds a lock on that directory, which the kernel lets go of when the
//! agent ends however it ends. A directory that nobody has locked is that of an
//! agent that was killed, or was told to keep its policy.
//!
//! A new agent never uses the programs of an old one. It attaches its own
//! beside them, takes over what they know of sockets, puts its policy in force,
//! and then removes them: at no moment is nothing enforced, whatever layout the
//! old maps have.
//!
//! - Pinning: <https://docs.kernel.org/bpf/libbpf/libbpf_naming_convention.html>,
//!   <https://docs.ebpf.io/linux/concepts/pinning/>
//! - A link is detached with its last reference:
//!   <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/syscall.c#L3085>

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, MetadataExt as _},
        },
    },
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, Map, MapData},
    programs::links::FdLink,
};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use super::OBJECT;
use crate::identity::hash::settle::boot_now_ns;

/// Where the BPF file system is mounted.
const BPFFS: &str = "/sys/fs/bpf";
/// Where all agents of a host keep their pins.
pub(super) const ROOT: &str = "/sys/fs/bpf/procid";
const LINKS: &str = "links";
const MAPS: &str = "maps";

/// The maps that a later agent reads.
pub(super) const KEPT_MAPS: [&str; 5] = ["ACTIVE", "HEADS", "TAGS", "IMAGE_HASHES", "LINEAGES"];

/// The name of a directory of pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    layout: u64,
    cgroup: u64,
    made_ns: u64,
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('_');
        let mut number = |letter: char| {
            let digits = parts.next()?.strip_prefix(letter)?;
            u64::from_str_radix(digits, 16).ok()
        };
        let name = Self {
            layout: number('l')?,
            cgroup: number('c')?,
            made_ns: number('t')?,
        };
        parts.next().is_none().then_some(name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            layout,
            cgroup,
            made_ns,
        } = self;
        write!(f, "l{layout:x}_c{cgroup:x}_t{made_ns:x}")
    }
}

/// What this procid's maps look like: any other eBPF object may have others.
fn layout() -> u64 {
    let hash = Sha256::digest(OBJECT);
    hash.iter()
        .take(8)
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// What an agent that has ended left; locked by this one meanwhile.
#[derive(Debug)]
pub(super) struct Left {
    path: PathBuf,
    name: Name,
    _lock: File,
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Left {
    /// Its maps are laid out as this procid's are.
    pub(super) fn is_alike(&self) -> bool {
        self.name.layout == layout()
    }

    /// One of [`KEPT_MAPS`].
    pub(super) fn map(&self, name: &str) -> io::Result<MapData> {
        MapData::from_pin(self.path.join(MAPS).join(name)).map_err(io::Error::other)
    }

    /// The word of [`procid_common::policy::active`] in it.
    pub(super) fn active(&self) -> io::Result<u64> {
        let map = Array::<_, u64>::try_from(Map::Array(self.map("ACTIVE")?));
        let map = map.map_err(io::Error::other)?;
        map.get(&0, 0).map_err(io::Error::other)
    }

    /// Ends what it enforces, and removes its pins. The kernel detaches the
    /// programs a little later.
    pub(super) fn remove(self) -> io::Result<()> {
        let off = || -> io::Result<()> {
            let map = Array::<_, u64>::try_from(Map::Array(self.map("ACTIVE")?));
            let mut map = map.map_err(io::Error::other)?;
            map.set(0, 0, 0).map_err(io::Error::other)
        };
        if let Err(error) = off() {
            let at = self.path.display();
            tracing::debug!("{at} enforces until its programs are detached: {error}");
        }
        fs::remove_dir_all(&self.path)
    }
}

/// What is below [`ROOT`].
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Of agents that have ended, the oldest first.
    pub(super) left: Vec<Left>,
    /// Of agents that run.
    pub(super) alive: Vec<PathBuf>,
    /// Those of them that are protected: nobody else may look at their pins.
    pub(super) protected: usize,
    /// What no procid has made.
    pub(super) strange: Vec<PathBuf>,
}

/// Looks for the pins of agents that watch this cgroup; `None`: of all.
pub(super) fn find(cgroup: Option<u64>) -> io::Result<Found> {
    let mut found = Found::default();
    let entries = match fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let Some(name) = entry.file_name().to_str().and_then(Name::parse) else {
            found.strange.push(path);
            continue;
        };
        if cgroup.is_some_and(|cgroup| cgroup != name.cgroup) {
            continue;
        }
        match lock(&path) {
            Ok(Some(lock)) => found.left.push(Left {
                path,
                name,
                _lock: lock,
            }),
            Ok(None) => found.alive.push(path),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if is_protected(&error) => {
                found.alive.push(path);
                found.protected += 1;
            }
            Err(error) => return Err(error),
        }
    }
    found.left.sort_by_key(|left| left.name.made_ns);
    Ok(found)
}

/// `None`: somebody else holds the lock.
fn lock(directory: &Path) -> io::Result<Option<File>> {
    let file = File::open(directory)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `EPERM`, where who is not root gets `EACCES`.
fn is_protected(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

/// An agent's own directory of pins.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    _lock: File,
    /// Every pin, by its inode.
    made: BTreeMap<PathBuf, u64>,
}

impl Pins {
    /// Makes the directory, and pins the maps.
    ///
    /// # Errors
    ///
    /// There is no BPF file system, or the kernel's refusal.
    pub(super) fn make(cgroup: u64, maps: &[(&'static str, OwnedFd)]) -> io::Result<Self> {
        let name = Name {
            layout: layout(),
            cgroup,
            made_ns: boot_now_ns(),
        };
        let directory = Path::new(ROOT).join(name.to_string());
        let make = |path: &Path| {
            DirBuilder::new().mode(0o700).create(path).or_else(|error| {
                let is_there = error.kind() == ErrorKind::AlreadyExists && path == Path::new(ROOT);
                if is_there { Ok(()) } else { Err(error) }
            })
        };
        make(Path::new(ROOT))?;
        make(&directory)?;
        let lock = lock(&directory)?.ok_or_else(|| io::Error::other("somebody has locked it"))?;
        let mut pins = Self {
            directory,
            _lock: lock,
            made: BTreeMap::new(),
        };
        let pin_all = |pins: &mut Self| -> io::Result<()> {
            for part in [MAPS, LINKS] {
                make(&pins.directory.join(part))?;
            }
            for (name, map) in maps {
                let path = pins.directory.join(MAPS).join(name);
                pin(std::os::fd::AsFd::as_fd(map), &path)?;
                pins.made.insert(path.clone(), fs::metadata(&path)?.ino());
            }
            Ok(())
        };
        match pin_all(&mut pins) {
            Ok(()) => Ok(pins),
            Err(error) => {
                pins.remove();
                Err(error)
            }
        }
    }

    /// Pins a link. Where the kernel refuses, the link is detached.
    pub(super) fn add(&mut self, name: &str, link: FdLink) -> io::Result<FdLink> {
        let path = self.directory.join(LINKS).join(name);
        let pinned = link.pin(&path).map_err(io::Error::other)?;
        self.made.insert(path.clone(), fs::metadata(&path)?.ino());
        Ok(pinned.into())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its directories, and every pin.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let parts = [LINKS, MAPS].map(|part| self.directory.join(part));
        let directories = [self.directory.clone()].into_iter().chain(parts);
        directories.chain(self.made.keys().cloned()).collect()
    }

    /// What is not as it was made, a sentence each.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut now = BTreeMap::new();
        for part in [MAPS, LINKS] {
            let entries = fs::read_dir(self.directory.join(part));
            for entry in entries.into_iter().flatten().flatten() {
                if let Ok(facts) = fs::symlink_metadata(entry.path()) {
                    now.insert(entry.path(), facts.ino());
                }
            }
        }
        let gone = self.made.keys().filter(|path| !now.contains_key(*path));
        let gone = gone.map(|path| {
            let path = path.display();
            format!("{path} was removed: what it held ends with this agent")
        });
        let strange = now.iter().filter_map(|(path, inode)| {
            let path_is = path.display();
            match self.made.get(path) {
                None => Some(format!("{path_is} was added by somebody else")),
                Some(made) if made != inode => {
                    Some(format!("{path_is} was replaced by somebody else"))
                }
                Some(_) => None,
            }
        });
        gone.chain(strange).collect()
    }

    /// Removes the pins: what they held ends with the agent.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            let at = self.directory.display();
            tracing::warn!("cannot remove {at}: {error}; 'procid unload' does it");
        }
        // Not empty where others have theirs.
        let _others = fs::remove_dir(ROOT);
    }
}

/// `BPF_OBJ_PIN`: <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h#L1440>
fn pin(map: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    const BPF_OBJ_PIN: libc::c_int = 6;

    /// The arm of `union bpf_attr` for it.
    #[repr(C)]
    struct ObjPin {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }

    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjPin {
        pathname: path.as_ptr() as u64,
        bpf_fd: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        file_flags: 0,
    };
    // SAFETY: `attr` is an initialised arm of `union bpf_attr` of the size
    // given; it and the path it points to outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_PIN,
            std::ptr::from_ref(&attr),
            size_of::<ObjPin>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Minimal systems do not mount the BPF file system.
pub(super) fn ensure_bpffs() {
    let is_mounted = rustix::fs::statfs(BPFFS)
        .is_ok_and(|facts| u64::try_from(facts.f_type) == Ok(BPF_FS_MAGIC));
    /// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/magic.h#L87>
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    if is_mounted || !Path::new(BPFFS).exists() {
        return;
    }
    let flags = rustix::mount::MountFlags::empty();
    if let Err(error) = rustix::mount::mount("bpf", BPFFS, "bpf", flags, None) {
        tracing::warn!(%error, "the BPF file system could not be mounted");
    }
}

/// What [`unload`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unloaded {
    /// Sets of programs that were removed.
    pub removed: usize,
    /// Those that agents which run hold.
    pub alive: usize,
    /// Those of them that are protected.
    pub protected: usize,
    /// What procid has not made, and has left.
    pub strange: usize,
}

/// Removes what agents that have ended left pinned; those that watch this
/// cgroup only, if one is given.
///
/// # Errors
///
/// What cannot be read or removed.
pub fn unload(cgroup: Option<&Path>) -> io::Result<Unloaded> {
    let id = cgroup.map(|path| {
        let id = || {
            let directory = File::open(path)?;
            super::hooks::cgroup_of(path, &directory).map(|(id, _)| id)
        };
        id().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    });
    let found = find(id.transpose()?)?;
    let mut done = Unloaded {
        removed: 0,
        alive: found.alive.len(),
        protected: found.protected,
        strange: found.strange.len(),
    };
    for left in found.left {
        left.remove()?;
        done.removed += 1;
    }
    // Not empty where agents run.
    let _others = fs::remove_dir(ROOT);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_was_written() {
        let name = Name {
            layout: 0x0123_4567_89ab_cdef,
            cgroup: 0,
            made_ns: 77,
        };
        assert_eq!(Name::parse(&name.to_string()), Some(name));
        for strange in ["", "maps", "l1_c2", "l1_c2_t3_", "l1_c2_tz", "x1_c2_t3"] {
            assert_eq!(Name::parse(strange), None, "{strange}");
        }
    }
}

//! The file that a script's name leads to.
//!
//! The name is the process's: absolute names start at its root, relative ones
//! at its working directory, and no symbolic link leads out of its root. Both
//! directories are opened through /proc, or where the process has ended by
//! their number, and must be the inodes that the kernel saw at exec, so that
//! neither chdir(2) since nor another process of the same pid misleads. Everything is taken with `O_PATH`, which opens nothing.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use procid_common::image::Directory;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, readlink, stat},
    io::Errno,
};

use super::{Place, Request};
use crate::identity::{
    hash::{Inspect, Missing, handle},
    quiet,
};

/// Names that /proc/self would turn into files of the agent's own.
const OWN_DESCRIPTORS: [&[u8]; 2] = [b"/dev/fd/", b"/proc/self/fd/"];

/// An `O_PATH` descriptor of the file that the script's name leads to now.
///
/// # Errors
///
/// Gone, or unreadable.
pub fn open(inspector: &dyn Inspect, request: &Request) -> Result<OwnedFd, Missing> {
    let place = &request.place;
    let path = Path::new(OsStr::from_bytes(&request.script.path));
    let tgid = place.id.tgid;
    if let Some((number, rest)) = own_descriptor(&request.script.path) {
        root_of(inspector, place)?;
        let own = openat(
            CWD,
            format!("/proc/{tgid}/fd/{number}"),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(reason)?;
        return match rest {
            [] => Ok(own),
            rest => below(place, &own, Path::new(OsStr::from_bytes(rest))).map_err(reason),
        };
    }
    if path.is_absolute() {
        return inside(place, &root_of(inspector, place)?, path).map_err(reason);
    }
    let cwd = cwd_of(inspector, place)?;
    match below(place, &cwd, path) {
        // It leads up, or an absolute link is in it.
        Err(Errno::XDEV) => {
            let root = root_of(inspector, place)?;
            let name = name_in(&root, &cwd).ok_or(Missing::Gone)?;
            let again = inside(place, &root, &name).map_err(reason)?;
            let state = inspector
                .inspect(again.as_fd())
                .map_err(|_| Missing::Gone)?;
            if !place.cwd.is(&state.file) {
                return Err(Missing::Gone);
            }
            inside(place, &root, &name.join(path)).map_err(reason)
        }
        outcome => outcome.map_err(reason),
    }
}

/// Cuts `/dev/fd/3/rest` into 3 and `rest`: what execveat(2) calls a file
/// below a descriptor.
fn own_descriptor(path: &[u8]) -> Option<(u32, &[u8])> {
    let rest = OWN_DESCRIPTORS
        .iter()
        .find_map(|prefix| path.strip_prefix(*prefix))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    match &rest[digits..] {
        [] => Some((number, &[])),
        [b'/', below @ ..] => Some((number, below)),
        _ => None,
    }
}

/// The process's root; where it has ended, this process's own if that was it.
fn root_of(inspector: &dyn Inspect, place: &Place) -> Result<OwnedFd, Missing> {
    let theirs = format!("/proc/{}/root", place.id.tgid);
    directory(inspector, &theirs, &place.root).or_else(|missing| {
        if is_mounted_here(place) {
            directory(inspector, "/", &place.root)
        } else {
            Err(missing)
        }
    })
}

/// Its working directory; where it has ended, that inode by its number.
fn cwd_of(inspector: &dyn Inspect, place: &Place) -> Result<OwnedFd, Missing> {
    let theirs = format!("/proc/{}/cwd", place.id.tgid);
    directory(inspector, &theirs, &place.cwd).or_else(|missing| {
        if place.cwd.ino == 0 || !is_mounted_here(place) {
            return Err(missing);
        }
        let fd = handle::open_directory(&place.cwd).map_err(|_| missing)?;
        expect(inspector, fd, &place.cwd)
    })
}

/// Whether the process had the mounts that this one has.
fn is_mounted_here(place: &Place) -> bool {
    stat("/proc/self/ns/mnt").is_ok_and(|mine| mine.st_ino == u64::from(place.mntns))
}

fn directory(
    inspector: &dyn Inspect,
    path: &str,
    expected: &Directory,
) -> Result<OwnedFd, Missing> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::empty()).map_err(reason)?;
    expect(inspector, fd, expected)
}

fn expect(inspector: &dyn Inspect, fd: OwnedFd, expected: &Directory) -> Result<OwnedFd, Missing> {
    let state = inspector
        .inspect(fd.as_fd())
        .map_err(|_| Missing::Unreadable)?;
    if expected.is(&state.file) {
        Ok(fd)
    } else {
        Err(Missing::Gone)
    }
}

fn inside(place: &Place, root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    quiet::open(root, path, how, &mounts_of(place))
}

fn below(place: &Place, directory: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    quiet::open(directory, path, how, &mounts_of(place))
}

/// The mounts that the process has, or had.
fn mounts_of(place: &Place) -> String {
    match is_mounted_here(place) {
        true => "/proc/self/mountinfo".to_owned(),
        false => format!("/proc/{}/mountinfo", place.id.tgid),
    }
}

/// The name of a directory in a root, as the kernel tells both: to be checked.
fn name_in(root: &OwnedFd, directory: &OwnedFd) -> Option<PathBuf> {
    let name = |fd: &OwnedFd| {
        let link = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).ok()?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(
            link.into_bytes(),
        )))
    };
    let (root, directory) = (name(root)?, name(directory)?);
    let inner = directory.strip_prefix(&root).ok()?;
    Some(Path::new("/").join(inner))
}

fn reason(errno: Errno) -> Missing {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::SRCH | Errno::XDEV => Missing::Gone,
        _ => Missing::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_the_process_itself() {
        for (path, number, rest) in [
            ("/dev/fd/3", 3, ""),
            ("/dev/fd/63/a/b", 63, "a/b"),
            ("/proc/self/fd/0", 0, ""),
        ] {
            let expected = Some((number, rest.as_bytes()));
            assert_eq!(own_descriptor(path.as_bytes()), expected, "{path}");
        }
        for path in ["/dev/fd/3x", "/dev/fd/99999999999", "/dev/fdx/3", "3"] {
            assert_eq!(own_descriptor(path.as_bytes()), None, "{path}");
        }
    }
}

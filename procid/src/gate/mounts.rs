//! Which file systems a gate stands before.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags, open, statx};

use crate::identity::mounts::Mounts;

/// Mounts as the host's first process has them.
const HOST_MOUNTS: &str = "/proc/1/mountinfo";
const HOST_ROOT: &str = "/proc/1/root";
const OWN_MOUNTS: &str = "/proc/self/mountinfo";

/// The file systems of a gate.
#[derive(Clone, Debug)]
pub enum Marks {
    /// Every local one that the host's first process sees, also when it is
    /// mounted later.
    Host,
    /// Only those mounted at these places, once.
    Only(Vec<PathBuf>),
}

/// A descriptor on each file system to mark, and how many others there are
/// that programs could be run from.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) places: Vec<OwnedFd>,
    pub(super) unmarked: u64,
}

impl Marks {
    /// Finds the places to mark now.
    ///
    /// # Errors
    ///
    /// A mount table that cannot be read, a place of [`Self::Only`] that is not
    /// a mount point.
    pub(super) fn places(&self) -> io::Result<Places> {
        match self {
            Self::Host => of_host(),
            Self::Only(paths) => Ok(Places {
                places: paths
                    .iter()
                    .map(|path| mount_point(path))
                    .collect::<Result<_, _>>()?,
                unmarked: 0,
            }),
        }
    }

    /// What becomes readable for `POLLPRI` when there may be new places.
    ///
    /// # Errors
    ///
    /// Of open(2).
    pub(super) fn changes(&self) -> io::Result<Option<File>> {
        match self {
            Self::Host => File::open(HOST_MOUNTS)
                .map(Some)
                .map_err(|error| explain(HOST_MOUNTS, error)),
            Self::Only(_) => Ok(None),
        }
    }
}

fn explain(path: &str, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("cannot read {path}: {error}"))
}

/// Opens a place that a file system is mounted at. Anything else is refused:
/// marking it would hold up every program on the file system around it. So is
/// one that may not answer.
fn mount_point(path: &Path) -> io::Result<OwnedFd> {
    let refuse = |why: &str| {
        let message = format!("{why} {}", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    };
    let table = fs::read(OWN_MOUNTS).map_err(|error| explain(OWN_MOUNTS, error))?;
    let mounts = Mounts::parse(&table);
    if mounts.is_foreign(path) {
        return refuse("neither a hash nor an answer can be counted on at");
    }
    let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| explain(&path.display().to_string(), error))?;
    // DONT_SYNC: a symbolic link may have led to one all the same.
    let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(&place, c"", at, StatxFlags::TYPE | StatxFlags::MNT_ID)?;
    if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return refuse("no file system is mounted at");
    }
    if mounts.is_foreign_mount(stat.stx_mnt_id) {
        return refuse("neither a hash nor an answer can be counted on at");
    }
    Ok(place)
}

fn of_host() -> io::Result<Places> {
    let table = fs::read(HOST_MOUNTS).map_err(|error| explain(HOST_MOUNTS, error))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(HOST_ROOT, flags, Mode::empty()).map_err(|error| explain(HOST_ROOT, error))?;
    let mounts = Mounts::parse(&table);
    let mut found = Places {
        unmarked: mounts.unmarkable().len() as u64,
        ..Places::default()
    };
    for device in mounts.local() {
        match device.iter().find_map(|mount| mount.open(root.as_fd())) {
            Some(place) => found.places.push(place),
            None => found.unmarked += 1,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_a_mount_point_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = Marks::Only(vec![directory.path().to_owned()])
            .places()
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        let proc = Marks::Only(vec!["/proc".into()]).places().unwrap();
        assert_eq!(proc.places.len(), 1);
    }
}

//! Cgroups as directories: where they are mounted, what they are named, and
//! whose they are.

use std::{
    ffi::OsString,
    fmt, fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

use super::hash::handle::unescape;
use crate::records::escape::escape;

/// Finds cgroups; the kernel, but for tests.
pub trait Cgroups: fmt::Debug + Send {
    /// Where the cgroup of this id is.
    ///
    /// # Errors
    ///
    /// There is no such cgroup (any more), or it cannot be looked at.
    fn place(&self, cgroup: u64) -> io::Result<Place>;
}

/// The directories from below the hierarchy's root down to a cgroup, that one
/// included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(pub Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: Vec<u8>,
    /// The directory is the superuser's.
    pub is_roots: bool,
}

impl Place {
    /// A cgroup that is named from `hierarchy`.
    ///
    /// # Errors
    ///
    /// It cannot be looked at, or is outside of what is mounted there.
    pub fn of(hierarchy: &Path, cgroup: &Path) -> io::Result<Self> {
        let mut path = hierarchy.to_owned();
        let mut parts = Vec::new();
        for part in cgroup.components() {
            match part {
                Component::Normal(name) => {
                    path.push(name);
                    parts.push(Part {
                        name: name.as_bytes().to_vec(),
                        is_roots: fs::symlink_metadata(&path)?.uid() == 0,
                    });
                }
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::Error::other("it is outside of what is mounted"));
                }
            }
        }
        Ok(Self(parts))
    }

    /// The path from the hierarchy's root, made safe to print.
    pub fn path(&self) -> String {
        let mut path = Vec::new();
        for part in &self.0 {
            path.push(b'/');
            path.extend_from_slice(&part.name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        escape(&path).into_owned()
    }
}

/// Where cgroup v2 is mounted: hybrid hosts have it beside the v1 controllers.
pub fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let path = fields.nth(4)?;
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        let path = OsString::from_vec(unescape(path));
        (kind == b"cgroup2").then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_its_directories_and_whose_they_are() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a.slice/b\n.service");
        fs::create_dir_all(&inner).unwrap();
        let is_root = fs::metadata(&inner).unwrap().uid() == 0;
        let found = |path: &str| Place::of(root.path(), Path::new(path));
        let part = |name: &[u8], is_roots| Part {
            name: name.to_vec(),
            is_roots,
        };
        let place = found("/a.slice/b\n.service").unwrap();
        let name = b"b\n.service";
        assert_eq!(place.0, [part(b"a.slice", is_root), part(name, is_root)]);
        assert_eq!(place.path(), "/a.slice/b\\x0a.service");
        assert_eq!(found("/").unwrap().path(), "/");
        if is_root {
            std::os::unix::fs::chown(&inner, Some(65_534), None).unwrap();
            let place = found("/a.slice/b\n.service").unwrap();
            assert_eq!(place.0, [part(b"a.slice", true), part(name, false)]);
        }
        assert!(found("/gone").is_err());
        assert!(found("/../a.slice").is_err());
    }
}

//! Where the host has a path: the file system that holds it, and the names from
//! that file system's root down.
//!
//! The host's paths are those of the initial mount namespace, which is that of
//! process 1.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use rustix::io::Errno;

use self::mounts::Mounts;
use crate::identity::mounts::Mounts as AnyMounts;

mod mounts;

/// Symbolic links that one path may lead through, as in the kernel
/// ([path_resolution(7)](https://man7.org/linux/man-pages/man7/path_resolution.7.html)).
const LINKS_MAX: usize = 40;

/// A name inside a file system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// `super_block.s_dev`: `major << 20 | minor`.
    pub dev: u32,
    /// From the root of the file system down; none: that root itself.
    pub names: Vec<OsString>,
}

/// Finds the places of the host's absolute paths.
pub trait Places {
    /// Symbolic links are followed as far as the path exists; the rest need not
    /// exist (yet).
    ///
    /// # Errors
    ///
    /// The path is not absolute, or cannot be followed.
    fn place(&self, path: &Path) -> io::Result<Place>;

    /// The places of what is mounted below a directory: directories, and files
    /// that are mount points.
    ///
    /// # Errors
    ///
    /// As of [`Places::place`].
    fn mounts_below(&self, dir: &Path) -> io::Result<Vec<Place>>;

    /// The inode number of the initial mount namespace.
    ///
    /// # Errors
    ///
    /// It may not be looked at.
    fn namespace(&self) -> io::Result<u32>;
}

/// The host's paths, with the mounts there were when it was made: for one
/// compilation.
#[derive(Debug)]
pub struct HostPlaces {
    mounts: Mounts,
    /// A process in the initial mount namespace, below /proc.
    process: &'static str,
    /// Where what may not answer is mounted.
    foreign: Vec<PathBuf>,
    root: PathBuf,
}

impl HostPlaces {
    /// # Errors
    ///
    /// `/proc/1/mountinfo` cannot be read or is not understood.
    pub fn read() -> io::Result<Self> {
        let mounts = fs::read("/proc/1/mountinfo")?;
        // Mounts have numbers of their own: who sees the same ones is in the same
        // namespace, and has no need of /proc/1/root, which asks for
        // CAP_SYS_PTRACE.
        let own = fs::read("/proc/self/mountinfo")?;
        let (process, root) = if own == mounts {
            ("self", "/")
        } else {
            ("1", "/proc/1/root")
        };
        Ok(Self {
            foreign: AnyMounts::parse(&mounts).foreign_points(),
            mounts: Mounts::parse(&mounts)?,
            process,
            root: PathBuf::from(root),
        })
    }
}

impl Places for HostPlaces {
    fn place(&self, path: &Path) -> io::Result<Place> {
        self.mounts
            .place(&resolve(&self.root, path, &self.foreign)?)
    }

    fn mounts_below(&self, dir: &Path) -> io::Result<Vec<Place>> {
        Ok(self.mounts.below(&resolve(&self.root, dir, &self.foreign)?))
    }

    fn namespace(&self) -> io::Result<u32> {
        let link = format!("/proc/{}/ns/mnt", self.process);
        u32::try_from(fs::metadata(link)?.ino()).map_err(io::Error::other)
    }
}

/// Follows the symbolic links of an absolute path below `root`, as far as the
/// path exists, and not into one of the `foreign` directories: what lies there
/// is taken as it is written, for it may be waited for forever.
fn resolve(root: &Path, path: &Path, foreign: &[PathBuf]) -> io::Result<PathBuf> {
    if !path.is_absolute() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path is not absolute",
        ));
    }
    let mut found = PathBuf::from("/");
    // What is still to come, the next one last.
    let mut ahead = Vec::new();
    put(&mut ahead, path);
    let mut links = 0;
    let mut exists = true;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            found.pop();
            continue;
        }
        found.push(name);
        if !exists || foreign.iter().any(|point| found.starts_with(point)) {
            continue;
        }
        let here = root.join(found.strip_prefix("/").unwrap_or(&found));
        match fs::read_link(here) {
            Ok(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                if target.is_absolute() {
                    found = PathBuf::from("/");
                } else {
                    found.pop();
                }
                put(&mut ahead, &target);
            }
            Err(error) => match Errno::from_io_error(&error) {
                // Not a symbolic link.
                Some(Errno::INVAL) => {}
                Some(Errno::NOENT | Errno::NOTDIR) => exists = false,
                _ => return Err(error),
            },
        }
    }
    Ok(found)
}

/// Puts the names of a path before those that are ahead.
fn put(ahead: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    ahead.extend(names);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{major, minor};

    use super::*;

    fn resolved(root: &Path, path: &str) -> String {
        resolve(root, Path::new(path), &["/net".into()])
            .unwrap()
            .into_os_string()
            .into_string()
            .unwrap()
    }

    #[test]
    fn symbolic_links_are_followed_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("usr/bin")).unwrap();
        fs::create_dir_all(at("etc")).unwrap();
        fs::write(at("usr/bin/dash"), "").unwrap();
        symlink("usr/bin", at("bin")).unwrap();
        symlink("dash", at("usr/bin/sh")).unwrap();
        symlink("/usr/bin/sh", at("etc/shell")).unwrap();
        symlink("../../../../etc/shell", at("usr/bin/out")).unwrap();
        symlink("/opt/later", at("usr/bin/dangling")).unwrap();
        symlink("circle", at("circle")).unwrap();
        fs::create_dir(at("net")).unwrap();
        symlink("/usr", at("net/away")).unwrap();
        symlink("/net/away", at("usr/away")).unwrap();

        let root = root.path();
        assert_eq!(resolved(root, "/bin/sh"), "/usr/bin/dash");
        assert_eq!(resolved(root, "/etc/shell"), "/usr/bin/dash");
        assert_eq!(resolved(root, "/bin/out"), "/usr/bin/dash");
        assert_eq!(resolved(root, "/bin"), "/usr/bin");
        assert_eq!(resolved(root, "/"), "/");
        // What may not answer is not asked.
        assert_eq!(resolved(root, "/net/away/bin"), "/net/away/bin");
        assert_eq!(resolved(root, "/bin/../away"), "/net/away");
        assert_eq!(resolved(root, "/net/../bin/sh"), "/usr/bin/dash");
        // What is missing is taken as it is written.
        assert_eq!(resolved(root, "/bin/new/tool"), "/usr/bin/new/tool");
        assert_eq!(resolved(root, "/bin/dangling"), "/opt/later");
        assert_eq!(resolved(root, "/bin/sh/tool"), "/usr/bin/dash/tool");
        let looped = resolve(root, Path::new("/circle"), &[]).unwrap_err();
        assert_eq!(Errno::from_io_error(&looped), Some(Errno::LOOP));
        let relative = resolve(root, Path::new("bin/sh"), &[]).unwrap_err();
        assert_eq!(relative.kind(), io::ErrorKind::InvalidInput);
    }

    /// On a file system whose `st_dev` is `s_dev`.
    #[test]
    fn this_host_has_its_own_proc() {
        let places = HostPlaces::read().unwrap();
        let place = match places.place(Path::new("/proc/version")) {
            Ok(place) => place,
            // In another mount namespace than process 1, and not its owner.
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        };
        let file = fs::metadata(places.root.join("proc/version")).unwrap();
        assert_eq!(place.dev, major(file.dev()) << 20 | minor(file.dev()));
        assert_eq!(place.names, ["version"]);
        let link = fs::read_link(format!("/proc/{}/ns/mnt", places.process)).unwrap();
        let expected = format!("mnt:[{}]", places.namespace().unwrap());
        assert_eq!(link.to_str(), Some(&*expected));
    }
}

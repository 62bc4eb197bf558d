//! Cgroups by their ids.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use crate::identity::containers::{Cgroups, Place, hierarchy};

/// Type and length of the handle of a directory of kernfs: its id
/// (<https://github.com/torvalds/linux/blob/v6.12/include/linux/exportfs.h#L102>).
const FILEID_KERNFS: libc::c_int = 0xfe;
const ID_LEN: libc::c_uint = 8;

/// `struct file_handle`
/// ([open_by_handle_at(2)](https://man7.org/linux/man-pages/man2/open_by_handle_at.2.html)).
#[repr(C)]
struct Handle {
    len: libc::c_uint,
    kind: libc::c_int,
    id: u64,
}

/// The cgroups of the v2 hierarchy, as far as it is mounted here.
#[derive(Debug)]
pub(super) struct HostCgroups {
    root: PathBuf,
    mount: File,
}

impl HostCgroups {
    /// # Errors
    ///
    /// No cgroup v2 is mounted, or it cannot be opened.
    pub(super) fn open() -> io::Result<Self> {
        let root = hierarchy().ok_or_else(|| io::Error::other("no cgroup v2 is mounted"))?;
        Ok(Self {
            mount: File::open(&root)?,
            root,
        })
    }

    /// The directory of a cgroup. Asks for `CAP_DAC_READ_SEARCH`.
    fn directory(&self, id: u64) -> io::Result<OwnedFd> {
        let mut handle = Handle {
            len: ID_LEN,
            kind: FILEID_KERNFS,
            id,
        };
        // SAFETY: the handle is initialised, is as long as it says, and outlives
        // the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.mount.as_raw_fd(),
                &raw mut handle,
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl Cgroups for HostCgroups {
    fn place(&self, cgroup: u64) -> io::Result<Place> {
        let directory = self.directory(cgroup)?;
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        let path = path
            .strip_prefix(&self.root)
            .map_err(|_| io::Error::other("the cgroup is outside of what is mounted"))?;
        Place::of(&self.root, path)
    }
}

/// Where no cgroup v2 is mounted.
#[derive(Debug)]
pub(super) struct NoCgroups;

impl Cgroups for NoCgroups {
    fn place(&self, _: u64) -> io::Result<Place> {
        Err(io::Error::other("no cgroup v2 is mounted"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// As root, with cgroup v2; elsewhere the live tests show it.
    #[test]
    fn the_root_is_found_by_its_id() {
        let Ok(cgroups) = HostCgroups::open() else {
            return;
        };
        let id = fs::metadata(&cgroups.root).unwrap().ino();
        match cgroups.place(id) {
            Ok(place) => assert_eq!(place, Place::default()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert!(cgroups.place(u64::MAX).is_err());
    }
}

//! Whether anybody could write to a file without opening it.
//!
//! A shared mapping whose pages were written before can be written again
//! without a new ctime, so an unchanged state alone does not prove unchanged
//! bytes. But a file that nobody has open or mapped for writing can only be
//! written by who opens it first, and then its first write changes the ctime.
//! The kernel keeps that count for every inode (`i_writecount`), and grants a
//! read lease only where it is zero
//! ([`check_conflicting_open`](https://github.com/torvalds/linux/blob/v6.12/fs/locks.c)).
//!
//! So: at a time when the ctime is stable, no writer; the file read after; the
//! state unchanged after that. Whoever then executes it in that state executes
//! what was read. On overlayfs the count is that of the overlay's own inode,
//! and a mapping of the file below is not seen.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// `F_SETSIG` of fcntl(2).
const F_SETSIG: libc::c_int = 10;

/// What is known of a file's writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writers {
    None,
    Some,
    /// This file system knows no leases, or they are switched off
    /// (`fs.leases-enable`), or this thread has no `CAP_LEASE`.
    Unknown,
}

/// Looks for writers by taking a lease and giving it back.
///
/// Who opens the file for writing in between waits that long, or gets
/// `EWOULDBLOCK` if it wanted not to wait. `file` must not be shared with
/// another process.
///
/// # Errors
///
/// When a lease was taken and could not be given back.
pub(super) fn of(file: BorrowedFd<'_>) -> io::Result<Writers> {
    let fcntl = |command, argument: libc::c_int| {
        // SAFETY: these commands of fcntl(2) take a number, not a pointer.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
        if done < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    // Should somebody open the file for writing meanwhile, the kernel tells
    // the lease's owner, by SIGIO, which would end this process. SIGURG is
    // ignored unless somebody asks for it.
    fcntl(F_SETSIG, libc::SIGURG)?;
    match fcntl(libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => {
            fcntl(libc::F_SETLEASE, libc::F_UNLCK)?;
            Ok(Writers::None)
        }
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(Writers::Some),
        Err(_) => Ok(Writers::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn a_writer_is_seen_and_so_is_its_mapping() {
        let named = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(named.path(), vec![0; 4096]).unwrap();
        let path = named.into_temp_path();
        let file = File::open(&path).unwrap();
        assert_eq!(of(file.as_fd()).unwrap(), Writers::None);

        let writer = File::options().read(true).write(true).open(&path).unwrap();
        assert_eq!(of(file.as_fd()).unwrap(), Writers::Some);

        // SAFETY: a mapping at a place of the kernel's choice, of a file that
        // is long enough, and unmapped below with the same length.
        let mapping = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                4096,
                rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                &writer,
                0,
            )
        }
        .unwrap();
        drop(writer);
        assert_eq!(of(file.as_fd()).unwrap(), Writers::Some);
        // SAFETY: nothing refers to the mapping.
        unsafe { rustix::mm::munmap(mapping, 4096) }.unwrap();
        assert_eq!(of(file.as_fd()).unwrap(), Writers::None);
        // The lease is given back: this does not wait.
        drop(File::options().write(true).open(&path).unwrap());
    }

    #[test]
    fn what_knows_no_leases_is_unknown() {
        let directory = File::open("/").unwrap();
        assert_eq!(of(directory.as_fd()).unwrap(), Writers::Unknown);
    }
}

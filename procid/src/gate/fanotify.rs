//! The few calls of [fanotify(7)](https://man7.org/linux/man-pages/man7/fanotify.7.html)
//! that a gate needs.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A group of permission events. Whoever holds it must read and answer them:
/// each execve(2) on a marked file system waits until then. When the last
/// descriptor of a group is closed, the kernel allows all that wait
/// ([`fanotify_release`](https://github.com/torvalds/linux/blob/v6.12/fs/notify/fanotify/fanotify_user.c)).
#[derive(Debug)]
pub(super) struct Group(OwnedFd);

/// An execve(2) that waits for an answer.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The file, open for reading; reading it raises no events.
    pub(super) file: OwnedFd,
    /// The process that executes it.
    pub(super) pid: i32,
}

/// What one read of a group gave.
#[derive(Debug)]
pub(super) enum Event {
    Exec(Waiting),
    /// The kernel's queue was full: it let executions go on without asking.
    Overflow,
}

/// `struct fanotify_event_metadata`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Metadata {
    event_len: u32,
    version: u8,
    reserved: u8,
    metadata_len: u16,
    mask: u64,
    fd: i32,
    pid: i32,
}

const _: () = assert!(size_of::<Metadata>() == size_of::<libc::fanotify_event_metadata>());

/// `struct fanotify_response`.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct Response {
    fd: i32,
    response: u32,
}

impl Group {
    /// # Errors
    ///
    /// Of fanotify_init(2): `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` where the
    /// kernel was built without fanotify.
    pub(super) fn new() -> io::Result<Self> {
        // The queue stays bounded: beyond it the kernel allows without asking.
        let flags = libc::FAN_CLASS_CONTENT
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_UNLIMITED_MARKS;
        // NONBLOCK: anybody may hold a write lease on a file of his own, and to
        // wait for its end would hold up every execution. The kernel denies
        // that one instead, as it does what it cannot open here.
        let event_flags = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::fanotify_init(flags, event_flags.cast_unsigned()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// A group that another process made.
    pub(super) const fn received(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Asks for every execve(2) of a file on the file system that `place` lies
    /// on, whatever mount it goes through. Asking twice is asking once.
    ///
    /// # Errors
    ///
    /// Of fanotify_mark(2): `EINVAL` where the kernel has no permission events
    /// or this file system none.
    pub(super) fn mark(&self, place: BorrowedFd<'_>) -> io::Result<()> {
        // `place` is an `O_PATH` descriptor, which the call does not take as such.
        let path = CString::new(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
        // SAFETY: `path` is a string that lives through the call.
        let marked = unsafe {
            libc::fanotify_mark(
                self.0.as_raw_fd(),
                libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM,
                libc::FAN_OPEN_EXEC_PERM,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        };
        if marked < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Takes all marks away.
    ///
    /// # Errors
    ///
    /// Of fanotify_mark(2).
    pub(super) fn unmark(&self) -> io::Result<()> {
        // SAFETY: without a path, which a flush does not look at.
        let flushed = unsafe {
            libc::fanotify_mark(
                self.0.as_raw_fd(),
                libc::FAN_MARK_FLUSH | libc::FAN_MARK_FILESYSTEM,
                0,
                libc::AT_FDCWD,
                std::ptr::null(),
            )
        };
        if flushed < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The next event; `None` when there is none now, or its file has a write
    /// lease.
    ///
    /// One at a time, because the kernel denies the execution whose file it
    /// cannot open for want of a free descriptor: the caller keeps one free.
    ///
    /// # Errors
    ///
    /// Of read(2), when that execution has been answered by the kernel; and
    /// bytes that are not an event.
    pub(super) fn read(&self) -> io::Result<Option<Event>> {
        let mut bytes = [0; size_of::<Metadata>()];
        let len = match rustix::io::read(&self.0, &mut bytes) {
            Ok(len) => len,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let metadata = bytes
            .get(..len)
            .and_then(|bytes| Metadata::read_from_bytes(bytes).ok())
            .filter(|event| event.version == libc::FANOTIFY_METADATA_VERSION)
            .ok_or_else(|| io::Error::other("the kernel's fanotify events have another form"))?;
        if metadata.mask & libc::FAN_Q_OVERFLOW != 0 {
            return Ok(Some(Event::Overflow));
        }
        if metadata.fd < 0 {
            return Err(io::Error::other("an event of fanotify has no file"));
        }
        // SAFETY: the kernel has just given us this descriptor.
        let file = unsafe { OwnedFd::from_raw_fd(metadata.fd as RawFd) };
        Ok(Some(Event::Exec(Waiting {
            file,
            pid: metadata.pid,
        })))
    }

    /// Lets the execution go on.
    ///
    /// The kernel knows it by the number that the descriptor has in the process
    /// that read the event (`process_access_response`), so the answer goes out
    /// before the descriptor is closed, and nobody else can give it.
    ///
    /// # Errors
    ///
    /// Of write(2). The execution then still waits.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the descriptor is closed after the answer, and its number free again"
    )]
    pub(super) fn allow(&self, file: OwnedFd) -> io::Result<()> {
        let response = Response {
            fd: file.as_raw_fd(),
            response: libc::FAN_ALLOW,
        };
        match rustix::io::write(&self.0, response.as_bytes()) {
            // The process was killed while it waited.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

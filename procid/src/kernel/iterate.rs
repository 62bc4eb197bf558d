//! Reading iterators: the snapshot, and the inode behind a descriptor.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use procid_common::event::Header;
use rustix::thread::gettid;
use zerocopy::FromBytes as _;

use crate::{
    decode::{Event, decode},
    identity::hash::{Inspect, Inspected},
};

/// `BPF_LINK_CREATE`, `BPF_ITER_CREATE` and `BPF_TRACE_ITER`:
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h#L900>
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
const BPF_TRACE_ITER: u32 = 28;

/// The `link_create` arm of `union bpf_attr`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    padding: u32,
}

/// The `task` arm of `union bpf_iter_link_info` (6.1+).
#[repr(C)]
struct TaskInfo {
    tid: u32,
    pid: u32,
    pid_fd: u32,
    padding: u32,
}

/// The `map` arm of the same.
#[repr(C)]
struct MapInfo {
    map_fd: u32,
}

/// What an iterator goes over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over<'a> {
    /// Everything of its kind.
    All,
    Thread(u32),
    /// Every thread of a process.
    Process(u32),
    Map(BorrowedFd<'a>),
}

/// The `iter_create` arm of `union bpf_attr`.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// Calls bpf(2) with a command that returns a descriptor.
fn bpf_fd<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is an initialised arm of `union bpf_attr` of the size
    // given, and outlives the call; any pointer inside is to a live value.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts an iterator.
///
/// aya's `Iter::attach` takes no parameters, hence the calls by hand.
fn start(program: BorrowedFd<'_>, over: Over<'_>) -> io::Result<File> {
    let descriptor = |fd: i32| u32::try_from(fd).map_err(io::Error::other);
    let (thread, map);
    let (iter_info, iter_info_len) = match over {
        Over::All => (0, 0),
        Over::Thread(_) | Over::Process(_) => {
            let (tid, pid) = match over {
                Over::Thread(tid) => (tid, 0),
                Over::Process(pid) => (0, pid),
                Over::All | Over::Map(_) => (0, 0),
            };
            thread = TaskInfo {
                tid,
                pid,
                pid_fd: 0,
                padding: 0,
            };
            (std::ptr::from_ref(&thread) as u64, size_of::<TaskInfo>())
        }
        Over::Map(fd) => {
            map = MapInfo {
                map_fd: descriptor(fd.as_raw_fd())?,
            };
            (std::ptr::from_ref(&map) as u64, size_of::<MapInfo>())
        }
    };
    let link = bpf_fd(
        BPF_LINK_CREATE,
        &LinkCreate {
            prog_fd: descriptor(program.as_raw_fd())?,
            target_fd: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            iter_info,
            iter_info_len: u32::try_from(iter_info_len).map_err(io::Error::other)?,
            padding: 0,
        },
    )?;
    let iterator = bpf_fd(
        BPF_ITER_CREATE,
        &IterCreate {
            link_fd: descriptor(link.as_raw_fd())?,
            flags: 0,
        },
    )?;
    Ok(File::from(iterator))
}

/// Runs an iterator to its end and decodes its rows.
///
/// # Errors
///
/// The kernel's refusal, or rows that are not events.
pub(crate) fn rows(program: BorrowedFd<'_>, over: Over<'_>) -> io::Result<Vec<Event>> {
    let mut bytes = Vec::new();
    start(program, over)?.read_to_end(&mut bytes)?;
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let (header, _) = Header::read_from_prefix(rest)
            .map_err(|_| io::Error::other("an iterator's row is cut short"))?;
        let len = (header.len as usize).max(size_of::<Header>());
        let row = rest
            .get(..len)
            .ok_or_else(|| io::Error::other("an iterator's row is cut short"))?;
        events.push(decode(row).map_err(io::Error::other)?);
        rest = &rest[len..];
    }
    Ok(events)
}

/// Asks the kernel for the inode state behind our own descriptors.
#[derive(Debug)]
pub(crate) struct Inspector {
    program: OwnedFd,
}

impl Inspector {
    pub(crate) fn new(program: OwnedFd) -> Self {
        Self { program }
    }
}

impl Inspect for Inspector {
    fn inspect(&self, fd: BorrowedFd<'_>) -> io::Result<Inspected> {
        let tid = u32::try_from(gettid().as_raw_nonzero().get()).map_err(io::Error::other)?;
        let wanted = u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)?;
        for event in rows(self.program.as_fd(), Over::Thread(tid))? {
            if let Event::FileRow(row) = event
                && row.fd == wanted
                && row.tid == tid
            {
                return Ok(Inspected {
                    file: row.file,
                    fs_magic: row.fs_magic,
                    flags: row.flags,
                });
            }
        }
        Err(io::Error::from(io::ErrorKind::NotFound))
    }
}

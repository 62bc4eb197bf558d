//! Paths that are anybody's, walked without waiting for anybody.
//!
//! A path can lead through a file system that never answers, and who waits for
//! one that has taken the question waits in the kernel, where no signal ends it
//! (`request_wait_answer`,
//! <https://github.com/torvalds/linux/blob/v6.12/fs/fuse/dev.c>). So a path is
//! walked as far as the kernel has it in memory (`RESOLVE_CACHED`), as it has
//! what was executed or read a moment ago; else without leaving a file system
//! that [answers by itself](super::mounts).

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx},
    io::Errno,
};

use super::mounts::Mounts;

/// An `O_PATH` descriptor of what a path leads to from a directory. `mounts` is
/// the mountinfo of a process that has that directory's mounts.
///
/// # Errors
///
/// Of openat2(2); `AGAIN`: it leads where it might be waited for.
pub fn open(
    from: impl AsFd,
    path: &Path,
    how: ResolveFlags,
    mounts: &str,
) -> rustix::io::Result<OwnedFd> {
    let from = from.as_fd();
    let open = |how| {
        openat2(
            from,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            how,
        )
    };
    match open(how | ResolveFlags::CACHED) {
        // Not all in memory; or a kernel before 5.12, which does not know this.
        Err(Errno::AGAIN | Errno::INVAL) => {}
        outcome => return outcome,
    }
    let table = fs::read(mounts).map_err(|_| Errno::AGAIN)?;
    let foreign = Mounts::parse(&table).apart();
    if foreign.is_empty() {
        return open(how);
    }
    let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let start = statx(from, c"", at, StatxFlags::MNT_ID)?;
    if foreign.contains(&start.stx_mnt_id) {
        return Err(Errno::AGAIN);
    }
    match open(how | ResolveFlags::NO_XDEV) {
        // With BENEATH it may lead up, which is not allowed either.
        Err(Errno::XDEV) if how.contains(ResolveFlags::BENEATH) => Err(Errno::XDEV),
        Err(Errno::XDEV) => Err(Errno::AGAIN),
        outcome => outcome,
    }
}

/// Whether what was taken with `O_PATH` is a file that somebody else answers
/// for. It is looked for among the mounts of the process that runs it, and
/// this one's; the kernel names no file system's layers otherwise.
pub fn is_foreign(file: impl AsFd, tgid: u32) -> bool {
    let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let Ok(stat) = statx(file, c"", at, StatxFlags::MNT_ID) else {
        return false;
    };
    let tables = [
        format!("/proc/{tgid}/mountinfo"),
        "/proc/self/mountinfo".to_owned(),
    ];
    let tables = tables.iter().filter_map(|table| fs::read(table).ok());
    tables
        .filter_map(|table| Mounts::parse(&table).has_foreign_files(stat.stx_mnt_id))
        .next()
        .unwrap_or(false)
}

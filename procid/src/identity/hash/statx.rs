//! An inode's state as stat(2) tells it.
//!
//! Good for comparing two looks of this kind with each other. Not for comparing
//! with what the hooks saw: `st_dev` is not `s_dev` on btrfs and overlayfs, and
//! the generation is not told.

use std::{io, os::fd::BorrowedFd};

use procid_common::image::{FileState, flags};
use rustix::fs::{AtFlags, StatxFlags, fstatfs, statx};

use super::{Inspect, Inspected};

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/magic.h>
const OVERLAYFS: u32 = 0x794c_7630;

/// Looks with statx(2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Statx;

impl Inspect for Statx {
    fn inspect(&self, fd: BorrowedFd<'_>) -> io::Result<Inspected> {
        // DONT_SYNC: one that is foreign may not answer.
        let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = statx(fd, c"", at, StatxFlags::BASIC_STATS)?;
        // The magic numbers are 32 bits wide; the field is as wide as a long.
        let fs_magic = (fstatfs(fd)?.f_type as u64 & u64::from(u32::MAX)) as u32;
        let mut bits = 0;
        if fs_magic == OVERLAYFS {
            bits |= flags::OVERLAY;
        }
        if stat.stx_nlink == 0 {
            bits |= flags::DELETED;
        }
        Ok(Inspected {
            file: FileState {
                ino: stat.stx_ino,
                size: stat.stx_size,
                ctime_sec: stat.stx_ctime.tv_sec,
                mtime_sec: stat.stx_mtime.tv_sec,
                ctime_nsec: stat.stx_ctime.tv_nsec,
                mtime_nsec: stat.stx_mtime.tv_nsec,
                dev: stat.stx_dev_major << 20 | stat.stx_dev_minor,
                generation: 0,
            },
            fs_magic,
            flags: bits,
        })
    }
}

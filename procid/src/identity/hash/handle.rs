//! An inode opened by its number, whatever became of its names.
//!
//! open_by_handle_at(2) takes what a file system's `encode_fh` makes of an
//! inode for NFS: for ext4 and XFS the inode number and the generation, which
//! are all in [`FileState`]. So a handle can be made of what the kernel saw at
//! exec, although nobody asked for one while the file could still be named:
//!
//! - ext2 to ext4 use `FILEID_INO32_GEN`: number and generation, 32 bits each
//!   (`generic_fh_to_dentry`:
//!   <https://github.com/torvalds/linux/blob/v6.12/fs/libfs.c>);
//! - XFS decodes `FILEID_INO32_GEN | XFS_FILEID_TYPE_64FLAG`, a number of 64
//!   bits and a generation, however it was mounted
//!   (<https://github.com/torvalds/linux/blob/v6.12/fs/xfs/xfs_export.c>).
//!
//! Others cannot be had this way: btrfs wants the subvolume too; tmpfs finds
//! only inodes that a handle was asked of before
//! (<https://github.com/torvalds/linux/blob/v6.12/mm/shmem.c>, `shmem_encode_fh`
//! hashes the inode); overlayfs makes handles of its layers' handles.
//!
//! A handle is a hint and proves nothing, which is why it may be guessed. The
//! kernel looks the inode up and answers ESTALE if it is free or of another
//! generation, but ext4 takes generation 0 for "any" (`ext4_nfs_get_inode`,
//! <https://github.com/torvalds/linux/blob/v6.12/fs/ext4/super.c>). So the
//! caller compares what was opened with what ran, as it does with what a path
//! led to; `O_PATH` opens nothing before that.

use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::PathBuf,
};

use procid_common::image::{Directory, FileState};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstatfs, open, statx},
    io::Errno,
};

use crate::identity::quiet;

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/magic.h>
const EXT: u32 = 0xef53;
const XFS: u32 = 0x5846_5342;

/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/exportfs.h>
const FILEID_INO32_GEN: i32 = 1;
/// <https://github.com/torvalds/linux/blob/v6.12/fs/xfs/xfs_export.h>
const XFS_FILEID_TYPE_64FLAG: i32 = 0x80;

/// An `O_PATH` descriptor of the inode of this number and generation. It may
/// be another inode: the caller compares.
///
/// # Errors
///
/// - `OPNOTSUPP`: no handle can be made for this file system.
/// - `NODEV`: it is not mounted where this process could reach it.
/// - `STALE`: there is no such inode any more.
/// - `PERM`: this process lacks `CAP_DAC_READ_SEARCH` in the initial user
///   namespace.
pub fn open_inode(file: &FileState, fs_magic: u32) -> rustix::io::Result<OwnedFd> {
    let mut handle = Handle::new(fs_magic, file.ino, file.generation).ok_or(Errno::OPNOTSUPP)?;
    let mount = mount_of(file).ok_or(Errno::NODEV)?;
    // SAFETY: `Handle` is laid out as `struct file_handle`, and `bytes` says no
    // more than `id` holds; the kernel reads it during the call and keeps no
    // pointer to it. `mount` is open until the end of this function.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    // SAFETY: the call gave this descriptor to us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The same of a directory, whatever its file system. Which of that file
/// system's mounts it is opened on is left open.
///
/// # Errors
///
/// Those of [`open_inode`].
pub fn open_directory(directory: &Directory) -> rustix::io::Result<OwnedFd> {
    let file = FileState {
        ino: directory.ino,
        dev: directory.dev,
        generation: directory.generation,
        ..FileState::default()
    };
    let mount = mount_of(&file).ok_or(Errno::NODEV)?;
    // The magic numbers are 32 bits wide; the field is as wide as a long.
    let fs_magic = (fstatfs(mount)?.f_type as u64 & u64::from(u32::MAX)) as u32;
    open_inode(&file, fs_magic)
}

/// `struct file_handle` of
/// [open_by_handle_at(2)](https://man7.org/linux/man-pages/man2/open_by_handle_at.2.html),
/// with room for the longest that is made here.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handle {
    /// Bytes of `id` that count.
    bytes: u32,
    kind: i32,
    id: [u8; 12],
}

impl Handle {
    /// `None`: this file system's handles hold more than is known, or the
    /// number is not one of its.
    fn new(fs_magic: u32, ino: u64, generation: u32) -> Option<Self> {
        let mut id = [0; 12];
        let (kind, bytes) = match fs_magic {
            EXT => {
                id[..4].copy_from_slice(&u32::try_from(ino).ok()?.to_ne_bytes());
                id[4..8].copy_from_slice(&generation.to_ne_bytes());
                (FILEID_INO32_GEN, 8)
            }
            XFS => {
                id[..8].copy_from_slice(&ino.to_ne_bytes());
                id[8..].copy_from_slice(&generation.to_ne_bytes());
                (FILEID_INO32_GEN | XFS_FILEID_TYPE_64FLAG, 12)
            }
            _ => return None,
        };
        Some(Self { bytes, kind, id })
    }
}

/// A descriptor of anything on the file system that holds the file.
fn mount_of(file: &FileState) -> Option<OwnedFd> {
    BufReader::new(File::open("/proc/self/mountinfo").ok()?)
        .split(b'\n')
        .map_while(Result::ok)
        .filter_map(|line| Mount::parse(&line))
        .filter(|mount| (mount.major, mount.minor) == (file.major(), file.minor()))
        .find_map(|mount| mount.open())
}

/// What a line of
/// [/proc/PID/mountinfo](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html)
/// says of a mount.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    major: u32,
    minor: u32,
    point: PathBuf,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let id = text()?.parse().ok()?;
        let _parent = text()?;
        let (major, minor) = text()?.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let _root = fields.next()?;
        let point = OsString::from_vec(unescape(fields.next()?)).into();
        Some(Self {
            id,
            major,
            minor,
            point,
        })
    }

    /// The mount point, unless another mount covers it. Opened for reading,
    /// because a handle is not looked up below an `O_PATH` descriptor; a file
    /// may be a mount point too, as containers' `/etc/hosts` is.
    fn open(&self) -> Option<OwnedFd> {
        let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let point = quiet::open(root, &self.point, how, "/proc/self/mountinfo").ok()?;
        // DONT_SYNC: what covers it may be a file system that does not answer.
        let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::TYPE | StatxFlags::MNT_ID;
        let stat = statx(&point, c"", at, wanted).ok()?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if stat.stx_mask & wanted.bits() != wanted.bits()
            || stat.stx_mnt_id != self.id
            || !matches!(kind, FileType::Directory | FileType::RegularFile)
        {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let link = format!("/proc/self/fd/{}", point.as_raw_fd());
        open(link, flags, Mode::empty()).ok()
    }
}

/// The kernel writes blanks and backslashes in a path as `\` and three octal
/// digits (`mangle_path`).
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (
                b'\\',
                &[
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    ref tail @ ..,
                ],
            ) => {
                path.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => path.push(byte),
        }
    }
    path
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;

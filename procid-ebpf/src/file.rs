//! The state of an inode, and the path of a file.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use procid_common::{
    image::{Directory, FileState, flags},
    process::{PATH_DEPTH_MAX, PATH_MAX},
};

use crate::kernel::{Kptr, Object, offset};

/// `TMPFS_MAGIC` and `OVERLAYFS_SUPER_MAGIC`:
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/magic.h>
const TMPFS_MAGIC: u64 = 0x0102_1994;
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
/// `MNT_INTERNAL`: a mount of the kernel's own, in no namespace.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/mount.h#L57>
const MNT_INTERNAL: u32 = 0x4000;
/// `I_CTIME_QUERIED`, kept in the nanoseconds since 6.13:
/// <https://github.com/torvalds/linux/blob/v6.13/include/linux/fs.h#L1601>
const CTIME_QUERIED: u32 = 1 << 31;

/// What is known of an open file.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct FileFacts {
    pub(crate) state: FileState,
    pub(crate) fs_magic: u32,
    /// Bits of [`flags`].
    pub(crate) flags: u32,
}

/// Reads the inode behind a `struct file`.
#[inline(always)]
pub(crate) fn facts_of<O: Object>(file: O) -> Option<FileFacts> {
    let inode = file.follow(offset!(file_inode))?;
    let sb = inode.follow(offset!(inode_sb))?;
    let magic: u64 = sb.read(offset!(super_magic))?;
    let ctime_nsec: u32 = inode.read(offset!(inode_ctime_nsec))?;
    let state = FileState {
        ino: inode.read(offset!(inode_ino))?,
        size: inode.read(offset!(inode_size))?,
        ctime_sec: inode.read(offset!(inode_ctime_sec))?,
        mtime_sec: inode.read(offset!(inode_mtime_sec))?,
        ctime_nsec: ctime_nsec & !CTIME_QUERIED,
        mtime_nsec: inode.read(offset!(inode_mtime_nsec))?,
        dev: sb.read(offset!(super_dev))?,
        generation: inode.read(offset!(inode_generation))?,
    };
    let mut bits = 0;
    if ctime_nsec & CTIME_QUERIED != 0 {
        bits |= flags::CTIME_QUERIED;
    }
    let links: u32 = inode.read(offset!(inode_nlink))?;
    if links == 0 {
        bits |= flags::DELETED;
    }
    if magic == OVERLAYFS_MAGIC {
        bits |= flags::OVERLAY;
    }
    if magic == TMPFS_MAGIC && links == 0 {
        let mount = file.follow(offset!(file_path) + offset!(path_mnt))?;
        let mount_flags: u32 = mount.read(offset!(vfsmount_flags))?;
        if mount_flags & MNT_INTERNAL != 0 {
            bits |= flags::MEMFD;
        }
    }
    Some(FileFacts {
        state,
        fs_magic: magic as u32,
        flags: bits,
    })
}

/// The directory that a `struct path` in an object names.
#[inline(always)]
pub(crate) fn directory_at<O: Object>(object: O, path: usize) -> Directory {
    object
        .follow(path + offset!(path_dentry))
        .and_then(|dentry| dentry.follow(offset!(dentry_inode)))
        .and_then(|inode| {
            Some(Directory {
                ino: inode.read(offset!(inode_ino))?,
                dev: inode.follow(offset!(inode_sb))?.read(offset!(super_dev))?,
                generation: inode.read(offset!(inode_generation))?,
            })
        })
        .unwrap_or_default()
}

/// Writes the components of a file's path, leaf first, each behind a byte of
/// length, into `buffer`, which has room for `PATH_MAX` bytes, and their
/// length into `len`. Follows mounts up to `root` (a `struct path`), as `d_path` does,
/// without its locks: a rename at the same moment can show, never crash.
///
/// Returns bits of [`flags`].
#[inline(always)]
pub(crate) fn write_path(file: Kptr, root: Kptr, buffer: *mut u8, len: &mut u32) -> u32 {
    *len = 0;
    let Some((root_dentry, root_mount)) = path_at(root) else {
        return flags::PATH_UNREACHABLE;
    };
    let Some((mut dentry, mut mount)) = path_at(file.add(offset!(file_path))) else {
        return flags::PATH_UNREACHABLE;
    };
    for _ in 0..PATH_DEPTH_MAX {
        if dentry == root_dentry && mount == root_mount {
            return 0;
        }
        let Some(mount_root) = mount.follow(offset!(vfsmount_root)) else {
            return flags::PATH_UNREACHABLE;
        };
        if dentry == mount_root {
            let inner = Kptr(mount.0.wrapping_sub(offset!(mount_mnt) as u64));
            let Some(parent) = inner.follow(offset!(mount_parent)) else {
                return flags::PATH_UNREACHABLE;
            };
            if parent == inner {
                // The top of a tree that is not the process's.
                return flags::PATH_UNREACHABLE;
            }
            let Some(mountpoint) = inner.follow(offset!(mount_mountpoint)) else {
                return flags::PATH_UNREACHABLE;
            };
            dentry = mountpoint;
            mount = parent.add(offset!(mount_mnt));
            continue;
        }
        let Some(parent) = dentry.follow(offset!(dentry_parent)) else {
            return flags::PATH_UNREACHABLE;
        };
        if parent == dentry {
            return flags::PATH_UNREACHABLE;
        }
        if !append_name(dentry, buffer, len) {
            return flags::PATH_TRUNCATED;
        }
        dentry = parent;
    }
    flags::PATH_TRUNCATED
}

/// Writes a file's own name as the only component of its path; see
/// [`write_path`].
#[inline(always)]
pub(crate) fn write_name(file: Kptr, buffer: *mut u8, len: &mut u32) -> u32 {
    *len = 0;
    match path_at(file.add(offset!(file_path))) {
        Some((dentry, _)) if append_name(dentry, buffer, len) => 0,
        _ => flags::PATH_UNREACHABLE,
    }
}

/// Appends one component; false when it does not fit.
///
/// The length is kept in memory and read anew each time, so that the verifier
/// sees one range for it instead of another one for every turn of the loop.
#[inline(always)]
fn append_name(dentry: Kptr, buffer: *mut u8, len: &mut u32) -> bool {
    let Some(name) = dentry.follow(offset!(dentry_name)) else {
        return false;
    };
    let size: u32 = dentry.read(offset!(dentry_name_len)).unwrap_or(0);
    // SAFETY: a plain read of the caller's own word.
    let written = unsafe { core::ptr::read_volatile(len) } as usize;
    if size == 0 || size > 255 || written > PATH_MAX - 256 {
        return false;
    }
    // SAFETY: `written` ≤ PATH_MAX - 256 and `size` ≤ 255, so that both writes
    // end before PATH_MAX; the helper handles a bad source.
    let copied = unsafe {
        *buffer.add(written) = size as u8;
        bpf_probe_read_kernel(buffer.add(written + 1).cast(), size, name.0 as *const _)
    };
    // SAFETY: a plain write of the caller's own word.
    unsafe { core::ptr::write_volatile(len, (written + 1) as u32 + size) };
    copied == 0
}

#[inline(always)]
fn path_at(path: Kptr) -> Option<(Kptr, Kptr)> {
    Some((
        path.follow(offset!(path_dentry))?,
        path.follow(offset!(path_mnt))?,
    ))
}

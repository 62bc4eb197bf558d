//! The root of the container that an image was run in.
//!
//! A container's root is what is mounted at the root of its mount namespace. A
//! process's own root directory says nothing: chroot(2) is allowed to the
//! superuser of a container. So it is asked of the file: it is in the root where
//! it was opened on the mount that is there, in the namespace in which the
//! image's process called exec. Neither changes with what the process does
//! later.
//!
//! A namespace that another user namespace than the initial one owns is its
//! user's to arrange, who need not be the superuser: of what was opened or run
//! there, nothing is certain.

use procid_common::image::ImageId;

use super::maps::{head_at, scratch_at};
use crate::{
    identity::is_superusers,
    kernel::{Kptr, offset},
    maps::IMAGES,
};

/// Mounts on each other at the root of a namespace that are followed.
const ROOTS_MAX: usize = 8;
/// The first address that is an error: the kernel's own mounts have one in the
/// place of a namespace.
///
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/err.h#L19>
const FIRST_ERROR: u64 = u64::MAX - 4094;
/// The file is in no container's root.
const NOWHERE: Kptr = Kptr(0);

/// Finds the root in which the file `scratch.named` is, for the names below it
/// to be followed: 0: it is in none, or that is not known (`scratch.root_known`).
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn procid_root(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 0;
    };
    let run_in = run_in(&scratch.key.image);
    match root_of(scratch.named, run_in, head.host_mntns) {
        Some(root) => {
            scratch.top = root;
            u32::from(root != NOWHERE)
        }
        None => {
            scratch.root_known = 0;
            0
        }
    }
}

/// As of `ImageRecord::mntns`.
#[inline(always)]
fn run_in(image: &ImageId) -> u32 {
    IMAGES
        .get_ptr(image)
        // SAFETY: a map value; the image is alive.
        .map_or(0, |record| unsafe { (*record).mntns })
}

/// `None`: not known.
#[inline(always)]
fn root_of(file: Kptr, run_in: u32, host: u32) -> Option<Kptr> {
    let mount = mount_of(file)?;
    let namespace: u64 = mount.read(offset!(mount_ns))?;
    if namespace >= FIRST_ERROR {
        return Some(NOWHERE);
    }
    // None: it was taken off since.
    if namespace == 0 || run_in == 0 || !is_superusers(Kptr(namespace))? {
        return None;
    }
    let opened_in: u32 = Kptr(namespace).read(offset!(mnt_namespace_inum))?;
    if opened_in != run_in || opened_in == host {
        return Some(NOWHERE);
    }
    let mut upper = mount;
    for _ in 0..ROOTS_MAX {
        let lower = upper.follow(offset!(mount_parent))?;
        if lower == upper {
            return root_dentry(mount);
        }
        if upper.follow(offset!(mount_mountpoint))? != root_dentry(lower)? {
            return Some(NOWHERE);
        }
        upper = lower;
    }
    None
}

#[inline(always)]
fn root_dentry(mount: Kptr) -> Option<Kptr> {
    mount.follow(offset!(mount_mnt) + offset!(vfsmount_root))
}

/// The `struct mount` on which a file was opened.
#[inline(always)]
fn mount_of(file: Kptr) -> Option<Kptr> {
    let mnt = file.follow(offset!(file_path) + offset!(path_mnt))?;
    Some(Kptr(mnt.0.wrapping_sub(offset!(mount_mnt) as u64)))
}

/// Whether a file was opened in a mount namespace.
#[inline(always)]
pub(crate) fn is_opened_in(file: Kptr, mntns: u32) -> bool {
    mount_of(file)
        .and_then(|mount| mount.follow(offset!(mount_ns)))
        .and_then(|namespace| namespace.read(offset!(mnt_namespace_inum)))
        == Some(mntns)
}

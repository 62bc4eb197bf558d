//! Which container a cgroup is in, by the id that its name or one above it holds
//! (`procid_common::policy::container`).
//!
//! Only the superuser's cgroups count: whoever may make cgroups below one of his
//! own may name them as he likes. The outermost counts, so that the superuser of
//! a container is in that one, whatever cgroups he makes below it.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use procid_common::{
    offsets::ABSENT,
    policy::{
        CONTAINERS,
        container::{ID_LEN, MONITOR, PREFIX_MIN, SCOPE, is_digit},
        flags,
    },
};

use super::{
    maps::{Scratch, head_at, scratch_at},
    names::{CGROUP_DEPTH_MAX, clear, clear_bits, depth, look_up, or_bits, read_text},
};
use crate::kernel::{Kptr, offset};

/// What [`procid_container_at`] answers.
const NONE: u32 = 0;
const FOUND: u32 = 1;
const UNREADABLE: u32 = 2;

/// Finds the rules that the container of the cgroup satisfies whose chain is in
/// the scratch, and puts them into `scratch.container`; false where that could
/// not be found out.
#[inline(always)]
pub(super) fn find_container(at: u32, slot: u32) -> bool {
    if procid_no_container(at, slot) != 0 {
        return true;
    }
    for down in 0..CGROUP_DEPTH_MAX as u32 {
        match procid_container_at(at, down) {
            NONE => {}
            FOUND => return procid_container_rules(at, slot) != 0,
            _ => return false,
        }
        if is_last(at, down) {
            break;
        }
    }
    true
}

#[inline(always)]
fn is_last(at: u32, down: u32) -> bool {
    scratch_at(at).is_none_or(|scratch| down as usize + 1 >= depth(scratch))
}

/// Clears `scratch.container`; not 0: no rule asks for one, or the root is asked
/// about.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_no_container(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 1;
    };
    clear_bits(&mut scratch.container);
    u32::from(head.flags & flags::ASKS_CONTAINER == 0 || depth(scratch) == 0)
}

/// Whether a cgroup of the chain is the superuser's and named by an id, which is
/// then in `scratch.id`. `down`: steps below the outermost.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_container_at(at: u32, down: u32) -> u32 {
    match scratch_at(at).map(|scratch| container_at(scratch, down as usize)) {
        Some(Some(true)) => FOUND,
        Some(Some(false)) => NONE,
        _ => UNREADABLE,
    }
}

#[inline(always)]
fn container_at(scratch: &mut Scratch, down: usize) -> Option<bool> {
    let depth = depth(scratch);
    if down >= depth {
        return None;
    }
    let index = depth - 1 - down;
    let length = read_text(scratch, index)?;
    if !read_id(scratch, length)? {
        return Some(false);
    }
    is_superusers(Kptr(*scratch.chain.get(index)?))
}

/// Puts the id at the end of the name in `scratch.text` into `scratch.id`; false
/// where there is none.
#[inline(always)]
fn read_id(scratch: &mut Scratch, length: u32) -> Option<bool> {
    let text = Kptr(scratch.text.as_ptr() as u64);
    let mut end = length as usize;
    if end > SCOPE.len() {
        let suffix: [u8; SCOPE.len()] = text.read(end - SCOPE.len())?;
        if suffix[..] == *SCOPE {
            end -= SCOPE.len();
        }
    }
    if end < ID_LEN {
        return Some(false);
    }
    let start = end - ID_LEN;
    if start > 0 {
        let before: u8 = text.read(start - 1)?;
        if before != b'-' && before != b':' {
            return Some(false);
        }
    }
    if start >= MONITOR.len() {
        let before: u64 = text.read(start - MONITOR.len())?;
        if before == u64::from_ne_bytes(*MONITOR) {
            return Some(false);
        }
    }
    // SAFETY: as long as the destination; the helper handles a bad source.
    let copied = unsafe {
        bpf_probe_read_kernel(
            scratch.id.as_mut_ptr().cast(),
            ID_LEN as u32,
            text.add(start).0 as *const _,
        )
    };
    if copied != 0 {
        return None;
    }
    for at in 0..ID_LEN {
        // SAFETY: inside the array.
        let digit = unsafe { core::ptr::read_volatile(scratch.id.as_ptr().add(at)) };
        if !is_digit(digit) {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether a cgroup is the superuser's: a kernfs node has no attributes of its own
/// until it is given to somebody else.
///
/// <https://github.com/torvalds/linux/blob/v6.12/fs/kernfs/inode.c>
#[inline(always)]
fn is_superusers(node: Kptr) -> Option<bool> {
    if offset!(kernfs_node_iattr) == ABSENT as usize {
        return None;
    }
    let attributes: u64 = node.read(offset!(kernfs_node_iattr))?;
    if attributes == 0 {
        return Some(true);
    }
    let uid: u32 = Kptr(attributes).read(offset!(kernfs_iattrs_uid))?;
    Some(uid == 0)
}

/// ORs the rules that ask for a beginning of `scratch.id` to
/// `scratch.container`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_container_rules(at: u32, slot: u32) -> u32 {
    let Some(scratch) = scratch_at(at) else {
        return 0;
    };
    scratch.name.slot = slot;
    scratch.name.parent = CONTAINERS;
    clear(scratch);
    for len in 0..ID_LEN {
        // SAFETY: inside both arrays, which are of one length.
        unsafe {
            let digit = core::ptr::read_volatile(scratch.id.as_ptr().add(len));
            core::ptr::write_volatile(scratch.name.piece.as_mut_ptr().add(len), digit);
        }
        if len + 1 >= PREFIX_MIN
            && let Some(node) = look_up(scratch)
        {
            or_bits(&mut scratch.container, &node.below.own);
        }
    }
    1
}

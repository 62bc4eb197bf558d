//! Names of files and cgroups, in the tree that the names of a policy make.
//!
//! A file is named by the file system it is in and the names from that one's
//! root down to it: no mount, no namespace and no root directory changes them.
//! In a container ([`super::root`]) it is named from the container's root down.
//! The walk goes down from the root and ends at the first name that the policy
//! does not have.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use procid_common::policy::{Bits, CGROUPS, CONTAINER_ROOT, FILES, NAME_PIECE, Node, UNITS, Uses};

use super::{
    each,
    maps::{DEPTH_MAX, NAMES, Scratch, TEXT_MAX, scratch_at},
    put,
};
use crate::kernel::{Kptr, offset};

/// Depth of a cgroup that is followed.
pub(super) const CGROUP_DEPTH_MAX: usize = 16;
/// A name of the longest kind, in pieces, the empty one at its end included.
const PIECES_MAX: usize = 4;

/// ORs the rules that the name of the file `scratch.named` below `scratch.top`
/// satisfies to `scratch.path`; 0 where its name could not be followed. A file
/// without a name satisfies none. See [`super::ask`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn procid_file_rules(at: u32, slot: u32) -> u32 {
    scratch_at(at).map_or(0, |scratch| {
        u32::from(follow_file(scratch.named, slot, scratch))
    })
}

#[inline(always)]
fn follow_file(file: Kptr, slot: u32, scratch: &mut Scratch) -> bool {
    let Some(leaf) = file.follow(offset!(file_path) + offset!(path_dentry)) else {
        return false;
    };
    let Some(inode) = leaf.follow(offset!(dentry_inode)) else {
        return false;
    };
    let hashed: u64 = leaf.read(offset!(dentry_hash_pprev)).unwrap_or(0);
    let links: u32 = inode.read(offset!(inode_nlink)).unwrap_or(0);
    if hashed == 0 || links == 0 {
        return true; // unlinked
    }
    let Some(dev) = inode
        .follow(offset!(inode_sb))
        .and_then(|sb| sb.read::<u32>(offset!(super_dev)))
    else {
        return false;
    };
    let top = scratch.top;
    scratch.depth = 0;
    let mut dentry = leaf;
    let mut whole = false;
    for index in 0..DEPTH_MAX {
        let Some(parent) = dentry.follow(offset!(dentry_parent)) else {
            return false;
        };
        if dentry == top || parent == dentry {
            whole = true;
            break;
        }
        scratch.chain[index] = dentry.0;
        scratch.depth = index as u64 + 1;
        dentry = parent;
    }
    if !whole {
        return false;
    }
    let below = if top.0 == 0 {
        dev
    } else if dentry == top {
        CONTAINER_ROOT
    } else {
        return true; // moved out of it since
    };
    clear(scratch);
    let [a, b, c, d] = below.to_ne_bytes();
    scratch.name.slot = slot;
    scratch.name.parent = FILES;
    scratch.name.piece[0] = a;
    scratch.name.piece[1] = b;
    scratch.name.piece[2] = c;
    scratch.name.piece[3] = d;
    let Some(mut node) = look_up(scratch) else {
        return true;
    };
    for down in 0..DEPTH_MAX {
        let depth = depth(scratch);
        if down >= depth {
            break;
        }
        let index = depth - 1 - down;
        if index >= DEPTH_MAX {
            return false;
        }
        let dentry = Kptr(scratch.chain[index]);
        let length: u32 = dentry.read(offset!(dentry_name_len)).unwrap_or(0);
        let Some(name) = dentry.follow(offset!(dentry_name)) else {
            return false;
        };
        match step(node.id, name, length, scratch) {
            Some(found) if index == 0 => {
                or(&mut scratch.path, &found.exact);
                break;
            }
            Some(found) => node = found,
            None => break,
        }
    }
    or(&mut scratch.path, &node.below);
    true
}

/// The node of a name below another node.
#[inline(always)]
fn step(parent: u32, name: Kptr, length: u32, scratch: &mut Scratch) -> Option<&'static Node> {
    scratch.name.parent = parent;
    let mut node = None;
    for piece in 0..PIECES_MAX as u32 {
        let done = piece * NAME_PIECE as u32;
        if done > length {
            break;
        }
        scratch.left = length - done;
        clear(scratch);
        // From memory, so that the verifier knows nothing but what follows.
        // SAFETY: our own word.
        let mut size = unsafe { core::ptr::read_volatile(&raw const scratch.left) };
        if size > NAME_PIECE as u32 {
            size = NAME_PIECE as u32;
        }
        if size > 0 {
            // SAFETY: `size` is at most the piece's; the helper handles a bad
            // source.
            let copied = unsafe {
                bpf_probe_read_kernel(
                    scratch.name.piece.as_mut_ptr().cast(),
                    size,
                    name.add(done as usize).0 as *const _,
                )
            };
            if copied != 0 {
                return None;
            }
        }
        let found = look_up(scratch)?;
        scratch.name.parent = found.id;
        node = Some(found);
    }
    node
}

/// Entries of `scratch.chain`. Kept in memory, so that the verifier sees one
/// unknown number instead of going down each path of each length.
#[inline(always)]
pub(super) fn depth(scratch: &Scratch) -> usize {
    // SAFETY: our own word.
    unsafe { core::ptr::read_volatile(&raw const scratch.depth) as usize }
}

#[inline(always)]
pub(super) fn look_up(scratch: &Scratch) -> Option<&'static Node> {
    // SAFETY: a map value, which is not written while the slot is in use.
    NAMES.get_ptr(&scratch.name).map(|node| unsafe { &*node })
}

#[inline(always)]
pub(super) fn clear(scratch: &mut Scratch) {
    for at in 0..NAME_PIECE / 8 {
        // SAFETY: inside the piece, which is aligned to 8.
        unsafe {
            core::ptr::write_volatile(scratch.name.piece.as_mut_ptr().cast::<u64>().add(at), 0);
        }
    }
}

#[inline(always)]
fn or(to: &mut Uses, from: &Uses) {
    each(|word| {
        or_word(&mut to.own[word], from.own[word]);
        or_word(&mut to.ancestor[word], from.ancestor[word]);
        or_word(&mut to.parent[word], from.parent[word]);
    });
}

#[inline(always)]
pub(super) fn or_word(to: &mut u64, more: u64) {
    let word = *to | more;
    put(to, word);
}

/// ORs the rules that the cgroup `scratch.named` satisfies to `scratch.cgroup`;
/// 0 where its path could not be followed. See [`super::ask`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn procid_cgroup_rules(at: u32, slot: u32) -> u32 {
    scratch_at(at).map_or(0, |scratch| {
        u32::from(follow_cgroup(scratch.named, slot, scratch))
    })
}

#[inline(always)]
fn follow_cgroup(leaf: Kptr, slot: u32, scratch: &mut Scratch) -> bool {
    scratch.depth = 0;
    let mut node = leaf;
    for index in 0..CGROUP_DEPTH_MAX {
        let Some(parent) = node.follow(offset!(kernfs_node_parent)) else {
            break;
        };
        scratch.chain[index] = node.0;
        scratch.depth = index as u64 + 1;
        node = parent;
    }
    let is_root = node.follow(offset!(kernfs_node_parent)).is_none();
    if !is_root {
        return false;
    }
    scratch.name.slot = slot;
    clear_bits(&mut scratch.cgroup);
    clear_bits(&mut scratch.unit);
    for index in 0..CGROUP_DEPTH_MAX {
        if index >= depth(scratch) {
            break;
        }
        let Some(length) = read_text(scratch, index) else {
            return false;
        };
        if let Some(unit) = step_text(UNITS, length, scratch) {
            or_bits(&mut scratch.unit, &unit.below.own);
        }
    }
    let mut above = None;
    for down in 0..CGROUP_DEPTH_MAX {
        let depth = depth(scratch);
        if down >= depth {
            break;
        }
        let Some(length) = read_text(scratch, depth - 1 - down) else {
            return false;
        };
        let id = above.map_or(CGROUPS, |node: &Node| node.id);
        match step_text(id, length, scratch) {
            Some(found) => above = Some(found),
            None => break,
        }
    }
    if let Some(cgroup) = above {
        or_bits(&mut scratch.cgroup, &cgroup.below.own);
    }
    true
}

/// Reads the name of a cgroup of the chain into `scratch.text`, and returns its
/// length.
#[inline(always)]
pub(super) fn read_text(scratch: &mut Scratch, index: usize) -> Option<u32> {
    let node = Kptr(*scratch.chain.get(index)?);
    let name = node.follow(offset!(kernfs_node_name))?;
    // SAFETY: the helper writes at most the buffer's size, NUL included, and
    // handles a bad source.
    let length = unsafe {
        bpf_probe_read_kernel_str(
            scratch.text.as_mut_ptr().cast(),
            TEXT_MAX as u32,
            name.0 as *const _,
        )
    };
    (1..=TEXT_MAX as i64)
        .contains(&length)
        .then_some(length as u32 - 1)
}

/// The node of the name in `scratch.text` below another node.
#[inline(always)]
fn step_text(parent: u32, length: u32, scratch: &mut Scratch) -> Option<&'static Node> {
    let name = Kptr(scratch.text.as_ptr() as u64);
    step(parent, name, length, scratch)
}

#[inline(always)]
pub(super) fn clear_bits(bits: &mut Bits) {
    each(|word| put(&mut bits[word], 0));
}

#[inline(always)]
pub(super) fn or_bits(to: &mut Bits, from: &Bits) {
    each(|word| or_word(&mut to[word], from[word]));
}

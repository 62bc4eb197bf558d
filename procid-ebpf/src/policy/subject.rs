//! Which rules an image satisfies, and a cgroup: found out at the first
//! decision, and kept.

use procid_common::{
    event::Loss,
    policy::{Bits, Head, InodeKey, Uses, asked::AskedRow, flags},
};

use super::{
    and, copy, each,
    lineage::procid_by_descent,
    maps::{CGROUP_RULES, HASHES, IMAGE_HASHES, INODES, SUBJECTS, Scratch, head_at, scratch_at},
    names::{or_word, procid_file_rules},
    put,
    root::procid_root,
};
use crate::{
    identity::exe_file,
    kernel::{Kptr, offset},
    maps::{IMAGES, IMAGES_REFUSED, lost},
};

/// Puts what the image of the current task satisfies under the policy of a slot
/// into `scratch.subject`, if that is known; else 0. See
/// [`super::ask`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn procid_subject(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 0;
    };
    scratch.key.slot = slot.into();
    let Some(subject) = SUBJECTS.get_ptr(&scratch.key) else {
        return 0;
    };
    // SAFETY: a map value, whose plain words are written once; the kernel does
    // not free it while a program may read it.
    let subject = unsafe { &*subject };
    let is_news = subject.hash_known == 0
        && head.flags & flags::ASKS_HASH != 0
        && IMAGE_HASHES.get_ptr(&scratch.key.image).is_some();
    if subject.generation != head.generation || is_news {
        return 0;
    }
    copy(&mut scratch.subject.yes, &subject.yes);
    copy(&mut scratch.subject.maybe, &subject.maybe);
    1
}

/// Keeps `scratch.subject` for the next decision, unless what is not known yet
/// of images before it may be known by then.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn procid_keep_subject(at: u32) -> u32 {
    if let Some(scratch) = scratch_at(at)
        && scratch.unsettled | scratch.roomless == 0
        && SUBJECTS.insert(&scratch.key, &scratch.subject, 0).is_err()
    {
        lost(Loss::PolicyOverflow); // it is found out again
    }
    1
}

/// Fills in `scratch.subject` for the image of `scratch.key`, which
/// `scratch.task` runs, and what `scratch.lineage` says of the image itself. Step by step,
/// because the frames of functions that call each other add up.
#[inline(always)]
pub(super) fn find_out(at: u32, slot: u32) {
    find_names(at, slot);
    procid_by_path(at, slot);
    procid_by_inode(at, slot);
    procid_by_hash(at, slot);
    procid_by_descent(at, slot);
}

/// Finds the file, and what its names satisfy: the host's, and that in a
/// container's root.
#[inline(always)]
fn find_names(at: u32, slot: u32) {
    procid_exe(at, slot);
    let mut known = 1;
    if let Some(scratch) = scratch_at(at)
        && scratch.asks_name != 0
    {
        known = procid_file_rules(at, slot);
    }
    if let Some(scratch) = scratch_at(at) {
        scratch.path_known &= known;
    }
    let mut known = 1;
    if let Some(scratch) = scratch_at(at)
        && scratch.asks_root != 0
        && procid_root(at, slot) != 0
    {
        known = procid_file_rules(at, slot);
    }
    if let Some(scratch) = scratch_at(at) {
        scratch.root_known &= known;
    }
}

/// The same, one field after the other, for [`super::asked`]: what of each the
/// image satisfies goes into the row.
#[inline(always)]
pub(super) fn find_out_apart(at: u32, slot: u32, row: &mut AskedRow) {
    find_names(at, slot);
    procid_by_path(at, slot);
    keep_apart(at, &mut row.path);
    procid_by_inode(at, slot);
    keep_apart(at, &mut row.inode);
    procid_by_hash(at, slot);
    keep_apart(at, &mut row.hash);
    procid_by_descent(at, slot);
    if let Some(scratch) = scratch_at(at) {
        let maybe = &scratch.subject.maybe;
        each(|word| put(&mut row.maybe_descent[word], maybe[word]));
    }
    keep_apart(at, &mut row.descent);
}

/// Takes what a field satisfies, and makes room for the next.
#[inline(always)]
fn keep_apart(at: u32, field: &mut Bits) {
    if let Some(scratch) = scratch_at(at) {
        let subject = &mut scratch.subject;
        each(|word| {
            put(&mut field[word], subject.yes[word]);
            put(&mut subject.yes[word], u64::MAX);
            put(&mut subject.maybe[word], u64::MAX);
        });
    }
}

/// Finds the file that the image was run from, and whether the task's link to
/// it is still the same: a process can have it changed (PR_SET_MM), and the name
/// of another file than was run says nothing.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_exe(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 0;
    };
    clear(&mut scratch.path);
    scratch.path_known = 1;
    scratch.asks_name = 0;
    scratch.root_known = 1;
    scratch.asks_root = 0;
    scratch.top = Kptr(0);
    scratch.exe_dev = 0;
    scratch.exe_ino = 0;
    scratch.exe_known = 1;
    scratch.has_file = 0;
    let Some(file) = exe_file(scratch.task) else {
        return 0;
    };
    scratch.has_file = 1;
    scratch.named = file;
    let Some((dev, ino, generation)) = inode_of(file) else {
        scratch.path_known = 0;
        scratch.root_known = 0;
        scratch.exe_known = 0;
        return 0;
    };
    scratch.exe_dev = dev;
    scratch.exe_ino = ino;
    let mut same = true;
    if let Some(record) = IMAGES.get_ptr(&scratch.key.image) {
        // SAFETY: a map value; the image is alive.
        let exe = unsafe { &(*record).exe };
        same = exe.ino == ino && exe.dev == dev && exe.generation == generation;
        scratch.exe_dev = exe.dev;
        scratch.exe_ino = exe.ino;
        // Of a child whose parent's was not known.
        scratch.exe_known = u32::from(exe.ino != 0);
    } else if images_are_missing() {
        same = false;
        scratch.exe_known = 0;
    }
    if scratch.exe_known == 0 {
        scratch.roomless |= u64::from(images_are_missing());
    }
    if head.flags & flags::ASKS_PATH != 0 {
        scratch.asks_name = u32::from(same);
        scratch.path_known = u32::from(same);
    }
    if head.flags & flags::ASKS_IN_ROOT != 0 {
        scratch.asks_root = u32::from(same);
        scratch.root_known = u32::from(same);
    }
    1
}

/// Whether an image that [`IMAGES`] does not have may be one that it had no
/// room for.
#[inline(always)]
pub(super) fn images_are_missing() -> bool {
    IMAGES_REFUSED
        .get_ptr(0)
        // SAFETY: a map value, one plain word.
        .is_some_and(|refused| unsafe { core::ptr::read_volatile(refused) } != 0)
}

#[inline(always)]
fn inode_of(file: Kptr) -> Option<(u32, u64, u32)> {
    let inode = file.follow(offset!(file_inode))?;
    let sb = inode.follow(offset!(inode_sb))?;
    Some((
        sb.read(offset!(super_dev))?,
        inode.read(offset!(inode_ino))?,
        inode.read(offset!(inode_generation))?,
    ))
}

/// Begins `scratch.subject` with what the name of the file satisfies.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_by_path(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 0;
    };
    scratch.subject.generation = head.generation;
    let unknown = all_if(scratch.path_known == 0);
    let unknown_in_root = all_if(scratch.root_known == 0);
    each(|word| {
        let own = head.no_path[word] | scratch.path.own[word];
        let in_root = head.in_root[word];
        let perhaps = (unknown & !in_root) | (unknown_in_root & in_root);
        put(&mut scratch.subject.yes[word], own);
        put(&mut scratch.subject.maybe[word], own | perhaps);
        let others = &mut scratch.lineage;
        let ancestor = scratch.path.ancestor[word];
        put(&mut others.as_ancestor[word], ancestor);
        put(&mut others.maybe_as_ancestor[word], ancestor | unknown);
        let parent = scratch.path.parent[word];
        put(&mut others.as_parent[word], parent);
        put(&mut others.maybe_as_parent[word], parent | unknown);
    });
    1
}

/// ANDs what the number of the inode satisfies.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_by_inode(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 0;
    };
    if head.flags & flags::ASKS_INODE == 0 {
        return 1;
    }
    if scratch.exe_known == 0 {
        each(|word| {
            let yes = scratch.subject.yes[word] & head.no_inode[word];
            put(&mut scratch.subject.yes[word], yes);
            let others = &mut scratch.lineage;
            put(&mut others.maybe_as_ancestor[word], u64::MAX);
            put(&mut others.maybe_as_parent[word], u64::MAX);
        });
        return 1;
    }
    let inode = INODES.get_ptr(InodeKey {
        slot,
        dev: scratch.exe_dev,
        ino: scratch.exe_ino,
    });
    satisfy(scratch, &head.no_inode, inode);
    1
}

/// ANDs what the hash of the file satisfies, or may satisfy.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_by_hash(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 0;
    };
    scratch.subject.hash_known = 1;
    if head.flags & flags::ASKS_HASH == 0 {
        return 1;
    }
    if scratch.has_file == 0 {
        satisfy(scratch, &head.no_hash, None);
        return 1;
    }
    let Some(sha256) = IMAGE_HASHES.get_ptr(&scratch.key.image) else {
        scratch.subject.hash_known = 0;
        each(|word| {
            let subject = &mut scratch.subject;
            let yes = subject.yes[word] & head.no_hash[word];
            put(&mut subject.yes[word], yes);
            let others = &mut scratch.lineage;
            let ancestor = others.maybe_as_ancestor[word] | head.ancestor_by_hash[word];
            put(&mut others.maybe_as_ancestor[word], ancestor);
            let parent = others.maybe_as_parent[word] | head.parent_by_hash[word];
            put(&mut others.maybe_as_parent[word], parent);
        });
        return 1;
    };
    scratch.hash.slot = slot;
    // SAFETY: a map value, written once.
    scratch.hash.sha256 = unsafe { *sha256 };
    let uses = HASHES.get_ptr(&scratch.hash);
    satisfy(scratch, &head.no_hash, uses);
    1
}

/// ANDs the rules of one field, which the image satisfies (`uses`) or that do
/// not ask (`unasked`).
#[inline(always)]
fn satisfy(scratch: &mut Scratch, unasked: &Bits, uses: Option<*const Uses>) {
    each(|word| {
        let (own, ancestor, parent) = match uses {
            // SAFETY: a map value.
            Some(uses) => unsafe {
                (
                    (*uses).own[word],
                    (*uses).ancestor[word],
                    (*uses).parent[word],
                )
            },
            None => (0, 0, 0),
        };
        let own = unasked[word] | own;
        let subject = &mut scratch.subject;
        let (yes, maybe) = (subject.yes[word] & own, subject.maybe[word] & own);
        put(&mut subject.yes[word], yes);
        put(&mut subject.maybe[word], maybe);
        let others = &mut scratch.lineage;
        or_word(&mut others.as_ancestor[word], ancestor);
        or_word(&mut others.maybe_as_ancestor[word], ancestor);
        or_word(&mut others.as_parent[word], parent);
        or_word(&mut others.maybe_as_parent[word], parent);
    });
}

#[inline(always)]
fn clear(uses: &mut Uses) {
    each(|word| {
        put(&mut uses.own[word], 0);
        put(&mut uses.ancestor[word], 0);
        put(&mut uses.parent[word], 0);
    });
}

#[inline(always)]
const fn all_if(set: bool) -> u64 {
    if set { u64::MAX } else { 0 }
}

/// ANDs what the cgroup of the current task satisfies to `scratch.around`, if
/// that is known; else 0, and its node is in `scratch.named`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn procid_cgroup(at: u32, slot: u32) -> u32 {
    match (scratch_at(at), head_at(slot)) {
        (Some(_), Some(head)) if head.flags & flags::ASKS_CGROUP == 0 => 1,
        (Some(scratch), Some(head)) => u32::from(known_cgroup(scratch, head).is_some()),
        _ => 0,
    }
}

#[inline(always)]
fn known_cgroup(scratch: &mut Scratch, head: &Head) -> Option<()> {
    scratch.cgroup_key.generation = head.generation;
    scratch.judgement.judged.cgroup = scratch.cgroup_key.id;
    let Some(rules) = CGROUP_RULES.get_ptr(&scratch.cgroup_key) else {
        scratch.named = node_of(scratch.task).unwrap_or(Kptr(0));
        return None;
    };
    // SAFETY: a map value, written once.
    and(scratch, unsafe { &*rules });
    Some(())
}

/// The node of the task's cgroup.
#[inline(always)]
fn node_of(task: Kptr) -> Option<Kptr> {
    task.follow(offset!(task_cgroups))?
        .follow(offset!(css_set_dfl_cgrp))?
        .follow(offset!(cgroup_kn))
}

/// Keeps `scratch.cgroup`, `scratch.unit` and `scratch.container` for the next
/// decision, and ANDs them to `scratch.around`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn procid_keep_cgroup(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 0;
    };
    each(|word| {
        let cgroup = scratch.cgroup[word] | head.no_cgroup[word];
        let unit = scratch.unit[word] | head.no_unit[word];
        let container = scratch.container[word] | head.no_container[word];
        let all = cgroup & unit & container;
        put(&mut scratch.cgroup[word], all);
        let around = scratch.around[word] & all;
        put(&mut scratch.around[word], around);
    });
    if CGROUP_RULES
        .insert(&scratch.cgroup_key, &scratch.cgroup, 0)
        .is_err()
    {
        lost(Loss::PolicyOverflow); // it is found out again
    }
    1
}

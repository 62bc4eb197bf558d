//! Which rules an image satisfies as what comes before others, and which those
//! before it satisfy: kept from fork to fork and exec to exec.
//!
//! Of images that are older than the policy the agent says it: an iterator
//! tells it what each live one satisfies itself ([`find`]).

use procid_common::{
    event::Loss,
    image::ImageId,
    policy::{Head, SLOTS, SubjectKey, flags},
};

use super::{
    each,
    maps::{HEADS, IMAGE_HASHES, LINEAGES, Scratch, give_back, head_at, scratch_at, take},
    put,
    subject::{find_out, images_are_missing},
};
use crate::{
    kernel::Kptr,
    maps::{IMAGES, lost},
};

/// ANDs what the images before it satisfy, and its parent.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn procid_by_descent(at: u32, slot: u32) -> u32 {
    if let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) {
        scratch.unsettled = 0;
        if asks(head) {
            descend(scratch, head);
        }
    }
    1
}

#[inline(always)]
const fn asks(head: &Head) -> bool {
    head.flags & (flags::ASKS_ANCESTOR | flags::ASKS_PARENT) != 0
}

#[inline(always)]
fn descend(scratch: &mut Scratch, head: &Head) {
    // SAFETY: a map value.
    let lineage = LINEAGES
        .get_ptr(&scratch.key)
        .map(|lineage| unsafe { &*lineage });
    let lineage = lineage.filter(|lineage| lineage.generation == head.generation);
    if lineage.is_none() {
        scratch.roomless |= u64::from(images_are_missing());
    }
    let subject = &mut scratch.subject;
    let unsettled = &mut scratch.unsettled;
    each(|word| {
        let (ancestor, maybe_ancestor, parent, maybe_parent) = match lineage {
            Some(lineage) => (
                lineage.ancestor[word],
                lineage.maybe_ancestor[word],
                lineage.parent[word],
                lineage.maybe_parent[word],
            ),
            None => (0, u64::MAX, 0, u64::MAX),
        };
        let (no_ancestor, no_parent) = (head.no_ancestor[word], head.no_parent[word]);
        let yes = subject.yes[word] & (no_ancestor | ancestor) & (no_parent | parent);
        let maybe =
            subject.maybe[word] & (no_ancestor | maybe_ancestor) & (no_parent | maybe_parent);
        let open =
            (maybe_ancestor & !ancestor & !no_ancestor) | (maybe_parent & !parent & !no_parent);
        put(unsettled, *unsettled | open);
        put(&mut subject.yes[word], yes);
        put(&mut subject.maybe[word], maybe);
    });
}

/// Keeps what the images before a new image satisfy, under every policy that
/// asks: `from` is the image that forked it, or that it has replaced.
#[inline(always)]
pub(crate) fn inherit(from: ImageId, to: ImageId, forked: bool) {
    if IMAGES.get_ptr(to).is_none() {
        return; // There was no room for it, nor is there here.
    }
    for slot in 0..SLOTS {
        let Some(head) = HEADS.get_ptr(slot) else {
            return;
        };
        // SAFETY: a map value.
        let head = unsafe { &*head };
        if asks(head) {
            inherit_under(slot, head, from, to, forked);
        }
    }
}

/// Without an entry of `from`, there will be none: what is not known stays so.
#[inline(always)]
fn inherit_under(slot: u32, head: &Head, from: ImageId, to: ImageId, forked: bool) {
    let key = |image| SubjectKey {
        image,
        slot: slot.into(),
    };
    let Some(before) = LINEAGES.get_ptr(key(from)) else {
        return;
    };
    // SAFETY: a map value, written by this process's own fork and exec, and by
    // the agent whole.
    let before = unsafe { &*before };
    if before.generation != head.generation {
        return;
    }
    let Some(scratch) = take() else {
        lost(Loss::PolicyOverflow);
        return;
    };
    scratch.key = key(to);
    scratch.task = Kptr::current();
    if !forked {
        find_out(scratch.at, slot);
    }
    let lineage = &mut scratch.lineage;
    lineage.generation = head.generation;
    each(|word| {
        put(
            &mut lineage.ancestor[word],
            before.ancestor[word] | before.as_ancestor[word],
        );
        let maybe = before.maybe_ancestor[word] | before.maybe_as_ancestor[word];
        put(&mut lineage.maybe_ancestor[word], maybe);
        if forked {
            put(&mut lineage.parent[word], before.as_parent[word]);
            put(
                &mut lineage.maybe_parent[word],
                before.maybe_as_parent[word],
            );
            // It runs the same file.
            put(&mut lineage.as_ancestor[word], before.as_ancestor[word]);
            put(
                &mut lineage.maybe_as_ancestor[word],
                before.maybe_as_ancestor[word],
            );
            put(&mut lineage.as_parent[word], before.as_parent[word]);
            put(
                &mut lineage.maybe_as_parent[word],
                before.maybe_as_parent[word],
            );
        } else {
            put(&mut lineage.parent[word], before.parent[word]);
            put(&mut lineage.maybe_parent[word], before.maybe_parent[word]);
        }
    });
    if LINEAGES.insert(&scratch.key, &scratch.lineage, 0).is_err() {
        lost(Loss::PolicyOverflow);
    }
    give_back(scratch);
}

/// Finds out what a live image satisfies itself, under every policy that asks,
/// for the agent to say what those before it do.
#[inline(always)]
pub(crate) fn find(image: ImageId, task: Kptr) {
    for slot in 0..SLOTS {
        if let Some(head) = head_at(slot)
            && asks(head)
        {
            find_under(slot, head, image, task);
        }
    }
}

#[inline(always)]
fn find_under(slot: u32, head: &Head, image: ImageId, task: Kptr) {
    let Some(scratch) = take() else {
        lost(Loss::PolicyOverflow);
        return;
    };
    scratch.key = SubjectKey {
        image,
        slot: slot.into(),
    };
    scratch.task = task;
    find_out(scratch.at, slot);
    let kept = LINEAGES
        .get_ptr_mut(&scratch.key)
        // SAFETY: a map value; whoever reads it meanwhile sees words of before
        // or of now, which differ only in what is not known.
        .map(|kept| unsafe { &mut *kept })
        .filter(|kept| kept.generation == head.generation);
    let found = &mut scratch.lineage;
    if let Some(kept) = kept {
        each(|word| {
            put(&mut kept.as_ancestor[word], found.as_ancestor[word]);
            put(
                &mut kept.maybe_as_ancestor[word],
                found.maybe_as_ancestor[word],
            );
            put(&mut kept.as_parent[word], found.as_parent[word]);
            put(&mut kept.maybe_as_parent[word], found.maybe_as_parent[word]);
        });
    } else {
        // Nobody's, until the agent has filled in the rest.
        found.generation = 0;
        if LINEAGES.insert(&scratch.key, found, 0).is_err() {
            lost(Loss::PolicyOverflow);
        }
    }
    give_back(scratch);
}

/// Forgets an image that has ended, or was replaced.
#[inline(always)]
pub(crate) fn forget(image: ImageId) {
    let _ = IMAGE_HASHES.remove(image);
    for slot in 0..SLOTS {
        let _ = LINEAGES.remove(SubjectKey {
            image,
            slot: slot.into(),
        });
    }
}

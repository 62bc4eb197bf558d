//! The table of images: those that live, and those lately ended.
//!
//! An image that ended stays for [`KEEP_ENDED_NS`], and longer while a
//! connection holds it ([`Images::hold`]) or it is one of the [`ANCESTRY_MAX`]
//! nearest fork ancestors of an image that stays, or one of the [`EARLIER_MAX`]
//! that such a process was before. The table is bounded by
//! [`Images::CAPACITY`]; what is forgotten before its time is counted.
//!
//! Events arrive in the kernel's order. Rows of the task iterator may arrive
//! after the events that overtook them: a row neither replaces what was seen
//! live nor brings back an image whose end was told before it.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZero,
    sync::Arc,
};

use procid_common::{
    image::{FileState, ImageId, flags},
    process::{Exit, Fork, hashed},
};

use super::{
    entity::{BootId, EntityId},
    hash::{FileHash, Grade, Missing},
    image::{Image, Provenance},
    script::Script,
};
use crate::decode::ExecFacts;

/// How long an ended image is kept for records that come late.
pub const KEEP_ENDED_NS: u64 = 60_000_000_000;

/// Most ancestors that are told of, or kept for that purpose.
pub const ANCESTRY_MAX: usize = 64;

/// Most earlier images of a process that are kept for policies to ask about.
pub const EARLIER_MAX: usize = 8;

/// All images known now.
#[derive(Debug)]
pub struct Images {
    boot_id: BootId,
    capacity: usize,
    images: HashMap<ImageId, Image>,
    /// Ended images, in order of their end.
    ended: VecDeque<(u64, ImageId)>,
    /// Connections that refer to an image, whether it is in the table or not.
    holds: HashMap<ImageId, u32>,
    /// Forks that share a root whose hash is pending, by that root.
    sharers: HashMap<ImageId, Vec<ImageId>>,
    /// Forks seen before their parent was, by that parent.
    orphans: HashMap<ImageId, Vec<ImageId>>,
    /// Ends of images that were not in the table, for rows that come late.
    early_ends: HashMap<ImageId, u64>,
    /// Images of which more was learnt after they were taken in.
    amended: Vec<ImageId>,
    evicted: u64,
}

impl Images {
    /// Most images in the table.
    pub const CAPACITY: usize = 200_000;

    pub fn new(boot_id: BootId) -> Self {
        Self::with_capacity(boot_id, Self::CAPACITY)
    }

    /// A table of another size.
    pub fn with_capacity(boot_id: BootId, capacity: usize) -> Self {
        Self {
            boot_id,
            capacity,
            images: HashMap::new(),
            ended: VecDeque::new(),
            holds: HashMap::new(),
            sharers: HashMap::new(),
            orphans: HashMap::new(),
            early_ends: HashMap::new(),
            amended: Vec::new(),
            evicted: 0,
        }
    }

    /// Takes in a fork: a new image of the parent's executable.
    pub fn fork(&mut self, event: &Fork) {
        let record = &event.image;
        let parent = known(record.parent);
        let mut image = Image {
            id: record.id,
            entity: EntityId::new(&self.boot_id, &record.id),
            parent,
            previous: None,
            root: record.id,
            exe: exe(record.exe, record.flags),
            fs_magic: record.fs_magic,
            flags: record.flags | flags::FORKED,
            path: None,
            args: None,
            actor: event.actor,
            born_ns: event.header.boot_ns,
            ended_ns: None,
            provenance: Provenance::Live,
            hash: no_hash_yet(record.flags),
            script: None,
            sequence: None,
        };
        match parent.and_then(|id| self.images.get(&id)) {
            Some(parent) => inherit(&mut image, parent),
            None => {
                if let Some(parent) = parent {
                    self.orphans.entry(parent).or_default().push(image.id);
                }
            }
        }
        self.insert(image);
    }

    /// Takes in an exec: a new image in the place of the previous one.
    pub fn exec(&mut self, facts: ExecFacts) {
        let image = self.image_of(facts, Provenance::Live);
        if let Some(previous) = image.previous {
            self.end(previous, image.born_ns);
        }
        self.insert(image);
    }

    /// Whether this exec was told before; then takes its script, which the
    /// kernel may tell only with the second word.
    pub fn amend(&mut self, facts: &ExecFacts) -> bool {
        let known = self.images.get_mut(&facts.event.image.id);
        let Some(image) = known.filter(|image| image.provenance == Provenance::Live) else {
            return false;
        };
        if let Some(script) = Script::of(facts) {
            image.script = Some(script);
            self.amended.push(facts.event.image.id);
        }
        true
    }

    /// Takes in a process that was found running. What was seen live stays as
    /// it was seen; only a path or arguments that it lacks are filled in.
    pub fn task_row(&mut self, facts: ExecFacts) {
        let id = facts.event.image.id;
        if let Some(image) = self.images.get_mut(&id) {
            if image.path.is_none() && same_exe(image.exe, facts.event.image.exe) {
                image.path = facts.path.map(Arc::from);
                image.args = image.args.take().or_else(|| facts.args.map(Arc::from));
                self.amended.push(id);
            }
            return;
        }
        let image = self.image_of(facts, Provenance::Snapshot);
        self.insert(image);
    }

    /// Takes in the end of a process.
    pub fn exit(&mut self, event: &Exit) {
        self.end(event.id, event.header.boot_ns);
    }

    /// Takes in an image that was kept, as it was then.
    pub fn restore(&mut self, image: Image) {
        self.images.insert(image.id, image);
    }

    /// A record has told of this image.
    pub fn tell(&mut self, id: &ImageId, sequence: Option<NonZero<u64>>) {
        if let Some(image) = self.images.get_mut(id) {
            image.sequence = sequence;
        }
    }

    pub fn get(&self, id: &ImageId) -> Option<&Image> {
        self.images.get(id)
    }

    /// Sets the hash of an image's file, for it and for every fork that shares
    /// its pending request. Returns the images for which that is news.
    pub fn set_hash(&mut self, id: &ImageId, hash: FileHash) -> Vec<ImageId> {
        let root = self.images.get(id).map_or(*id, |image| image.root);
        let sharers = if hash.is_pending() {
            Vec::new()
        } else {
            self.sharers.remove(&root).unwrap_or_default()
        };
        let mut changed = Vec::new();
        for id in std::iter::once(*id).chain([root]).chain(sharers) {
            if let Some(image) = self.images.get_mut(&id) {
                if image.hash != hash {
                    changed.push(id);
                }
                image.hash = hash;
            }
        }
        changed
    }

    /// The images of which more was learnt, since it was last asked, than was
    /// known when they were taken in; their hashes aside.
    pub fn amended(&mut self) -> Vec<ImageId> {
        std::mem::take(&mut self.amended)
    }

    /// Entity ids of the image that forked this process, of the image that
    /// forked that one's process, and so on; at most [`ANCESTRY_MAX`]. Ends
    /// where a parent is not known.
    pub fn ancestry(&self, id: &ImageId) -> Vec<EntityId> {
        let mut ancestry = Vec::new();
        let mut next = self.images.get(id).and_then(|image| image.parent);
        while let Some(id) = next
            && ancestry.len() < ANCESTRY_MAX
        {
            let image = self.images.get(&id);
            ancestry.push(
                image.map_or_else(|| EntityId::new(&self.boot_id, &id), |image| image.entity),
            );
            next = image.and_then(|image| image.parent);
        }
        ancestry
    }

    /// Those that live, and those lately ended.
    pub fn all(&self) -> impl Iterator<Item = &Image> {
        self.images.values()
    }

    /// Images that have not ended.
    pub fn live(&self) -> impl Iterator<Item = &Image> {
        self.images
            .values()
            .filter(|image| image.ended_ns.is_none())
    }

    pub fn len(&self) -> usize {
        self.images.len()
    }

    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Most images in the table.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Images forgotten, or never taken in, for want of room.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The image of that entity id; looks at every image.
    pub fn by_entity(&self, entity: &str) -> Option<&Image> {
        let entity = entity.parse::<EntityId>().ok()?;
        self.images.values().find(|image| image.entity == entity)
    }

    /// A connection refers to this image: it is kept until [`Self::release`]
    /// was called as often.
    pub fn hold(&mut self, id: &ImageId) {
        *self.holds.entry(*id).or_default() += 1;
    }

    pub fn release(&mut self, id: &ImageId) {
        if let Some(count) = self.holds.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(id);
            }
        }
    }

    /// Forgets images that ended more than [`KEEP_ENDED_NS`] before `now_ns`
    /// (nanoseconds since boot) and that nothing needs.
    pub fn retire(&mut self, now_ns: u64) {
        let before = now_ns.saturating_sub(KEEP_ENDED_NS);
        self.early_ends.retain(|_, at| *at > before);
        if self.ended.front().is_some_and(|(at, _)| *at < before) {
            self.forget(before, 0);
        }
        let images = &self.images;
        self.sharers.retain(|_, ids| {
            ids.retain(|id| images.contains_key(id));
            !ids.is_empty()
        });
        self.orphans.retain(|_, ids| {
            ids.retain(|id| images.contains_key(id));
            !ids.is_empty()
        });
    }

    /// The image an exec event or a row tells of.
    fn image_of(&self, facts: ExecFacts, provenance: Provenance) -> Image {
        let event = &facts.event;
        let record = &event.image;
        let previous = known(record.previous);
        let parent = if record.flags & flags::PARENT_UNSURE != 0 {
            None
        } else {
            known(record.parent)
        };
        let parent = parent.or_else(|| self.images.get(&previous?)?.parent);
        let known = |grade| FileHash::Known {
            sha256: event.sha256,
            grade,
        };
        let hash = match event.hashed {
            hashed::KERNEL => known(Grade::Kernel),
            hashed::GATED => known(Grade::Gated),
            _ => no_hash_yet(record.flags),
        };
        let script = Script::of(&facts);
        Image {
            id: record.id,
            entity: EntityId::new(&self.boot_id, &record.id),
            parent,
            previous,
            root: record.id,
            exe: exe(record.exe, record.flags),
            fs_magic: record.fs_magic,
            flags: record.flags,
            path: facts.path.map(Arc::from),
            args: facts.args.map(Arc::from),
            actor: event.actor,
            born_ns: event.header.boot_ns,
            ended_ns: None,
            provenance,
            hash,
            script,
            sequence: None,
        }
    }

    /// Puts an image into the table, unless it is full of images that live.
    fn insert(&mut self, mut image: Image) {
        if !image.id.is_known() {
            return;
        }
        if self.images.len() >= self.capacity && !self.images.contains_key(&image.id) {
            self.make_room();
            if self.images.len() >= self.capacity {
                self.evicted += 1;
                return;
            }
        }
        if let Some(at) = self.early_ends.remove(&image.id) {
            image.ended_ns = Some(at);
            self.ended.push_back((at, image.id));
        }
        if image.root != image.id && image.hash.is_pending() {
            self.sharers.entry(image.root).or_default().push(image.id);
        }
        for id in self.orphans.remove(&image.id).unwrap_or_default() {
            if let Some(orphan) = self.images.get_mut(&id)
                && orphan.path.is_none()
                && same_exe(orphan.exe, image.exe.unwrap_or_default())
            {
                orphan.path.clone_from(&image.path);
                orphan.args.clone_from(&image.args);
                orphan.script.clone_from(&image.script);
                self.amended.push(id);
            }
        }
        self.images.insert(image.id, image);
    }

    fn end(&mut self, id: ImageId, at_ns: u64) {
        match self.images.get_mut(&id) {
            Some(image) if image.ended_ns.is_none() => {
                image.ended_ns = Some(at_ns);
                self.ended.push_back((at_ns, id));
            }
            Some(_) => {}
            None if id.is_known() && self.early_ends.len() < self.capacity => {
                self.early_ends.insert(id, at_ns);
            }
            None => {}
        }
    }

    /// Forgets ended images before their time, oldest end first: those that
    /// nothing needs, and where that is not enough, the others too.
    fn make_room(&mut self) {
        let target = self.capacity - self.capacity / 8;
        let before = self.images.len();
        self.forget(u64::MAX, target);
        while self.images.len() > target
            && let Some((_, id)) = self.ended.pop_front()
        {
            self.images.remove(&id);
        }
        self.evicted += (before - self.images.len()) as u64;
    }

    /// Forgets images that ended before `before_ns` and that nothing needs,
    /// oldest end first, until `target` are left.
    fn forget(&mut self, before_ns: u64, target: usize) {
        let needed = self.needed();
        let mut kept = VecDeque::new();
        while let Some((at, id)) = self.ended.pop_front() {
            if at >= before_ns || self.images.len() <= target {
                self.ended.push_front((at, id));
                break;
            }
            if needed.contains_key(&id) {
                kept.push_back((at, id));
            } else {
                self.images.remove(&id);
            }
        }
        kept.append(&mut self.ended);
        self.ended = kept;
    }

    /// Images that live, that a connection holds, and their fork ancestors, with
    /// the number of generations above them that are needed too; and what the
    /// processes of all these were before.
    fn needed(&self) -> HashMap<ImageId, usize> {
        let mut needed: HashMap<ImageId, usize> = HashMap::new();
        let live = self.live().map(|image| image.id);
        for id in live.chain(self.holds.keys().copied()) {
            let mut next = Some(id);
            for above in (0..=ANCESTRY_MAX).rev() {
                let Some(id) = next else { break };
                // Whoever came here before with as much to go has marked the rest.
                if needed.get(&id).is_some_and(|marked| *marked >= above) {
                    break;
                }
                needed.insert(id, above);
                next = self.images.get(&id).and_then(|image| image.parent);
            }
        }
        let mut earlier = Vec::new();
        for id in needed.keys() {
            let mut next = self.images.get(id).and_then(|image| image.previous);
            for _ in 0..EARLIER_MAX {
                let Some(id) = next else { break };
                earlier.push(id);
                next = self.images.get(&id).and_then(|image| image.previous);
            }
        }
        for id in earlier {
            needed.entry(id).or_default();
        }
        needed
    }
}

fn known(id: ImageId) -> Option<ImageId> {
    id.is_known().then_some(id)
}

fn exe(file: FileState, image_flags: u32) -> Option<FileState> {
    let none = image_flags & (flags::KTHREAD | flags::NO_EXE) != 0;
    (!none).then_some(file)
}

fn no_hash_yet(image_flags: u32) -> FileHash {
    FileHash::None(if image_flags & (flags::KTHREAD | flags::NO_EXE) != 0 {
        Missing::NoFile
    } else {
        Missing::Pending
    })
}

/// The same inode: a fork and its parent may have been looked at at different
/// times, so that the other fields may differ.
fn same_exe(a: Option<FileState>, b: FileState) -> bool {
    a.is_some_and(|a| (a.dev, a.ino, a.generation) == (b.dev, b.ino, b.generation))
}

/// Gives a fork what it shares with its parent: the executable, and all that
/// was learnt of it at its exec.
fn inherit(image: &mut Image, parent: &Image) {
    const OF_THE_FILE: u32 = flags::DELETED
        | flags::MEMFD
        | flags::OVERLAY
        | flags::CTIME_QUERIED
        | flags::PATH_TRUNCATED
        | flags::PATH_UNREACHABLE
        | flags::ARGS_TRUNCATED
        | flags::ARGS_UNREADABLE
        | flags::NO_EXE;
    image.root = parent.root;
    image.exe = parent.exe;
    image.fs_magic = parent.fs_magic;
    image.flags = (image.flags & !OF_THE_FILE) | (parent.flags & OF_THE_FILE);
    image.path.clone_from(&parent.path);
    image.args.clone_from(&parent.args);
    image.script.clone_from(&parent.script);
    image.hash = parent.hash;
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;

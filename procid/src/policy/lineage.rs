//! What the images before a live image satisfy, for a policy that is put in
//! force after they were: the programs keep it from then on.
//!
//! What an image satisfies itself, the kernel side says of those that live. Of
//! one that has ended, its inode and its hash say it for certain; its name in
//! the tree of files is gone, so that a rule which asks for that is answered
//! with *perhaps* where the path it was run by, or its inode, speaks for it.
//!
//! What had ended before the agent began is no ancestor: nobody can say any
//! more what it was. An ancestor that was lost since is *perhaps* any.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::Arc,
};

use procid_common::{
    image::{FileState, ImageId},
    policy::{ALL_RULES, Bits, Lineage, NO_RULES, Uses},
};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, open, statx};

use super::{
    Files, Matcher, Policy,
    bits::{either, insert},
    tables::Tables,
};
use crate::identity::quiet;

/// An image that lives or has ended.
#[derive(Clone, Debug)]
pub struct Member {
    /// It was found running: what its process was before is not known.
    pub found: bool,
    pub before: Before,
    /// `None`: it has no executable.
    pub exe: Option<FileState>,
    pub sha256: Option<[u8; 32]>,
    /// As it was run by, in its own mount namespace.
    pub path: Option<Arc<[u8]>>,
}

/// What came before the process of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing: init, and kernel threads.
    Nothing,
    /// The image that forked it.
    Forker(ImageId),
    /// It is older than the agent, and who forked it had ended or cannot be told.
    Older,
    Unknown,
}

/// All images that are known.
pub type Family = HashMap<ImageId, Member>;

/// Rules that ask for an ancestor or a parent by its name.
#[derive(Clone, Debug, Default)]
pub struct Named(Vec<(usize, bool, Files)>);

impl Named {
    pub fn of(policy: &Policy) -> Self {
        let rules = policy.rules.iter().enumerate();
        let all = rules.flat_map(|(index, rule)| {
            let process = &rule.process;
            let of = move |is_parent: bool| {
                move |matcher: &Matcher| match matcher {
                    Matcher::Executable(files) => Some((index, is_parent, files.clone())),
                    Matcher::Sha256(_) | Matcher::Inode(_) => None,
                }
            };
            let ancestors = process.ancestors.iter().filter_map(of(false));
            ancestors.chain(process.parents.iter().filter_map(of(true)))
        });
        Self(all.collect())
    }

    /// The rules that perhaps find an ended image's name, as an ancestor and as
    /// a parent.
    fn perhaps(&self, member: &Member) -> (Bits, Bits) {
        let (mut ancestor, mut parent) = (NO_RULES, NO_RULES);
        for (index, is_parent, files) in &self.0 {
            if speaks_for(member, files) {
                let rules = if *is_parent {
                    &mut parent
                } else {
                    &mut ancestor
                };
                insert(rules, *index);
            }
        }
        (ancestor, parent)
    }
}

fn speaks_for(member: &Member, files: &Files) -> bool {
    let by_path = |matches: &dyn Fn(&Path) -> bool| {
        // What was run by a name that was not told could have any.
        member.exe.is_some()
            && member
                .path
                .as_deref()
                .is_none_or(|path| matches(Path::new(OsStr::from_bytes(path))))
    };
    match files {
        Files::Exact(wanted) => {
            let is_there = |exe: &FileState| number_of(wanted) == Some(exe.ino);
            member.exe.as_ref().is_some_and(is_there) || by_path(&|path| path == wanted)
        }
        Files::Below(directory) => by_path(&|path| path.starts_with(directory)),
    }
}

/// The inode number of what is there now, where that can be had without waiting.
fn number_of(path: &Path) -> Option<u64> {
    let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let found = quiet::open(root, path, ResolveFlags::IN_ROOT, "/proc/self/mountinfo").ok()?;
    let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Some(statx(found, c"", at, StatxFlags::INO).ok()?.stx_ino)
}

/// What one image satisfies, certainly and perhaps, to those after it.
#[derive(Clone, Copy, Debug)]
struct Itself {
    ancestor: Bits,
    maybe_ancestor: Bits,
    parent: Bits,
    maybe_parent: Bits,
}

impl Itself {
    const UNKNOWN: Self = Self {
        ancestor: NO_RULES,
        maybe_ancestor: ALL_RULES,
        parent: NO_RULES,
        maybe_parent: ALL_RULES,
    };
}

/// The images before those of a family, under one policy.
#[derive(Debug)]
pub struct Lineages<'a> {
    tables: &'a Tables,
    family: &'a Family,
    /// What the kernel side says of live images.
    live: &'a HashMap<ImageId, Lineage>,
    /// What an earlier agent's programs had kept under the same rules.
    kept: &'a HashMap<ImageId, Lineage>,
    /// Processes that were found running.
    found: HashSet<(u32, u64)>,
    done: HashMap<ImageId, Lineage>,
}

const fn process(id: &ImageId) -> (u32, u64) {
    (id.tgid, id.start_boottime)
}

impl<'a> Lineages<'a> {
    pub fn new(
        tables: &'a Tables,
        family: &'a Family,
        live: &'a HashMap<ImageId, Lineage>,
        kept: &'a HashMap<ImageId, Lineage>,
    ) -> Self {
        Self {
            tables,
            family,
            live,
            kept,
            found: family
                .iter()
                .filter(|(_, member)| member.found)
                .map(|(id, _)| process(id))
                .collect(),
            done: HashMap::new(),
        }
    }

    /// What the images before this one satisfy; what it does itself is as the
    /// kernel side said.
    pub fn of(&mut self, id: &ImageId) -> Lineage {
        let mut chain = vec![*id];
        while let Some(Before::Forker(forker)) = chain
            .last()
            .and_then(|last| self.family.get(last))
            .map(|it| it.before)
            && !self.done.contains_key(&forker)
            && !chain.contains(&forker)
        {
            chain.push(forker);
        }
        for id in chain.into_iter().rev() {
            let lineage = self.one(&id);
            self.done.insert(id, lineage);
        }
        self.done[id]
    }

    /// That of an image whose forker's is done.
    fn one(&self, id: &ImageId) -> Lineage {
        let itself = self.itself(id);
        let mut lineage = Lineage {
            generation: 0,
            ancestor: NO_RULES,
            maybe_ancestor: ALL_RULES,
            parent: NO_RULES,
            maybe_parent: ALL_RULES,
            as_ancestor: itself.ancestor,
            maybe_as_ancestor: itself.maybe_ancestor,
            as_parent: itself.parent,
            maybe_as_parent: itself.maybe_parent,
        };
        if let Some(kept) = self.kept.get(id) {
            lineage.ancestor = kept.ancestor;
            lineage.maybe_ancestor = kept.maybe_ancestor;
            lineage.parent = kept.parent;
            lineage.maybe_parent = kept.maybe_parent;
            return lineage;
        }
        match self.family.get(id).map(|member| member.before) {
            Some(Before::Nothing | Before::Older) => {
                lineage.maybe_ancestor = NO_RULES;
                lineage.maybe_parent = NO_RULES;
            }
            Some(Before::Forker(forker)) => {
                let parent = self.itself(&forker);
                lineage.parent = parent.parent;
                lineage.maybe_parent = parent.maybe_parent;
                if let Some(before) = self.done.get(&forker) {
                    lineage.ancestor = either(&before.ancestor, &parent.ancestor);
                    lineage.maybe_ancestor = either(&before.maybe_ancestor, &parent.maybe_ancestor);
                }
                // A fork has its forker's `self_exec_id`, and each exec raises
                // it: between them are the process's own earlier images.
                for self_exec_id in forker.self_exec_id + 1..id.self_exec_id {
                    let earlier = ImageId {
                        self_exec_id,
                        ..*id
                    };
                    if self.is_found(id) && !self.family.contains_key(&earlier) {
                        continue; // older than the agent
                    }
                    let earlier = self.itself(&earlier);
                    lineage.ancestor = either(&lineage.ancestor, &earlier.ancestor);
                    lineage.maybe_ancestor =
                        either(&lineage.maybe_ancestor, &earlier.maybe_ancestor);
                }
            }
            Some(Before::Unknown) | None => {}
        }
        lineage
    }

    /// Whether the process was found running, as this image or an earlier one.
    fn is_found(&self, id: &ImageId) -> bool {
        self.found.contains(&process(id))
    }

    fn itself(&self, id: &ImageId) -> Itself {
        if let Some(live) = self.live.get(id) {
            return Itself {
                ancestor: live.as_ancestor,
                maybe_ancestor: live.maybe_as_ancestor,
                parent: live.as_parent,
                maybe_parent: live.maybe_as_parent,
            };
        }
        self.family
            .get(id)
            .map_or(Itself::UNKNOWN, |member| self.ended(member))
    }

    fn ended(&self, member: &Member) -> Itself {
        let tables = self.tables;
        let inode = member.exe.and_then(|exe| {
            let mut all = tables.inodes.iter();
            all.find(|(key, _)| key.dev == exe.dev && key.ino == exe.ino)
        });
        let hash = member.sha256.and_then(|sha256| {
            let mut all = tables.hashes.iter();
            all.find(|(key, _)| key.sha256 == sha256)
        });
        let inode = inode.map_or(Uses::NONE, |(_, uses)| *uses);
        let hash = hash.map_or(Uses::NONE, |(_, uses)| *uses);
        let (named_ancestor, named_parent) = tables.named.perhaps(member);
        let is_unhashed = member.exe.is_some() && member.sha256.is_none();
        let maybe = |yes: &Bits, named: &Bits, by_hash: &Bits| {
            let maybe = either(yes, named);
            if is_unhashed {
                either(&maybe, by_hash)
            } else {
                maybe
            }
        };
        let ancestor = either(&inode.ancestor, &hash.ancestor);
        let parent = either(&inode.parent, &hash.parent);
        Itself {
            ancestor,
            maybe_ancestor: maybe(&ancestor, &named_ancestor, &tables.head.ancestor_by_hash),
            parent,
            maybe_parent: maybe(&parent, &named_parent, &tables.head.parent_by_hash),
        }
    }
}

#[cfg(test)]
mod tests;

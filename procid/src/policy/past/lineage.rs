//! The images before the one that acted, as far as records tell of them.

use std::collections::HashMap;

use crate::records::{Exe, Process, Record};

/// Longest line of images that is followed.
const LINKS_MAX: usize = 256;

/// One image, as its record tells of it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub process: Process,
    pub exe: Option<Exe>,
    /// It is what a fork left: no image of this process came before.
    is_fork: bool,
    /// It was found running. What came before it counts as none, as it does for
    /// the programs in the kernel: docs/DESIGN.md, "Images before a policy".
    is_found: bool,
}

impl Seen {
    fn of(record: Record) -> Option<Self> {
        let procid = record.procid?;
        Some(Self {
            process: *record.process?,
            exe: procid.exe.clone(),
            is_fork: procid.flags.iter().any(|flag| flag == "forked"),
            is_found: procid.provenance.as_deref() == Some("snapshot"),
        })
    }
}

/// An image before another one.
#[derive(Clone, Copy, Debug)]
pub enum Link<'a> {
    Image(&'a Seen),
    /// There may be one that is not known.
    Missing,
}

/// Images by their entity ids: those that were asked for.
#[derive(Debug, Default)]
pub struct Images(HashMap<String, Option<Seen>>);

impl Images {
    /// Takes in the answer: the image's record, or that none is known.
    pub fn learn(&mut self, entity: String, record: Option<Record>) {
        self.0.insert(entity, record.and_then(Seen::of));
    }

    /// An image that a record's line leads to, and that was not asked for yet.
    pub fn wanted(&self, record: &Record) -> Option<String> {
        let mut wanted = None;
        self.follow(record, |entity, known| {
            if known.is_none() && wanted.is_none() {
                wanted = entity.map(str::to_owned);
            }
        });
        wanted
    }

    /// The images before the one that acted, nearest first: earlier ones of its
    /// own process, then those of the process that forked it, and so on.
    pub(super) fn before<'a>(&'a self, record: &Record) -> impl Iterator<Item = Link<'a>> {
        let mut links = Vec::new();
        let own = entity_of(record.process.as_deref());
        self.follow(record, |entity, known| {
            if entity.is_some() && entity == own {
                return;
            }
            links.push(match known {
                Some(Some(seen)) => Link::Image(seen),
                _ => Link::Missing,
            });
        });
        links.into_iter()
    }

    /// Calls for each image of the line, the acting one first, with what is known
    /// of it: `None` where it was not asked for. One that cannot be named has no
    /// entity.
    fn follow<'a>(
        &'a self,
        record: &Record,
        mut call: impl FnMut(Option<&str>, Option<&'a Option<Seen>>),
    ) {
        let own = entity_of(record.process.as_deref());
        let procid = record.procid.as_deref();
        let forkers = procid.and_then(|procid| procid.ancestry.as_deref());
        let mut is_whole = false;
        let line = own
            .into_iter()
            .chain(forkers.into_iter().flatten().map(String::as_str));
        let mut links = 0;
        for of_process in line {
            let mut next = Some(of_process.to_owned());
            while let Some(entity) = next.take() {
                links += 1;
                if links > LINKS_MAX {
                    return call(None, None);
                }
                let known = self.0.get(&entity);
                call(Some(&entity), known);
                is_whole = false;
                let Some(Some(seen)) = known else { break };
                // Init, and the first of the kernel's threads, have no forker.
                let is_first = matches!(seen.process.pid, Some(1 | 2));
                is_whole = seen.is_found || is_first;
                match entity_of(seen.process.previous.as_deref()) {
                    Some(earlier) => next = Some(earlier.to_owned()),
                    None if seen.is_fork || is_whole => {}
                    None => call(None, None),
                }
            }
        }
        if !is_whole {
            call(None, None);
        }
    }
}

fn entity_of(process: Option<&Process>) -> Option<&str> {
    process.and_then(|process| process.entity_id.as_deref())
}

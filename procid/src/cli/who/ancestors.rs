//! The images before those that an answer names.

use std::collections::HashMap;

use crate::records::{Process, Record};

/// Images that are asked for, one by one, for one answer: of a long one, those
/// that come first.
const ASKED_MAX: usize = 2_000;

/// Images by their entity ids: those that were asked for.
#[derive(Debug, Default)]
pub struct Ancestors(HashMap<String, Option<Process>>);

impl Ancestors {
    /// Takes in the answer: the image's record, or that none is known.
    pub fn learn(&mut self, entity: String, record: Option<Record>) {
        let process = record.and_then(|record| record.process);
        self.0.insert(entity, process.map(|process| *process));
    }

    /// Takes in records of images, as far as they have entity ids.
    pub fn learn_all(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            let process = record.process.as_ref();
            if let Some(entity) = process.and_then(|process| process.entity_id.clone()) {
                self.learn(entity, Some(record));
            }
        }
    }

    /// Those that were not asked for. The record itself says of the parent which
    /// image it is, but not with which arguments.
    pub fn wanted(&self, record: &Record) -> Vec<String> {
        line(record)
            .filter(|entity| !self.0.contains_key(*entity))
            .take(ASKED_MAX.saturating_sub(self.0.len()))
            .map(str::to_owned)
            .collect()
    }

    /// The ancestors of who acted, the farthest first; `None`: nothing is known of it.
    pub fn of<'a>(&'a self, record: &'a Record) -> Vec<(&'a str, Option<&'a Process>)> {
        let parent = parent(record);
        let mut ancestors: Vec<_> = line(record)
            .map(|entity| {
                let is_parent = parent.and_then(|it| it.entity_id.as_deref()) == Some(entity);
                let known = self.0.get(entity).and_then(Option::as_ref);
                (entity, known.or(parent.filter(|_| is_parent)))
            })
            .collect();
        ancestors.reverse();
        ancestors
    }
}

fn parent(record: &Record) -> Option<&Process> {
    record.process.as_ref()?.parent.as_deref()
}

/// Entity ids, the parent's first.
fn line(record: &Record) -> impl Iterator<Item = &str> {
    let procid = record.procid.as_deref();
    let ancestry = procid.and_then(|procid| procid.ancestry.as_deref());
    ancestry.into_iter().flatten().map(String::as_str)
}

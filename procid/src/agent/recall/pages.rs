//! A question about all of a time, in pages: one answer is bounded.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use jiff::Timestamp;

use super::join::OVER_LIMIT;
use crate::{
    flow::Query,
    records::{Coverage, Record},
};

/// What began earlier may have been told later by that much, nanoseconds: an
/// attempt waits for its outcome.
const OVERLAP_NS: i64 = 1_200_000_000;

/// Pages, the newest first.
#[derive(Debug)]
pub struct Pages {
    query: Query,
    /// Digests of what pages have had: they overlap.
    seen: HashSet<u64>,
    oldest: Option<i64>,
    covered: Option<Coverage>,
    is_cut: bool,
}

impl Pages {
    pub fn new(query: Query) -> Self {
        Self {
            query,
            seen: HashSet::new(),
            oldest: None,
            covered: None,
            is_cut: false,
        }
    }

    /// What is to be asked now.
    pub const fn query(&self) -> &Query {
        &self.query
    }

    /// Takes a whole answer, and leaves what no page before had.
    pub fn take(&mut self, mut answer: Vec<Record>) -> Vec<Record> {
        self.is_cut = false;
        self.oldest = None;
        answer.retain(|record| {
            if let Some(covered) = record.procid.as_ref().and_then(|it| it.coverage.as_ref()) {
                self.is_cut = covered.lost.contains_key(OVER_LIMIT);
                self.cover(covered);
                return false;
            }
            let at = record.timestamp.parse::<Timestamp>().ok();
            let at = at.and_then(|at| i64::try_from(at.as_nanosecond()).ok());
            self.oldest = [self.oldest, at].into_iter().flatten().min();
            self.seen.insert(digest(record))
        });
        answer
    }

    /// What the first page covers is what all do, but for what was too much.
    fn cover(&mut self, covered: &Coverage) {
        let all = self.covered.get_or_insert_with(|| covered.clone());
        match covered.lost.get(OVER_LIMIT) {
            Some(over) => all.lost.insert(OVER_LIMIT.to_owned(), *over),
            None => all.lost.remove(OVER_LIMIT),
        };
    }

    /// Whether there is a page before the one that was taken last. There is none
    /// where so much happened at once that no answer leads past it.
    pub fn go_back(&mut self) -> bool {
        let Some(until) = self.oldest.filter(|_| self.is_cut) else {
            return false;
        };
        let until = until.saturating_add(OVERLAP_NS);
        let until = self.query.since.map_or(until, |since| until.max(since));
        let goes_back = self.query.until.is_none_or(|before| until < before);
        self.query.until = Some(until);
        goes_back
    }

    /// What all pages cover.
    pub fn covered(self) -> Option<Coverage> {
        self.covered
    }
}

fn digest(record: &Record) -> u64 {
    let procid = record.procid.as_deref();
    let process = record.process.as_deref();
    let mut hasher = DefaultHasher::new();
    (
        procid.and_then(|procid| procid.flow_id.as_deref()),
        process.and_then(|process| process.entity_id.as_deref()),
        procid.and_then(|procid| procid.role.as_deref()),
        procid.and_then(|procid| procid.verdict.as_deref()),
        &record.timestamp,
    )
        .hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::render::coverage as coverage_record, records::Procid, time::rfc3339_ns};

    const SECOND: i64 = 1_000_000_000;

    /// Acts half a second apart, of which an answer holds ten.
    fn answer(acts: &[i64], until: Option<i64>) -> Vec<Record> {
        let open: Vec<i64> = acts
            .iter()
            .copied()
            .filter(|at| until.is_none_or(|until| *at <= until))
            .collect();
        let over = open.len().saturating_sub(10);
        let mut records: Vec<Record> = open[over..]
            .iter()
            .map(|at| Record {
                timestamp: rfc3339_ns(*at),
                ..Record::default()
            })
            .collect();
        let mut covered = Coverage::default();
        if over > 0 {
            covered.lost.insert(OVER_LIMIT.to_owned(), over as u64);
        }
        records.push(coverage_record(covered));
        records
    }

    fn all(acts: &[i64]) -> (usize, Coverage) {
        let mut pages = Pages::new(Query::default());
        let mut found = 0;
        loop {
            let page = answer(acts, pages.query().until);
            found += pages.take(page).len();
            if !pages.go_back() {
                return (found, pages.covered().unwrap());
            }
        }
    }

    #[test]
    fn each_act_is_on_one_page() {
        let acts: Vec<i64> = (0..100).map(|number| number * SECOND / 2).collect();
        let (found, covered) = all(&acts);
        assert_eq!(found, 100);
        assert_eq!(covered.lost, [].into());
    }

    #[test]
    fn what_no_page_reaches_is_counted() {
        let mut acts = vec![0; 5];
        acts.extend((0..50).map(|number| SECOND + number));
        let (found, covered) = all(&acts);
        assert_eq!(found, 10);
        assert_eq!(covered.lost[OVER_LIMIT], 45);
    }

    #[test]
    fn two_uses_of_a_flow_are_two_acts() {
        let of = |role: &str| Record {
            procid: Some(Box::new(Procid {
                role: Some(role.to_owned()),
                ..Procid::default()
            })),
            ..Record::default()
        };
        assert_ne!(digest(&of("opener")), digest(&of("speaker")));
        assert_eq!(digest(&of("opener")), digest(&of("opener")));
    }
}

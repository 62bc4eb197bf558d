//! What is removed from history, and what stays.

use std::path::Path;

use super::*;
use crate::history::{
    file::FILE,
    fixtures::{Kept, reader},
};

/// Several steps' worth.
const FLOWS: u64 = 36_000;
const EACH: u64 = 100 * MS;
/// The distance of [`NOW`] from the epoch.
const OFFSET: u64 = 1_700_000_000_000_000_000;
const NEVER: Duration = Duration::from_secs(1 << 32);

/// Connections one after the other, of one image.
fn kept(directory: &Path, flows: u64) -> Kept {
    let mut engine = engine_with_curl();
    let mut kept = Kept::begin(directory, &engine.run());
    for number in 1..=flows {
        let at = NOW + number * EACH;
        engine.event(Event::Attempt(attempt(number, 1, at)));
        engine.event(Event::Outcome(outcome(number, 1, at + MS, 0)));
        engine.event(Event::Close(close(number, 1, at + 2 * MS)));
        engine.tick(at + 3 * MS);
        while engine.next_record().is_some() {}
        if number.is_multiple_of(500) {
            let facts: Vec<_> = std::iter::from_fn(|| engine.next_fact()).collect();
            kept.write(facts, at + 3 * MS);
        }
    }
    kept
}

/// Cookies of those that history has, and from when on it says that it has all.
fn found(directory: &Path) -> (Vec<u64>, Option<u64>) {
    let database = rusqlite::Connection::open(directory.join(FILE)).unwrap();
    let found = database
        .prepare("SELECT cookie FROM flows ORDER BY cookie")
        .unwrap()
        .query_map([], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    let until = reader(directory).missing().unwrap().removed_until;
    let until = until.map(|until| u64::try_from(until).unwrap() - OFFSET);
    (found, until)
}

/// Of the file with what is in its log.
fn size(directory: &Path) -> u64 {
    let database = rusqlite::Connection::open(directory.join(FILE)).unwrap();
    let number = |pragma| database.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let (pages, page) = (number("PRAGMA page_count"), number("PRAGMA page_size"));
    (pages.unwrap() * page.unwrap()).cast_unsigned()
}

#[test]
fn the_oldest_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), FLOWS);
    let size = || size(directory.path());
    kept.bound(1 << 30, NEVER);
    assert_eq!(found(directory.path()), ((1..=FLOWS).collect(), None));

    // What is too old, whatever the size. The time goes on meanwhile.
    let old = FLOWS / 3;
    let cut = OFFSET + NOW + old * EACH + EACH / 2;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    kept.bound(1 << 30, now.checked_sub(Duration::from_nanos(cut)).unwrap());
    let (young, until) = found(directory.path());
    assert!(young[0] > old, "{}", young[0]);
    assert!(young.ends_with(&(FLOWS / 2..=FLOWS).collect::<Vec<_>>()));
    // Before that, it does not say that there was nothing.
    assert!(
        until.is_some_and(|until| until >= cut - OFFSET),
        "{until:?}"
    );

    let before = size();
    let bound = before / 3;
    kept.bound(bound, NEVER);
    let (few, until) = found(directory.path());
    assert!(!few.is_empty() && few.len() < young.len(), "{}", few.len());
    assert!(young.ends_with(&few), "{}", few[0]);
    let removed = NOW + (few[0] - 1) * EACH + 2 * MS;
    assert!(until.is_some_and(|until| until > removed), "{until:?}");
    assert!(size() <= bound, "{} of {before}", size());
}

#[test]
fn a_small_file_keeps_what_fits() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = kept(directory.path(), 6_000);
    kept.bound(1 << 30, NEVER);
    let bound = size(directory.path()) / 2;
    kept.bound(bound, NEVER);
    let (few, _) = found(directory.path());
    assert!(few.len() > 1_000, "{} of 6000", few.len());
    assert!(few.iter().copied().eq(few[0]..=6_000));
}

#[test]
fn what_nothing_names_any_more_goes_with_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = engine_with_curl();
    let mut kept = Kept::begin(directory.path(), &engine.run());
    engine.event(exit(image(10), NOW + 5, 0));
    while engine.next_record().is_some() {}
    let facts: Vec<_> = std::iter::from_fn(|| engine.next_fact()).collect();
    kept.write(facts, NOW + 5);
    let count = |table: &str| {
        let database = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
        let count = format!("SELECT count(*) FROM {table}");
        database
            .query_row(&count, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let named = ["programs", "places"];
    kept.bound(1 << 30, NEVER);
    drop(kept);
    let mut kept = Kept::begin(directory.path(), &engine.run());
    assert_eq!(named.map(count), [1, 1]);
    kept.bound(1 << 30, Duration::ZERO);
    // Its parent, which was named and not seen, goes a round later.
    assert_eq!(count("images WHERE program IS NOT NULL"), 0);
    drop(kept);
    let _kept = Kept::begin(directory.path(), &engine.run());
    assert_eq!(named.map(count), [0, 0]);
}

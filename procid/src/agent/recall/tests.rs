//! What answers from history cover.

use super::coverage::of;
use crate::{
    flow::Query,
    history::{
        Gap,
        fixtures::{Kept, reader, run},
        reader::Missing,
    },
    records::Uncovered,
};

const SECOND: u64 = 1_000_000_000;

fn covered(query: &Query, missing: &Missing) -> crate::records::Coverage {
    let directory = tempfile::tempdir().unwrap();
    for (name, since, seen, clean) in [
        ("killed", 10, 20, false),
        ("stopped", 30, 40, true),
        ("last", 50, 60, false),
    ] {
        let mut run = run(name, since * SECOND);
        run.uncovered = vec![Uncovered {
            path: "AF_PACKET".to_owned(),
            reason: "no LSM".to_owned(),
        }];
        let mut kept = Kept::begin(directory.path(), &run);
        let end = clean.then_some(crate::history::Fact::End(seen * SECOND));
        kept.write(end, seen * SECOND);
    }
    of(query, &reader(directory.path()).runs().unwrap(), missing)
}

fn real(seconds: u64) -> i64 {
    1_700_000_000_000_000_000 + i64::try_from(seconds * SECOND).unwrap()
}

#[test]
fn times_without_an_agent_are_gaps() {
    let coverage = covered(&Query::default(), &Missing::default());
    assert_eq!(
        coverage.from.as_deref(),
        Some("2023-11-14T22:13:30.000000000Z")
    );
    assert_eq!(coverage.to, "2023-11-14T22:14:20.000000000Z");
    let gaps: Vec<_> = coverage
        .gaps
        .iter()
        .map(|gap| {
            (
                gap.cause.as_str(),
                &gap.from.as_ref().unwrap()[17..19],
                &gap.to[17..19],
            )
        })
        .collect();
    assert_eq!(
        gaps,
        [("agent-killed", "40", "50"), ("no-agent", "00", "10")]
    );
    assert_eq!(coverage.uncovered.len(), 1);
    assert_eq!(coverage.provenance, "history");
}

#[test]
fn a_question_about_a_time_is_told_of_that_time() {
    let missing = Missing {
        gaps: vec![Gap {
            from: Some(real(32)),
            to: real(33),
            count: Some(5),
            cause: "queue-full".to_owned(),
        }],
        losses: vec![
            (1, 15 * SECOND, "ring".to_owned(), 7),
            (2, 35 * SECOND, "ring".to_owned(), 1),
        ],
        removed_until: Some(real(12)),
    };
    let query = Query {
        since: Some(real(31)),
        until: Some(real(39)),
        ..Query::default()
    };
    let coverage = covered(&query, &missing);
    assert_eq!(coverage.lost, [("ring".to_owned(), 1)].into());
    let causes: Vec<_> = coverage.gaps.iter().map(|gap| gap.cause.as_str()).collect();
    assert_eq!(causes, ["queue-full"]);
    assert_eq!(coverage.gaps[0].count, Some(5));
    assert_eq!(
        coverage.from.as_deref(),
        Some("2023-11-14T22:13:32.000000000Z")
    );
    let all = covered(&Query::default(), &missing);
    assert_eq!(all.lost, [("ring".to_owned(), 8)].into());
    assert_eq!(all.gaps.len(), 3);
}

#[test]
fn nothing_was_ever_kept() {
    let coverage = of(&Query::default(), &[], &Missing::default());
    assert_eq!(coverage.from, None);
}

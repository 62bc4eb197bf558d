//! What an answer from history could have missed.

use std::collections::BTreeMap;

use crate::{
    flow::Query,
    history::{
        Reader,
        reader::{Missing, PastRun},
    },
    records::{self, Coverage, Uncovered},
    time::rfc3339_ns,
};

/// Cause of a gap: no agent ran.
const NO_AGENT: &str = "no-agent";
/// Cause of a gap between runs: the earlier one was killed, and what it had not
/// written is lost.
const KILLED: &str = "agent-killed";

/// What the runs have covered, as far as a question asks for that time.
///
/// # Errors
///
/// Those of reading.
pub fn coverage(reader: &Reader, query: &Query, runs: &[PastRun]) -> rusqlite::Result<Coverage> {
    Ok(of(query, runs, &reader.missing()?))
}

/// From the first to the last look of a run, nanoseconds since the epoch.
fn span(run: &PastRun) -> (i64, i64) {
    let real = |boot_ns| run.run.offset.to_real(boot_ns);
    (
        real(run.run.since_ns),
        real(run.ended_ns.unwrap_or(run.seen_ns)),
    )
}

pub(super) fn of(query: &Query, runs: &[PastRun], missing: &Missing) -> Coverage {
    let since = query.since.max(query.at).unwrap_or(i64::MIN);
    let until = query.until.unwrap_or(i64::MAX);
    let until = query.at.map_or(until, |at| until.min(at));
    let is_asked = |from: i64, to: i64| from <= until && since <= to;
    let first = runs.first().map(|run| span(run).0);
    let from = first.max(missing.removed_until);
    let to = runs.iter().map(|run| span(run).1).max();

    let mut uncovered: Vec<Uncovered> = Vec::new();
    for run in runs {
        let (start, stop) = span(run);
        for path in &run.run.uncovered {
            if is_asked(start, stop) && !uncovered.contains(path) {
                uncovered.push(path.clone());
            }
        }
    }
    let mut lost: BTreeMap<String, u64> = BTreeMap::new();
    for (of, at_ns, cause, count) in &missing.losses {
        let run = runs.iter().find(|run| run.id == *of);
        let at = run.map(|run| run.run.offset.to_real(*at_ns));
        if at.is_some_and(|at| is_asked(at, at)) {
            *lost.entry(cause.clone()).or_default() += count;
        }
    }
    let gap = |from: Option<i64>, to: i64, count, cause: &str| records::Gap {
        from: from.map(rfc3339_ns),
        to: rfc3339_ns(to),
        count,
        cause: cause.to_owned(),
    };
    let written = missing
        .gaps
        .iter()
        .filter(|one| is_asked(one.from.unwrap_or(i64::MIN), one.to))
        .map(|one| (one.to, gap(one.from, one.to, one.count, &one.cause)));
    let between = runs.windows(2).filter_map(|pair| {
        let [before, after] = pair else { return None };
        let (from, to) = (span(before).1, span(after).0);
        let cause = match before.ended_ns {
            Some(_) => NO_AGENT,
            None => KILLED,
        };
        is_asked(from, to).then(|| (to, gap(Some(from), to, None, cause)))
    });
    let mut gaps: Vec<_> = written.chain(between).collect();
    gaps.sort_by_key(|(to, _)| *to);
    Coverage {
        from: from.map(rfc3339_ns),
        to: rfc3339_ns(to.unwrap_or(0)),
        lost,
        gaps: gaps.into_iter().map(|(_, gap)| gap).collect(),
        uncovered,
        provenance: "history".to_owned(),
    }
}

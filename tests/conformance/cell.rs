//! Cells of the table: what one path amounts to on one kernel and backend.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::{
    hold::{Held, Problem, hold},
    paths::Path,
    run::{End, Run},
    told::Told,
};

/// What is so of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Attributed,
    Exact,
    /// Attributed; the counts are absent, and why.
    NoBytes(String),
    NotCovered(String),
    /// The call fails, nothing leaves, one record tells why.
    Denied,
    /// Nothing leaves and a record tells why, but the call succeeds.
    Dropped,
    Failed(Vec<Problem>),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attributed => f.write_str("attributed"),
            Self::Exact => f.write_str("attributed, bytes exact"),
            Self::NoBytes(reason) => write!(f, "bytes: {reason}"),
            Self::NotCovered(reason) => write!(f, "not covered, because {reason}"),
            Self::Denied => f.write_str("denied"),
            Self::Dropped => f.write_str(
                "dropped: the kernel ignores that the packet was denied, and the call succeeds",
            ),
            Self::Failed(_) => f.write_str("FAILED"),
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One cell, as a line of JSON.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) path: String,
    pub(crate) what: &'static str,
    pub(crate) section: &'static str,
    pub(crate) kernel: String,
    pub(crate) backend: String,
    pub(crate) cell: Verdict,
    /// The sizes that were moved, for paths of bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) bytes: Vec<u64>,
}

/// What the records say of the runs of one path.
pub(crate) fn verdict(told: &Told<'_>, path: &Path, runs: &[&Run]) -> Verdict {
    let mut held = Held::default();
    for run in runs {
        let of_run = match &run.end {
            End::Unsupported(reason) => return Verdict::NotCovered(reason.clone()),
            End::Failed(sentence) => {
                held.problems.push(Problem::Wrong(sentence.clone()));
                continue;
            }
            End::Flows(flows) if path.uncounted => {
                let mut flows = flows.clone();
                for flow in &mut flows {
                    flow.sent = None;
                    flow.received = None;
                }
                hold(told, &flows, path.distinct_images)
            }
            End::Flows(flows) => hold(told, flows, path.distinct_images),
        };
        held.problems.extend(of_run.problems);
        held.bytes.exact += of_run.bytes.exact;
        held.bytes.unknown.extend(of_run.bytes.unknown);
    }
    let only_missing = held
        .problems
        .iter()
        .all(|problem| matches!(problem, Problem::Missing(_)));
    if !held.problems.is_empty() {
        return match told.uncovered(path.uncovered) {
            Some(reason) if only_missing => Verdict::NotCovered(reason),
            _ => Verdict::Failed(held.problems),
        };
    }
    match (held.bytes.exact, held.bytes.unknown.into_iter().next()) {
        (_, Some(reason)) => Verdict::NoBytes(reason),
        (0, None) => Verdict::Attributed,
        (_, None) => Verdict::Exact,
    }
}

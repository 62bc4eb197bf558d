//! Records about procid itself.

use std::collections::BTreeMap;

use super::{Head, Renderer};
use crate::records::{Coverage, Procid, Record, Uncovered};

const DATASET: &str = "procid.agent";

/// What a `ready` record says.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct Ready {
    pub(in crate::agent) backend: String,
    /// Those attached.
    pub(in crate::agent) hooks: Vec<String>,
    pub(in crate::agent) uncovered: Vec<Uncovered>,
}

impl Renderer<'_> {
    pub(in crate::agent) fn ready(&self, ready: Ready, at_ns: u64) -> Record {
        let mut record = self.of_the_agent("ready", at_ns);
        record.procid = Some(Box::new(Procid {
            backend: Some(ready.backend),
            hooks: Some(ready.hooks),
            uncovered: Some(ready.uncovered),
            ..Procid::default()
        }));
        record
    }

    pub(in crate::agent) fn loss(&self, lost: BTreeMap<String, u64>, at_ns: u64) -> Record {
        let mut record = self.of_the_agent("loss", at_ns);
        record.procid = Some(Box::new(Procid {
            lost: Some(lost),
            ..Procid::default()
        }));
        record
    }

    fn of_the_agent(&self, action: &'static str, at_ns: u64) -> Record {
        self.record(&Head {
            action,
            dataset: DATASET,
            category: None,
            types: &["info"],
            is_state: false,
            at_ns,
        })
    }
}

/// The last record of an answer.
pub(in crate::agent) fn coverage(coverage: Coverage) -> Record {
    Record {
        procid: Some(Box::new(Procid {
            coverage: Some(coverage),
            ..Procid::default()
        })),
        ..Record::default()
    }
}

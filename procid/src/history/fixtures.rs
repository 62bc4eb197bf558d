//! A history that is written when a test says so.

use std::{fs::File, path::Path, time::Duration};

use super::{
    Fact, Gap, Limits, Reader, batch::Batch, bounds::Bounds, fact::Run, file, store::Store,
};
use crate::{identity::hash::settle::Offset, records};

/// One run's history in a directory of its own.
#[derive(Debug)]
pub(crate) struct Kept {
    store: Store,
    _lock: File,
}

impl Kept {
    pub(crate) fn begin(directory: &Path, run: &Run) -> Self {
        let opened = file::open(directory).unwrap();
        Self {
            store: Store::new(opened.database, run).unwrap(),
            _lock: opened.lock,
        }
    }

    /// Writes these as one batch.
    pub(crate) fn write(&mut self, facts: impl IntoIterator<Item = Fact>, now_ns: u64) {
        let mut batch = Batch::default();
        for fact in facts {
            batch.put(fact);
        }
        self.store.write(&batch, &[], now_ns).unwrap();
    }

    pub(crate) fn write_gap(&mut self, gap: Gap) {
        self.store.write(&Batch::default(), &[gap], 0).unwrap();
    }

    /// Keeps it within bounds until nothing more is removed.
    pub(crate) fn bound(&mut self, size: u64, age: Duration) {
        let mut bounds = Bounds::new(Limits { size, age });
        for _ in 0..1_000 {
            self.store.bound(&mut bounds).unwrap();
        }
    }
}

pub(crate) fn reader(directory: &Path) -> Reader {
    Reader::open(directory).unwrap()
}

/// A run that began at that time, nanoseconds since boot.
pub(crate) fn run(name: &str, since_ns: u64) -> Run {
    Run {
        boot_id: [1; 16],
        host: records::Host {
            boot: Some(records::Id {
                id: "01010101-0101-0101-0101-010101010101".to_owned(),
            }),
            ..records::Host::default()
        },
        agent: records::Agent {
            agent_type: "procid".to_owned(),
            version: "0.1.0".to_owned(),
            id: None,
            ephemeral_id: Some(name.to_owned()),
        },
        keeps_args: true,
        backend: "cgroup".to_owned(),
        uncovered: Vec::new(),
        since_ns,
        first_offset: Offset(1_700_000_000_000_000_000),
        offset: Offset(1_700_000_000_000_000_000),
    }
}

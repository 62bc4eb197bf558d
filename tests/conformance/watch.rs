//! An agent, the runs it watches, and what it told of them.

use std::collections::HashMap;

use procid_tests::{
    agent::Agent,
    cgroup::TestCgroup,
    records::{Records, text},
    scratch::{Image, Scratch},
    stage::Stage,
    way::Role,
};

use crate::{paths::Path, run::Run};

/// A running agent that watches one cgroup.
#[derive(Debug)]
pub(crate) struct Watch {
    agent: Agent,
    cgroup: TestCgroup,
    app: Image,
    /// Removed at the end.
    scratch: Scratch,
}

impl Watch {
    pub(crate) fn start(backend: &str) -> Self {
        let Stage {
            agent,
            cgroup,
            scratch,
            app,
        } = Stage::with(&["--backend", backend]);
        Self {
            agent,
            cgroup,
            app,
            scratch,
        }
    }

    pub(crate) fn cgroup(&self) -> &TestCgroup {
        &self.cgroup
    }

    /// The test program that runs.
    pub(crate) fn app(&self) -> &Image {
        &self.app
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Where files may be kept until the end.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub(crate) fn run(&self, path: Path, bytes: Option<u64>) -> Run {
        Run::new(&self.cgroup, &self.app.path, path, bytes)
    }

    /// Waits until so many denials are told; stops the agent.
    pub(crate) fn end_of_denials(mut self, count: usize) -> Records {
        self.agent
            .until(|records| records.denials().count() >= count);
        self.agent.stop()
    }

    /// Waits until the ends of all sockets that were used are told, and the
    /// hashes; stops the agent. What is missing is for the cells to find.
    pub(crate) fn end(mut self, runs: &[Run]) -> (Records, Image) {
        let mut ends = Ends::of(runs);
        self.agent
            .until(|records| ends.are_told(records) && !records.await_hashes());
        (self.agent.stop(), self.app)
    }
}

/// The ends of sockets that are to be told.
struct Ends {
    /// How many, by the socket's cookie.
    awaited: HashMap<String, usize>,
    /// Records looked at.
    seen: usize,
}

impl Ends {
    fn of(runs: &[Run]) -> Self {
        let mut awaited = HashMap::new();
        for flow in runs.iter().flat_map(Run::flows) {
            if flow.role != Role::Speaker && flow.error.is_none() {
                *awaited.entry(flow.cookie.clone()).or_default() += 1;
            }
        }
        Self { awaited, seen: 0 }
    }

    fn are_told(&mut self, records: &Records) -> bool {
        for record in &records.all()[self.seen..] {
            let cookie = text(record, "/procid/socket/cookie");
            if text(record, "/event/action") != "close" {
                continue;
            }
            if let Some(count) = self.awaited.get_mut(&*cookie) {
                *count -= 1;
                if *count == 0 {
                    self.awaited.remove(&*cookie);
                }
            }
        }
        self.seen = records.all().len();
        self.awaited.is_empty()
    }
}

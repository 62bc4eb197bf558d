//! An exec gate, and nothing else of procid.

use std::{
    io::{self, BufRead as _, Write as _},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Result;
use procid::{
    gate::{self, Config, Marks},
    identity::hash::statx::Statx,
};
use procid_tests::gate::line_of;

/// How long a state takes to be published: long enough to find out an execution
/// that went on before.
const PUBLISHING: Duration = Duration::from_millis(5);

/// Prints `ready`, then a line for each state published; for each line on
/// stdin what it has counted; ends with stdin.
#[derive(Debug, clap::Args)]
pub(crate) struct Gate {
    /// Where the file system is mounted
    #[arg(long)]
    on: PathBuf,
    /// Longest that an execution waits
    #[arg(long, value_name = "MILLISECONDS")]
    limit: u64,
}

impl Gate {
    pub(crate) fn run(self) -> Result<()> {
        let config = Config {
            limit: Duration::from_millis(self.limit),
            ..Config::default()
        };
        let gate = gate::Gate::open(config, Arc::new(Statx), |state, sha256, _| {
            thread::sleep(PUBLISHING);
            say(&line_of(state, sha256));
        })?;
        gate.watch(Marks::Only(vec![self.on]))?;
        say("ready");
        for _ in io::stdin().lock().lines() {
            say(&format!("{:?} open: {}", gate.counts(), gate.is_open()));
        }
        Ok(())
    }
}

/// With stdout gone, there is nobody to tell.
fn say(line: &str) {
    let _gone = io::stdout().write_all(format!("{line}\n").as_bytes());
}

//! How long it takes to put another policy in force.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{Programs, agent::Agent, cgroup::Cgroup, statistics::median, under::policy};

/// Rules of the policies.
const RULES: usize = 1_000;
/// Timed applies.
const SWAPS: usize = 15;

/// Times from the question to the answer of an apply, milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swap {
    pub(crate) rules: usize,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

/// Two policies take turns.
///
/// # Errors
///
/// Of the programs.
pub(crate) fn swap(programs: &Programs, cgroup: &Cgroup) -> Result<Swap> {
    eprintln!("swaps of {RULES} rules");
    let agent = Agent::start(&programs.procid, cgroup)?;
    let texts = [policy(RULES), policy(RULES).replace("tool-", "gear-")];
    let mut swaps = Vec::new();
    for number in 0..SWAPS {
        let start = Instant::now();
        agent.apply(&texts[number % 2])?;
        swaps.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    agent.stop()?;
    Ok(Swap {
        rules: RULES,
        median: median(&swaps).context("no swaps")?,
        most: swaps.iter().copied().fold(0.0, f64::max),
    })
}

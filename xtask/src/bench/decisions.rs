//! What a decision costs, by the number of rules, and how long a swap takes.

use std::{fmt::Write as _, time::Instant};

use anyhow::{Context as _, Result};

use super::{
    Programs,
    agent::Agent,
    bpf::{self, RunTimes},
    cgroup::Cgroup,
    loops::Loop,
    proc::Bpf,
    statistics::{Pair, Summary, median},
};

/// Rules of the policies compared; the first is what the others are held to.
const RULES: [usize; 4] = [1, 10, 100, 1_000];
const LOOPS: [Loop; 2] = [Loop::Connect, Loop::Udp];
/// The program that decides of every turn of the connect loop.
const DECIDES: &str = "connect4";
/// Timed applies of the largest policy.
const SWAPS: usize = 15;

/// One policy against that of one rule.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    pub(crate) rules: usize,
    /// `bare`: under one rule.
    pub(crate) loops: [(Loop, Summary); 2],
    /// A run of the program that judges a connect, mean.
    pub(crate) nanoseconds: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct Decisions {
    pub(crate) all: Vec<Decision>,
    /// Median time from the question to the answer of an apply, milliseconds.
    pub(crate) swap: f64,
    pub(crate) swap_most: f64,
    pub(crate) swap_rules: usize,
}

/// A policy whose last rule allows what the loops do, and whose others ask for
/// different things and match nothing.
fn policy(rules: usize) -> String {
    let mut text = String::from("mode = \"enforce\"\ndefault = \"deny\"\n");
    for number in 1..rules {
        let (high, low) = (number / 256, number % 256);
        let asks = match number % 5 {
            0 => format!("destination = {{ cidr = \"10.{high}.{low}.0/24\" }}"),
            1 => format!("destination = {{ cidr = \"fd00:{number:x}::/32\", port = 443 }}"),
            2 => {
                let port = 10 + number;
                format!(
                    "process = {{ uid = {number} }}\ndestination = {{ port = \"{port}-{}\" }}",
                    port + 9
                )
            }
            3 => format!("process = {{ executable = \"/usr/bin/tool-{number}\" }}"),
            _ => format!("process = {{ cgroup = \"/service-{number}\" }}"),
        };
        // Writing to a string cannot fail.
        let _written = write!(
            text,
            "\n[[rule]]\nname = \"rule {number}\"\naction = \"allow\"\n{asks}\n"
        );
    }
    text.push_str(
        "\n[[rule]]\nname = \"the last\"\naction = \"allow\"\n\
         destination = { cidr = \"127.0.0.0/8\" }\n",
    );
    text
}

/// Compares, pair by pair, on one agent.
///
/// # Errors
///
/// Of the programs.
pub(crate) fn decisions(
    programs: &Programs,
    cgroup: &Cgroup,
    pairs: u32,
    percent: u32,
) -> Result<Decisions> {
    let agent = Agent::start(&programs.procid, cgroup)?;
    let [first, ..] = RULES;
    let under = |rules: usize, of: Loop| -> Result<f64> {
        agent.apply(&policy(rules))?;
        of.run(&programs.testprog, cgroup, percent)
    };
    let mut all = Vec::new();
    for rules in RULES {
        eprintln!("decisions by {rules} rules: {pairs} pairs");
        let compared = |of: Loop| -> Result<(Loop, Summary)> {
            let pair = || -> Result<Pair> {
                Ok(Pair {
                    bare: under(first, of)?,
                    with: under(rules, of)?,
                })
            };
            let pairs: Vec<_> = (0..pairs).map(|_| pair()).collect::<Result<_>>()?;
            Ok((of, Summary::of(&pairs).context("no pairs")?))
        };
        let [connect, udp] = LOOPS;
        let loops = [compared(connect)?, compared(udp)?];
        all.push(Decision {
            rules,
            loops,
            nanoseconds: program(&agent, rules, |of| under(rules, of))?,
        });
    }
    let most = RULES[RULES.len() - 1];
    let texts = [policy(most), policy(most).replace("tool-", "gear-")];
    let mut swaps = Vec::new();
    for number in 0..SWAPS {
        let start = Instant::now();
        agent.apply(&texts[number % 2])?;
        swaps.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    agent.stop()?;
    Ok(Decisions {
        all,
        swap: median(&swaps).context("no swaps")?,
        swap_most: swaps.iter().copied().fold(0.0, f64::max),
        swap_rules: most,
    })
}

/// Mean time of a run of the program that judges connects, by the kernel.
fn program(agent: &Agent, rules: usize, run: impl Fn(Loop) -> Result<f64>) -> Result<f64> {
    let times = || -> Result<(u64, u64)> {
        for time in Bpf::of(agent.pid())?.programs {
            if bpf::program_name(time.id)? == DECIDES {
                return Ok((time.nanoseconds, time.runs));
            }
        }
        anyhow::bail!("the agent has no program {DECIDES}")
    };
    let timing = RunTimes::enable()?;
    let before = times()?;
    run(Loop::Connect)?;
    let after = times()?;
    drop(timing);
    let runs = after.1.saturating_sub(before.1);
    anyhow::ensure!(runs > 0, "{DECIDES} did not run under {rules} rules");
    Ok((after.0 - before.0) as f64 / runs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_so_many_rules() {
        for rules in RULES {
            let text = policy(rules);
            assert_eq!(text.matches("[[rule]]").count(), rules);
            assert!(text.ends_with("destination = { cidr = \"127.0.0.0/8\" }\n"));
        }
    }
}

//! The loops that the test program times itself, bare and beside procid.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Programs,
    agent::Agent,
    bpf::{self, RunTimes},
    cgroup::Cgroup,
    proc::{Bpf, ProgramTime},
    statistics::{Pair, Summary},
};
use crate::process;

/// Longest time of one run.
const LIMIT: Duration = Duration::from_secs(300);

/// A subcommand of `procid-testprog bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loop {
    Connect,
    Udp,
    TcpSend,
    Exec,
}

impl Loop {
    pub(crate) const ALL: [Self; 4] = [Self::Connect, Self::Udp, Self::TcpSend, Self::Exec];

    /// As the test program and its report name it.
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Udp => "udp",
            Self::TcpSend => "tcpsend",
            Self::Exec => "exec",
        }
    }

    /// One turn, in words.
    pub(crate) fn turn(self) -> &'static str {
        match self {
            Self::Connect => "TCP connect and close",
            Self::Udp => "UDP sendto, unconnected",
            Self::TcpSend => "TCP send of 64 bytes",
            Self::Exec => "vfork, exec, wait",
        }
    }

    /// How many turns take a second or two on a small machine.
    fn usual_turns(self) -> u32 {
        match self {
            Self::Connect => 50_000,
            Self::Udp | Self::TcpSend => 1_000_000,
            Self::Exec => 2_000,
        }
    }

    /// `percent` of the usual number.
    fn turns(self, percent: u32) -> u32 {
        let turns = u64::from(self.usual_turns()) * u64::from(percent) / 100;
        u32::try_from(turns).unwrap_or(u32::MAX).max(1)
    }

    /// Nanoseconds a turn.
    pub(crate) fn run(self, testprog: &Path, cgroup: &Cgroup, percent: u32) -> Result<f64> {
        let mut command = Command::new(testprog);
        command.args(["bench", self.name()]);
        command.arg(self.turns(percent).to_string());
        cgroup.holds(&mut command)?;
        nanoseconds(&process::capture_within(LIMIT, &mut command)?)
            .with_context(|| format!("the {} loop tells no time", self.name()))
    }
}

/// `ns_per_op` of the test program's report, if it is a time.
fn nanoseconds(report: &str) -> Option<f64> {
    let report: Value = serde_json::from_str(report).ok()?;
    report["ns_per_op"].as_f64().filter(|&time| time > 0.0)
}

/// Runs every loop `pairs` times bare and `pairs` times beside an agent, in
/// turns, so that whatever changes on the machine meanwhile touches both.
///
/// # Errors
///
/// Of the programs.
pub(crate) fn paired(
    programs: &Programs,
    cgroup: &Cgroup,
    pairs: u32,
    percent: u32,
) -> Result<Vec<(Loop, Summary)>> {
    let pair = |of: Loop| -> Result<Pair> {
        let bare = of.run(&programs.testprog, cgroup, percent)?;
        let agent = Agent::start(&programs.procid, cgroup)?;
        let with = of.run(&programs.testprog, cgroup, percent)?;
        agent.stop()?;
        Ok(Pair { bare, with })
    };
    let each = Loop::ALL.into_iter().map(|of| {
        eprintln!("{}: {pairs} pairs", of.turn());
        let pairs: Vec<_> = (0..pairs).map(|_| pair(of)).collect::<Result<_>>()?;
        let summary = Summary::of(&pairs).context("no pairs")?;
        Ok((of, summary))
    });
    each.collect()
}

/// The run time of one of procid's programs in the kernel.
#[derive(Clone, Debug)]
pub(crate) struct KernelTime {
    pub(crate) name: String,
    pub(crate) runs: u64,
    /// Mean.
    pub(crate) nanoseconds_a_run: f64,
}

/// Runs every loop once more beside an agent, the kernel timing each run of
/// its programs; those that took most in all come first, those that never ran
/// are left out.
///
/// # Errors
///
/// Of the programs; also when the kernel does not time.
pub(crate) fn kernel_times(
    programs: &Programs,
    cgroup: &Cgroup,
    percent: u32,
) -> Result<Vec<KernelTime>> {
    eprintln!("run time of each eBPF program");
    let agent = Agent::start(&programs.procid, cgroup)?;
    let timing = RunTimes::enable()?;
    for of in Loop::ALL {
        of.run(&programs.testprog, cgroup, percent)?;
    }
    drop(timing);
    let times = ranked(Bpf::of(agent.pid())?.programs)
        .into_iter()
        .map(|time| {
            Ok(KernelTime {
                name: bpf::program_name(time.id)?,
                runs: time.runs,
                nanoseconds_a_run: time.nanoseconds as f64 / time.runs as f64,
            })
        })
        .collect::<Result<_>>()?;
    agent.stop()?;
    Ok(times)
}

fn ranked(mut times: Vec<ProgramTime>) -> Vec<ProgramTime> {
    times.retain(|time| time.runs > 0);
    times.sort_by_key(|time| std::cmp::Reverse(time.nanoseconds));
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_s_time_is_read() {
        let report = "{\"loop\":\"udp\",\"count\":10,\"ns_per_op\":1234.5}\n";
        assert_eq!(nanoseconds(report), Some(1234.5));
        for none in ["", "{}", r#"{"ns_per_op":0.0}"#, r#"{"ns_per_op":"1"}"#] {
            assert_eq!(nanoseconds(none), None, "{none}");
        }
    }

    #[test]
    fn turns_follow_the_percentage_and_are_never_none() {
        assert_eq!(Loop::Exec.turns(100), 2_000);
        assert_eq!(Loop::Exec.turns(1), 20);
        assert_eq!(Loop::Udp.turns(u32::MAX), u32::MAX);
        assert!(Loop::ALL.into_iter().all(|of| of.turns(0) == 1));
    }

    #[test]
    fn the_costliest_program_is_first_and_idle_ones_are_left_out() {
        let time = |id, nanoseconds, runs| ProgramTime {
            id,
            nanoseconds,
            runs,
        };
        let times = ranked(vec![time(1, 10, 1), time(2, 0, 0), time(3, 90, 30)]);
        let ids: Vec<_> = times.iter().map(|time| time.id).collect();
        assert_eq!(ids, [3, 1]);
    }
}

//! The loops that the test program times itself, bare, beside empty programs
//! and beside procid, in rounds.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Programs,
    bpf::RunTimes,
    cgroup::Cgroup,
    empty::Hooks,
    statistics::{Pair, Summary, median},
    under::{Stand, Under},
};
use crate::process;

/// Longest time of one run.
const LIMIT: Duration = Duration::from_secs(300);

/// A subcommand of `procid-testprog bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
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

/// Everything once: each loop under each of [`Under::ALL`], nanoseconds a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round([[f64; Under::ALL.len()]; Loop::ALL.len()]);

impl Round {
    fn at(&mut self, of: Loop, under: Under) -> Option<&mut f64> {
        let under = Under::ALL.iter().position(|one| *one == under)?;
        self.0.get_mut(of as usize)?.get_mut(under)
    }

    pub(crate) fn get(mut self, of: Loop, under: Under) -> f64 {
        self.at(of, under).map_or(f64::NAN, |time| *time)
    }
}

/// All rounds.
#[derive(Clone, Debug)]
pub(crate) struct Rounds(pub(crate) Vec<Round>);

impl Rounds {
    /// A loop under one thing, and its ratio to the same under another, taken
    /// round by round.
    pub(crate) fn summary(&self, of: Loop, under: Under, against: Under) -> Summary {
        let pairs = self.0.iter().map(|round| Pair {
            bare: round.get(of, against),
            with: round.get(of, under),
        });
        Summary::of(&pairs.collect::<Vec<_>>())
    }

    /// Three rounds in which every loop takes as long as `time` says.
    #[cfg(test)]
    pub(crate) fn steady(time: impl Fn(Under) -> f64) -> Self {
        let round = Round([Under::ALL.map(time); Loop::ALL.len()]);
        Self(vec![round; 3])
    }
}

/// Runs every loop under everything, once a round. Every round begins elsewhere,
/// so that whatever changes on the machine meanwhile, and what ran before,
/// touches all alike.
///
/// # Errors
///
/// Of the programs, or the kernel's refusal.
pub(crate) fn rounds(
    programs: &Programs,
    hooks: &Hooks,
    cgroup: &Cgroup,
    rounds: u32,
    percent: u32,
) -> Result<Rounds> {
    let round = |number: usize| -> Result<Round> {
        eprintln!("round {} of {rounds}", number + 1);
        let mut round = Round::default();
        for under in turned(number) {
            let stand = Stand::new(under, programs, hooks, cgroup)?;
            for of in Loop::ALL {
                let time = of.run(&programs.testprog, cgroup, percent)?;
                if let Some(place) = round.at(of, under) {
                    *place = time;
                }
            }
            stand.end()?;
        }
        Ok(round)
    };
    (0..rounds as usize)
        .map(round)
        .collect::<Result<_>>()
        .map(Rounds)
}

/// [`Under::ALL`] from another beginning, and every other time backwards.
fn turned(number: usize) -> [Under; Under::ALL.len()] {
    let mut all = Under::ALL;
    all.rotate_left(number % Under::ALL.len());
    if number % 2 == 1 {
        all.reverse();
    }
    all
}

/// What a program takes, by the kernel's clock.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cost {
    /// Its name, as far as the kernel keeps it; of an empty one, its hook's.
    pub(crate) name: String,
    pub(crate) runs: u64,
    /// Mean.
    pub(crate) nanoseconds: f64,
}

/// Programs by what stood there.
#[derive(Clone, Debug)]
pub(crate) struct Costs(pub(crate) Vec<(Under, Vec<Cost>)>);

impl Costs {
    pub(crate) fn of(&self, under: Under) -> &[Cost] {
        let mut all = self.0.iter();
        all.find(|(one, _)| *one == under)
            .map_or(&[], |(_, costs)| costs)
    }

    /// A run of one of procid's programs; `None`: it did not run.
    pub(crate) fn program(&self, under: Under, name: &str) -> Option<f64> {
        let mut costs = self.of(under).iter();
        Some(costs.find(|cost| cost.name == name)?.nanoseconds)
    }

    /// A run of the empty program in its place.
    pub(crate) fn empty(&self, name: &str) -> Option<f64> {
        let mut costs = self.of(Under::Empty).iter();
        let hook = hook_of(name);
        let is_its = |cost: &&Cost| match hook {
            Some(hook) => cost.name == hook,
            None => cost
                .name
                .split_once('/')
                .is_some_and(|(_, hook)| hook.starts_with(name)),
        };
        Some(costs.find(is_its)?.nanoseconds)
    }

    /// What the program itself takes.
    pub(crate) fn net(&self, under: Under, name: &str) -> Option<f64> {
        Some(self.program(under, name)? - self.empty(name)?)
    }
}

/// The hook of a program that is not named after it.
fn hook_of(program: &str) -> Option<&'static str> {
    Some(match program {
        "process_fork" => "tp_btf/sched_wakeup_new",
        "process_exec" => "tp_btf/sched_process_exec",
        "process_exec_ag" => "tracepoint/sched_process_exec",
        "process_exit" => "tp_btf/sched_process_exit",
        "process_exit_ag" => "tracepoint/sched_process_exit",
        "set_state" => "tp_btf/inet_sock_set_state",
        "retransmit" => "tp_btf/tcp_retransmit_skb",
        "send_length" => "tp_btf/sock_send_length",
        "receive_length" => "tp_btf/sock_recv_length",
        "sendmsg_locked" => "tp_btf/tcp_sendmsg_locked",
        _ => return None,
    })
}

/// Passes of [`costs`].
const PASSES: usize = 3;

/// Runs every loop again under everything that has programs, the kernel timing
/// each run of each: medians of the means of a few passes.
///
/// # Errors
///
/// Of the programs; also when the kernel does not time.
pub(crate) fn costs(
    programs: &Programs,
    hooks: &Hooks,
    cgroup: &Cgroup,
    percent: u32,
) -> Result<Costs> {
    let mut passes: Vec<(Under, Vec<Cost>)> = Vec::new();
    for pass in 0..PASSES {
        eprintln!("run time of each eBPF program, {} of {PASSES}", pass + 1);
        for under in turned(pass) {
            if under == Under::Bare {
                continue;
            }
            let stand = Stand::new(under, programs, hooks, cgroup)?;
            let timing = RunTimes::enable()?;
            for of in Loop::ALL {
                of.run(&programs.testprog, cgroup, percent)?;
            }
            drop(timing);
            let times = stand.times()?.into_iter();
            let ran = times.filter(|(_, time)| time.runs > 0);
            let costs = ran.map(|(name, time)| Cost {
                name,
                runs: time.runs,
                nanoseconds: time.nanoseconds as f64 / time.runs as f64,
            });
            passes.push((under, costs.collect()));
            stand.end()?;
        }
    }
    Ok(Costs(
        Under::ALL
            .map(|under| (under, merged(under, &passes)))
            .to_vec(),
    ))
}

/// Programs that ran in every pass, those that took most in all first.
fn merged(under: Under, passes: &[(Under, Vec<Cost>)]) -> Vec<Cost> {
    let of = passes.iter().filter(|(one, _)| *one == under);
    let passes: Vec<&Vec<Cost>> = of.map(|(_, costs)| costs).collect();
    let Some(first) = passes.first() else {
        return Vec::new();
    };
    let merge = |name: &str| -> Option<Cost> {
        let in_pass = |costs: &&Vec<Cost>| costs.iter().find(|cost| cost.name == name).cloned();
        let all: Vec<Cost> = passes.iter().map(in_pass).collect::<Option<_>>()?;
        let means: Vec<f64> = all.iter().map(|cost| cost.nanoseconds).collect();
        Some(Cost {
            name: name.to_owned(),
            runs: all.iter().map(|cost| cost.runs).sum(),
            nanoseconds: median(&means)?,
        })
    };
    let mut merged: Vec<Cost> = first.iter().filter_map(|cost| merge(&cost.name)).collect();
    let in_all = |cost: &Cost| cost.nanoseconds * cost.runs as f64;
    merged.sort_by(|one, other| in_all(other).total_cmp(&in_all(one)));
    merged
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
    fn rounds_have_everything_in_another_order() {
        let orders: Vec<_> = (0..2 * Under::ALL.len()).map(turned).collect();
        for order in &orders {
            assert!(Under::ALL.iter().all(|under| order.contains(under)));
        }
        // What runs first, and what runs before what, changes.
        assert_ne!(orders[0][0], orders[2][0]);
        assert_eq!(orders[1][0], orders[0][0]);
        assert_ne!(orders[1][1], orders[0][1]);
    }

    #[test]
    fn ratios_are_of_one_round() {
        let mut rounds = Rounds(vec![Round::default(); 3]);
        for (number, round) in rounds.0.iter_mut().enumerate() {
            let slow = (number + 1) as f64;
            *round.at(Loop::Udp, Under::Empty).unwrap() = 100.0 * slow;
            *round.at(Loop::Udp, Under::Agent).unwrap() = 110.0 * slow;
        }
        let summary = rounds.summary(Loop::Udp, Under::Agent, Under::Empty);
        assert_eq!((summary.least, summary.most), (1.1, 1.1));
        assert_eq!((summary.bare, summary.with), (200.0, 220.0));
    }

    fn cost(name: &str, runs: u64, nanoseconds: f64) -> Cost {
        Cost {
            name: name.to_owned(),
            runs,
            nanoseconds,
        }
    }

    #[test]
    fn the_costliest_program_is_first_and_what_missed_a_pass_is_left_out() {
        let passes = [
            vec![cost("a", 1, 10.0), cost("b", 10, 30.0), cost("c", 1, 9.0)],
            vec![cost("b", 10, 90.0), cost("a", 1, 12.0)],
            vec![cost("b", 10, 50.0), cost("a", 1, 11.0)],
        ]
        .map(|costs| (Under::Agent, costs));
        assert_eq!(
            merged(Under::Agent, &passes),
            [cost("b", 30, 50.0), cost("a", 3, 11.0)]
        );
        assert_eq!(merged(Under::Bare, &passes), []);
    }

    #[test]
    fn a_program_is_held_to_the_empty_one_on_its_hook() {
        let costs = Costs(vec![
            (
                Under::Empty,
                vec![
                    cost("tp_btf/sock_send_length", 1, 20.0),
                    cost("cgroup/connect4", 1, 25.0),
                    cost("tracepoint/sys_exit_accept", 1, 30.0),
                ],
            ),
            (
                Under::Agent,
                vec![
                    cost("send_length", 1, 50.0),
                    cost("connect4", 1, 400.0),
                    cost("sys_exit_accept", 1, 90.0),
                ],
            ),
        ]);
        for (name, net) in [
            ("send_length", 30.0),
            ("connect4", 375.0),
            ("sys_exit_accept", 60.0),
        ] {
            assert_eq!(costs.net(Under::Agent, name), Some(net), "{name}");
        }
        assert_eq!(costs.net(Under::Agent, "sendmsg4"), None);
        assert_eq!(costs.net(Under::Bare, "connect4"), None);
    }
}

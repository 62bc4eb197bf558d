//! What procid may cost, and whether it keeps to that.

use super::{
    Results,
    load::{Live, Load},
    loops::Loop,
    under::Under,
};

/// Of the loop with empty programs.
const CONNECT_LOOP: f64 = 1.05;
const UDP_LOOP: f64 = 1.10;
/// The program that judges and records connects.
const CONNECT: &str = "connect4";
/// The programs that each send of a loop passes.
const SENDS: [(&str, &[&str]); 2] = [
    ("TCP send", &["send_length"]),
    ("UDP sendto", &["sendmsg4", "egress", "send_length"]),
];
/// And each exec.
const EXECS: [&str; 2] = ["process_exec", "process_exec_ag"];

/// Connections a second that must not lose records.
const RATE: f64 = 30_000.0;
/// Of the rate asked for, what a load must reach to count as one of that rate.
const REACHED: f64 = 0.99;
/// Live connections that the memory budget is for.
const LIVE: u64 = 100_000;
/// Resident, MiB.
const MEMORY: f64 = 64.0;
/// CPU a record, microseconds.
const CPU: f64 = 10.0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    NotMet,
    /// And why not.
    NotMeasured(&'static str),
}

impl Verdict {
    fn of(is_met: bool) -> Self {
        if is_met { Self::Met } else { Self::NotMet }
    }
}

/// One row of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) what: String,
    pub(crate) figure: String,
    pub(crate) verdict: Verdict,
}

impl Budget {
    /// Of programs; `None`: one of them did not run.
    fn nanoseconds(what: String, net: Option<f64>, most: f64) -> Self {
        let (figure, verdict) = match net {
            Some(net) => (format!("{net:.0} ns"), Verdict::of(net <= most)),
            None => (
                "none".to_owned(),
                Verdict::NotMeasured("a program did not run"),
            ),
        };
        Self {
            what,
            figure,
            verdict,
        }
    }
}

pub(crate) fn all(results: &Results) -> Vec<Budget> {
    let mut all = Vec::new();
    for under in Under::BUDGETED {
        all.push(hook(results, under));
        all.push(against_empty(results, Loop::Connect, under, CONNECT_LOOP));
        all.extend(sends(results, under));
        all.push(against_empty(results, Loop::Udp, under, UDP_LOOP));
    }
    all.push(exec(results));
    let exec = results
        .rounds
        .summary(Loop::Exec, Under::Agent, Under::Bare);
    all.push(Budget {
        what: "vfork and exec loop ≤ 1.03 × bare".to_owned(),
        figure: format!("{:.3} ×", exec.ratio),
        verdict: Verdict::of(exec.ratio <= 1.03),
    });
    all.push(growth(results));
    all.push(Budget {
        what: "no loss at 30,000 connects/s".to_owned(),
        figure: format!(
            "{} lost at {:.0} connects/s",
            results.load.lost,
            results.load.rate()
        ),
        verdict: loss(&results.load, f64::from(results.rate_asked)),
    });
    all.push(Budget {
        what: "agent ≤ 10 µs CPU a record".to_owned(),
        figure: format!("{:.1} µs", results.load.cpu_a_record()),
        verdict: Verdict::of(results.load.cpu_a_record() <= CPU),
    });
    all.push(Budget {
        what: "≤ 64 MiB resident with 100,000 live connections".to_owned(),
        figure: format!(
            "{:.1} MiB with {}",
            mib(results.live.memory.resident),
            results.live.connections
        ),
        verdict: memory(&results.live),
    });
    all.push(Budget {
        what: "`who` ≤ 20 ms over 10 million records of history".to_owned(),
        figure: "none".to_owned(),
        verdict: Verdict::NotMeasured(
            "measured apart: `cargo run --release -p procid --example history -- 10000000`",
        ),
    });
    all.push(Budget {
        what: format!("policy swap, {} rules ≤ 50 ms", results.swap.rules),
        figure: format!("{:.1} ms", results.swap.median),
        verdict: Verdict::of(results.swap.median <= 50.0),
    });
    all
}

/// The hook of a connect with its record, without what an empty one takes.
fn hook(results: &Results, under: Under) -> Budget {
    let net = results.costs.net(under, CONNECT);
    Budget::nanoseconds(
        format!("connect hook with record ≤ 1 µs net of an empty program: {under}"),
        net,
        1_000.0,
    )
}

/// The hooks of a send.
fn sends(results: &Results, under: Under) -> [Budget; 2] {
    let [tcp, udp] = SENDS.map(|(what, hooks)| {
        let net = hooks.iter().map(|name| results.costs.net(under, name));
        Budget::nanoseconds(
            format!("{what} on a tagged socket ≤ 100 ns net of empty programs: {under}"),
            net.sum::<Option<f64>>(),
            100.0,
        )
    });
    [tcp, udp]
}

fn against_empty(results: &Results, of: Loop, under: Under, most: f64) -> Budget {
    let empty = results.rounds.summary(of, under, Under::Empty);
    let bare = results.rounds.summary(of, under, Under::Bare);
    Budget {
        what: format!(
            "{} loop ≤ {most:.2} × the loop with empty programs on the same hooks: {under}",
            of.turn()
        ),
        figure: format!("{:.3} ×; {:.3} × bare", empty.ratio, bare.ratio),
        verdict: Verdict::of(empty.ratio <= most),
    }
}

/// Its programs, with what running an empty one takes.
fn exec(results: &Results) -> Budget {
    let hooks = EXECS.map(|name| results.costs.program(Under::Agent, name));
    Budget::nanoseconds(
        "exec, hash cached ≤ 3 µs in hooks".to_owned(),
        hooks.into_iter().sum(),
        3_000.0,
    )
}

fn growth(results: &Results) -> Budget {
    let at = |rules| results.costs.program(Under::Rules(rules), CONNECT);
    let growth = match (at(1), at(1_000)) {
        (Some(one), Some(all)) => all / one,
        _ => f64::NAN,
    };
    Budget {
        what: "decision ≤ 1.5 × from 1 rule to 1,000".to_owned(),
        figure: format!("{growth:.3} ×"),
        verdict: Verdict::of(growth <= 1.5),
    }
}

/// KiB as MiB.
pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn memory(live: &Live) -> Verdict {
    if live.connections < LIVE {
        return Verdict::NotMeasured("fewer connections were live");
    }
    Verdict::of(mib(live.memory.resident) <= MEMORY)
}

fn loss(load: &Load, rate_asked: f64) -> Verdict {
    if load.lost > 0 {
        return Verdict::NotMet;
    }
    if rate_asked < RATE || load.rate() < RATE * REACHED {
        return Verdict::NotMeasured("the load did not reach that rate");
    }
    Verdict::Met
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{loops::Rounds, page::tests::results};

    /// Of what is measured at all.
    fn verdicts(results: &Results) -> Vec<Verdict> {
        let rows = all(results).into_iter();
        rows.filter(|row| !row.what.starts_with("`who`"))
            .map(|row| row.verdict)
            .collect()
    }

    #[test]
    fn a_figure_beyond_its_budget_is_not_met() {
        let mut results = results();
        assert!(verdicts(&results).iter().all(|is| *is == Verdict::Met));
        for (under, costs) in &mut results.costs.0 {
            for cost in costs {
                if *under != Under::Empty {
                    cost.nanoseconds *= 10.0;
                }
                if *under == Under::Rules(1_000) {
                    cost.nanoseconds *= 2.0;
                }
            }
        }
        results.rounds = Rounds::steady(|under| match under {
            Under::Bare | Under::Empty => 100.0,
            _ => 120.0,
        });
        results.load.lost = 1;
        results.load.cpu *= 100;
        results.live.memory.resident = 65 * 1024;
        results.swap.median = 51.0;
        let verdicts = verdicts(&results);
        assert!(
            verdicts.iter().all(|is| *is == Verdict::NotMet),
            "{verdicts:?}"
        );
    }

    #[test]
    fn a_program_that_did_not_run_has_no_cost() {
        let mut results = results();
        for (_, costs) in &mut results.costs.0 {
            costs.retain(|cost| cost.name != "egress");
        }
        let unknown = |budget: &Budget| matches!(budget.verdict, Verdict::NotMeasured(_));
        let all = all(&results);
        let unknown: Vec<_> = all.iter().filter(|budget| unknown(budget)).collect();
        assert_eq!(unknown.len(), Under::BUDGETED.len() + 1);
        assert!(unknown[0].what.starts_with("UDP sendto on"));
    }

    #[test]
    fn a_smaller_load_says_nothing_of_a_larger_one() {
        let mut results = results();
        results.rate_asked = 1_000;
        results.live.connections = 99_999;
        let unknown = verdicts(&results)
            .iter()
            .filter(|is| matches!(is, Verdict::NotMeasured(_)))
            .count();
        assert_eq!(unknown, 2);
        results.rate_asked = 30_000;
        results.load.elapsed *= 2;
        assert!(matches!(
            loss(&results.load, 30_000.0),
            Verdict::NotMeasured(_)
        ));
    }
}

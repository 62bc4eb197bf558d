//! What procid may cost, and whether it keeps to that.

use super::{
    Results,
    load::{Live, Load},
    loops::Loop,
};

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
    pub(crate) what: &'static str,
    pub(crate) figure: String,
    pub(crate) verdict: Verdict,
}

pub(crate) fn all(results: &Results) -> Vec<Budget> {
    let ratio = |of: Loop| {
        let summary = results.loops.iter().find(|(measured, _)| *measured == of);
        summary.map_or(f64::NAN, |(_, summary)| summary.ratio)
    };
    let bare = |ratio: f64| format!("{ratio:.3} × bare");
    let (connect, udp, exec) = (ratio(Loop::Connect), ratio(Loop::Udp), ratio(Loop::Exec));
    let costs = &results.decisions.all;
    let growth = match (costs.first(), costs.last()) {
        (Some(first), Some(last)) => last.nanoseconds / first.nanoseconds,
        _ => f64::NAN,
    };
    vec![
        Budget {
            what: "connect loop ≤ 1.05 × the loop with empty programs on the same hooks",
            figure: bare(connect),
            verdict: against_empty(connect, 1.05),
        },
        Budget {
            what: "UDP sendto loop ≤ 1.10 × the loop with empty programs on the same hooks",
            figure: bare(udp),
            verdict: against_empty(udp, 1.10),
        },
        Budget {
            what: "vfork and exec loop ≤ 1.03 × bare",
            figure: bare(exec),
            verdict: Verdict::of(exec <= 1.03),
        },
        Budget {
            what: "decision ≤ 1.5 × from 1 rule to 1,000",
            figure: format!("{growth:.3} ×"),
            verdict: Verdict::of(growth <= 1.5),
        },
        Budget {
            what: "policy swap, 1,000 rules ≤ 50 ms",
            figure: format!("{:.1} ms", results.decisions.swap),
            verdict: Verdict::of(results.decisions.swap <= 50.0),
        },
        Budget {
            what: "agent ≤ 10 µs CPU a record",
            figure: format!("{:.1} µs", results.load.cpu_a_record()),
            verdict: Verdict::of(results.load.cpu_a_record() <= CPU),
        },
        Budget {
            what: "≤ 64 MiB resident with 100,000 live connections",
            figure: format!(
                "{:.1} MiB with {}",
                mib(results.live.memory.resident),
                results.live.connections
            ),
            verdict: memory(&results.live),
        },
        Budget {
            what: "no loss at 30,000 connects/s",
            figure: format!(
                "{} lost at {:.0} connects/s",
                results.load.lost,
                results.load.rate()
            ),
            verdict: loss(&results.load, f64::from(results.rate_asked)),
        },
    ]
}

/// KiB as MiB.
pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Empty programs cost something, so that what keeps to the budget against the
/// bare loop keeps to it against theirs; what does not may or may not.
fn against_empty(ratio_to_bare: f64, budget: f64) -> Verdict {
    if ratio_to_bare <= budget {
        Verdict::Met
    } else {
        Verdict::NotMeasured("the loop with empty programs is not measured yet")
    }
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
    use crate::bench::page::tests::results;

    fn verdicts(results: &Results) -> Vec<Verdict> {
        all(results).into_iter().map(|row| row.verdict).collect()
    }

    #[test]
    fn a_budget_against_empty_programs_is_met_or_unknown() {
        assert_eq!(against_empty(1.05, 1.05), Verdict::Met);
        assert!(matches!(against_empty(1.06, 1.05), Verdict::NotMeasured(_)));
    }

    #[test]
    fn a_figure_beyond_its_budget_is_not_met() {
        let mut results = results();
        assert!(verdicts(&results).iter().all(|is| *is == Verdict::Met));
        results.load.lost = 1;
        results.decisions.swap = 51.0;
        results.decisions.all[1].nanoseconds = 800.0;
        results.load.cpu *= 100;
        results.live.memory.resident = 65 * 1024;
        for (_, summary) in &mut results.loops {
            summary.ratio = 1.04;
        }
        let (met, not_met) = (Verdict::Met, Verdict::NotMet);
        assert_eq!(
            verdicts(&results),
            [
                &met, &met, &not_met, &not_met, &not_met, &not_met, &not_met, &not_met
            ]
            .map(Clone::clone)
        );
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

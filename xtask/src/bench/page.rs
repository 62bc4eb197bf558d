//! The page: docs/BENCHMARKS.md.

use std::fmt::Write as _;

use super::{
    Results,
    budgets::{self, Verdict, mib},
    decisions::Decisions,
    load::Load,
    proc::Memory,
    statistics::Summary,
};

/// The page in Markdown.
pub(crate) fn page(results: &Results) -> String {
    let parts = [
        head(results),
        budgets(results),
        loops(results),
        kernel_times(results),
        decisions(&results.decisions),
        load(&results.load),
        memory(results),
    ];
    parts.join("\n")
}

fn head(results: &Results) -> String {
    let (machine, status) = (&results.machine, &results.load.status);
    format!(
        "\
# Benchmarks

Figures of one machine. Made by

    cargo xtask bench {flags} --output docs/BENCHMARKS.md

| | |
| --- | --- |
| procid | {version}, backend {backend} |
| kernel | {kernel} |
| CPU | {cpu}, {cpus} of them |

Each loop runs bare, then beside a new agent that watches its cgroup, again and again; a ratio is \
taken pair by pair, so that what slows the machine for a while slows both of its runs. Times are \
of the whole loop by the clock, the agent's own work on the same CPUs included; its records go to \
/dev/null. Empty programs on the same hooks, which would tell procid's work from the price of the \
hooks themselves, are not measured yet.
",
        flags = results.flags.join(" "),
        version = status.version,
        backend = status.backend,
        kernel = machine.kernel,
        cpu = machine.cpu,
        cpus = machine.cpus,
    )
}

fn budgets(results: &Results) -> String {
    let rows = budgets::all(results).into_iter().map(|budget| {
        let verdict = match budget.verdict {
            Verdict::Met => "met".to_owned(),
            Verdict::NotMet => "**not met**".to_owned(),
            Verdict::NotMeasured(why) => format!("not measured: {why}"),
        };
        [budget.what.to_owned(), budget.figure, verdict]
    });
    section("Budgets", "", ["budget", "figure", ""], rows)
}

fn loops(results: &Results) -> String {
    let rows = results.loops.iter().map(|(of, summary)| {
        [
            of.turn().to_owned(),
            format!("{:.0}", summary.bare),
            format!("{:.0}", summary.with),
            format!("{:.3}", summary.ratio),
            format!("{:.3} to {:.3}", summary.least, summary.most),
        ]
    });
    let text = "Nanoseconds a turn and the ratio of the two, medians; all over loopback, each \
                the whole turn of a loop that does nothing else.";
    let columns = ["turn", "bare, ns", "with procid, ns", "ratio", "ratios"];
    section("Loops", text, columns, rows)
}

fn kernel_times(results: &Results) -> String {
    let rows = results.kernel_times.iter().map(|time| {
        [
            format!("`{}`", time.name),
            time.runs.to_string(),
            format!("{:.0}", time.nanoseconds_a_run),
        ]
    });
    let text = "One run of every loop with the kernel's statistics on, the costliest program in \
                all first; those that did not run are left out. Tracepoints see the whole host. \
                Each run includes about one reading of the clock; the kernel keeps 15 bytes of a \
                name.";
    let columns = ["program", "runs", "ns a run"];
    section("eBPF programs", text, columns, rows)
}

fn decisions(decisions: &Decisions) -> String {
    let rows = decisions.all.iter().map(|decision| {
        let [connect, udp] = decision.loops.map(|(_, summary)| summary);
        let cell = |summary: Summary| format!("{:.0} ({:.3})", summary.with, summary.ratio);
        [
            decision.rules.to_string(),
            cell(connect),
            cell(udp),
            format!("{:.0}", decision.nanoseconds),
        ]
    });
    let text = format!(
        "Loops under policies of so many rules, of which the last one matches: nanoseconds a turn, \
         and in brackets the ratio to the same loop under one rule, medians of pairs. `connect4` \
         is the program that judges each connect, its record included, by the kernel's clock; a \
         datagram to where the last one went stands on the verdict that is kept. Applying {} rules \
         took {:.1} ms (median; {:.1} ms at most) from the question to the answer, up to 20 ms of \
         it being the agent's sleep.",
        decisions.swap_rules, decisions.swap, decisions.swap_most
    );
    let columns = [
        "rules",
        "TCP connect and close, ns",
        "UDP sendto, ns",
        "`connect4`, ns a run",
    ];
    section("Decisions", &text, columns, rows)
}

fn load(load: &Load) -> String {
    let rows = [
        ("connections", load.connections.to_string()),
        ("connections a second", format!("{:.0}", load.rate())),
        ("records", load.records.to_string()),
        ("lost", load.lost.to_string()),
        ("agent's CPU, s", format!("{:.2}", load.cpu.as_secs_f64())),
        ("CPU a record, µs", format!("{:.1}", load.cpu_a_record())),
    ];
    let text = "A steady load, until the agent has caught up. CPU is user and system time of the \
                agent; what its programs take in the kernel is the loops' above.";
    let rows = rows.map(|(what, figure)| [what.to_owned(), figure]);
    section("CPU a record", text, ["", "figure"], rows)
}

fn memory(results: &Results) -> String {
    let row = |when: String, memory: Memory| {
        [
            when,
            format!("{:.1}", mib(memory.resident)),
            format!("{:.1}", mib(memory.anonymous)),
            format!("{:.1}", mib(memory.file)),
        ]
    };
    let rows = [
        row("idle".to_owned(), results.load.idle),
        row("after the load".to_owned(), results.load.after),
        row(
            format!("with {} live connections", results.live.connections),
            results.live.memory,
        ),
    ];
    let text = format!(
        "The agent's, MiB; live connections are held beside an agent of their own. The ring's pages \
         are mapped twice, one after the other, and count twice. The maps, the ring included, take \
         {:.1} MiB of kernel memory after the load.",
        mib(results.load.maps / 1024)
    );
    let columns = ["agent", "resident", "anonymous", "files and ring"];
    section("Memory", &text, columns, rows)
}

/// A heading, a paragraph unless it is empty, and a table.
fn section<const N: usize>(
    heading: &str,
    text: &str,
    columns: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut section = format!("## {heading}\n\n");
    if !text.is_empty() {
        section += &format!("{text}\n\n");
    }
    let mut line = |cells: &[String]| {
        // Writing to a string cannot fail.
        let _written = writeln!(section, "| {} |", cells.join(" | "));
    };
    line(&columns.map(str::to_owned));
    line(&columns.map(|_| "---".to_owned()));
    for row in rows {
        line(&row);
    }
    section
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::{
        agent::Status,
        decisions::Decision,
        load::Live,
        loops::{KernelTime, Loop},
        proc::Machine,
    };

    /// Results that meet every budget.
    pub(in crate::bench) fn results() -> Results {
        let memory = Memory {
            resident: 20 * 1024,
            anonymous: 8 * 1024,
            file: 12 * 1024,
        };
        let summary = Summary {
            bare: 10_000.0,
            with: 10_100.0,
            ratio: 1.01,
            least: 0.99,
            most: 1.02,
        };
        Results {
            machine: Machine {
                kernel: "6.12.0".to_owned(),
                cpu: "a CPU".to_owned(),
                cpus: 2,
            },
            flags: vec!["--pairs".to_owned(), "7".to_owned()],
            loops: Loop::ALL.map(|of| (of, summary)).to_vec(),
            kernel_times: vec![KernelTime {
                name: "connect4".to_owned(),
                runs: 1_000,
                nanoseconds_a_run: 432.1,
            }],
            decisions: Decisions {
                all: [1, 1_000]
                    .map(|rules| Decision {
                        rules,
                        loops: [(Loop::Connect, summary), (Loop::Udp, summary)],
                        nanoseconds: 500.0,
                    })
                    .to_vec(),
                swap: 20.0,
                swap_most: 30.0,
                swap_rules: 1_000,
            },
            rate_asked: 30_000,
            load: Load {
                status: Status {
                    version: "0.1.0".to_owned(),
                    backend: "cgroup".to_owned(),
                    emitted: 3,
                    lost: 0,
                    connections: 0,
                },
                connections: 300_000,
                elapsed: Duration::from_secs(10),
                records: 600_000,
                lost: 0,
                cpu: Duration::from_secs(3),
                idle: memory,
                after: memory,
                maps: 5 << 20,
            },
            live: Live {
                connections: 100_000,
                memory,
            },
        }
    }

    #[test]
    fn every_table_is_well_formed() {
        let page = page(&results());
        for table in page.split("\n\n").filter(|part| part.starts_with('|')) {
            let widths: Vec<_> = table.lines().map(|row| row.matches('|').count()).collect();
            assert!(
                widths.len() > 2 && widths.iter().all(|width| *width == widths[0]),
                "{table}"
            );
        }
        assert_eq!(page.matches("\n## ").count(), 6);
    }

    #[test]
    fn figures_have_their_units() {
        let page = page(&results());
        for line in [
            "| TCP connect and close | 10000 | 10100 | 1.010 | 0.990 to 1.020 |",
            "| `connect4` | 1000 | 432 |",
            "| CPU a record, µs | 5.0 |",
            "| connections a second | 30000 |",
            "| with 100000 live connections | 20.0 | 8.0 | 12.0 |",
            "| no loss at 30,000 connects/s | 0 lost at 30000 connects/s | met |",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
        assert!(page.contains("take 5.0 MiB of kernel memory"), "{page}");
    }
}

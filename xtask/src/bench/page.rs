//! The page: docs/BENCHMARKS.md.

use std::fmt::Write as _;

use super::{
    Results,
    budgets::{self, Verdict, mib},
    load::Load,
    loops::Loop,
    proc::Memory,
    swap::Swap,
    under::Under,
};

/// The page in Markdown.
pub(crate) fn page(results: &Results) -> String {
    let parts = [
        head(results),
        budgets(results),
        loops(results),
        costs(results),
        decisions(results),
        swap(&results.swap),
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

In each of {rounds} rounds every loop runs bare, with empty programs on the hooks that the agent \
attaches to its cgroup and the host, beside a new agent without a policy, and beside new agents that \
enforce policies of 1 to 1,000 rules, of which the last one matches; each round in another order. \
A ratio is taken round by round, so that what slows the machine for a while slows both of its \
runs. Times are of the whole loop by the clock, the agent's own work on the same CPUs included; its \
records go to /dev/null.
",
        flags = results.flags.join(" "),
        rounds = results.rounds.0.len(),
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
        [budget.what, budget.figure, verdict]
    });
    let text = "A program's own time is the mean of its runs by the kernel's clock, less that of the \
                empty program on the same hook.";
    section("Budgets", text, ["budget", "figure", ""], rows)
}

fn loops(results: &Results) -> String {
    let rows = Loop::ALL.into_iter().flat_map(|of| {
        Under::ALL.into_iter().map(move |under| {
            let empty = results.rounds.summary(of, under, Under::Empty);
            let bare = results.rounds.summary(of, under, Under::Bare);
            [
                of.turn().to_owned(),
                under.to_string(),
                format!("{:.0}", bare.with),
                format!("{:+.0}", empty.more),
                format!("{:.3}", empty.ratio),
                format!("{:.3} to {:.3}", empty.least, empty.most),
                format!("{:.3}", bare.ratio),
                format!("{:.3} to {:.3}", bare.least, bare.most),
            ]
        })
    });
    let text = "Nanoseconds a turn, and against the same loop with empty programs and bare; medians \
                over the rounds, and the least and largest ratio. All over loopback, each the whole \
                turn of a loop that does nothing else.";
    let columns = [
        "turn",
        "under",
        "ns",
        "more than empty, ns",
        "× empty",
        "",
        "× bare",
        "",
    ];
    section("Loops", text, columns, rows)
}

fn costs(results: &Results) -> String {
    let costs = &results.costs;
    let of = |under| costs.of(under).iter();
    let names = of(Under::Agent).chain(
        // Programs that only a policy has something to do for.
        of(Under::Rules(1_000)).filter(|cost| costs.program(Under::Agent, &cost.name).is_none()),
    );
    let cell = |nanoseconds: Option<f64>| match nanoseconds {
        Some(nanoseconds) => format!("{nanoseconds:.0}"),
        None => "–".to_owned(),
    };
    let rows = names.map(|cost| {
        let [none, ten, most] = Under::BUDGETED.map(|under| costs.program(under, &cost.name));
        [
            format!("`{}`", cost.name),
            cost.runs.to_string(),
            cell(costs.empty(&cost.name)),
            cell(none),
            cell(ten),
            cell(most),
        ]
    });
    let text = "Every loop with the kernel's statistics on: nanoseconds a run, the costliest program in \
                all first; those that did not run are left out. Tracepoints see the whole host. Each run \
                includes about one reading of the clock, the empty program's too; the kernel keeps 15 \
                bytes of a name.";
    let columns = [
        "program",
        "runs",
        "empty",
        "no policy",
        "10 rules",
        "1000 rules",
    ];
    section("eBPF programs", text, columns, rows)
}

fn decisions(results: &Results) -> String {
    let rules = Under::ALL.into_iter().filter_map(|under| match under {
        Under::Rules(rules) => Some((rules, under)),
        _ => None,
    });
    let rows = rules.map(|(rules, under)| {
        let cell = |of: Loop| {
            let summary = results.rounds.summary(of, under, Under::Rules(1));
            format!("{:.0} ({:.3})", summary.with, summary.ratio)
        };
        let nanoseconds = results.costs.program(under, "connect4");
        [
            rules.to_string(),
            cell(Loop::Connect),
            cell(Loop::Udp),
            cell(Loop::TcpSend),
            nanoseconds.map_or_else(|| "–".to_owned(), |time| format!("{time:.0}")),
        ]
    });
    let text = "Loops by the number of rules: nanoseconds a turn, and in brackets the ratio to the same \
                loop under one rule, medians of rounds. `connect4` is the program that judges each \
                connect, its record included, by the kernel's clock; a send to where the last one went \
                stands on the verdict that is kept. One rule asks for an address; from ten on, rules ask \
                for addresses, ports, users, executables and cgroups.";
    let columns = [
        "rules",
        "TCP connect and close, ns",
        "UDP sendto, ns",
        "TCP send, ns",
        "`connect4`, ns a run",
    ];
    section("Decisions", text, columns, rows)
}

fn swap(swap: &Swap) -> String {
    let text = "From the question to the answer of an apply, while nothing else goes on.";
    let row = [
        swap.rules.to_string(),
        format!("{:.1}", swap.median),
        format!("{:.1}", swap.most),
    ];
    section("Swaps", text, ["rules", "median, ms", "at most, ms"], [row])
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
        "The agent's, MiB; live connections are held beside an agent of their own. The rings' pages, \
         which are the kernel's, are mapped and count. The maps, the rings included, take {:.1} MiB of \
         kernel memory after the load.",
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
        load::Live,
        loops::{Cost, Costs, Rounds},
        proc::Machine,
    };

    /// Results that meet every budget.
    pub(in crate::bench) fn results() -> Results {
        let memory = Memory {
            resident: 20 * 1024,
            anonymous: 8 * 1024,
            file: 12 * 1024,
        };
        let programs = |of: &[(&str, f64)]| -> Vec<Cost> {
            let cost = |&(name, nanoseconds): &(&str, f64)| Cost {
                name: name.to_owned(),
                runs: 1_000,
                nanoseconds,
            };
            of.iter().map(cost).collect()
        };
        let costs = Under::ALL.map(|under| {
            let costs = match under {
                Under::Bare => Vec::new(),
                Under::Empty => programs(&[
                    ("cgroup/connect4", 20.0),
                    ("cgroup/sendmsg4", 20.0),
                    ("cgroup_skb/egress", 20.0),
                    ("tp_btf/sock_send_length", 20.0),
                ]),
                _ => programs(&[
                    ("connect4", 432.1),
                    ("sendmsg4", 40.0),
                    ("egress", 40.0),
                    ("send_length", 40.0),
                    ("process_exec", 1_000.0),
                    ("process_exec_ag", 100.0),
                ]),
            };
            (under, costs)
        });
        Results {
            machine: Machine {
                kernel: "6.12.0".to_owned(),
                cpu: "a CPU".to_owned(),
                cpus: 2,
            },
            flags: vec!["--pairs".to_owned(), "7".to_owned()],
            rounds: Rounds::steady(|under| match under {
                Under::Bare => 10_000.0,
                Under::Empty => 10_100.0,
                _ => 10_200.0,
            }),
            costs: Costs(costs.to_vec()),
            swap: Swap {
                rules: 1_000,
                median: 20.0,
                most: 30.0,
            },
            rate_asked: 30_000,
            load: Load {
                status: Status {
                    version: "0.1.0".to_owned(),
                    backend: "cgroup".to_owned(),
                    emitted: 3,
                    lost: 0,
                    connections: 0,
                    hooks: Vec::new(),
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
        assert_eq!(page.matches("\n## ").count(), 7);
    }

    #[test]
    fn figures_have_their_units() {
        let page = page(&results());
        for line in [
            "| TCP connect and close | no policy | 10200 | +100 | 1.010 | 1.010 to 1.010 | 1.020 | 1.020 to 1.020 |",
            "| `connect4` | 1000 | 20 | 432 | 432 | 432 |",
            "| connect hook with record ≤ 1 µs net of an empty program: 10 rules | 412 ns | met |",
            "| 1000 | 20.0 | 30.0 |",
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

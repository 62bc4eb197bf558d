//! `cargo xtask bench`: what procid costs, measured on this machine.

mod agent;
mod bpf;
mod budgets;
mod cgroup;
mod decisions;
mod load;
mod loops;
mod page;
mod proc;
mod statistics;

use std::{
    env, fs,
    io::{self, Write as _},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use clap::value_parser;

use self::{
    cgroup::Cgroup,
    decisions::Decisions,
    load::{Live, Load},
    loops::{KernelTime, Loop},
    proc::Machine,
    statistics::Summary,
};
use crate::{build, host, setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pairs of runs of each loop, one bare and one with procid
    #[arg(long, default_value_t = 7, value_parser = value_parser!(u32).range(1..=1_000))]
    pairs: u32,
    /// Turns of each loop, percent of the usual number
    #[arg(long, value_name = "PERCENT", default_value_t = 100)]
    #[arg(value_parser = value_parser!(u32).range(1..=10_000))]
    turns: u32,
    /// Connections a second of the load
    #[arg(long, default_value_t = 30_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Seconds that the load takes
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Connections held open while memory is measured
    #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1..=500_000))]
    live: u32,
    /// Write the page there, too
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Measure these instead of building them
    #[arg(long, num_args = 2, value_names = ["PROCID", "TESTPROG"])]
    programs: Option<Vec<PathBuf>>,
}

impl Args {
    /// The flags that say what is measured.
    fn flags(&self) -> Vec<String> {
        [
            ("--pairs", self.pairs),
            ("--turns", self.turns),
            ("--rate", self.rate),
            ("--seconds", self.seconds),
            ("--live", self.live),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value.to_string()])
        .collect()
    }
}

/// What is measured, and with what.
#[derive(Debug)]
struct Programs {
    procid: PathBuf,
    testprog: PathBuf,
}

/// Everything measured.
#[derive(Debug)]
struct Results {
    machine: Machine,
    /// The flags it was made with.
    flags: Vec<String>,
    loops: Vec<(Loop, Summary)>,
    kernel_times: Vec<KernelTime>,
    decisions: Decisions,
    /// Connections a second that were asked for.
    rate_asked: u32,
    load: Load,
    live: Live,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let programs = match args.programs.as_deref() {
        Some([procid, testprog]) => Programs {
            procid: procid.clone(),
            testprog: testprog.clone(),
        },
        _ => {
            setup::for_build()?;
            Programs {
                procid: build::procid()?,
                testprog: build::test_program()?,
            }
        }
    };
    let page = if host::is_root() {
        page::page(&measure(&programs, args)?)
    } else {
        measured_by_root(&programs, args)?
    };
    io::stdout().write_all(page.as_bytes())?;
    if let Some(output) = &args.output {
        fs::write(output, page).with_context(|| format!("cannot write {}", output.display()))?;
    }
    Ok(())
}

/// The agent, the cgroup and the kernel's statistics need root; building, and
/// writing the page, do not.
fn measured_by_root(programs: &Programs, args: &Args) -> Result<String> {
    let output = host::as_root(env::current_exe()?, &[])?
        .arg("bench")
        .args(args.flags())
        .arg("--programs")
        .args([&programs.procid, &programs.testprog])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the measurement as root")?;
    if !output.status.success() {
        bail!("the measurement as root ended with {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn measure(programs: &Programs, args: &Args) -> Result<Results> {
    let cgroup = Cgroup::new()?;
    Ok(Results {
        machine: Machine::this()?,
        flags: args.flags(),
        loops: loops::paired(programs, &cgroup, args.pairs, args.turns)?,
        kernel_times: loops::kernel_times(programs, &cgroup, args.turns)?,
        decisions: decisions::decisions(programs, &cgroup, args.pairs, args.turns)?,
        rate_asked: args.rate,
        load: load::load(programs, &cgroup, args)?,
        live: load::live(programs, &cgroup, args.live)?,
    })
}

//! `cargo xtask bench`: what procid costs, measured on this machine.

mod agent;
mod bpf;
mod budgets;
mod cgroup;
mod empty;
mod load;
mod loops;
mod page;
mod proc;
mod statistics;
mod swap;
mod under;

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
    empty::Hooks,
    load::{Live, Load},
    loops::{Costs, Rounds},
    proc::Machine,
    swap::Swap,
};
use crate::{build, host, setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds, in each of which every loop runs bare, with empty programs and with procid
    #[arg(long, default_value_t = 7, value_parser = value_parser!(u32).range(1..=1_000))]
    rounds: u32,
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
            ("--rounds", self.rounds),
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
    rounds: Rounds,
    costs: Costs,
    swap: Swap,
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
    let hooks = Hooks::of_agent(&programs.procid, &cgroup)?;
    Ok(Results {
        machine: Machine::this()?,
        flags: args.flags(),
        rounds: loops::rounds(programs, &hooks, &cgroup, args.rounds, args.turns)?,
        costs: loops::costs(programs, &hooks, &cgroup, args.turns)?,
        swap: swap::swap(programs, &cgroup)?,
        rate_asked: args.rate,
        load: load::load(programs, &cgroup, args)?,
        live: load::live(programs, &cgroup, args.live)?,
    })
}

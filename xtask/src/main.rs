//! Every developer and CI action of procid: `cargo xtask --help`.

mod bench;
mod build;
mod cargo;
mod conformance;
mod debian;
mod dist;
mod fuzz;
mod host;
mod incident;
mod process;
mod rooms;
mod run;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Get what a build and the tests need and this machine lacks
    Setup(setup::Args),
    /// Build target/release/procid, the eBPF object inside
    Build,
    /// Set up, build, and start `procid run` as root
    Run(run::Args),
    /// Run every test this host can run
    Test(test::Args),
    /// Hold procid to every path of docs/CONFORMANCE.md
    Conformance(conformance::Args),
    /// Feed what reads foreign bytes with any (libFuzzer)
    Fuzz(fuzz::Args),
    /// Play a theft, and ask procid about it
    Incident(incident::Args),
    /// Run a command as root on a Debian kernel in a virtual machine
    Vm(vm::Args),
    /// Measure what procid costs, as a Markdown page
    Bench(bench::Args),
    /// Make a release: static program, Debian package, pages, list of what is in it
    Dist(dist::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().action {
        Action::Setup(args) => setup::main(&args),
        Action::Build => build::main(),
        Action::Run(args) => run::main(&args),
        Action::Test(args) => test::main(&args),
        Action::Conformance(args) => conformance::main(&args),
        Action::Fuzz(args) => fuzz::main(&args),
        Action::Incident(args) => incident::main(&args),
        Action::Vm(args) => vm::main(&args),
        Action::Bench(args) => bench::main(&args),
        Action::Dist(args) => dist::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! `cargo xtask fuzz`: what reads bytes that procid did not write, fed with any.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{cargo, host, setup};

/// Where libFuzzer sees where it has been; what cargo-fuzz sets, without a
/// sanitizer, which stable compilers do not have.
///
/// <https://github.com/rust-fuzz/cargo-fuzz/blob/0.13.1/src/project.rs>
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
const HOST: &str = "x86_64-unknown-linux-gnu";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The targets; all of tests/fuzz/targets without
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// For so long each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    setup::for_build()?;
    let home = host::root().join("tests/fuzz");
    let work = host::root().join("target/fuzz");
    let mut build = cargo::cargo();
    build
        .args(["build", "--release", "--locked", "--bins", "--target", HOST])
        .arg("--manifest-path")
        .arg(home.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&work)
        // Of this target alone: not of build scripts, nor of the eBPF object.
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", COVERAGE);
    ensure!(build.status()?.success(), "the fuzz targets do not build");
    let targets = match args.targets.is_empty() {
        true => all(&home)?,
        false => args.targets.clone(),
    };
    for target in &targets {
        run(target, &home, &work, args.seconds)?;
    }
    println!(
        "{} targets, {} s each: nothing found",
        targets.len(),
        args.seconds
    );
    Ok(())
}

fn all(home: &Path) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(home.join("targets"))? {
        let path = entry?.path();
        targets.extend(
            path.file_stem()
                .and_then(|it| it.to_str())
                .map(str::to_owned),
        );
    }
    targets.sort();
    Ok(targets)
}

/// New inputs stay in target/fuzz, what makes one fail as well.
fn run(target: &str, home: &Path, work: &Path, seconds: u32) -> Result<()> {
    let found = work.join("corpus").join(target);
    let failing = work.join("failing").join(target);
    for directory in [&found, &failing] {
        fs::create_dir_all(directory)?;
    }
    println!("==== {target}");
    let program = work.join(HOST).join("release").join(target);
    let status = Command::new(&program)
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", failing.display()))
        .arg(&found)
        .arg(home.join("corpus").join(target))
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(
        status.success(),
        "{target}: what fails it is in {}",
        failing.display()
    );
    Ok(())
}

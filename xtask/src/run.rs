//! `cargo xtask run`: from a fresh clone to the first record.

use std::{ffi::OsString, os::unix::process::CommandExt as _, time::Instant};

use anyhow::{Context as _, Result};

use crate::{build, host, setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Arguments of `procid run`
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    timed("set-up", setup::for_build)?;
    let procid = timed("build", build::procid)?;
    // The agent alone needs root; everything before ran as the caller.
    let mut command = host::as_root(&procid, &[])?;
    eprintln!("start: {} run", procid.display());
    let error = command.arg("run").args(&args.args).exec();
    Err(error).with_context(|| format!("cannot start {}", procid.display()))
}

/// Runs `part` and says on stderr how long it took.
fn timed<T>(name: &str, part: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = part()?;
    eprintln!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(result)
}

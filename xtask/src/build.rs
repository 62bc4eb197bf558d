//! `cargo xtask build`: the one file users run.

use std::path::PathBuf;

use anyhow::Result;

use crate::{cargo, setup};

pub(crate) fn main() -> Result<()> {
    setup::for_build()?;
    let procid = procid()?;
    eprintln!("built {}", procid.display());
    Ok(())
}

/// Builds procid, with the eBPF object inside, and returns its path.
pub(crate) fn procid() -> Result<PathBuf> {
    let built = cargo::build(["build", "--release", "--package", "procid"])?;
    cargo::named(&built, "procid")
}

/// Builds the program that the privileged tests start to make connections.
pub(crate) fn test_program() -> Result<PathBuf> {
    const NAME: &str = "procid-testprog";
    let built = cargo::build([
        "build",
        "--release",
        "--package",
        "procid-tests",
        "--bin",
        NAME,
    ])?;
    cargo::named(&built, NAME)
}

/// Builds the privileged test suite `suite` (`live`, `vm`) and returns the
/// test binary's path.
pub(crate) fn test_suite(suite: &str) -> Result<PathBuf> {
    let built = cargo::build([
        "test",
        "--no-run",
        "--release",
        "--package",
        "procid-tests",
        "--test",
        suite,
    ])?;
    cargo::named(&built, suite)
}

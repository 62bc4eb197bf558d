//! Programs of crates.io that a release is made and checked with.

use std::{fs, process::Command, time::Instant};

use anyhow::{Context as _, Result};

use crate::{cargo, host, process};

/// A crate, the program it installs, and its version.
const TOOLS: [(&str, &str); 2] = [("cargo-cyclonedx", "0.5.9"), ("cargo-deny", "0.20.2")];

/// Installs those that are missing into the tools directory.
///
/// # Errors
///
/// When cargo cannot fetch or build one.
pub(super) fn ensure() -> Result<()> {
    let tools = host::tools_dir();
    for (name, version) in TOOLS {
        if is_there(name, version) {
            continue;
        }
        let start = Instant::now();
        eprintln!("setup: building {name} {version} (some minutes) ...");
        let build = tools.join("build");
        process::retry(format!("installing {name} {version}"), || {
            let mut cargo = cargo::cargo();
            cargo
                .args(["install", name, "--version", version, "--locked"])
                .args(["--force", "--quiet", "--root"])
                .arg(&tools)
                .arg("--target-dir")
                .arg(&build);
            process::capture(&mut cargo)
        })?;
        fs::remove_dir_all(&build).with_context(|| build.display().to_string())?;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("setup: {name} {version} ({seconds:.0} s)");
    }
    Ok(())
}

fn is_there(name: &str, version: &str) -> bool {
    let program = host::tools_dir().join("bin").join(name);
    // A cargo subcommand takes its own name first, as cargo hands it over.
    let subcommand = name.trim_start_matches("cargo-");
    process::capture(Command::new(program).args([subcommand, "--version"]))
        .is_ok_and(|text| text.trim().ends_with(version))
}

//! What procid is made of: listed, and held to `deny.toml`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::VERSION;
use crate::{cargo, host, process};

/// Holds licences, sources and versions to `deny.toml`, and looks for known
/// vulnerabilities where their database can be fetched.
///
/// # Errors
///
/// When a dependency breaks a rule.
pub(super) fn check() -> Result<()> {
    let deny = |words: &[&str]| {
        let mut cargo = cargo::cargo();
        cargo.args(["deny", "--locked"]).args(words);
        process::capture(&mut cargo)
    };
    deny(&[
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ])?;
    eprintln!("dist: licences, sources and versions as deny.toml asks");
    match deny(&["fetch", "db"]) {
        Ok(_) => {
            deny(&["check", "advisories"])?;
            eprintln!("dist: no known vulnerability");
        }
        Err(error) => {
            let text = format!("{error:#}");
            let line = text.lines().last().unwrap_or_default();
            eprintln!("dist: NOT CHECKED for known vulnerabilities: {line}");
        }
    }
    Ok(())
}

/// Writes CycloneDX lists into `dir`: what the program is made of, and what the
/// eBPF object inside it is, whose crates are not among cargo's dependencies of
/// the program.
///
/// # Errors
///
/// When cargo-cyclonedx fails.
pub(super) fn list(dir: &Path) -> Result<()> {
    const NAME: &str = "procid-bom";
    let mut cargo = cargo::cargo();
    cargo
        .args(["cyclonedx", "--manifest-path", "procid/Cargo.toml"])
        .args(["--format", "json", "--spec-version", "1.5"])
        .args(["--target", "x86_64-unknown-linux-musl", "--quiet"])
        .args(["--override-filename", NAME])
        .env("SOURCE_DATE_EPOCH", super::commit_time()?);
    process::capture(&mut cargo)?;
    // It writes one beside the manifest of each package of the workspace.
    for package in fs::read_dir(host::root())? {
        let package = package?;
        let written = package.path().join(format!("{NAME}.json"));
        if !written.exists() {
            continue;
        }
        let name = package.file_name();
        if name == "procid" || name == "procid-ebpf" {
            let text = fs::read_to_string(&written)?;
            let to = dir.join(format!("{}-{VERSION}.cdx.json", name.display()));
            fs::write(&to, without_paths(&text)).with_context(|| to.display().to_string())?;
        }
        fs::remove_file(&written).with_context(|| written.display().to_string())?;
    }
    Ok(())
}

/// The list with the workspace's own packages named by their places in it: the
/// tool names them by this machine's.
fn without_paths(text: &str) -> String {
    text.replace(&format!("{}/", host::root().display()), "")
}

//! The eBPF object: the same sources make the same bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{cargo, host, process};

/// The object that procid's build script has made, by cargo's messages.
///
/// # Errors
///
/// When no build script was run.
pub(super) fn among(messages: &[Value]) -> Result<PathBuf> {
    messages
        .iter()
        .filter(|message| message["reason"] == "build-script-executed")
        .filter_map(|message| Some(Path::new(message["out_dir"].as_str()?).join("procid-ebpf")))
        .find(|object| object.exists())
        .context("cargo ran no build script that made an eBPF object")
}

/// Builds the object of a copy of the sources, in another directory, and holds
/// it to the bytes of `object`.
///
/// # Errors
///
/// When the build fails, or the bytes differ.
pub(super) fn check_again(object: &Path) -> Result<()> {
    let elsewhere = tempfile::tempdir().context("no temporary directory")?;
    let copy = elsewhere.path().join("another place");
    fs::create_dir(&copy)?;
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let files = process::capture(git.current_dir(host::root()))?;
    for file in files.split_terminator('\0').map(Path::new) {
        let (from, to) = (host::root().join(file), copy.join(file));
        let above = to.parent().context("a file without a directory")?;
        fs::create_dir_all(above).with_context(|| above.display().to_string())?;
        fs::copy(&from, &to).with_context(|| from.display().to_string())?;
    }
    let mut command = cargo::cargo();
    // The build script is run by a check, too; more is not needed.
    command
        .args(["check", "--locked", "--package", "procid", "--lib"])
        .arg("--target-dir")
        .arg(elsewhere.path().join("target"))
        .current_dir(&copy);
    let again = among(&cargo::messages(&mut command)?)?;
    let (first, second) = (fs::read(object)?, fs::read(&again)?);
    if first != second {
        let kept = host::target_dir().join("artifacts/procid-ebpf.again");
        fs::copy(&again, &kept).with_context(|| kept.display().to_string())?;
        bail!(
            "the same sources made another eBPF object elsewhere: {} and {}",
            object.display(),
            kept.display()
        );
    }
    eprintln!(
        "dist: eBPF object, {} bytes, the same twice from two places",
        first.len()
    );
    Ok(())
}

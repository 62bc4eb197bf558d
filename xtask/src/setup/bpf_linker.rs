//! bpf-linker, linked with the LLVM inside rustc, so that both speak the same
//! bitcode by construction and no LLVM packages are needed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};

use super::Rustc;
use crate::{cargo, host, process};

const VERSION: &str = "0.13.0";

/// bpf-linker's feature for the LLVM of this rustc.
const LLVM_FEATURE: &str = "llvm-22";

/// Installs bpf-linker into the tools directory, unless a fitting one is there
/// or on `PATH`. Says whether it did.
///
/// # Errors
///
/// When this rustc has no LLVM of its own, or cargo cannot fetch or build it.
pub(super) fn ensure(rustc: &Rustc) -> Result<bool> {
    let tools = host::tools_dir();
    let own = tools.join("bin/bpf-linker");
    if own.exists() {
        if fits(&own, rustc) {
            return Ok(false);
        }
    } else if host::find_program("bpf-linker").is_some_and(|found| fits(&found, rustc)) {
        return Ok(false);
    }
    let start = Instant::now();
    eprintln!("setup: building bpf-linker {VERSION} (about a minute) ...");
    let build = tools.join("build");
    let prefix = llvm_prefix(rustc, &build)?;
    let rpath = rustc.sysroot.join("lib");
    process::retry(format!("installing bpf-linker {VERSION}"), || {
        let mut cargo = cargo::cargo();
        cargo
            .args(["install", "bpf-linker", "--version", VERSION, "--locked"])
            .args(["--no-default-features", "--features", LLVM_FEATURE])
            .args(["--force", "--quiet", "--root"])
            .arg(&tools)
            .arg("--target-dir")
            .arg(&build)
            .env("LLVM_PREFIX", &prefix)
            .env(
                "RUSTFLAGS",
                format!("-C link-arg=-Wl,-rpath,{}", rpath.display()),
            )
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        process::capture(&mut cargo)
    })?;
    fs::remove_dir_all(&build).with_context(|| build.display().to_string())?;
    eprintln!(
        "setup: bpf-linker {VERSION} in {} ({:.0} s)",
        own.display(),
        start.elapsed().as_secs_f64()
    );
    Ok(true)
}

/// Whether `linker` is of the version wanted and uses this rustc's LLVM.
fn fits(linker: &Path, rustc: &Rustc) -> bool {
    let version = process::capture(Command::new(linker).arg("--version"));
    let libraries = process::capture(Command::new("ldd").arg(linker));
    let llvm = rustc.llvm();
    let (Ok(version), Ok(libraries), Ok(llvm)) = (version, libraries, llvm) else {
        return false;
    };
    let llvm = llvm.file_name().unwrap_or_default().to_string_lossy();
    version.trim().ends_with(VERSION) && libraries.contains(&*llvm)
}

/// A directory as bpf-linker's build expects one: `lib/libLLVM.so` inside.
fn llvm_prefix(rustc: &Rustc, build: &Path) -> Result<PathBuf> {
    let prefix = build.join("llvm-prefix");
    let lib = prefix.join("lib");
    fs::create_dir_all(&lib).with_context(|| lib.display().to_string())?;
    let link = lib.join("libLLVM.so");
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link).with_context(|| link.display().to_string())?;
    }
    symlink(rustc.llvm()?, &link).with_context(|| link.display().to_string())?;
    Ok(prefix)
}

//! The static program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::object;
use crate::{cargo, host, process};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// No more than that is downloaded, mapped and hashed: 15 MB.
const SIZE_MAX: u64 = 15_000_000;

/// What the build has made.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) program: PathBuf,
    /// The eBPF object that is inside.
    pub(super) object: PathBuf,
}

/// Builds procid for musl, and checks what was built. `musl` is what
/// [`crate::setup::for_release`] returns.
///
/// # Errors
///
/// When the build fails, or what it has made is too large, is not static, or
/// names this machine.
pub(super) fn build(musl: &Path) -> Result<Built> {
    let mut command = cargo::cargo();
    command
        .args(["build", "--locked", "--profile", "dist"])
        .args(["--package", "procid", "--bin", "procid", "--target", TARGET])
        // No prebuilt standard library is asked for: see `setup::musl`.
        .args(["-Z", "build-std=std,panic_unwind", "-Z", "trim-paths"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_PROFILE_DIST_TRIM_PATHS", "all")
        // SQLite's compiler.
        .env("CC_x86_64_unknown_linux_musl", "musl-gcc")
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS",
            format!("-L native={}", musl.display()),
        )
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let messages = cargo::messages(&mut command)?;
    let built = Built {
        program: cargo::named(&cargo::executables(&messages)?, "procid")?,
        object: object::among(&messages)?,
    };
    let size = fs::metadata(&built.program)?.len();
    if size > SIZE_MAX {
        bail!("the program has {size} bytes, more than {SIZE_MAX}");
    }
    is_static(&built.program)?;
    names_no_machine(&built.program)?;
    names_no_machine(&built.object)?;
    eprintln!("dist: static program, {size} bytes");
    Ok(built)
}

fn is_static(program: &Path) -> Result<()> {
    let mut readelf = Command::new("readelf");
    let headers = process::capture(readelf.arg("-lW").arg(program))?;
    if headers.contains("INTERP") {
        bail!("{} asks for a dynamic loader", program.display());
    }
    Ok(())
}

/// Fails when a file holds a path of this machine: that of the workspace, the
/// toolchain, cargo's or the user's own directory.
fn names_no_machine(file: &Path) -> Result<()> {
    let sysroot = process::capture(Command::new("rustc").args(["--print", "sysroot"]))?;
    let mut places = vec![
        host::root().display().to_string(),
        host::target_dir().display().to_string(),
        sysroot.trim().to_owned(),
    ];
    for variable in ["CARGO_HOME", "RUSTUP_HOME", "HOME"] {
        // Root's home is too short a word to look for.
        places.extend(std::env::var(variable).ok().filter(|it| it.len() > 5));
    }
    if let Ok(home) = std::env::var("HOME") {
        places.extend([".cargo", ".rustup"].map(|dir| format!("{home}/{dir}")));
    }
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    match places.iter().find(|place| holds(&bytes, place.as_bytes())) {
        Some(place) => bail!("{} names {place}, a path of this machine", file.display()),
        None => Ok(()),
    }
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_this_machine_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        let inside = host::root().join("procid/src/lib.rs");
        fs::write(&file, format!("\0\x01{}\0", inside.display())).unwrap();
        names_no_machine(&file).unwrap_err();
        fs::write(&file, "\0\x01procid/src/lib.rs\0").unwrap();
        names_no_machine(&file).unwrap();
    }
}

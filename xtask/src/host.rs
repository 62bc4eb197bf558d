//! The machine and the clone: who runs, where things are, what is installed.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::IsTerminal as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Cargo's target directory of this workspace.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(
        || root().join("target"),
        |dir| root().join(dir), // a relative one is relative to where cargo runs: the root
    )
}

/// Where `setup` installs the tools a build needs; a `bin` directory is inside.
pub(crate) fn tools_dir() -> PathBuf {
    target_dir().join("tools")
}

/// What is downloaded once for all clones: `$PROCID_CACHE`, or `procid` in the
/// user's cache directory.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("PROCID_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        return Ok(Path::new(&dir).join("procid"));
    }
    let home = env::var_os("HOME").context("neither PROCID_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/procid"))
}

/// Whether this process runs with effective uid 0.
pub(crate) fn is_root() -> bool {
    // A process's /proc entries belong to its effective uid.
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// Whether someone can answer a question.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// The path of `program`, looked for on `PATH` and where Debian keeps the
/// programs of root, which is not on everyone's `PATH`.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| {
            fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
}

/// A command that runs `program` as root: as it is when we are root, else
/// through sudo, which passes on only the variables in `env`.
///
/// # Errors
///
/// When this is not root and there is no sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>, env: &[(&str, &OsStr)]) -> Result<Command> {
    let mut command = if is_root() {
        Command::new(program)
    } else if find_program("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        if !is_interactive() {
            sudo.arg("--non-interactive");
        }
        for (name, _) in env {
            sudo.arg(format!("--preserve-env={name}"));
        }
        sudo.arg("--").arg(program);
        sudo
    } else {
        bail!("this needs root, and there is no sudo here: run it as root");
    };
    command.envs(env.iter().copied());
    Ok(command)
}

/// Why nothing can be run as root here; `None` when it can.
pub(crate) fn no_root_because() -> Option<String> {
    if is_root() {
        return None;
    }
    if find_program("sudo").is_none() {
        return Some("not root, and there is no sudo".to_owned());
    }
    if is_interactive() {
        return None; // sudo asks for the password itself
    }
    let mut probe = Command::new("sudo");
    probe.args(["--non-interactive", "true"]);
    probe.stdin(Stdio::null());
    process::capture(&mut probe)
        .err()
        .map(|_| "not root, and sudo asks for a password".to_owned())
}

//! Cargo, as the caller, with the tools that `setup` installed on its path.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::host;

/// `cargo` at the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(host::root())
        .env("PATH", path())
        .env("CARGO_NET_RETRY", "5");
    command
}

/// An executable that cargo built.
#[derive(Debug)]
pub(crate) struct Executable {
    /// The target's name: `procid`, `live`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Builds with `args` (`build …` or `test --no-run …`) and returns the
/// executables made, whether compiled just now or before.
///
/// # Errors
///
/// When cargo fails; its diagnostics have gone to stderr.
pub(crate) fn build<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Vec<Executable>> {
    executables(&messages(cargo().args(args))?)
}

/// Runs a command of cargo's that compiles, and returns its messages.
///
/// # Errors
///
/// When cargo fails; its diagnostics have gone to stderr.
pub(crate) fn messages(command: &mut Command) -> Result<Vec<Value>> {
    let output = command
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the build failed");
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).context("cargo's messages are not JSON"))
        .collect()
}

/// The executables that cargo's messages tell of.
///
/// # Errors
///
/// When a message has an executable and no name.
pub(crate) fn executables(messages: &[Value]) -> Result<Vec<Executable>> {
    messages
        .iter()
        .filter_map(|message| executable(message).transpose())
        .collect()
}

/// The executable named `name` among those built.
///
/// # Errors
///
/// When there is none.
pub(crate) fn named(executables: &[Executable], name: &str) -> Result<PathBuf> {
    executables
        .iter()
        .find(|executable| executable.name == name)
        .map(|executable| executable.path.clone())
        .with_context(|| format!("cargo built no executable named {name}"))
}

/// The executable in one of cargo's messages, if it has one.
fn executable(message: &Value) -> Result<Option<Executable>> {
    let Some(path) = message["executable"].as_str() else {
        return Ok(None);
    };
    let name = message["target"]["name"]
        .as_str()
        .context("cargo names an executable without its target")?;
    Ok(Some(Executable {
        name: name.to_owned(),
        path: path.into(),
    }))
}

/// `PATH` with the tools of `setup` first, when there are any.
fn path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let tools = host::tools_dir().join("bin");
    if !tools.is_dir() {
        return path;
    }
    let dirs = std::iter::once(tools).chain(env::split_paths(&path));
    env::join_paths(dirs).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn executables_are_read_from_messages() {
        let message = json!({"reason": "compiler-artifact", "target": {"name": "live"},
            "executable": "/t/live-1f"});
        let executable = executable(&message).unwrap().unwrap();
        assert_eq!(executable.name, "live");
        assert_eq!(executable.path, PathBuf::from("/t/live-1f"));
    }

    #[test]
    fn libraries_and_other_messages_are_no_executables() {
        for message in [
            json!({"reason": "compiler-artifact", "target": {"name": "procid"}, "executable": null}),
            json!({"reason": "build-finished", "success": true}),
        ] {
            assert!(executable(&message).unwrap().is_none());
        }
    }
}

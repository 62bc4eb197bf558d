//! A cgroup of the benchmark's own, which procid watches and the loops run in,
//! bare or not.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::proc;

/// One name for all runs: two at a time would measure each other, and what an
/// interrupted one left is used again.
const NAME: &str = "procid-bench";

/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes it below the root of cgroup v2.
    ///
    /// # Errors
    ///
    /// Without cgroup v2, without the right to, or while another benchmark
    /// runs.
    pub(crate) fn new() -> Result<Self> {
        let path = proc::cgroup2_root()?.join(NAME);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.with_context(|| format!("cannot make {}", path.display()))?,
        }
        if !fs::read_to_string(path.join("cgroup.procs"))?.is_empty() {
            bail!("another benchmark runs in {}", path.display());
        }
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets `command` start inside.
    ///
    /// # Errors
    ///
    /// The cgroup is gone.
    pub(crate) fn holds(&self, command: &mut Command) -> Result<()> {
        let procs: File = OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.procs"))?;
        // SAFETY: between fork and exec the child calls write(2) on a
        // descriptor of its own, nothing else. 0 means the writer.
        unsafe { command.pre_exec(move || (&procs).write_all(b"0")) };
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The last process may still be on its way out.
        for _ in 0..200 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} is left behind", self.path.display());
    }
}

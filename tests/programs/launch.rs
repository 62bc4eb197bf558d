//! Runs another program: as a child, or in its own place.

use std::{
    ffi::OsString,
    fs::File,
    io::{Error, Read as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::by::wait_for;

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/sched.h#L39>
const CLONE_INTO_CGROUP: u64 = 1 << 33;

#[derive(Debug, clap::Args)]
pub(crate) struct Launch {
    /// Wait for a byte on stdin before
    #[arg(long)]
    wait: bool,
    /// Run it in this process's place
    #[arg(long, conflicts_with = "leave")]
    exec: bool,
    /// As a child that is born in this cgroup
    #[arg(long, conflicts_with_all = ["exec", "leave"])]
    into: Option<PathBuf>,
    /// End without waiting for it
    #[arg(long)]
    leave: bool,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Launch {
    pub(crate) fn run(self) -> Result<()> {
        if self.wait {
            std::io::stdin().read_exact(&mut [0])?;
        }
        let (program, arguments) = self.command.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(cgroup) = &self.into {
            let child = clone_into(cgroup).with_context(|| cgroup.display().to_string())?;
            if child != 0 {
                return wait_for(child);
            }
        }
        if self.exec || self.into.is_some() {
            return Err(command.exec().into());
        }
        let mut child = command
            .spawn()
            .with_context(|| program.display().to_string())?;
        if self.leave {
            return Ok(());
        }
        let status = child.wait()?;
        ensure!(
            status.success(),
            "{} ended with {status}",
            program.display()
        );
        Ok(())
    }
}

/// fork(2), but that the child is in another cgroup from its first moment
/// (`CLONE_INTO_CGROUP`, Linux 5.7).
fn clone_into(cgroup: &Path) -> Result<i32> {
    let cgroup = File::open(cgroup)?;
    let arguments = libc::clone_args {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: u64::try_from(cgroup.as_raw_fd())?,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
    };
    // SAFETY: without a stack of its own and without CLONE_VM it is a fork; this
    // process has one thread, so that its child may go on as it would.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    ensure!(child >= 0, Error::last_os_error());
    Ok(i32::try_from(child)?)
}

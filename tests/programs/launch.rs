//! Runs another program: as a child, or in its own place.

use std::{ffi::OsString, io::Read as _, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};

#[derive(Debug, clap::Args)]
pub(crate) struct Launch {
    /// Wait for a byte on stdin before
    #[arg(long)]
    wait: bool,
    /// Run it in this process's place
    #[arg(long, conflicts_with = "leave")]
    exec: bool,
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
        if self.exec {
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

//! Many short-lived processes.
//!
//! Their connections end by a reset, in their own context. The last packet of
//! an orderly end is handled in whatever process is interrupted, and there are
//! kernels whose init no tracing program may watch: what ends there (about one
//! in ten thousand) is told by no hook.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

#[derive(Debug, clap::Args)]
pub(crate) struct Storm {
    /// Programs to run in turn: copies of this one
    #[arg(long, required = true)]
    exe: Vec<PathBuf>,
    /// Where they connect to, in turn
    #[arg(long, required = true)]
    to: Vec<SocketAddr>,
    #[arg(long)]
    processes: usize,
    /// Processes alive at one time, at most
    #[arg(long)]
    parallel: usize,
}

impl Storm {
    pub(crate) fn run(self) -> Result<()> {
        let mut running = VecDeque::new();
        let each = self.exe.iter().cycle().zip(self.to.iter().cycle());
        for (exe, to) in each.take(self.processes) {
            if running.len() >= self.parallel {
                reap(&mut running)?;
            }
            let child = Command::new(exe)
                .args(["connect", "--reset", "--to", &to.to_string()])
                .stdin(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot start {}", exe.display()))?;
            running.push_back(child);
        }
        while !running.is_empty() {
            reap(&mut running)?;
        }
        Ok(())
    }
}

/// Waits for the oldest.
fn reap(running: &mut VecDeque<Child>) -> Result<()> {
    let Some(mut child) = running.pop_front() else {
        return Ok(());
    };
    let status = child.wait()?;
    ensure!(
        status.success(),
        "a process of the storm ended with {status}"
    );
    Ok(())
}

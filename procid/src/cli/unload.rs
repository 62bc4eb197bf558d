//! `procid unload`: end what a killed agent enforces.

use std::{
    io::{self, ErrorKind, Write as _},
    path::PathBuf,
};

use super::failure::{Code, Failure};
use crate::{kernel, policy::UNPROTECT};

/// Remove enforcement left pinned by a killed agent, or by one that was told to
/// keep it.
///
/// The policy stays in the state directory: the next agent puts it in force
/// again. What a running agent enforces is left; stop that agent instead.
#[derive(Debug, clap::Args)]
pub struct Unload {
    /// Only that of agents which watched this cgroup v2 directory.
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
}

impl Unload {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let done = kernel::unload(self.cgroup.as_deref()).map_err(|error| {
            let text = format!("cannot remove what is pinned: {error}");
            match error.kind() {
                ErrorKind::NotFound => Failure::usage(text),
                _ => Failure::refused(format!("{text}; run it as root")),
            }
        })?;
        let mut out = io::stdout().lock();
        let mut say =
            |text: String| writeln!(out, "{text}").map_err(|error| Failure::of_stdout(&error));
        match done.removed {
            0 => say("no ended agent has left anything pinned".to_owned())?,
            1 => say("removed what an ended agent enforced".to_owned())?,
            many => say(format!("removed what {many} ended agents enforced"))?,
        }
        if done.strange != 0 {
            say(format!(
                "left {} that procid has not made in /sys/fs/bpf/procid",
                done.strange
            ))?;
        }
        if done.alive == 0 {
            return Ok(Code::Done);
        }
        if done.protected != 0 {
            return Err(Failure::refused(format!(
                "an agent that runs is protected (protect = true); to end it, boot with \
                 {UNPROTECT} on the kernel command line"
            )));
        }
        Err(Failure::nothing(
            "an agent that runs enforces its policy, which was left; stop the agent to end it"
                .to_owned(),
        ))
    }
}

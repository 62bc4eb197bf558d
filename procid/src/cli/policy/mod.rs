//! `procid policy`: which policy is in force.
//!
//! | module | holds |
//! | --- | --- |
//! | [`apply`] | `apply`, `confirm`, `revert` |
//! | [`check`] | `check` |
//! | [`show`] | `show` |
//! | [`explain`] | `explain` |
//! | [`replay`] | `replay` |
//! | [`cut`] | `apply --cut` |
//! | [`file`](mod@file) | a policy's file, read |

use clap::Subcommand;

use super::failure::{Code, Failure};

pub mod apply;
pub mod check;
mod cut;
pub mod explain;
pub mod file;
pub mod replay;
pub mod show;

/// Which image may speak to whom: check rules, put them in force, and see what
/// they do.
#[derive(Debug, clap::Args)]
pub struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Apply(apply::Apply),
    Confirm(apply::Confirm),
    Revert(apply::Revert),
    Show(show::Show),
    Explain(explain::Explain),
    Replay(replay::PolicyReplay),
}

impl Policy {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        match self.command {
            Command::Check(check) => check.execute(),
            Command::Apply(apply) => apply.execute(),
            Command::Confirm(confirm) => confirm.execute(),
            Command::Revert(revert) => revert.execute(),
            Command::Show(show) => show.execute(),
            Command::Explain(explain) => explain.execute(),
            Command::Replay(replay) => replay.execute(),
        }
    }
}

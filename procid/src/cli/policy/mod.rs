//! `procid policy …`: one module for each of its commands.
//!
//! | module | holds |
//! | --- | --- |
//! | [`file`] | the text of a policy, from a file or stdin |
//! | [`check`] | `procid policy check` |

use clap::Subcommand;

use super::failure::{Code, Failure};

pub mod check;
pub mod file;

/// Rules on which process image may speak to whom.
#[derive(Debug, Subcommand)]
pub enum Policy {
    Check(check::Check),
}

impl Policy {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        match self {
            Self::Check(check) => check.execute(),
        }
    }
}

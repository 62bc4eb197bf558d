//! `procid watch`: what the agent sees, as it happens.
//!
//! ```text
//! the agent ──► feed ──► lines                       stdout is no terminal
//!                   └──► model ──► view ──► draw     it is one
//!                   keys ──► input ──► ui ──┘
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`feed`] | what is there and what comes, from the agent; comes back when it does |
//! | [`lines`] | a record a line |
//! | [`model`] | connections, denials and images, as records tell of them |
//! | [`ui`] | what one looks at: tab, order, filter, selection |
//! | [`input`] | keys to changes of that |
//! | [`view`] | the rows that are to be seen, and their cells |
//! | [`detail`] | all that is known of the selected row |
//! | [`draw`] | both on a screen |
//! | [`terminal`] | the loop, and the terminal given back as it was |

use std::io::{self, IsTerminal as _};

use super::{
    AgentSocket,
    failure::{Code, Failure},
};
use crate::api::client::Client;

pub mod detail;
pub mod draw;
pub mod feed;
pub mod input;
pub mod lines;
pub mod model;
pub mod terminal;
pub mod ui;
pub mod view;

/// Show connections, denials and processes as they come and go.
///
/// In a terminal: a table to sort and filter, with all that is known of each
/// row; `?` shows the keys. Else: one record a line, as 'procid run' prints them,
/// until interrupted. Exit code 4 when no agent answers.
#[derive(Debug, clap::Args)]
pub struct Watch {
    #[command(flatten)]
    socket: AgentSocket,
}

impl Watch {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let client = Client::new(self.socket.socket);
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_terminal = io::stdout().is_terminal() && !is_dumb;
        super::runtime()?.block_on(async {
            let feed = feed::begin(client).await?;
            if is_terminal {
                terminal::run(feed).await
            } else {
                lines::run(feed, io::stdout().lock()).await
            }
        })
    }
}

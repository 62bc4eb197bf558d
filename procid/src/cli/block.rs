//! `procid block` and `procid unblock`: containment now.

use super::{
    AgentSocket,
    failure::{Code, Failure},
    output::{local, printable},
    policy::apply::{seconds, tell},
};
use crate::{
    agent::policy::ask::{self, BlockRequest},
    api::client::Client,
};

/// Deny an executable, now and for a while: a temporary rule before all others.
///
/// It expires in the kernel, agent or no agent, and outlives the policy in
/// force. 'procid policy show' lists such rules.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("who").required(true))]
pub struct Block {
    /// Whatever runs a file with this SHA-256.
    #[arg(long, value_name = "HEX", group = "who")]
    sha256: Option<String>,
    /// Whatever runs the file at this path, or below it (/dir/**).
    #[arg(long, value_name = "PATH", group = "who")]
    exe: Option<String>,
    /// Whatever runs the file that this process image runs (`process.entity_id`
    /// of a record).
    #[arg(long, value_name = "ID", group = "who")]
    entity: Option<String>,
    /// To these addresses [default: to everywhere].
    #[arg(long, value_name = "CIDR")]
    to: Option<String>,
    /// For how long, as in 4h.
    #[arg(long = "for", value_name = "SPAN", value_parser = seconds)]
    for_seconds: u64,
    /// Why: it is told to whoever looks.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    socket: AgentSocket,
}

/// Take a temporary rule away before its time.
#[derive(Debug, clap::Args)]
pub struct Unblock {
    /// As 'procid block' told it, as in block-1.
    name: String,
    #[command(flatten)]
    socket: AgentSocket,
}

impl Block {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let request = BlockRequest {
            sha256: self.sha256,
            exe: self.exe,
            entity: self.entity,
            to: self.to,
            for_seconds: self.for_seconds,
            reason: self.reason,
        };
        let client = Client::new(self.socket.socket);
        let changed = super::runtime()?.block_on(client.block(&request))?;
        let name = changed.block.as_deref().unwrap_or("the rule");
        let until = changed.expires.as_deref().map(local);
        let text = format!(
            "{} is in force until {}",
            printable(name),
            until.as_deref().unwrap_or("it is taken away")
        );
        tell(&changed, &text)
    }
}

impl Unblock {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let request = ask::Unblock { name: self.name };
        let client = Client::new(self.socket.socket);
        let changed = super::runtime()?.block_on(client.unblock(&request))?;
        tell(&changed, &format!("{} is gone", printable(&request.name)))
    }
}

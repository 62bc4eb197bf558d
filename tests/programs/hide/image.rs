//! The hidden image.

use std::{ffi::OsString, fs, net::SocketAddr, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use procid_tests::{
    truth::{Actor, print_line},
    way::Flow,
};

use super::lie;
use crate::hand::{
    flow::{add, opened},
    means::{Means, connected, greeted},
    peer::Peer,
};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Image {
    /// Where to connect to; else to a process of its own
    #[arg(long)]
    to: Option<SocketAddr>,
    /// What to do first
    #[arg(long, value_enum)]
    lie: Option<Lie>,
    /// An executable for that
    #[arg(long)]
    other: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lie {
    /// Takes another name
    Comm,
    /// Puts other words where its arguments are
    Argv,
    /// Says that it runs the other executable
    MmExe,
    /// Renames the other executable to the path of its own
    RenamedOver,
}

impl Image {
    pub(crate) fn that_connects(to: SocketAddr) -> Self {
        Self {
            to: Some(to),
            ..Self::default()
        }
    }

    pub(crate) fn run(self) -> Result<()> {
        let truth = Actor::current()?;
        let other = || self.other.as_deref().context("--other");
        match self.lie {
            Some(Lie::Comm) => lie::about_name()?,
            Some(Lie::Argv) => lie::about_arguments()?,
            Some(Lie::MmExe) => lie::about_executable(other()?)?,
            Some(Lie::RenamedOver) => fs::rename(other()?, fs::read_link("/proc/self/exe")?)?,
            None => {}
        }
        match self.to {
            Some(to) => Ok(print_line(&connects(to, truth)?)?),
            None => {
                let peer = Peer::server()?;
                let flow = connects(peer.address, truth)?;
                print_line(&flow)?;
                peer.agrees_with(&flow)
            }
        }
    }
}

/// Connects, takes the greeting, sends and closes, as the image of `truth`.
pub(crate) fn connects(to: SocketAddr, truth: Actor) -> Result<Flow> {
    let socket = connected(to)?;
    let mut flow = opened(&socket, to)?;
    add(&mut flow, 0, greeted(&socket)?);
    add(&mut flow, Means::Send.send(&socket)?, 0);
    flow.actor = truth;
    Ok(flow)
}

/// The arguments of the hidden image, its program's name not included.
pub(crate) fn arguments(to: SocketAddr) -> Vec<OsString> {
    ["hide-image", "--to", &to.to_string()]
        .map(Into::into)
        .into()
}

/// The command that runs it from `program`.
pub(crate) fn command(program: impl Into<PathBuf>, to: SocketAddr) -> Command {
    let mut command = Command::new(program.into());
    command.args(arguments(to));
    command
}

//! A copy of this program that uses a socket it did not make.

use std::{
    ffi::OsString,
    net::{SocketAddr, TcpListener},
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::Command,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use procid_tests::truth::print_line;
use rustix::{net::connect, process::Pid, stdio::stdin};

use super::{
    accept::answer,
    flow::{Used, accepted, add, opened},
    means::{Means, greeted, send_to},
    pass::{steal, taken},
};

#[derive(Debug, clap::Args)]
pub(crate) struct User {
    #[arg(value_enum)]
    act: Act,
    /// How the socket comes here
    #[arg(long, value_enum, default_value = "stdin")]
    from: From,
    /// Where to connect or send to
    #[arg(long)]
    to: Option<SocketAddr>,
    /// Whose socket to steal
    #[arg(long)]
    pid: Option<i32>,
    /// Which of its descriptors
    #[arg(long)]
    fd: Option<i32>,
    /// The program to run after the act, and its arguments; the socket is its
    /// stdin
    #[arg(last = true)]
    then: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    /// It is stdin
    Stdin,
    /// Stdin is a Unix socket on which sockets come until it ends, one to be
    /// used after the other
    Unix,
    /// It is stolen
    Theft,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Act {
    /// Sends
    Send,
    /// Connects
    Connect,
    /// Connects and sends
    ConnectSend,
    /// Accepts a connection and answers on it
    Accept,
}

impl User {
    pub(crate) fn run(self) -> Result<()> {
        match self.from {
            From::Stdin => self.act(stdin())?,
            From::Unix => {
                let from = UnixStream::from(stdin().try_clone_to_owned()?);
                while let Some(socket) = taken(&from)? {
                    self.act(socket.as_fd())?;
                }
            }
            From::Theft => {
                let pid = self.pid.and_then(Pid::from_raw).context("--pid")?;
                let socket = steal(pid, self.fd.context("--fd")?)?;
                self.act(socket.as_fd())?;
            }
        }
        match self.then.split_first() {
            // Stdin stays as it is.
            Some((program, arguments)) => Err(Command::new(program).args(arguments).exec().into()),
            None => Ok(()),
        }
    }

    fn act(&self, socket: impl AsFd) -> Result<()> {
        match self.act {
            Act::Send => {
                let sent = match self.to {
                    Some(to) => send_to(socket, to)?,
                    None => Means::Send.send(socket)?,
                };
                print_line(&Used::now(sent, 0)?)?;
            }
            Act::Connect | Act::ConnectSend => {
                let to = self.to.context("--to")?;
                connect(&socket, &to)?;
                let mut flow = opened(&socket, to)?;
                add(&mut flow, 0, greeted(&socket)?);
                if matches!(self.act, Act::ConnectSend) {
                    add(&mut flow, Means::Send.send(&socket)?, 0);
                }
                print_line(&flow)?;
            }
            Act::Accept => {
                let listener = TcpListener::from(socket.as_fd().try_clone_to_owned()?);
                let (stream, _) = listener.accept()?;
                let mut flow = accepted(&stream)?;
                answer(&stream, &mut flow)?;
                print_line(&flow)?;
            }
        }
        Ok(())
    }
}

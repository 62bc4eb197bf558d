//! TCP connections.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result};
use procid_tests::truth::{Act, Actor, Transport};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, socket_with, sockopt,
    },
};

use crate::by::Acting;

#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    /// Where to; one connection to each
    #[arg(long, required = true)]
    to: Vec<SocketAddr>,
    /// Listen there first
    #[arg(long)]
    listen: bool,
    /// Bind to this address first
    #[arg(long)]
    from: Option<SocketAddr>,
    /// Connections to each
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Close by a reset, which leaves nothing for the kernel to do later
    #[arg(long)]
    reset: bool,
    /// Do not wait inside connect(2)
    #[arg(long)]
    nonblocking: bool,
    #[command(flatten)]
    acting: Acting,
}

impl Connect {
    pub(crate) fn run(self) -> Result<()> {
        self.acting.act(|| {
            let mut opened = Vec::new();
            for &to in self
                .to
                .iter()
                .flat_map(|to| (0..self.count).map(move |_| to))
            {
                let listener = self.listen.then(|| TcpListener::bind(to)).transpose()?;
                let to = match &listener {
                    Some(listener) => listener.local_addr()?,
                    None => to,
                };
                opened.push((self.connect(to)?, listener));
            }
            Ok(opened)
        })
    }

    fn connect(&self, to: SocketAddr) -> Result<OwnedFd> {
        let mut flags = SocketFlags::CLOEXEC;
        flags.set(SocketFlags::NONBLOCK, self.nonblocking);
        let socket = socket_with(family(to), SocketType::STREAM, flags, None)?;
        if self.reset {
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        }
        let mut source = None;
        if let Some(from) = self.from {
            bind(&socket, &from)?;
            source = Some(local(&socket)?);
        }
        let mut done = connect(&socket, &to);
        if done == Err(Errno::INPROGRESS) {
            poll(&mut [PollFd::new(&socket, PollFlags::OUT)], None)?;
            done = sockopt::socket_error(&socket)?;
        }
        let error = done.err();
        if error.is_none() {
            source = Some(local(&socket)?);
        }
        Act {
            actor: Actor::current()?,
            transport: Transport::Tcp,
            source,
            destination: to,
            error: error.map(Errno::raw_os_error),
        }
        .print()?;
        Ok(socket)
    }
}

pub(crate) fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

/// The address a socket is bound to.
pub(crate) fn local(socket: impl AsFd) -> Result<SocketAddr> {
    getsockname(socket)?
        .try_into()
        .ok()
        .context("a socket without an address")
}

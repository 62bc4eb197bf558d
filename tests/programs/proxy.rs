//! Passes on what it is asked, over a connection of its own.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result};
use procid_tests::truth::{Act, Actor, Listens, Transport, print_line};

#[derive(Debug, clap::Args)]
pub(crate) struct Proxy {
    /// Where to listen; the port is told
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to connect to for each request
    #[arg(long)]
    to: SocketAddr,
    /// Requests to take before the first is passed on
    #[arg(long, default_value_t = 1)]
    together: usize,
    /// Requests in all
    #[arg(long, default_value_t = 1)]
    count: usize,
}

impl Proxy {
    /// All connections stay open until the end of stdin.
    pub(crate) fn run(self) -> Result<()> {
        let listener = TcpListener::bind(self.listen).context("bind")?;
        print_line(&Listens {
            listens: listener.local_addr()?,
        })?;
        let mut held: Vec<OwnedFd> = Vec::new();
        let mut waiting = 0;
        for taken in 1..=self.count {
            held.push(listener.accept()?.0.into());
            waiting += 1;
            if taken < self.together {
                continue;
            }
            for _ in 0..std::mem::take(&mut waiting) {
                held.push(self.pass_on()?.into());
            }
        }
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        Ok(())
    }

    fn pass_on(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.to)?;
        Act {
            actor: Actor::current()?,
            transport: Transport::Tcp,
            source: Some(stream.local_addr()?),
            destination: self.to,
            error: None,
        }
        .print()?;
        Ok(stream)
    }
}

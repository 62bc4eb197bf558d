//! Asks a DNS server for a name, then connects.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Result, bail};
use clap::ValueEnum;
use procid_tests::{
    dns::query,
    truth::{Act, Actor, Transport},
};

use crate::by::Acting;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Resolve {
    /// Whom to ask
    #[arg(long)]
    server: SocketAddr,
    /// What to ask for, in turn
    #[arg(long)]
    name: Vec<String>,
    /// How to ask
    #[arg(long, value_enum, default_value = "connected")]
    over: Over,
    /// Where to connect to then
    #[arg(long)]
    to: SocketAddr,
    #[command(flatten)]
    acting: Acting,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Over {
    /// A UDP socket that is connected to the server
    Connected,
    /// One that is not
    Udp,
    Tcp,
}

impl Resolve {
    pub(crate) fn run(self) -> Result<()> {
        self.acting.act(|| {
            for name in &self.name {
                self.ask(&query(name))?;
            }
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
        })
    }

    /// Asks, and waits for the answer, whatever it says.
    fn ask(&self, query: &[u8]) -> Result<()> {
        if let Over::Tcp = self.over {
            let mut stream = TcpStream::connect(self.server)?;
            stream.set_read_timeout(Some(LIMIT))?;
            let len = u16::try_from(query.len())?.to_be_bytes();
            stream.write_all(&[&len[..], query].concat())?;
            let mut len = [0; 2];
            stream.read_exact(&mut len)?;
            stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes(len))])?;
            return Ok(());
        }
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(LIMIT))?;
        if let Over::Connected = self.over {
            socket.connect(self.server)?;
            socket.send(query)?;
        } else {
            socket.send_to(query, self.server)?;
        }
        // What others send is not the answer.
        for _ in 0..16 {
            let (_, from) = socket.recv_from(&mut [0; 4096])?;
            if from == self.server {
                return Ok(());
            }
        }
        bail!("no answer from {}", self.server)
    }
}

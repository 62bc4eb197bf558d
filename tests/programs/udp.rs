//! UDP datagrams.

use std::net::SocketAddr;

use anyhow::Result;
use procid_tests::truth::{Act, Actor, Transport};
use rustix::{
    io::Errno,
    net::{SendFlags, SocketFlags, SocketType, bind, connect, send, sendto, socket_with},
};

use crate::{
    by::Acting,
    tcp::{family, local},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Udp {
    /// Where to; all from one socket, unless it connects
    #[arg(long, required = true)]
    to: Vec<SocketAddr>,
    /// Connect first, then send
    #[arg(long)]
    connected: bool,
    /// Bind to this address first
    #[arg(long)]
    from: Option<SocketAddr>,
    /// Datagrams to each; one act all the same
    #[arg(long, default_value_t = 1)]
    count: u32,
    #[command(flatten)]
    acting: Acting,
}

impl Udp {
    pub(crate) fn run(self) -> Result<()> {
        self.acting.act(|| {
            let mut sockets = Vec::new();
            for (at, &to) in self.to.iter().enumerate() {
                if at == 0 || self.connected {
                    let flags = SocketFlags::CLOEXEC;
                    let socket = socket_with(family(to), SocketType::DGRAM, flags, None)?;
                    if let Some(from) = self.from {
                        bind(&socket, &from)?;
                    }
                    sockets.push(socket);
                }
                let Some(socket) = sockets.last() else {
                    continue;
                };
                let mut error = None;
                if self.connected {
                    error = connect(socket, &to).err();
                }
                for number in 0..self.count {
                    if error.is_some() {
                        break;
                    }
                    let payload = number.to_be_bytes();
                    let done = if self.connected {
                        send(socket, &payload, SendFlags::empty())
                    } else {
                        sendto(socket, &payload, SendFlags::empty(), &to)
                    };
                    error = done.err();
                }
                let source = local(socket)?;
                Act {
                    actor: Actor::current()?,
                    transport: Transport::Udp,
                    source: (source.port() != 0).then_some(source),
                    destination: to,
                    error: error.map(Errno::raw_os_error),
                }
                .print()?;
            }
            Ok(sockets)
        })
    }
}

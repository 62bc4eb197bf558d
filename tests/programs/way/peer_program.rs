//! The other end's own program.

use std::{
    collections::BTreeMap,
    io::BufRead as _,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use procid_tests::{truth::print_line, way::Flow};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{
        RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with, bind, listen, recv, recvfrom,
        send, sendto, shutdown,
        sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout},
    },
    process::{Signal, set_parent_process_death_signal},
};

use super::{
    others::vsock,
    payload::{PART, check, part, receive_all, send_all},
    peer::Counts,
    socket::{patience, socket},
    tls,
    told::{accepted, counted, opened},
};
use crate::tcp::local;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Manner {
    /// Accepts, reads to the end, sends
    Stream,
    /// Accepts, and closes without reading
    Unread,
    /// Accepts; takes and gives messages as told
    Messages,
    /// Takes and gives datagrams as told
    Datagrams,
}

/// The other end of a way.
#[derive(Debug, clap::Args)]
pub(crate) struct PeerProgram {
    #[arg(value_enum)]
    manner: Manner,
    /// Where
    #[arg(long)]
    at: SocketAddr,
    /// IPPROTO_*
    #[arg(long)]
    protocol: i32,
    /// SOCK_*
    #[arg(long)]
    kind: i32,
    /// AF_*
    #[arg(long)]
    domain: i32,
    /// Bytes before each payload
    #[arg(long)]
    skip: usize,
    /// Bytes that arrive
    #[arg(long)]
    up: u64,
    /// Bytes to send
    #[arg(long)]
    down: u64,
    /// With TLS in the kernel
    #[arg(long)]
    tls: bool,
    /// Accept half a second after the connection has come
    #[arg(long)]
    late: bool,
}

impl PeerProgram {
    pub(crate) fn run(self) -> Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let socket = socket("such socket", self.domain, self.kind, self.protocol)?;
        set_socket_reuseaddr(&socket, true)?;
        if self.domain == libc::AF_VSOCK {
            bind(&socket, &vsock(libc::VMADDR_CID_ANY, self.at))?;
        } else {
            bind(&socket, &self.at)?;
        }
        if self.manner == Manner::Datagrams {
            if self.kind == libc::SOCK_SEQPACKET {
                listen(&socket, 8)?;
            }
            print_line(&local(&socket)?)?;
            return self.datagrams(&socket);
        }
        listen(&socket, 8)?;
        print_line(&local(&socket).unwrap_or(self.at))?;
        if self.late {
            poll(&mut [PollFd::new(&socket, PollFlags::IN)], None)?;
            thread::sleep(Duration::from_millis(500));
        }
        let connection = accept_with(&socket, SocketFlags::CLOEXEC)?;
        set_socket_timeout(&connection, Timeout::Recv, Some(patience()))?;
        set_socket_timeout(&connection, Timeout::Send, Some(patience()))?;
        match self.manner {
            Manner::Stream => self.stream(connection),
            Manner::Unread => unread(connection),
            Manner::Messages | Manner::Datagrams => messages(connection),
        }
    }

    fn stream(&self, connection: OwnedFd) -> Result<()> {
        if self.tls {
            tls::start(&connection)?;
        }
        let flow = accepted(&connection)?;
        let received = if self.tls {
            receive_all(self.up, |buffer| tls::receive(&connection, buffer))?
        } else {
            receive_all(self.up, |buffer| {
                recv(&connection, buffer, RecvFlags::empty()).map(|(length, _)| length)
            })?
        };
        let sent = send_all(0, self.down, |part| {
            send(&connection, part, SendFlags::NOSIGNAL)
        })?;
        if self.tls {
            tls::end(&connection)?;
        }
        shutdown(&connection, Shutdown::Both).or_else(|error| match error {
            // The other end has closed already.
            Errno::NOTCONN => Ok(()),
            error => Err(error),
        })?;
        drop(connection);
        if self.tls {
            return Ok(print_line(&Flow {
                sent: None,
                received: None,
                ..flow
            })?);
        }
        Ok(print_line(&counted(flow, sent, received))?)
    }

    fn datagrams(&self, socket: &OwnedFd) -> Result<()> {
        let mut last = None;
        let mut told: BTreeMap<SocketAddr, Counts> = BTreeMap::new();
        let mut buffer = vec![0; 2 * PART];
        follow(|order, offset, length| {
            match order {
                "take" => {
                    let (returned, _, from) =
                        recvfrom(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
                    let payload = buffer[..returned].get(self.skip..).unwrap_or_default();
                    let arrived = payload.len();
                    ensure!(arrived == length, "{arrived} bytes arrived, not {length}");
                    check(offset, payload)?;
                    let from: SocketAddr = from.context("from nobody")?.try_into()?;
                    told.entry(from).or_default().received += returned as u64;
                    last = Some(from);
                }
                _ => {
                    let to = last.context("nobody has sent")?;
                    let sent = sendto(socket, part(offset, length), SendFlags::empty(), &to)?;
                    ensure!(sent == length, "{sent} bytes sent, not {length}");
                    told.entry(to).or_default().sent += sent as u64;
                }
            }
            Ok(())
        })?;
        for (to, counts) in told {
            if counts.sent > 0 {
                print_line(&counts.of(opened(socket.as_fd(), Some(to))?))?;
            }
        }
        Ok(())
    }
}

/// Closes with data unread, which resets the connection. What the kernel has
/// taken for it counts as received, as it does in the kernel.
fn unread(connection: OwnedFd) -> Result<()> {
    let flow = accepted(&connection)?;
    let mut waiting = 0;
    follow(|_, _, _| {
        waiting = rustix::io::ioctl_fionread(&connection)?;
        Ok(())
    })?;
    drop(connection);
    Ok(print_line(&counted(flow, 0, waiting))?)
}

fn messages(connection: OwnedFd) -> Result<()> {
    let flow = accepted(&connection)?;
    let mut counts = Counts::default();
    let mut buffer = vec![0; 2 * PART];
    follow(|order, offset, length| {
        match order {
            "take" => {
                let (returned, _) = recv(&connection, buffer.as_mut_slice(), RecvFlags::empty())?;
                ensure!(returned == length, "{returned} bytes arrived, not {length}");
                check(offset, &buffer[..returned])?;
                counts.received += returned as u64;
            }
            _ => {
                let sent = send(&connection, part(offset, length), SendFlags::NOSIGNAL)?;
                ensure!(sent == length, "{sent} bytes sent, not {length}");
                counts.sent += sent as u64;
            }
        }
        Ok(())
    })?;
    drop(connection);
    Ok(print_line(&counts.of(flow))?)
}

/// Does what stdin says, line by line, and says of each that it is done.
fn follow(mut act: impl FnMut(&str, u64, usize) -> Result<()>) -> Result<()> {
    for order in std::io::stdin().lock().lines() {
        let order = order?;
        let words: Vec<&str> = order.split(' ').collect();
        let [word, offset, length] = words[..] else {
            bail!("an order of {} words", words.len());
        };
        act(word, offset.parse()?, length.parse()?)?;
        print_line(&())?;
    }
    Ok(())
}

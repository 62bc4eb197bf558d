//! The other end, as the program that acts sees it: a process of its own that
//! does as it is told over a pipe, and tells of its sockets in the end.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use procid_tests::{truth::print_line, way::Flow};
use serde::de::DeserializeOwned;

use super::{
    payload::{Load, check, part, parts},
    peer_program::Manner,
    socket::family_number,
};

/// What kind of other end.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    manner: Manner,
    at: SocketAddr,
    protocol: i32,
    kind: i32,
    domain: i32,
    skip: usize,
    load: Load,
    tls: bool,
    late: bool,
}

impl Spec {
    /// Accepts one connection, reads it to its end and sends its own share.
    pub(crate) fn stream(at: SocketAddr, load: Load) -> Self {
        Self {
            manner: Manner::Stream,
            at,
            protocol: libc::IPPROTO_TCP,
            kind: libc::SOCK_STREAM,
            domain: family_number(at),
            skip: 0,
            load,
            tls: false,
            late: false,
        }
    }

    /// Receives and sends datagrams, each when told.
    pub(crate) fn datagrams(at: SocketAddr) -> Self {
        Self {
            manner: Manner::Datagrams,
            protocol: libc::IPPROTO_UDP,
            kind: libc::SOCK_DGRAM,
            ..Self::stream(at, Load { up: 0, down: 0 })
        }
    }

    /// Accepts one connection; receives and sends messages, each when told.
    pub(crate) fn messages(at: SocketAddr) -> Self {
        Self {
            manner: Manner::Messages,
            ..Self::stream(at, Load { up: 0, down: 0 })
        }
    }

    /// Accepts one connection and closes it without having read anything.
    pub(crate) fn unread(at: SocketAddr) -> Self {
        Self {
            manner: Manner::Unread,
            ..Self::stream(at, Load { up: 0, down: 0 })
        }
    }

    pub(crate) fn protocol(self, protocol: i32) -> Self {
        Self { protocol, ..self }
    }

    pub(crate) fn kind(self, kind: i32) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn domain(self, domain: i32) -> Self {
        Self { domain, ..self }
    }

    /// So many bytes come before each payload.
    pub(crate) fn skip(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// Accepts when the handshake is over, by all likelihood, where a
    /// connection can be had before.
    pub(crate) fn late(self) -> Self {
        Self { late: true, ..self }
    }

    pub(crate) fn tls(self) -> Self {
        Self { tls: true, ..self }
    }

    pub(crate) fn start(&self) -> Result<Peer> {
        let manner = self.manner.to_possible_value().context("a manner")?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["way-peer", manner.get_name()]);
        for (option, value) in [
            ("--at", self.at.to_string()),
            ("--protocol", self.protocol.to_string()),
            ("--domain", self.domain.to_string()),
            ("--skip", self.skip.to_string()),
            ("--kind", self.kind.to_string()),
            ("--up", self.load.up.to_string()),
            ("--down", self.load.down.to_string()),
        ] {
            command.args([option, &value]);
        }
        command.args(self.tls.then_some("--tls"));
        command.args(self.late.then_some("--late"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().context("no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut peer = Peer {
            child,
            orders: Some(orders),
            answers,
            address: self.at,
        };
        peer.address = peer.answer()?;
        Ok(peer)
    }
}

/// The other end, running.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Where it is.
    pub(crate) address: SocketAddr,
}

impl Peer {
    /// Waits until it has received a message of the pattern's bytes from
    /// `offset` on.
    pub(crate) fn take(&mut self, offset: u64, length: usize) -> Result<()> {
        self.tell(&format!("take {offset} {length}"))
    }

    /// Makes it send one to whoever sent it the last one.
    pub(crate) fn give(&mut self, offset: u64, length: usize) -> Result<()> {
        self.tell(&format!("give {offset} {length}"))
    }

    /// Makes it do what it does at this point, and waits for that.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        self.tell("on 0 0")
    }

    fn tell(&mut self, order: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the other end was let go")?;
        writeln!(orders, "{order}")?;
        self.answer::<()>()
            .with_context(|| format!("told the other end: {order}"))
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the other end said {line:?}"))
    }

    /// Lets it end and passes its lines on.
    pub(crate) fn finish(mut self) -> Result<()> {
        drop(self.orders.take());
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                break;
            }
            print_line(&serde_json::from_str::<Flow>(&line)?)?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "the other end: {status}");
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Only for a way that failed: after `finish` it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was sent and received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Counts {
    pub(crate) fn of(self, flow: Flow) -> Flow {
        super::told::counted(flow, self.sent, self.received)
    }
}

/// Exchanges the load in messages of at most `most` bytes, each one taken
/// before the next is sent, so that none is lost.
///
/// `send` sends a message; `receive` returns the next one's payload, and how
/// many bytes the calls that got it returned.
pub(crate) fn exchange(
    peer: &mut Peer,
    load: Load,
    most: usize,
    mut send: impl FnMut(&[u8]) -> Result<usize>,
    mut receive: impl FnMut() -> Result<(Vec<u8>, usize)>,
) -> Result<Counts> {
    let mut counts = Counts::default();
    for (offset, length) in parts(load.up, most) {
        counts.sent += send(part(offset, length))? as u64;
        peer.take(offset, length)?;
    }
    for (offset, length) in parts(load.down, most) {
        peer.give(offset, length)?;
        let (message, returned) = receive()?;
        ensure!(
            message.len() == length,
            "{} bytes of {length}",
            message.len()
        );
        check(offset, &message)?;
        counts.received += returned as u64;
    }
    Ok(counts)
}

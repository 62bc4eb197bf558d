//! The other end of a flow, a process of its own.

use std::{
    io::{BufRead as _, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use procid_tests::{truth::print_line, way::Flow};

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{
    child::{Running, spawned},
    flow::{accepted, add, opened},
    means::{GREETING, connected, greeted},
};
use crate::is_to_be_denied;

/// No end waits longer for the other.
fn patience() -> Duration {
    Duration::from_secs(if is_to_be_denied() { 3 } else { 30 })
}

/// The process, as the program that it runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Other {
    #[arg(value_enum)]
    end: End,
    /// Where to connect to
    #[arg(long)]
    to: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum End {
    /// Accepts one connection, greets, and reads to the end
    Server,
    /// Connects, greets, and reads to the end
    Client,
    /// Receives datagrams, as many bytes as stdin says in the end
    Datagrams,
}

impl Other {
    pub(crate) fn run(self) -> Result<()> {
        match self.end {
            End::Server => server(),
            End::Client => client(self.to.context("--to")?),
            End::Datagrams => datagrams(),
        }
    }
}

fn server() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    set_socket_timeout(&listener, Timeout::Recv, Some(patience()))?;
    print_line(&listener.local_addr()?)?;
    let (stream, _) = listener.accept()?;
    let flow = accepted(&stream)?;
    converse(stream, flow)
}

fn client(to: SocketAddr) -> Result<()> {
    let stream = TcpStream::from(connected(to)?);
    let flow = opened(&stream, to)?;
    converse(stream, flow)
}

fn converse(mut stream: TcpStream, mut flow: Flow) -> Result<()> {
    stream.set_read_timeout(Some(patience()))?;
    stream.write_all(GREETING)?;
    let received = stream.read_to_end(&mut Vec::new())?;
    add(&mut flow, GREETING.len() as u64, received as u64);
    drop(stream);
    print_line(&flow)?;
    Ok(())
}

fn datagrams() -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(patience()))?;
    print_line(&socket.local_addr()?)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let mut missing: usize = line.trim().parse().context("how many bytes were sent")?;
    let mut datagram = [0; 1 << 16];
    while missing > 0 {
        let length = socket.recv(&mut datagram)?;
        missing = missing.checked_sub(length).context("too much arrived")?;
    }
    Ok(())
}

/// The process, as the program that started it.
#[derive(Debug)]
pub(crate) struct Peer {
    running: Running,
    /// Where it listens or receives.
    pub(crate) address: SocketAddr,
}

impl Peer {
    /// Accepts one connection.
    pub(crate) fn server() -> Result<Self> {
        Self::listening("server")
    }

    /// Takes datagrams.
    pub(crate) fn datagrams() -> Result<Self> {
        Self::listening("datagrams")
    }

    fn listening(end: &str) -> Result<Self> {
        let mut command = other(end);
        let mut running = spawned(&mut command)?;
        let address = running.line()?;
        Ok(Self { running, address })
    }

    /// Connects there.
    pub(crate) fn client(to: SocketAddr) -> Result<Self> {
        let running = spawned(other("client").args(["--to", &to.to_string()]))?;
        Ok(Self {
            running,
            address: to,
        })
    }

    /// Opens a connection to it, and takes its greeting.
    pub(crate) fn connection(&self) -> Result<(OwnedFd, Flow)> {
        let socket = connected(self.address)?;
        let mut flow = opened(&socket, self.address)?;
        add(&mut flow, 0, greeted(&socket)?);
        Ok((socket, flow))
    }

    /// Waits for the end of the connection, holds the two ends' counts against
    /// each other, and prints the other's line.
    pub(crate) fn agrees_with(mut self, ours: &Flow) -> Result<()> {
        if let Some(mut stdin) = self.running.stdin.take() {
            // An end that counts by itself does not read this.
            let _told = writeln!(stdin, "{}", ours.sent.context("not counted")?);
        }
        let flow: Option<Flow> = self.running.next()?;
        self.running.ended()?;
        if let Some(flow) = flow {
            ensure!(
                (flow.sent, flow.received) == (ours.received, ours.sent),
                "{ours:?} and {flow:?} do not agree"
            );
            print_line(&flow)?;
        }
        Ok(())
    }
}

fn other(end: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["hand-peer", end]).stdin(Stdio::piped());
    command
}

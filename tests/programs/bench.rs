//! Loops whose cost is measured: one line of nanoseconds a turn.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::net::sockopt;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// TCP connect and close over loopback
    Connect { count: u32 },
    /// UDP sendto on an unconnected socket
    Udp { count: u32 },
    /// Sends of 64 bytes on one TCP connection
    Tcpsend { count: u32 },
    /// vfork, exec of /bin/true, and wait
    Exec { count: u32 },
}

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        let (name, count, elapsed) = match self {
            Self::Connect { count } => ("connect", count, connect(count)?),
            Self::Udp { count } => ("udp", count, udp(count)?),
            Self::Tcpsend { count } => ("tcpsend", count, tcpsend(count)?),
            Self::Exec { count } => ("exec", count, exec(count)?),
        };
        let nanoseconds = elapsed.as_nanos() as f64 / f64::from(count);
        println!(r#"{{"loop":"{name}","count":{count},"ns_per_op":{nanoseconds:.1}}}"#);
        Ok(())
    }
}

fn connect(count: u32) -> Result<Duration> {
    let listener = TcpListener::bind(LOOPBACK)?;
    // A full backlog would cost a retransmission timeout.
    rustix::net::listen(&listener, 4096)?;
    let to = listener.local_addr()?;
    thread::spawn(move || listener.incoming().for_each(drop));
    let start = Instant::now();
    for _ in 0..count {
        let stream = TcpStream::connect(to)?;
        // Closed by a reset: no port waits in TIME_WAIT.
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    }
    Ok(start.elapsed())
}

fn udp(count: u32) -> Result<Duration> {
    // Its buffer fills up, and the kernel drops the rest: sending is all that
    // is timed.
    let receiver = UdpSocket::bind(LOOPBACK)?;
    let to = receiver.local_addr()?;
    let sender = UdpSocket::bind(LOOPBACK)?;
    let start = Instant::now();
    for _ in 0..count {
        sender.send_to(&[0; 64], to)?;
    }
    Ok(start.elapsed())
}

fn tcpsend(count: u32) -> Result<Duration> {
    let listener = TcpListener::bind(LOOPBACK)?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while matches!(receiver.read(&mut buffer), Ok(1..)) {}
    });
    let start = Instant::now();
    for _ in 0..count {
        sender.write_all(&[0; 64])?;
    }
    Ok(start.elapsed())
}

fn exec(count: u32) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..count {
        let status = Command::new("/bin/true").status()?;
        ensure!(status.success(), "/bin/true ended with {status}");
    }
    Ok(start.elapsed())
}

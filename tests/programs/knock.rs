//! Tries the same thing until it is told to end.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use procid_tests::truth::{Knocks, print_line};
use rustix::process::{Pid, WaitOptions, waitpid};

/// Between two tries, so that what is told of them does not fill a disk, and
/// what is sent no buffer.
const PAUSE: Duration = Duration::from_micros(20);
/// Longest wait for the other end to take a byte.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Knock {
    /// Where to connect to
    #[arg(long)]
    to: SocketAddr,
    /// Connect once, and let a forked child send on that connection instead
    #[arg(long)]
    speak: bool,
    /// Let that child wait for a byte on stdin before
    #[arg(long, requires = "speak")]
    wait: bool,
}

impl Knock {
    pub(crate) fn run(self) -> Result<()> {
        if !self.speak {
            return knock(|| TcpStream::connect(self.to).map(drop));
        }
        let mut stream = TcpStream::connect(self.to).context("connect")?;
        stream.write_all(b"o")?;
        // What is dropped fills the buffer in the end.
        stream.set_write_timeout(Some(PATIENCE))?;
        // SAFETY: this process has one thread, so that its child may go on as it
        // would.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error().into()),
            0 => {
                if self.wait {
                    std::io::stdin().read_exact(&mut [0])?;
                }
                knock(|| stream.write_all(b"s"))
            }
            child => {
                waitpid(Pid::from_raw(child), WaitOptions::empty())?;
                Ok(())
            }
        }
    }
}

/// Does it until the end of stdin, and prints how it went.
fn knock(mut what: impl FnMut() -> std::io::Result<()>) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    thread::spawn(move || {
        // Whatever ends it.
        let _read = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Release);
    });
    let mut knocks = Knocks::default();
    while !stop.load(Ordering::Acquire) {
        match what() {
            Ok(()) => knocks.done += 1,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => knocks.denied += 1,
            Err(_) => knocks.failed += 1,
        }
        thread::sleep(PAUSE);
    }
    Ok(print_line(&knocks)?)
}

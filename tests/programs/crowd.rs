//! Very many processes that live at one time, of which some connect.

use std::{
    io::{PipeReader, PipeWriter, Read as _, Write as _, pipe},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use procid_tests::truth::{Knocks, print_line};
use rustix::{
    net::sockopt,
    process::{WaitOptions, wait},
};

/// What a process that connected says.
const DONE: u8 = 0;

#[derive(Debug, clap::Args)]
pub(crate) struct Crowd {
    /// Processes, alive until the end of stdin
    #[arg(long)]
    count: usize,
    /// Of so many the last connects, at a byte on stdin: to be given when the
    /// first line on stdout says that all live
    #[arg(long)]
    every: usize,
    /// That many times, at a byte each
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    #[arg(long)]
    to: SocketAddr,
}

/// What one that connects takes along.
struct Ends {
    /// One for each round: nobody takes another's byte of the next.
    go: Vec<PipeReader>,
    stay: PipeReader,
    answer: PipeWriter,
}

impl Crowd {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(self.every > 0, "--every 0");
        let (mut go, mut going) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let (reader, writer) = pipe()?;
            go.push(reader);
            going.push(writer);
        }
        let (stay, staying) = pipe()?;
        let (mut answers, answer) = pipe()?;
        let ends = Ends { go, stay, answer };
        for number in 1..=self.count {
            // SAFETY: this process has one thread, so that its child may go on
            // as it would.
            match unsafe { libc::fork() } {
                -1 => return Err(std::io::Error::last_os_error()).context("fork"),
                0 => {
                    // Or the end of its pipe is never seen.
                    drop(staying);
                    let acts = number.is_multiple_of(self.every);
                    let done = ends.live(acts.then_some(self.to));
                    // SAFETY: ends this process, which has nothing to return to.
                    unsafe { libc::_exit(done.is_err().into()) };
                }
                _ => {}
            }
        }
        drop(ends);
        print_line(&Knocks::default())?;
        let mut stdin = std::io::stdin();
        let acting = self.count / self.every;
        for mut round in going {
            stdin.read_exact(&mut [0])?;
            round.write_all(&vec![0; acting])?;
            let mut said = vec![DONE; acting];
            answers.read_exact(&mut said)?;
            let mut knocks = Knocks::default();
            for errno in said {
                match i32::from(errno) {
                    0 => knocks.done += 1,
                    libc::EPERM => knocks.denied += 1,
                    _ => knocks.failed += 1,
                }
            }
            print_line(&knocks)?;
        }
        stdin.read_to_end(&mut Vec::new())?;
        drop(staying);
        while wait(WaitOptions::empty()).is_ok() {}
        Ok(())
    }
}

impl Ends {
    fn live(&self, to: Option<SocketAddr>) -> std::io::Result<()> {
        for (mut go, to) in self.go.iter().zip(to.into_iter().cycle()) {
            go.read_exact(&mut [0])?;
            let errno = match TcpStream::connect(to) {
                Ok(stream) => {
                    // No port waits in TIME_WAIT.
                    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
                    DONE
                }
                Err(error) => error.raw_os_error().map_or(u8::MAX, |it| it as u8),
            };
            (&self.answer).write_all(&[errno])?;
        }
        (&self.stay).read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

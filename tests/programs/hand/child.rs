//! Processes that tell what they did, one line a fact, to the one that
//! started them.

use std::{
    io::{BufRead as _, BufReader, PipeReader, Write as _, pipe},
    process::{ChildStdin, Command},
};

use anyhow::{Context as _, Result, ensure};
use rustix::stdio::dup2_stdout;
use serde::de::DeserializeOwned;

use crate::by::wait_for;

#[derive(Debug)]
pub(crate) struct Running {
    pid: i32,
    lines: BufReader<PipeReader>,
    /// Where the command asked for one.
    pub(crate) stdin: Option<ChildStdin>,
}

/// A forked child that acts and ends. What it writes to stdout comes here.
pub(crate) fn forked(act: impl FnOnce() -> Result<()>) -> Result<Running> {
    let (reader, writer) = pipe()?;
    // SAFETY: this process has one thread, so that its child may go on as it
    // would.
    let pid = unsafe { libc::fork() };
    ensure!(pid >= 0, std::io::Error::last_os_error());
    if pid == 0 {
        let done = dup2_stdout(&writer)
            .map_err(Into::into)
            .and_then(|()| act());
        exit(done);
    }
    Ok(Running {
        pid,
        lines: BufReader::new(reader),
        stdin: None,
    })
}

/// Ends a forked child, which has nothing to return to.
pub(crate) fn exit(done: Result<()>) -> ! {
    if let Err(error) = &done {
        // There is nobody else to tell.
        let _told = writeln!(std::io::stderr(), "procid-testprog: {error:#}");
    }
    std::process::exit(i32::from(done.is_err()))
}

/// A child that runs another program.
pub(crate) fn spawned(command: &mut Command) -> Result<Running> {
    let (reader, writer) = pipe()?;
    let mut child = command
        .stdout(writer)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    Ok(Running {
        pid: child.id().try_into()?,
        lines: BufReader::new(reader),
        stdin: child.stdin.take(),
    })
}

impl Running {
    /// The next line; `None`: there is no more.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line)?;
        let parsed = || serde_json::from_str(&line).with_context(|| format!("a line: {line}"));
        (length > 0).then(parsed).transpose()
    }

    pub(crate) fn line<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.next()?.context("a child ended without a line")
    }

    /// Waits for its end, which is to be a good one.
    pub(crate) fn ended(self) -> Result<()> {
        wait_for(self.pid)
    }

    /// Its one line, and its end.
    pub(crate) fn only_line<T: DeserializeOwned>(mut self) -> Result<T> {
        let line = self.line();
        self.ended()?;
        line
    }
}

//! Processes that tell what they did, one line a fact, to the one that
//! started them.

use std::{
    io::{BufRead as _, BufReader, PipeReader, Write as _, pipe},
    process::{ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::{
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
    stdio::dup2_stdout,
};
use serde::de::DeserializeOwned;

use crate::by::wait_for;

/// Killed when dropped before its end.
#[derive(Debug)]
pub(crate) struct Running {
    pid: Option<Pid>,
    lines: BufReader<PipeReader>,
    /// Where the command asked for one.
    pub(crate) stdin: Option<ChildStdin>,
}

/// A forked child that acts and ends. What it writes to stdout comes here.
pub(crate) fn forked(act: impl FnOnce() -> Result<()>) -> Result<Running> {
    // SAFETY: this process has one thread, so that its child may go on as it
    // would.
    forked_by(|| unsafe { libc::fork() }, act)
}

/// The same with another way to fork, which returns as fork(2) does.
pub(crate) fn forked_by(
    fork: impl FnOnce() -> i32,
    act: impl FnOnce() -> Result<()>,
) -> Result<Running> {
    let (reader, writer) = pipe()?;
    let pid = fork();
    if pid < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    if pid == 0 {
        let done = dup2_stdout(&writer)
            .map_err(Into::into)
            .and_then(|()| act());
        exit(&done);
    }
    Ok(Running {
        pid: Pid::from_raw(pid),
        lines: BufReader::new(reader),
        stdin: None,
    })
}

/// Ends a forked child, which has nothing to return to.
fn exit(done: &Result<()>) -> ! {
    if let Err(error) = done {
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
    // Only the child is to have the writer: at its end there is no more.
    command.stdout(Stdio::null());
    Ok(Running {
        pid: Some(Pid::from_child(&child)),
        lines: BufReader::new(reader),
        stdin: child.stdin.take(),
    })
}

impl Running {
    pub(crate) fn pid(&self) -> Result<Pid> {
        self.pid.context("a child that has ended")
    }

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

    /// Waits for its end, which is to be a good one and may wait for that of
    /// its stdin.
    pub(crate) fn ended(mut self) -> Result<()> {
        drop(self.stdin.take());
        let pid = self.pid()?;
        self.pid = None;
        wait_for(pid.as_raw_nonzero().get())
    }

    /// Its one line, and its end.
    pub(crate) fn only_line<T: DeserializeOwned>(mut self) -> Result<T> {
        let line = self.line();
        self.ended()?;
        line
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            // It may have ended by itself, in failure.
            let _killed = kill_process(pid, Signal::KILL);
            let _status = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

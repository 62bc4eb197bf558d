//! One run of the test program on a path, and what it said.

use std::{
    fmt,
    fs::File,
    io::{Read as _, Seek as _},
    path::Path as FilePath,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use procid_tests::{
    cgroup::TestCgroup,
    way::{Flow, Said},
};

use crate::paths::Path;

/// Longest time a run may take, under emulation too.
const LIMIT: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How much of what a failed program wrote is shown.
const TAIL: usize = 2000;

/// What became of one run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) path: Path,
    pub(crate) bytes: Option<u64>,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) enum End {
    /// Did all of it: a line for each flow and user.
    Flows(Vec<Flow>),
    /// This kernel has no such thing: the program's own sentence.
    Unsupported(String),
    Failed(String),
}

impl Run {
    /// Runs `program` in `cgroup` to its end.
    pub(crate) fn new(
        cgroup: &TestCgroup,
        program: &FilePath,
        path: Path,
        bytes: Option<u64>,
    ) -> Self {
        let end = end(cgroup, program, &path.arguments(bytes));
        Self {
            path,
            bytes,
            end: end.unwrap_or_else(|error| End::Failed(format!("{error:#}"))),
        }
    }

    pub(crate) fn flows(&self) -> &[Flow] {
        match &self.end {
            End::Flows(flows) => flows,
            End::Unsupported(_) | End::Failed(_) => &[],
        }
    }
}

fn end(cgroup: &TestCgroup, program: &FilePath, arguments: &[String]) -> Result<End> {
    let mut command = Command::new(program);
    command.args(arguments);
    let ran = Ran::of(cgroup, &mut command)?;
    if !ran.has_succeeded() {
        bail!("{ran}");
    }
    said(&ran.output)
}

/// What became of a program.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None`: it had to be killed.
    status: Option<ExitStatus>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Ran {
    /// Runs it in `cgroup` to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or its words not be read.
    pub(crate) fn of(cgroup: &TestCgroup, command: &mut Command) -> Result<Self> {
        // Files: no pipe fills up, and none is kept open by a process left behind.
        let (mut output, mut errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(errors.try_clone()?);
        cgroup.holds(command);
        let mut child = command.spawn().context("the program cannot be started")?;
        Ok(Self {
            status: wait(&mut child)?,
            output: content(&mut output)?,
            errors: content(&mut errors)?,
        })
    }

    pub(crate) fn has_succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = self.status.map_or_else(
            || format!("ran for more than {} s", LIMIT.as_secs()),
            |status| format!("ended with {status}"),
        );
        let tail = self.errors.len().saturating_sub(TAIL);
        let tail = String::from_utf8_lossy(&self.errors.as_bytes()[tail..]);
        write!(f, "the program {how}: {tail}")
    }
}

/// Its exit status; `None` when it had to be killed.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn content(file: &mut File) -> Result<String> {
    let mut content = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut content)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

fn said(output: &str) -> Result<End> {
    let mut flows = Vec::new();
    for line in output.lines() {
        match serde_json::from_str(line).with_context(|| format!("no line of a report: {line}"))? {
            Said::Flow(flow) => flows.push(*flow),
            Said::Unsupported(why) => return Ok(End::Unsupported(why.unsupported)),
        }
    }
    if flows.is_empty() {
        bail!("the program says nothing");
    }
    Ok(End::Flows(flows))
}

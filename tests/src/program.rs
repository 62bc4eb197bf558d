//! Runs of the test program.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{
    cgroup::{TestCgroup, start_in},
    truth::{Act, Knocks, Line, Lived, Summary},
};

/// A run of the test program in a test's cgroup; killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// What a program reported in all.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub acts: Vec<Act>,
    pub lived: Vec<Lived>,
    pub summary: Option<Summary>,
    pub knocks: Option<Knocks>,
}

impl Program {
    /// Starts `program` with `arguments`.
    pub fn start<A: AsRef<OsStr>>(
        cgroup: &TestCgroup,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(cgroup, command)
    }

    /// # Panics
    ///
    /// When the program cannot be started.
    #[must_use]
    pub fn spawn(cgroup: &TestCgroup, command: Command) -> Self {
        Self::spawn_in(cgroup.path(), command)
    }

    /// The same in a cgroup below a test's own.
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[must_use]
    pub fn spawn_in(cgroup: &Path, mut command: Command) -> Self {
        start_in(cgroup, &mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        }
    }

    /// Runs `program` to its end.
    pub fn run<A: AsRef<OsStr>>(
        cgroup: &TestCgroup,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Report {
        Self::start(cgroup, program, arguments).finish()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets a program that waits act.
    ///
    /// # Panics
    ///
    /// When it has ended.
    pub fn go(&mut self) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(b"\n").expect("the program reads");
    }

    /// The next act that it reports.
    ///
    /// # Panics
    ///
    /// When it ends without one.
    pub fn act(&mut self) -> Act {
        match self.line() {
            Some(Line::Act(act)) => act,
            other => panic!("no act but {other:?}"),
        }
    }

    /// How many of its tries went how, so far.
    ///
    /// # Panics
    ///
    /// When it ends without saying so.
    pub fn knocks(&mut self) -> Knocks {
        match self.line() {
            Some(Line::Knocks(knocks)) => knocks,
            other => panic!("no answers but {other:?}"),
        }
    }

    /// Where it listens.
    ///
    /// # Panics
    ///
    /// When it ends without saying so.
    pub fn listens(&mut self) -> SocketAddr {
        match self.line() {
            Some(Line::Listens(told)) => told.listens,
            other => panic!("no address but {other:?}"),
        }
    }

    fn line(&mut self) -> Option<Line> {
        let mut line = String::new();
        let length = self.stdout.read_line(&mut line).expect("a report");
        (length > 0)
            .then(|| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}")))
    }

    /// Lets a program that holds go, and takes the rest of its report.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn finish(mut self) -> Report {
        self.stdin = None;
        let mut report = Report::default();
        while let Some(line) = self.line() {
            match line {
                Line::Act(act) => report.acts.push(act),
                Line::Lived(lived) => report.lived.push(lived),
                Line::Summary(summary) => report.summary = Some(summary),
                Line::Knocks(knocks) => report.knocks = Some(knocks),
                Line::Listens(told) => panic!("another address: {told:?}"),
            }
        }
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "the test program ended with {status}");
        report
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Not an error where it has ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

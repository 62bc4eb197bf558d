//! A run of `procid run --json`, and every record it writes.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cgroup::TestCgroup,
    records::{Checker, Records, text},
    scratch::procid,
    truth::{Act, boot_ns},
};

const EXEC_GATE: &str = "--exec-gate";
/// Longest wait for what must come.
pub const LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for an agent to be ready: an emulated kernel takes long to
/// verify its programs.
const START_LIMIT: Duration = Duration::from_secs(180);
/// Longest wait for the end of an agent that has much left to write.
const END_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for one that is dropped.
const DROP_LIMIT: Duration = Duration::from_secs(5);
/// Name of the API's socket in the agent's directory.
const SOCKET: &str = "socket";
/// Records read before it is looked whether they are enough.
const READ_AT_ONCE: usize = 256;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Where an agent keeps its state; removed with the last one that uses it.
pub type Home = Arc<TempDir>;

/// A running agent; ended when dropped. Its output goes to files, so that a
/// slow reader cannot slow it down.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    directory: Home,
    tail: Tail,
    checker: Checker,
    records: Records,
    /// When its `ready` record had been read, nanoseconds since boot.
    ready: u64,
}

/// When an agent was watching, nanoseconds since boot.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Its `ready` record had been read.
    pub ready: u64,
    /// It was about to be told to stop.
    pub stopping: u64,
}

impl Agent {
    /// Starts an agent on `cgroup` and waits until it is ready.
    #[must_use]
    pub fn start(cgroup: &TestCgroup) -> Self {
        Self::start_with(cgroup, &[])
    }

    /// The same with further arguments.
    ///
    /// # Panics
    ///
    /// When it does not become ready, with what it said on stderr.
    #[must_use]
    pub fn start_with(cgroup: &TestCgroup, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        Self::start_at(cgroup, Arc::new(home), arguments)
    }

    /// The same with the state of an earlier one.
    ///
    /// # Panics
    ///
    /// As [`start_with`](Self::start_with).
    #[must_use]
    pub fn start_at(cgroup: &TestCgroup, directory: Home, arguments: &[&str]) -> Self {
        Self::start_file(&procid(), cgroup, directory, arguments)
    }

    /// The same of a copy of procid.
    ///
    /// # Panics
    ///
    /// As [`start_with`](Self::start_with).
    #[must_use]
    pub fn start_file(
        binary: &Path,
        cgroup: &TestCgroup,
        directory: Home,
        arguments: &[&str],
    ) -> Self {
        let output = directory.path().join("records");
        let state = directory.path().join("state");
        let socket = directory.path().join(SOCKET);
        let mut command = command_of(binary, cgroup.path(), &state, &socket);
        if !arguments.contains(&EXEC_GATE) {
            // It would hold up every program of the host that the tests run on.
            command.args([EXEC_GATE, "off"]);
        }
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&output).expect("a file"))
            .stderr(File::create(directory.path().join("log")).expect("a file"));
        let child = command.spawn().expect("procid can be started");
        let mut agent = Self {
            child,
            directory,
            tail: Tail::of(&output),
            checker: Checker::default(),
            records: Records::default(),
            ready: 0,
        };
        let ready = agent.until_within(START_LIMIT, |records| records.ready().is_some());
        assert!(ready, "procid does not become ready: {}", agent.log());
        agent.ready = boot_ns();
        agent
    }

    /// Kills it (SIGKILL), and says where its state is.
    ///
    /// # Panics
    ///
    /// When it has ended before.
    #[must_use]
    pub fn kill(mut self) -> Home {
        assert!(matches!(self.child.try_wait(), Ok(None)), "{}", self.log());
        self.child.kill().expect("a child can be killed");
        self.wait();
        Arc::clone(&self.directory)
    }

    /// Path of the API's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Runs another procid command against this agent.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        Command::new(procid())
            .args(arguments)
            .arg("--socket")
            .arg(self.socket())
            .output()
            .expect("procid can be started")
    }

    /// What it wrote to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The records so far.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Reads records until `enough` says so; false when it never did.
    pub fn until(&mut self, enough: impl FnMut(&Records) -> bool) -> bool {
        self.until_within(LIMIT, enough)
    }

    fn until_within(&mut self, limit: Duration, mut enough: impl FnMut(&Records) -> bool) -> bool {
        let start = Instant::now();
        loop {
            // Records may come faster than they are read.
            let is_behind = self.read_some(READ_AT_ONCE);
            if enough(&self.records) {
                return true;
            }
            if is_behind && start.elapsed() <= limit {
                continue;
            }
            let has_ended = !matches!(self.child.try_wait(), Ok(None));
            if has_ended || start.elapsed() > limit {
                return false;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Reads records until all that will ever be said of these acts, which
    /// have been closed, was said; what is missing is for assertions to find.
    pub fn settle(&mut self, acts: &[Act]) {
        self.until(|records| acts.iter().all(|act| records.tell_all_of(act)));
    }

    /// Stops it as a user would, and returns every record it wrote.
    #[must_use]
    pub fn stop(mut self) -> Records {
        self.terminate();
        self.read();
        self.checker.finish();
        std::mem::take(&mut self.records)
    }

    /// The same for more records than memory should hold: each is checked,
    /// shown to `look` and forgotten. Records that were waited for are shown
    /// first.
    pub fn stop_and_look(mut self, mut look: impl FnMut(&Value)) -> Life {
        let stopping = boot_ns();
        self.terminate();
        self.records.all().iter().for_each(&mut look);
        while let Some(line) = self.tail.line() {
            look(&self.checker.check(&line));
        }
        self.checker.finish();
        Life {
            ready: self.ready,
            stopping,
        }
    }

    fn read(&mut self) {
        while self.read_some(READ_AT_ONCE) {}
    }

    /// Reads at most `most` records; false when there were fewer.
    fn read_some(&mut self, most: usize) -> bool {
        for _ in 0..most {
            let Some(line) = self.tail.line() else {
                return false;
            };
            self.records.push(self.checker.check(&line));
        }
        true
    }

    fn terminate(&mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("the agent runs");
        let status = self.wait();
        let log = self.log();
        assert!(status.success(), "procid ended with {status}: {log}");
    }

    fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            let log = self.log();
            assert!(start.elapsed() < END_LIMIT, "procid does not end: {log}");
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // So that it leaves nothing in force; not an error where it has ended.
        let _ended = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < DROP_LIMIT {
            thread::sleep(LOOK_EVERY);
        }
        let _killed = self.child.kill();
        let _status = self.child.wait();
        if thread::panicking() {
            eprintln!("---- procid's log\n{}----", self.log());
            for lost in self.records.of_action("loss") {
                eprintln!("loss: {}", text(lost, "/procid/lost"));
            }
        }
    }
}

/// `procid run --json` on a cgroup.
pub fn command(cgroup: &Path, state: &Path, socket: &Path) -> Command {
    command_of(&procid(), cgroup, state, socket)
}

fn command_of(binary: &Path, cgroup: &Path, state: &Path, socket: &Path) -> Command {
    let mut command = Command::new(binary);
    command
        .args(["run", "--json"])
        .arg("--cgroup")
        .arg(cgroup)
        .arg("--state-dir")
        .arg(state)
        .arg("--socket")
        .arg(socket);
    command
}

/// Whole lines of a file that grows.
#[derive(Debug)]
struct Tail {
    file: BufReader<File>,
    partial: Vec<u8>,
}

impl Tail {
    fn of(path: &Path) -> Self {
        Self {
            file: BufReader::with_capacity(1 << 20, File::open(path).expect("the file is there")),
            partial: Vec::new(),
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        self.file
            .read_until(b'\n', &mut self.partial)
            .expect("records can be read");
        (self.partial.last() == Some(&b'\n')).then(|| std::mem::take(&mut self.partial))
    }
}

//! An agent, a cgroup it watches, and a program to run there.

use std::{ffi::OsStr, fs, path::Path};

use serde_json::Value;

use crate::{
    agent::Agent,
    cgroup::TestCgroup,
    program::Program,
    records::{Records, file_of, text},
    scratch::{Image, Scratch},
    truth::{Act, FileId},
};

/// What most tests start from.
#[derive(Debug)]
pub struct Stage {
    pub agent: Agent,
    pub cgroup: TestCgroup,
    pub scratch: Scratch,
    /// A copy of the test program of this stage alone.
    pub app: Image,
}

impl Stage {
    #[must_use]
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// With further arguments for the agent.
    #[must_use]
    pub fn with(arguments: &[&str]) -> Self {
        let cgroup = TestCgroup::new();
        let scratch = Scratch::new();
        let app = scratch.program("app");
        Self {
            agent: Agent::start_with(&cgroup, arguments),
            cgroup,
            scratch,
            app,
        }
    }

    /// Starts the program in the cgroup.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Program {
        self.start_file(&self.app.path, arguments)
    }

    /// Starts another file in the cgroup.
    pub fn start_file<A: AsRef<OsStr>>(
        &self,
        file: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Program {
        Program::start(&self.cgroup, file, arguments)
    }

    /// Runs the program to its end in the cgroup.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Vec<Act> {
        self.start(arguments).finish().acts
    }

    /// Puts a policy in force, with further arguments for `procid policy apply`,
    /// and returns its warnings.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub fn apply(&self, policy: &str, further: &[&str]) -> String {
        let file = self.scratch.path().join("policy.toml");
        fs::write(&file, policy).expect("a file");
        let file = file.display().to_string();
        let arguments = [&["policy", "apply", &file], further].concat();
        let output = self.agent.ask(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        said.into_owned()
    }

    /// Whether the agent says that it judges what another image than the one that
    /// connected it writes to a TCP connection: with BPF LSM, else from Linux
    /// 6.16 on.
    pub fn judges_speakers(&self) -> bool {
        let status = self.agent.ask(&["status", "--json"]);
        !String::from_utf8_lossy(&status.stdout).contains("denials of speakers on TCP connections")
    }

    /// What `procid status` says of the exec gate in that field.
    ///
    /// # Panics
    ///
    /// When there is no status.
    pub fn gate(&self, field: &str) -> Value {
        let output = self.agent.ask(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).expect("a status");
        status["exec_gate"][field].clone()
    }

    /// Waits until the hash of the file that runs in that process is told.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn wait_for_hash(&mut self, pid: u32, file: &FileId) {
        let is_told = self.agent.until(|records| {
            records.execs(pid).into_iter().any(|exec| {
                let hash = records.hash(&text(exec, "/process/entity_id"));
                file_of(exec) == *file && hash.sha256.is_some()
            })
        });
        assert!(is_told, "no hash of process {pid}");
    }

    /// Waits until all was said of `acts`, stops the agent and returns every
    /// record.
    #[must_use]
    pub fn end(mut self, acts: &[Act]) -> Records {
        self.agent.settle(acts);
        self.agent.stop()
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

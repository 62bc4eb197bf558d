//! A run of procid, seen from outside.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cgroup::Cgroup;

/// Longest wait for an agent that starts, ends, or catches up.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// An agent on the benchmark's cgroup; killed when dropped. Its records go to
/// /dev/null: what their reader costs is not the agent's.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    procid: PathBuf,
    directory: TempDir,
}

/// What `procid status` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) version: String,
    /// `cgroup`, `lsm` or `lsm+cgroup`.
    pub(crate) backend: String,
    /// Records so far.
    pub(crate) emitted: u64,
    /// Records lost so far, whatever the cause.
    pub(crate) lost: u64,
    /// Connections that it holds for open.
    pub(crate) connections: u64,
    /// Names of the hooks that it has attached.
    pub(crate) hooks: Vec<String>,
}

impl Agent {
    /// Starts `procid` and waits until it answers, which it does from the time
    /// of its `ready` record on.
    ///
    /// # Errors
    ///
    /// It ends instead; what it said on stderr is in the error.
    pub(crate) fn start(procid: &Path, cgroup: &Cgroup) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("procid-bench-").tempdir()?;
        let child = Command::new(procid)
            .args(["run", "--json", "--cgroup"])
            .arg(cgroup.path())
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .arg("--socket")
            .arg(directory.path().join("socket"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("log"))?)
            .spawn()
            .with_context(|| format!("cannot start {}", procid.display()))?;
        let mut agent = Self {
            child,
            procid: procid.to_owned(),
            directory,
        };
        let start = Instant::now();
        while agent.status().is_err() {
            if agent.child.try_wait()?.is_some() || start.elapsed() > LIMIT {
                bail!("procid does not become ready: {}", agent.log());
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(agent)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    ///
    /// It does not answer.
    pub(crate) fn status(&self) -> Result<Status> {
        // Its exit code says whether the agent is well, which is not asked.
        let output = Command::new(&self.procid)
            .args(["status", "--json", "--socket"])
            .arg(self.directory.path().join("socket"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.procid.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        Status::parse(&said).with_context(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            format!("procid does not tell its status: {}", error.trim())
        })
    }

    /// Puts a policy in force, by the API.
    ///
    /// # Errors
    ///
    /// It is refused.
    pub(crate) fn apply(&self, policy: &str) -> Result<()> {
        let body = json!({ "text": policy, "file": "bench.toml" }).to_string();
        let mut stream = UnixStream::connect(self.directory.path().join("socket"))?;
        write!(
            stream,
            "POST /v1/policy/apply HTTP/1.1\r\nhost: procid\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(
            answer.starts_with("HTTP/1.1 200"),
            "procid refused the policy: {answer}"
        );
        Ok(())
    }

    /// Waits until it has caught up with what happened: asking is an event
    /// itself, so that some records always come.
    ///
    /// # Errors
    ///
    /// It never does.
    pub(crate) fn settled(&self) -> Result<Status> {
        /// Asked this often, four looks a second make far fewer records.
        const FEW: u64 = 100;
        let start = Instant::now();
        let mut last = self.status()?;
        loop {
            thread::sleep(Duration::from_millis(250));
            let status = self.status()?;
            if status.emitted.saturating_sub(last.emitted) < FEW {
                return Ok(status);
            }
            ensure!(start.elapsed() < LIMIT, "procid does not catch up");
            last = status;
        }
    }

    /// Stops it as a user would.
    ///
    /// # Errors
    ///
    /// It fails, or does not end.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(start.elapsed() < LIMIT, "procid does not end");
            thread::sleep(LOOK_EVERY);
        };
        ensure!(
            status.success(),
            "procid ended with {status}: {}",
            self.log()
        );
        Ok(())
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.trim().to_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Not an error where it has ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Status {
    fn parse(json: &str) -> Result<Self> {
        let status: Value = serde_json::from_str(json)?;
        let text = |name: &str| {
            let value = status[name].as_str().map(str::to_owned);
            value.with_context(|| format!("no {name} in the status"))
        };
        let lost: BTreeMap<String, u64> = serde_json::from_value(status["lost"].clone())?;
        let hooks = status["hooks"].as_array().context("no hooks")?.iter();
        let attached = hooks.filter(|hook| hook["attached"] == true);
        let name = |hook: &Value| hook["name"].as_str().map(str::to_owned);
        Ok(Self {
            version: text("version")?,
            backend: text("backend")?,
            emitted: status["emitted"].as_u64().context("nothing emitted")?,
            lost: lost.values().sum(),
            connections: status["fill"]["connections"]["used"]
                .as_u64()
                .context("no fill of connections")?,
            hooks: attached
                .map(name)
                .collect::<Option<_>>()
                .context("a hook without a name")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_and_losses_are_summed() {
        let json = r#"{"version":"0.1.0","backend":"cgroup","emitted":12,
            "lost":{"ring_full":3,"undecodable":1},
            "hooks":[{"name":"cgroup/connect4","attached":true},
                {"name":"lsm/socket_connect","attached":false}],
            "fill":{"connections":{"used":5,"capacity":200000}}}"#;
        let status = Status::parse(json).unwrap();
        assert_eq!(status.hooks, ["cgroup/connect4"]);
        assert_eq!((status.emitted, status.lost), (12, 4));
        assert_eq!((status.connections, &*status.backend), (5, "cgroup"));
    }

    #[test]
    fn what_is_not_a_status_is_refused() {
        Status::parse("").unwrap_err();
        Status::parse(r#"{"version":"0.1.0","backend":"cgroup","lost":{}}"#).unwrap_err();
    }
}

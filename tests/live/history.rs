//! What was seen outlives the agent, however it ends.

use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use procid::{history::file::FILE, records::schema};
use procid_tests::{
    agent::{Agent, Home, LIMIT},
    cgroup::TestCgroup,
    listener,
    program::Program,
    records::text,
    scratch::{Image, Scratch, procid},
    truth::Act,
};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Signal, kill_process},
};
use serde_json::Value;

/// Twice as long as a batch takes.
const WRITTEN: Duration = Duration::from_secs(3);

struct Host {
    cgroup: TestCgroup,
    _scratch: Scratch,
    app: Image,
    to: listener::Tcp,
    home: Home,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        Self {
            cgroup: TestCgroup::new(),
            app: scratch.program("app"),
            _scratch: scratch,
            to: listener::Tcp::on("127.0.0.1:0"),
            home: Arc::new(tempfile::tempdir().unwrap()),
        }
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    fn agent(&self) -> Agent {
        Agent::start_at(&self.cgroup, Arc::clone(&self.home), &[])
    }

    fn start(&self, arguments: &[&str]) -> Program {
        let to = self.to.address().to_string();
        let arguments = [&["connect", "--to", &to], arguments].concat();
        Program::start(&self.cgroup, &self.app.path, arguments)
    }

    /// A connection that ends, and its record.
    fn connect(&self, agent: &mut Agent) -> Act {
        let acts = self.start(&[]).finish().acts;
        agent.settle(&acts);
        let told = agent.until(|records| records.of_act(&acts[0]).len() == 1);
        assert!(told, "{}", agent.log());
        acts[0].clone()
    }
}

/// The records of an answer, each checked, and its coverage.
fn answer(output: &Output) -> (Vec<Value>, Value) {
    let stdout = std::str::from_utf8(&output.stdout).unwrap();
    let mut records: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for record in &records {
        assert_eq!(schema::check(record), Vec::<String>::new(), "{record}");
    }
    let last = records.pop().unwrap_or_else(|| panic!("{output:?}"));
    (records, last["procid"]["coverage"].clone())
}

/// Its source port: the other end, found open at a start, has it too.
fn port(act: &Act) -> String {
    act.source.unwrap().port().to_string()
}

fn offline(state: &Path, port: &str) -> (Vec<Value>, Value) {
    let mut who = Command::new(procid());
    who.args(["who", "--json", "--sport", port, "--state-dir"])
        .arg(state);
    answer(&who.output().unwrap())
}

fn live(agent: &Agent, port: &str) -> (Vec<Value>, Value) {
    answer(&agent.ask(&["who", "--json", "--sport", port]))
}

fn causes(coverage: &Value) -> Vec<&str> {
    let gaps = coverage["gaps"].as_array().into_iter().flatten();
    gaps.map(|gap| gap["cause"].as_str().unwrap()).collect()
}

fn until(what: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if what() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

#[test]
fn a_connection_is_found_after_its_agent_was_restarted() {
    let host = Host::new();
    let mut agent = host.agent();
    let ended = host.connect(&mut agent);
    let mut program = host.start(&["--hold"]);
    let held = program.act();
    assert!(agent.until(|records| records.of_act(&held).len() == 1));
    let before = live(&agent, &port(&ended)).0;
    drop(agent.stop());

    // Nobody runs: the state directory tells.
    let (records, coverage) = offline(&host.state(), &port(&ended));
    assert_eq!(records, before);
    assert_eq!(text(&coverage, "/provenance"), "history");

    let agent = host.agent();
    let (records, coverage) = live(&agent, &port(&ended));
    assert_eq!(records, before);
    assert_eq!(text(&coverage, "/provenance"), "live");
    assert_eq!(causes(&coverage), ["no-agent"]);
    // Of what lives on there is one record, of the run that saw it begin.
    let (records, _) = live(&agent, &port(&held));
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!(text(&records[0], "/procid/role"), "opener");
    assert_eq!(
        text(&records[0], "/process/pid"),
        held.actor.pid.to_string()
    );
    assert_eq!(records[0].pointer("/event/end"), None);
    assert_eq!(records[0].pointer("/procid/unknown/event.end"), None);
    drop(program.finish());
    let has_end = || {
        let (records, _) = live(&agent, &port(&held));
        records.len() == 1 && records[0].pointer("/event/end").is_some()
    };
    assert!(until(has_end), "{:#?}", live(&agent, &port(&held)));
}

#[test]
fn a_kill_costs_the_last_batch_alone() {
    let host = Host::new();
    let mut agent = host.agent();
    let act = host.connect(&mut agent);
    let before = live(&agent, &port(&act)).0;
    thread::sleep(WRITTEN);
    drop(agent.kill());
    let (records, coverage) = offline(&host.state(), &port(&act));
    assert_eq!(records, before);
    assert_eq!(causes(&coverage), [""; 0]);
    let agent = host.agent();
    let (records, coverage) = live(&agent, &port(&act));
    assert_eq!(records, before);
    assert_eq!(causes(&coverage), ["agent-killed"]);
}

#[test]
fn an_agent_that_was_stopped_goes_on() {
    let host = Host::new();
    let mut agent = host.agent();
    kill_process(agent.pid(), Signal::STOP).unwrap();
    let acts = host.start(&[]).finish().acts;
    kill_process(agent.pid(), Signal::CONT).unwrap();
    agent.settle(&acts);
    let (records, _) = live(&agent, &port(&acts[0]));
    drop(agent.stop());
    assert_eq!(offline(&host.state(), &port(&acts[0])).0, records);
    assert_eq!(records.len(), 1);
}

/// A small file system, mounted as the state directory.
struct Small(PathBuf);

impl Small {
    fn on(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        let data = CString::new("size=3m,mode=700").unwrap();
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), &*data).unwrap();
        Self(path)
    }

    /// Leaves no room in it.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut size = 4 << 20;
        while size >= 512 {
            let more = vec![1; size];
            let mut file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .unwrap();
            if std::io::Write::write_all(&mut file, &more).is_err() {
                size /= 2;
            }
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _gone = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_stops_history_alone() {
    let host = Host::new();
    let small = Small::on(host.state());
    let mut agent = host.agent();
    let first = host.connect(&mut agent);
    assert_eq!(live(&agent, &port(&first)).0.len(), 1);
    let filler = small.fill();
    // The log has room of its own for a while.
    let is_troubled = |agent: &mut Agent| {
        let acts = host.start(&[]).finish().acts;
        agent.settle(&acts);
        assert_eq!(agent.records().of_act(&acts[0]).len(), 1);
        let status = agent.ask(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        let trouble = status.pointer("/history/trouble").cloned();
        trouble.map(|trouble| trouble.as_str().unwrap().to_owned())
    };
    let start = Instant::now();
    let trouble = loop {
        match is_troubled(&mut agent) {
            Some(trouble) => break trouble,
            None => assert!(start.elapsed() < LIMIT, "the disk is never full"),
        }
    };
    assert!(trouble.contains("disk full"), "{trouble}");
    let during = host.connect(&mut agent);
    let (records, coverage) = live(&agent, &port(&during));
    assert_eq!(records.len(), 1);
    assert!(
        causes(&coverage)
            .iter()
            .any(|cause| cause.contains("disk full"))
    );
    // Room again: what was held is written.
    fs::remove_file(filler).unwrap();
    let is_written = || causes(&live(&agent, &port(&during)).1).is_empty();
    assert!(until(is_written), "{}", agent.log());
    drop(agent.stop());
    assert_eq!(offline(&small.0, &port(&during)).0.len(), 1);
}

#[test]
fn a_damaged_file_is_set_aside_and_said() {
    let host = Host::new();
    fs::create_dir(host.state()).unwrap();
    let damaged = b"this was a database once".as_slice();
    fs::write(host.state().join(FILE), damaged).unwrap();
    let mut agent = host.agent();
    let act = host.connect(&mut agent);
    let (records, coverage) = live(&agent, &port(&act));
    assert_eq!(records.len(), 1);
    assert_eq!(causes(&coverage), ["damaged-file"]);
    assert!(agent.log().contains("the history is damaged"));
    drop(agent.stop());
    assert_eq!(offline(&host.state(), &port(&act)).0.len(), 1);
    let aside = fs::read_dir(host.state()).unwrap().flatten().find(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("history.sqlite3.damaged-")
    });
    assert_eq!(fs::read(aside.unwrap().path()).unwrap(), damaged);
}

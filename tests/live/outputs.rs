//! Outputs beside stdout, received by stand-ins of the test's own: each tells
//! what stdout tells, and what one loses is counted in its own stream.

use std::{
    collections::BTreeMap,
    fs,
    net::UdpSocket,
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt as _, net::UnixDatagram},
    },
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use procid_tests::{
    agent::{Agent, LIMIT},
    cgroup::TestCgroup,
    listener,
    program::Program,
    records::text,
    scratch::Scratch,
    stage::Stage,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use serde_json::Value;

/// What a name would need to forge a field, a message or a record.
const HOSTILE: &str = "a\nPRIORITY=0\n<0>1 - - - - - - {}\"]\n";

/// Takes datagrams until it is told that no more will come.
struct Receiver {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Receiver {
    fn of<S: AsFd + Send + 'static>(
        socket: S,
        recv: impl Fn(&S, &mut [u8]) -> usize + Send + 'static,
    ) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let is_last = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 17];
            let mut all = Vec::new();
            loop {
                let last = is_last.load(Ordering::Acquire);
                let wait = Timespec {
                    tv_sec: 0,
                    tv_nsec: 20_000_000,
                };
                let mut fds = [PollFd::new(&socket, PollFlags::IN)];
                if poll(&mut fds, Some(&wait)).unwrap() > 0 {
                    let length = recv(&socket, &mut buffer);
                    all.push(buffer[..length].to_vec());
                } else if last {
                    return all;
                }
            }
        });
        Self { ended, thread }
    }

    fn unix(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        Self::of(socket, |socket, buffer| socket.recv(buffer).unwrap())
    }

    fn all(self) -> Vec<Vec<u8>> {
        self.ended.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// The fields of a journal entry. None here has a line end, so that none gives
/// its length.
fn entry(datagram: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(datagram).unwrap();
    let mut fields = BTreeMap::new();
    for line in text.lines() {
        let (name, value) = line.split_once('=').unwrap();
        let before = fields.insert(name.to_owned(), value.to_owned());
        assert_eq!(before, None, "{name} twice in {text}");
    }
    fields
}

/// The record in a message of syslog.
fn message(datagram: &[u8]) -> Value {
    let text = std::str::from_utf8(datagram).unwrap();
    assert!(
        text.bytes().all(|byte| matches!(byte, b' '..=b'~')),
        "{text}"
    );
    let (head, rest) = text.split_once(" [meta sequenceId=\"").unwrap();
    let head: Vec<_> = head.split(' ').collect();
    assert_eq!(head.len(), 6, "{text}");
    assert!(
        head[0].starts_with("<8") && head[0].ends_with(">1"),
        "{text}"
    );
    assert_eq!(head[3], "procid");
    let (number, json) = rest.split_once("\"] ").unwrap();
    let record: Value = serde_json::from_str(json).unwrap();
    assert_eq!(text_of(&record, "/event/sequence"), number);
    assert_eq!(text_of(&record, "/event/action"), head[5]);
    record
}

fn text_of(record: &Value, pointer: &str) -> String {
    text(record, pointer).into_owned()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a record is split");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn status(agent: &Agent) -> Value {
    let output = agent.ask(&["status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asks for the agent's status until it says so.
fn until_status(agent: &Agent, enough: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let status = status(agent);
        if enough(&status) {
            return status;
        }
        assert!(start.elapsed() < LIMIT, "{status:#}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_tells_what_stdout_tells() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.path().join(name);
    let journal = Receiver::unix(&at("journal"));
    let log = Receiver::unix(&at("log"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let udp = Receiver::of(socket, |socket, buffer| socket.recv(buffer).unwrap());
    let outputs = [
        format!("file:{}", at("records").display()),
        format!("journald:{}", at("journal").display()),
        format!("syslog:unix:{},max=65507", at("log").display()),
        format!("syslog:udp:{address},max=65507"),
    ];
    let arguments: Vec<&str> = outputs.iter().flat_map(|it| ["--output", it]).collect();
    let mut stage = Stage::with(&arguments);
    let to = listener::Tcp::on("127.0.0.1:0");
    let hostile = stage.scratch.program(HOSTILE.replace('/', ""));
    let to = to.address().to_string();
    let program = stage.start_file(&hostile.path, ["connect", "--to", &to]);
    let acts = program.finish().acts;
    stage.agent.settle(&acts);
    let said = until_status(&stage.agent, |status| {
        let outputs = status["outputs"].as_array().unwrap();
        outputs.iter().all(|output| output["waiting"] == 0)
    });
    assert_eq!(said["healthy"], true, "{said:#}");
    let names: Vec<_> = said["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["file", "journald", "syslog", "syslog2"]);

    let records = stage.agent.stop();
    let connect = records.of_act(&acts[0]);
    let executable = text_of(connect[0], "/process/executable");
    assert!(executable.ends_with("a\\x0aPRIORITY=0\\x0a<0>1 - - - - - - {}\"]\\x0a"));
    let mode = fs::metadata(at("records")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(lines(&at("records")), records.all());
    for receiver in [log, udp] {
        let told: Vec<_> = receiver.all().iter().map(|it| message(it)).collect();
        assert_eq!(told, records.all());
    }
    let entries: Vec<_> = journal.all().iter().map(|it| entry(it)).collect();
    assert_eq!(entries.len(), records.all().len());
    for (entry, record) in entries.iter().zip(records.all()) {
        let told: Value = serde_json::from_str(&entry["PROCID_RECORD"]).unwrap();
        assert_eq!(&told, record);
        assert_eq!(entry["PRIORITY"], "6");
        assert_eq!(entry["PROCID_ACTION"], text_of(record, "/event/action"));
        let pid = entry.get("PROCID_PID").map_or("", String::as_str);
        assert_eq!(pid, text_of(record, "/process/pid"));
    }
}

/// A file system with room for few records; unmounted when dropped.
struct Tiny<'a>(&'a Path);

impl<'a> Tiny<'a> {
    fn at(place: &'a Path) -> Self {
        mount(
            "tmpfs",
            place,
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=16k"),
        )
        .unwrap();
        Self(place)
    }

    fn grow(&self) {
        let status = Command::new("mount")
            .args(["-o", "remount,size=64m"])
            .arg(self.0)
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        let _gone = unmount(self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_splits_no_record_and_loses_none_that_waits() {
    let scratch = Scratch::new();
    let place = scratch.directory("tiny");
    let disk = Tiny::at(&place);
    let file = place.join("records");
    let output = format!("file:{}", file.display());
    let cgroup = TestCgroup::new();
    let app = scratch.program("app");
    let mut agent = Agent::start_with(&cgroup, &["--output", &output]);
    let to = listener::Tcp::on("127.0.0.1:0");
    let to = to.address().to_string();
    let connect = || {
        Program::run(
            &cgroup,
            &app.path,
            ["connect", "--to", &to, "--count", "50"],
        )
        .acts
    };
    let mut acts = connect();
    let full = until_status(&agent, |status| status["outputs"][0]["trouble"].is_string());
    let trouble = text_of(&full, "/outputs/0/trouble");
    assert!(trouble.contains("No space left"), "{trouble}");
    assert_eq!(full["healthy"], false);
    let told = lines(&file);
    assert!(!told.is_empty());

    disk.grow();
    acts.extend(connect());
    agent.settle(&acts);
    until_status(&agent, |status| {
        let output = &status["outputs"][0];
        output["trouble"].is_null() && output["waiting"] == 0
    });
    let records = agent.stop();
    assert_eq!(records.lost(), 0);
    assert_eq!(lines(&file), records.all());
    assert!(told.len() < records.all().len());
}

/// The largest part of a second's records of this load have no room.
const LOAD: [&str; 5] = ["load", "--sum", "--rate", "2000", "--count"];

#[test]
fn what_a_stuck_output_loses_is_counted_in_its_own_stream() {
    let scratch = Scratch::new();
    let path = scratch.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    let output = format!("syslog:unix:{},max=65507", path.display());
    let file = scratch.path().join("records");
    let beside = format!("file:{}", file.display());
    let mut stage = Stage::with(&["--output", &output, "--output", &beside]);
    let listener = listener::Tcp::on("0.0.0.0:0");
    let port = listener.address().port().to_string();
    let load = stage.start(LOAD.iter().copied().chain(["8000", "--port", &port]));
    let summary = load.finish().summary.unwrap();
    assert_eq!(summary.failures, 0);
    let stuck = until_status(&stage.agent, |status| {
        status["outputs"][0]["lost"]["full"]
            .as_u64()
            .is_some_and(|lost| lost > 0)
            && status["outputs"][1]["waiting"] == 0
    });
    assert_eq!(stuck["healthy"], false);
    assert!(
        text_of(&stuck, "/outputs/0/trouble").ends_with("its queue is full"),
        "{stuck:#}"
    );

    // It takes them again: what it lost is told there.
    let receiver = Receiver::of(socket, |socket, buffer| socket.recv(buffer).unwrap());
    until_status(&stage.agent, |status| status["outputs"][0]["waiting"] == 0);
    let acts = stage.run(["connect", "--to", &listener.address().to_string()]);
    stage.agent.settle(&acts);
    let is_told = |records: &procid_tests::records::Records| {
        records.losses().contains_key("output-syslog-full")
    };
    assert!(stage.agent.until(is_told));
    let records = stage.agent.stop();

    assert_eq!(
        lines(&file),
        records.all(),
        "the other output lacks something"
    );
    let told: Vec<_> = receiver.all().iter().map(|it| message(it)).collect();
    let sequence = |record: &Value| record["event"]["sequence"].as_u64().unwrap();
    let (mut missing, mut counted, mut before) = (0, 0, 0);
    for record in &told {
        missing += sequence(record) - before - 1;
        before = sequence(record);
        let lost = record.pointer("/procid/lost/output-syslog-full");
        counted += lost.and_then(Value::as_u64).unwrap_or(0);
    }
    assert!(missing > 0);
    assert_eq!(missing, counted, "a gap that no record counts");
    assert_eq!(before, records.all().len() as u64, "its stream ends early");
}

#[test]
fn a_place_that_cannot_be_written_is_said_before_anything_is_attached() {
    let cgroup = TestCgroup::new();
    let scratch = Scratch::new();
    let (state, socket) = (scratch.path().join("state"), scratch.path().join("socket"));
    let output = procid_tests::agent::command(cgroup.path(), &state, &socket)
        .args(["--output", "file:/proc/none/records"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("--output: cannot open /proc/none/records: "),
        "{said}"
    );
    assert_eq!(output.stdout, b"");
}

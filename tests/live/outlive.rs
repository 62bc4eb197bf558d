//! A policy outlives its agent: killed, started again, told to keep it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    thread,
    time::Duration,
};

use procid_tests::{
    agent::{Agent, Home},
    cgroup::{PINS, TestCgroup},
    listener,
    program::Program,
    records::text,
    scratch::{Image, Scratch, procid},
    truth::Knocks,
};

/// Between a kill and the next start.
const WITHOUT_AGENT: Duration = Duration::from_millis(50);

/// A cgroup where one port is denied, without an agent yet.
struct Host {
    cgroup: TestCgroup,
    _scratch: Scratch,
    app: Image,
    to: listener::Tcp,
    policy: String,
    home: Home,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        let to = listener::Tcp::on("127.0.0.1:0");
        let policy = scratch.path().join("policy.toml");
        let text = format!(
            "mode = \"enforce\"\ndefault = \"allow\"\n[[rule]]\nname = \"nobody\"\n\
             action = \"deny\"\ndestination = {{ port = {} }}\n",
            to.address().port()
        );
        fs::write(&policy, text).unwrap();
        Self {
            cgroup: TestCgroup::new(),
            app: scratch.program("app"),
            policy: policy.display().to_string(),
            _scratch: scratch,
            to,
            home: Arc::new(tempfile::tempdir().unwrap()),
        }
    }

    fn enforcing(&self) -> Agent {
        let home = Arc::clone(&self.home);
        Agent::start_at(&self.cgroup, home, &["--policy", &self.policy])
    }

    /// Without a policy given: the one that was applied last.
    fn again(&self) -> Agent {
        Agent::start_at(&self.cgroup, Arc::clone(&self.home), &[])
    }

    fn knocker(&self) -> Program {
        let to = self.to.address().to_string();
        Program::start(&self.cgroup, &self.app.path, ["knock", "--to", &to])
    }

    fn knock(&self) -> Knocks {
        let knocker = self.knocker();
        thread::sleep(WITHOUT_AGENT);
        knocker.finish().knocks.unwrap()
    }

    /// The pins of agents that watch this cgroup.
    fn pins(&self) -> Vec<PathBuf> {
        let id = fs::metadata(self.cgroup.path()).unwrap().ino();
        let part = format!("_c{id:x}_");
        let entries = fs::read_dir(PINS).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        paths
            .filter(|path| path.display().to_string().contains(&part))
            .collect()
    }

    fn unload(&self) -> Output {
        let mut unload = Command::new(procid());
        unload.args(["unload", "--cgroup"]).arg(self.cgroup.path());
        unload.output().unwrap()
    }
}

fn assert_all_denied(knocks: Knocks) {
    assert!(knocks.denied > 0, "{knocks:?}");
    assert_eq!((knocks.done, knocks.failed), (0, 0), "{knocks:?}");
}

fn assert_all_done(knocks: Knocks) {
    assert!(knocks.done > 0, "{knocks:?}");
    assert_eq!((knocks.denied, knocks.failed), (0, 0), "{knocks:?}");
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn no_attempt_passes_across_ten_kills_and_restarts() {
    let host = Host::new();
    let mut agent = host.enforcing();
    let knocker = host.knocker();
    for _ in 0..10 {
        drop(agent.kill());
        assert_eq!(host.pins().len(), 1);
        thread::sleep(WITHOUT_AGENT);
        agent = host.again();
        assert_eq!(host.pins().len(), 1, "what was taken over is gone");
    }
    let knocks = knocker.finish().knocks.unwrap();
    assert_all_denied(knocks);
    assert!(knocks.denied > 1_000, "{knocks:?}");
    assert!(host.to.peers(0).is_empty());

    // A clean stop ends it, and says so.
    let records = agent.stop();
    let changes: Vec<_> = records
        .of_action("policy")
        .map(|record| text(record, "/procid/policy/change").into_owned())
        .collect();
    assert_eq!(changes, ["apply", "unload"]);
    assert_all_done(host.knock());
    assert!(host.pins().is_empty());
}

#[test]
fn what_a_version_with_other_maps_left_is_replaced_the_same_way() {
    let host = Host::new();
    drop(host.enforcing().kill());
    let left = host.pins().remove(0);
    let name = left.file_name().unwrap().to_str().unwrap();
    let (_, rest) = name.split_once('_').unwrap();
    fs::rename(&left, Path::new(PINS).join(format!("l0_{rest}"))).unwrap();
    let knocker = host.knocker();
    let agent = host.again();
    let pins = host.pins();
    assert_eq!(pins.len(), 1);
    assert_ne!(pins[0], left);
    assert_all_denied(knocker.finish().knocks.unwrap());
    drop(agent.stop());
}

#[test]
fn an_agent_without_a_policy_leaves_what_is_enforced_and_says_so() {
    let host = Host::new();
    drop(host.enforcing().kill());
    let other = Agent::start(&host.cgroup);
    assert_all_denied(host.knock());
    let status = other.ask(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", said(&status));
    assert!(said(&status).contains("an agent that has ended still enforces its policy"));

    let unload = host.unload();
    assert!(unload.status.success(), "{}", said(&unload));
    assert_all_done(host.knock());
    let status = other.ask(&["status"]);
    assert!(status.status.success(), "{}", said(&status));
    drop(other.stop());
}

#[test]
fn a_policy_is_kept_at_a_clean_stop_where_that_is_asked_for() {
    let host = Host::new();
    let home = Arc::clone(&host.home);
    let keeps = Agent::start_at(&host.cgroup, home, &["--policy", &host.policy, "--keep"]);
    let unload = host.unload();
    assert_eq!(unload.status.code(), Some(1), "{}", said(&unload));
    assert!(said(&unload).contains("an agent that runs enforces its policy"));
    drop(keeps.stop());
    assert_all_denied(host.knock());

    let unload = host.unload();
    assert!(unload.status.success(), "{}", said(&unload));
    assert_eq!(said(&unload), "removed what an ended agent enforced\n");
    assert_all_done(host.knock());
    let unload = host.unload();
    assert_eq!(said(&unload), "no ended agent has left anything pinned\n");
}

#[test]
fn pins_that_somebody_changes_are_told() {
    let host = Host::new();
    let agent = host.enforcing();
    let pins = host.pins().remove(0);
    fs::remove_file(pins.join("links/connect4")).unwrap();
    fs::hard_link(pins.join("maps/ACTIVE"), pins.join("maps/OTHER")).unwrap();
    let status = agent.ask(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", said(&status));
    for what in [
        "links/connect4 was removed: what it held ends with this agent",
        "maps/OTHER was added by somebody else",
    ] {
        assert!(said(&status).contains(what), "{}", said(&status));
    }
    // It is held by the agent still.
    assert_all_denied(host.knock());
    drop(agent.stop());
    assert!(host.pins().is_empty());
}

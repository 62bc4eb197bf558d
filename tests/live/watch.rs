//! `procid watch`, in a terminal and without.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use procid_tests::{
    agent::{Agent, Home},
    cgroup::TestCgroup,
    listener,
    scratch::procid,
    stage::Stage,
    terminal::InTerminal,
};
use rustix::process::{Pid, Signal, kill_process};

fn watch(agent: &Agent) -> Command {
    let mut command = Command::new(procid());
    command.args(["watch", "--socket"]).arg(agent.socket());
    command
}

#[test]
fn a_connection_is_seen_to_come_and_go() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let mut screen = InTerminal::start(&mut watch(&stage.agent));
    let live = screen.until(0, "Connections");
    let to = listener.address();
    let destination = to.to_string();
    let mut program = stage.start(["connect", "--hold", "--to", &destination]);
    let act = program.act();
    screen.until(live, &destination);
    // The filter hides it, and shows it again.
    let typed = screen.output.len();
    screen.press("/nothing-of-that-name");
    screen.until(typed, "0 rows");
    let cleared = screen.output.len();
    screen.press("\x1b");
    screen.until(cleared, &destination);
    let open = screen.output.len();
    screen.press(&format!("/{}\r\r", act.actor.pid));
    screen.until(open, &stage.app.sha256[..40]);
    // A window of another size is drawn anew.
    let resized = screen.output.len();
    screen.resize(120, 40);
    screen.until(resized, &destination);
    let closed = screen.output.len();
    program.finish();
    screen.until(closed, "closed");
    screen.press("q");
    assert_eq!(screen.end().code(), Some(0));
    assert!(
        screen.is_restored(),
        "{:?}",
        screen.output.escape_ascii().to_string()
    );
    stage.agent.settle(&[act]);
    let _records = stage.agent.stop();
}

#[test]
fn the_terminal_is_given_back_at_a_signal() {
    let stage = Stage::new();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut screen = InTerminal::start(&mut watch(&stage.agent));
        screen.until(0, "Connections");
        screen.signal(signal);
        assert_eq!(screen.end().code(), Some(0), "{signal:?}");
        assert!(screen.is_restored(), "{signal:?}");
    }
    let _records = stage.end(&[]);
}

/// Whatever a process calls itself, the terminal shows it and does not obey.
#[test]
fn hostile_names_are_shown_and_not_obeyed() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let name = "x\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m";
    let hostile = stage.scratch.program(name);
    let mut screen = InTerminal::start(&mut watch(&stage.agent));
    let live = screen.until(0, "Connections");
    let to = listener.address().to_string();
    let mut program = stage.start_file(&hostile.path, ["connect", "--hold", "--to", &to]);
    let act = program.act();
    screen.until(live, &to);
    let before = screen.output.len();
    screen.press("\r");
    screen.until(before, "]0;owned");
    program.finish();
    screen.press("q");
    assert_eq!(screen.end().code(), Some(0));
    let output = String::from_utf8_lossy(&screen.output);
    for obeyed in ["\u{1b}]0;", "\u{7}", "\u{9b}"] {
        assert!(!output.contains(obeyed), "{}", output.escape_debug());
    }
    let _records = stage.end(&[act]);
}

#[test]
fn without_colours_there_are_none() {
    let stage = Stage::new();
    let mut screen = InTerminal::start(watch(&stage.agent).env("NO_COLOR", "1"));
    screen.until(0, "Connections");
    screen.press("3");
    screen.until(0, "IMAGE");
    screen.press("q");
    assert_eq!(screen.end().code(), Some(0));
    let output = String::from_utf8_lossy(&screen.output).into_owned();
    for colour in 30..38 {
        for sequence in [
            format!("\u{1b}[{colour}m"),
            format!("\u{1b}[38;5;{}m", colour - 30),
        ] {
            assert!(!output.contains(&sequence), "{}", output.escape_debug());
        }
    }
    let _records = stage.end(&[]);
}

/// `procid watch` into a pipe.
struct Lines {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Lines {
    fn of(agent: &Agent, stderr: Stdio) -> Self {
        let mut child = watch(agent)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut lines = Self { child, lines };
        assert!(lines.next().starts_with("TIME "));
        lines
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "it has ended");
        line
    }
}

#[test]
fn a_record_a_line_until_interrupted() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let to = listener.address().to_string();
    for signal in [Signal::INT, Signal::TERM] {
        let mut watch = Lines::of(&stage.agent, Stdio::inherit());
        let acts = stage.run(["connect", "--to", &to]);
        let pid = format!(" {} ", acts[0].actor.pid);
        let line = std::iter::from_fn(|| Some(watch.next())).find(|line| line.contains(&pid));
        let line = line.unwrap();
        assert!(line.contains(&to) && line.contains(" allowed "), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
        kill_process(Pid::from_child(&watch.child), signal).unwrap();
        assert_eq!(watch.child.wait().unwrap().code(), Some(0), "{signal:?}");
    }
    let _records = stage.end(&[]);
}

#[test]
fn a_reader_that_has_enough_is_a_success() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let to = listener.address().to_string();
    let Lines { mut child, lines } = Lines::of(&stage.agent, Stdio::inherit());
    drop(lines);
    // It finds out with the next record.
    let acts = stage.run(["connect", "--to", &to]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let _records = stage.end(&acts);
}

#[test]
fn without_an_agent_there_is_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(procid())
        .args(["watch", "--socket"])
        .arg(directory.path().join("none"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("no agent answers"), "{said}");
}

/// An agent that ends is waited for, and its successor's records are shown.
#[test]
fn it_comes_back_with_the_agent() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let to = listener.address().to_string();
    let cgroup = TestCgroup::new();
    let home: Home = Arc::new(tempfile::tempdir().unwrap());
    let said = home.path().join("said");
    let first = Agent::start_at(&cgroup, Arc::clone(&home), &[]);
    let mut lines = Lines::of(&first, File::create(&said).unwrap().into());
    let mut screen = InTerminal::start(&mut watch(&first));
    let live = screen.until(0, "live");
    let _records = first.stop();
    let gone = screen.until(live, "waiting for the agent");
    let second = Agent::start_at(&cgroup, Arc::clone(&home), &[]);
    screen.until(gone, "by age");
    let stage = procid_tests::scratch::Scratch::new();
    let app = stage.program("app");
    let report = procid_tests::program::Program::run(&cgroup, &app.path, ["connect", "--to", &to]);
    let pid = format!(" {} ", report.acts[0].actor.pid);
    let line = std::iter::from_fn(|| Some(lines.next())).find(|line| line.contains(&pid));
    assert!(line.unwrap().contains(&to));
    kill_process(Pid::from_child(&lines.child), Signal::INT).unwrap();
    assert_eq!(lines.child.wait().unwrap().code(), Some(0));
    let said = std::fs::read_to_string(said).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("waiting for the agent: "), "{said}");
    screen.press("q");
    assert_eq!(screen.end().code(), Some(0));
    let _records = second.stop();
}

//! `protect = true`: what another process of root's cannot do to a running
//! agent, can do to one that is not protected, and can do once it has ended.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        fd::FromRawFd as _,
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use procid_tests::{
    agent::{Home, command},
    cgroup::{PINS, TestCgroup, start_in},
    listener,
    program::Program,
    scratch::{Image, Scratch, procid},
    truth::Knocks,
};
use rustix::process::Pid;

use attacks::{
    ATTACKS, LASTING, Results, SENDS, TRACES, Target, signal_of_a_file, use_another_map,
};

mod attacks;

/// An emulated kernel takes long to verify the programs.
const START_LIMIT: Duration = Duration::from_secs(600);
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const WAY_OUT: &str = "boot with procid.protect=0 on the kernel command line";

/// Where agents are started; one port is denied in the cgroup they watch.
struct Host {
    watched: TestCgroup,
    /// Theirs: what cannot be killed is ended with it.
    own: TestCgroup,
    scratch: Scratch,
    app: Image,
    to: listener::Tcp,
    home: Home,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        Self {
            watched: TestCgroup::new(),
            own: TestCgroup::new(),
            app: scratch.program("app"),
            to: listener::Tcp::on("127.0.0.1:0"),
            scratch,
            home: Arc::new(tempfile::tempdir().unwrap()),
        }
    }

    /// A policy with these lines before its rule; its path.
    fn policy(&self, name: &str, lines: &str) -> String {
        let port = self.to.address().port();
        let text = format!(
            "mode = \"enforce\"\n{lines}\n[[rule]]\nname = \"nobody\"\naction = \"deny\"\n\
             destination = {{ port = {port} }}\n"
        );
        let path = self.scratch.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn start(&self, arguments: &[&str]) -> Agent<'_> {
        let home = self.home.path();
        let (state, socket) = (home.join("state"), home.join("socket"));
        let mut command = command(self.watched.path(), &state, &socket);
        start_in(self.own.path(), &mut command);
        // With a watchdog, which stands before nothing that is run here.
        let gated = self.scratch.path().display().to_string();
        command.args(["--exec-gate", &gated]).args(arguments);
        let log = File::create(home.join("log")).unwrap();
        let (terminal, other) = open_terminal();
        lead_session(&mut command);
        let mut child = command
            .stdin(Stdio::from(other))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let agent = Agent {
            host: self,
            child,
            terminal,
            is_deaf: Arc::default(),
        };
        let (is_deaf, ready) = (Arc::clone(&agent.is_deaf), channel());
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.contains("\"action\":\"ready\"") {
                    ready.0.send(()).unwrap();
                }
                if is_deaf.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let is_ready = ready.1.recv_timeout(START_LIMIT);
        assert!(is_ready.is_ok(), "{}", self.log());
        // Answered once the policy is in force.
        assert!(agent.ask(&["status"]).status.success(), "{}", self.log());
        agent
    }

    /// At least one.
    fn knock(&self) -> Knocks {
        let to = self.to.address().to_string();
        let start = Instant::now();
        loop {
            let knocker = Program::start(&self.watched, &self.app.path, ["knock", "--to", &to]);
            thread::sleep(Duration::from_millis(20));
            let knocks = knocker.finish().knocks.unwrap();
            if knocks != Knocks::default() {
                return knocks;
            }
            assert!(start.elapsed() < LIMIT, "nobody knocks");
        }
    }

    #[track_caller]
    fn assert_denied(&self, after: &str) {
        let knocks = self.knock();
        assert!(knocks.denied > 0, "after {after}: {knocks:?}");
        assert_eq!((knocks.done, knocks.failed), (0, 0), "after {after}");
    }

    /// The pins of agents that watch the cgroup.
    fn pins(&self) -> Vec<PathBuf> {
        let id = fs::metadata(self.watched.path()).unwrap().ino();
        let part = format!("_c{id:x}_");
        let entries = fs::read_dir(PINS).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        paths
            .filter(|path| path.display().to_string().contains(&part))
            .collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn unload(&self) -> Output {
        let mut unload = Command::new(procid());
        unload.args(["unload", "--cgroup"]).arg(self.watched.path());
        unload.output().unwrap()
    }
}

/// One whose records are read, and forgotten.
struct Agent<'a> {
    host: &'a Host,
    child: Child,
    /// The other end of the terminal that it was started from.
    terminal: File,
    /// Its records are not read any more.
    is_deaf: Arc<AtomicBool>,
}

impl Agent<'_> {
    fn target(&self) -> Target {
        Target {
            pid: Pid::from_child(&self.child),
            pins: self.host.pins().remove(0),
        }
    }

    fn watchdog(&self) -> Pid {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let mut children = children.split_whitespace().map(|it| it.parse().unwrap());
        let watchdog = children.next().expect("the exec gate's watchdog");
        let watchdog = Pid::from_raw(watchdog).unwrap();
        let leads = || rustix::process::getpgid(Some(watchdog)) == Ok(watchdog);
        assert!(within(LIMIT, leads), "the watchdog does not stand apart");
        watchdog
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        Command::new(procid())
            .args(arguments)
            .arg("--socket")
            .arg(self.host.home.path().join("socket"))
            .output()
            .unwrap()
    }

    fn status(&self) -> String {
        said(&self.ask(&["status"]))
    }

    #[track_caller]
    fn assert_runs(&mut self, after: &str) {
        let state = state_of(Pid::from_child(&self.child));
        assert!(
            matches!(state, 'R' | 'S' | 'D'),
            "after {after}: {state}: {}",
            self.host.log()
        );
    }

    fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "{}", self.host.log());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// As no process can be kept from: see SECURITY.md.
    fn end_with_its_cgroup(&mut self) {
        fs::write(self.host.own.path().join("cgroup.kill"), "1").unwrap();
        let _status = self.wait();
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        // It may not be killed otherwise.
        let _ended = fs::write(self.host.own.path().join("cgroup.kill"), "1");
        let _status = self.child.wait();
        if thread::panicking() {
            eprintln!("---- procid's log\n{}----", self.host.log());
        }
    }
}

/// A terminal: who types, and who reads.
fn open_terminal() -> (File, File) {
    let (mut master, mut slave) = (0, 0);
    let none = std::ptr::null_mut::<libc::c_char>();
    // SAFETY: both are places for a descriptor; nothing is asked for by a name,
    // settings or a size.
    let opened = unsafe {
        let settings = none.cast::<libc::termios>();
        let size = none.cast::<libc::winsize>();
        libc::openpty(&raw mut master, &raw mut slave, none, settings, size)
    };
    assert_eq!(opened, 0, "{}", io::Error::last_os_error());
    // SAFETY: new descriptors, of nobody else's.
    unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) }
}

/// Lets it lead a session, and with that a group, on the terminal that is its
/// stdin.
fn lead_session(command: &mut Command) {
    let lead = || {
        // SAFETY: system calls without pointers.
        let led = unsafe { libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0 };
        if led {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(lead) };
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// `R`, `S`, `T`, …
fn state_of(pid: Pid) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, facts) = stat.rsplit_once(')').unwrap();
    facts.trim_start().chars().next().unwrap()
}

fn within(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
    true
}

fn is_stopped(pid: Pid) -> bool {
    state_of(pid) == 'T'
}

#[track_caller]
fn assert_all_refused(attack: &str, results: &Results) {
    for result in results {
        let error = result.as_ref().expect_err(attack);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{attack}");
    }
}

#[track_caller]
fn assert_all_done(attack: &str, results: &Results) {
    for result in results {
        assert!(result.is_ok(), "{attack}: {results:?}");
    }
}

fn assert_signals_refused(agent: &mut Agent<'_>, pid: Pid) {
    const SIGNALS: [i32; 8] = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGSEGV,
        34, // the first real-time signal
    ];
    for (name, send) in SENDS {
        for signal in SIGNALS {
            assert_all_refused(&format!("{name} {signal}"), &vec![send(pid, signal)]);
        }
        send(pid, 0).unwrap();
        send(pid, libc::SIGCONT).unwrap();
    }
    assert!(!signal_of_a_file(pid, libc::SIGSTOP, || is_stopped(pid)));
    agent.assert_runs("signals");
}

#[test]
fn nobody_ends_traces_or_unpins_a_protected_agent() {
    let host = Host::new();
    let (plain, protected) = (host.policy("a", ""), host.policy("b", "protect = true"));
    let mut agent = host.start(&["--policy", &plain]);
    assert!(agent.status().contains("  protected   no\n"));

    // Not before it is confirmed: nobody could revert it.
    let applied = agent.ask(&[
        "policy",
        "apply",
        &protected,
        "--strict",
        "--confirm",
        "600s",
    ]);
    assert!(applied.status.success(), "{}", said(&applied));
    let status = agent.status();
    let waits = "  protected   no: the policy waits to be confirmed\n";
    assert!(status.contains(waits), "{status}");
    let pid = agent.target().pid;
    for signal in [libc::SIGSTOP, libc::SIGCONT] {
        SENDS[0].1(pid, signal).unwrap();
    }
    let confirmed = agent.ask(&["policy", "confirm"]);
    assert!(said(&confirmed).contains(WAY_OUT), "{}", said(&confirmed));
    let status = agent.status();
    assert!(status.contains("  protected   yes\n"), "{status}");

    let target = agent.target();
    let watchdog = agent.watchdog();
    assert_signals_refused(&mut agent, target.pid);
    assert_signals_refused(&mut agent, watchdog);
    host.assert_denied("signals");
    for (attack, act) in [TRACES, ATTACKS, LASTING].concat() {
        assert_all_refused(attack, &act(&target));
        agent.assert_runs(attack);
        host.assert_denied(attack);
        use_another_map().unwrap();
    }
    for (attack, act) in TRACES {
        let target = Target {
            pid: watchdog,
            pins: PathBuf::new(),
        };
        assert_all_refused(attack, &act(&target));
    }
    // The mount that theirs is in.
    let lazily = rustix::mount::UnmountFlags::DETACH;
    let gone = rustix::mount::unmount("/sys", lazily);
    assert_eq!(gone, Err(rustix::io::Errno::PERM));
    host.assert_denied("umount /sys");

    // Who looks is let look.
    let pid = target.pid;
    fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
    fs::read(format!("/proc/{pid}/environ")).unwrap();
    fs::read_dir(PINS).unwrap().for_each(drop);

    // The agent itself does not let go: the kernel's signals are not refused.
    agent.terminal.write_all(b"\x03").unwrap();
    let refuses = "SIGINT: not stopping: ";
    assert!(
        within(LIMIT, || host.log().contains(refuses)),
        "{}",
        host.log()
    );
    for arguments in [
        ["policy", "apply", &plain].as_slice(),
        &["policy", "apply", "--dry-run", &plain],
    ] {
        let applied = agent.ask(arguments);
        assert!(!applied.status.success());
        assert!(said(&applied).contains(WAY_OUT), "{}", said(&applied));
    }
    let unload = host.unload();
    assert_eq!(unload.status.code(), Some(3), "{}", said(&unload));
    assert!(said(&unload).contains(WAY_OUT), "{}", said(&unload));
    // What protects, too, may take its place.
    let applied = agent.ask(&["policy", "apply", &protected, "--strict"]);
    assert!(applied.status.success(), "{}", said(&applied));
    assert!(
        agent.ask(&["status"]).status.success(),
        "{}",
        agent.status()
    );
    host.assert_denied("requests");

    // Once it has ended, nothing of it stands in the way of the next.
    agent.end_with_its_cgroup();
    host.assert_denied("its end");
    fs::read_dir(&target.pins).unwrap().for_each(drop);
    let mut next = host.start(&[]);
    assert!(next.status().contains("  protected   yes\n"));
    assert!(!target.pins.exists());
    assert_eq!(host.pins().len(), 1);
    host.assert_denied("the next one's start");
    assert_all_refused("kill", &vec![SENDS[0].1(next.target().pid, libc::SIGKILL)]);
    next.end_with_its_cgroup();
    let unload = host.unload();
    assert!(unload.status.success(), "{}", said(&unload));
    assert!(host.pins().is_empty());
    assert!(host.knock().done > 0);
}

#[test]
fn all_of_it_is_done_to_an_agent_that_is_not_protected() {
    let host = Host::new();
    let policy = host.policy("a", "");
    let mut agent = host.start(&["--policy", &policy]);
    let target = agent.target();
    for pid in [target.pid, agent.watchdog()] {
        for (name, send) in SENDS {
            let name = format!("{name} of {pid}");
            assert_all_done(&name, &vec![send(pid, libc::SIGSTOP)]);
            assert!(within(LIMIT, || is_stopped(pid)), "{name}");
            assert_all_done(&name, &vec![send(pid, libc::SIGCONT)]);
        }
        assert!(signal_of_a_file(pid, libc::SIGSTOP, || is_stopped(pid)));
        SENDS[0].1(pid, libc::SIGCONT).unwrap();
    }
    for (attack, act) in [TRACES, ATTACKS].concat() {
        assert_all_done(attack, &act(&target));
        agent.assert_runs(attack);
    }
    host.assert_denied("all that was undone");
    for (attack, act) in LASTING {
        assert_all_done(attack, &act(&target));
    }
    rustix::mount::mount(
        "bpf",
        attacks::BPFFS,
        "bpf",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .unwrap();
    assert_all_done("kill", &vec![SENDS[0].1(target.pid, libc::SIGKILL)]);
    assert!(!agent.wait().success());
    // It has outlived nothing; the kernel detaches a little later.
    assert!(within(LIMIT, || host.knock().done > 0));
}

/// Who reads its records has the agent end, and not what it enforces.
#[test]
fn a_protected_agent_that_ends_by_itself_leaves_its_policy_in_force() {
    let host = Host::new();
    let policy = host.policy("b", "protect = true");
    let mut agent = host.start(&["--policy", &policy]);
    assert!(agent.status().contains("  protected   yes\n"));
    agent.is_deaf.store(true, Ordering::Relaxed);
    let start = Instant::now();
    while matches!(agent.child.try_wait(), Ok(None)) {
        host.assert_denied("the reader's end");
        assert!(start.elapsed() < LIMIT, "{}", host.log());
    }
    assert!(agent.wait().success());
    host.assert_denied("the agent's end");
    assert_eq!(host.pins().len(), 1);
    let unload = host.unload();
    assert!(unload.status.success(), "{}", said(&unload));
    assert!(host.knock().done > 0);
}

/// Run in a machine of its own, whose kernel is booted so.
#[test]
#[ignore = "needs procid.protect=0 on the kernel command line"]
fn the_kernel_s_command_line_is_the_way_out() {
    const WHY: &str = "the kernel was booted with procid.protect=0";
    let host = Host::new();
    let policy = host.policy("b", "protect = true");
    let mut agent = host.start(&["--policy", &policy]);
    assert!(
        agent
            .status()
            .contains(&format!("  protected   no: {WHY}\n"))
    );
    let applied = agent.ask(&["policy", "apply", &policy]);
    assert!(applied.status.success());
    let told = format!("`protect` does nothing here: {WHY}");
    assert!(said(&applied).contains(&told), "{}", said(&applied));
    let strict = agent.ask(&["policy", "apply", "--strict", &policy]);
    assert_eq!(strict.status.code(), Some(3), "{}", said(&strict));
    let plain = host.policy("a", "");
    let applied = agent.ask(&["policy", "apply", &plain]);
    assert!(applied.status.success(), "{}", said(&applied));
    let doctor = Command::new(procid()).arg("doctor").output().unwrap();
    assert!(said(&doctor).contains(WHY), "{}", said(&doctor));
    host.assert_denied("all that");
    assert_all_done(
        "kill",
        &vec![SENDS[0].1(Pid::from_child(&agent.child), libc::SIGKILL)],
    );
    assert!(!agent.wait().success());
}

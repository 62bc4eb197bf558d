//! An exec gate in a process of its own, on a file system that nobody else has.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use procid::identity::hash::{Inspect as _, statx::Statx};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::{Pid, Signal, kill_process},
    thread::{UnshareFlags, unshare_unsafe},
};
use sha2::{Digest as _, Sha256};

use crate::scratch::{Scratch, test_program};

const READY_LIMIT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What `procid-testprog gate` prints of a state that it published.
#[must_use]
pub fn line_of(state: &impl fmt::Debug, sha256: &[u8]) -> String {
    let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("published {state:?} {hex}")
}

/// The same of a file as it is now.
///
/// # Panics
///
/// When it cannot be read.
#[must_use]
pub fn line_of_file(path: &Path) -> String {
    let content = fs::read(path).expect("an executable can be read");
    let file = File::open(path).expect("an executable can be opened");
    let seen = Statx.inspect(file.as_fd()).expect("statx");
    line_of(&seen.file, &Sha256::digest(content))
}

/// Runs `test` in a mount namespace of its own, with an empty file system that
/// is mounted nowhere else.
///
/// # Panics
///
/// When there can be none, or `test` does.
pub fn on_own_file_system(test: impl FnOnce(&Path) + Send) {
    let scratch = Scratch::new();
    let place = scratch.directory("mounted");
    thread::scope(|scope| {
        let tested = scope.spawn(|| {
            // SAFETY: this thread alone leaves the namespace and the directory;
            // descriptors stay shared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("a mount namespace");
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).expect("private mounts");
            mount("tmpfs", &place, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
            let dev = |path: &Path| rustix::fs::stat(path).expect("stat").st_dev;
            assert_ne!(dev(&place), dev(scratch.path()), "nothing was mounted");
            test(&place);
        });
        if let Err(panic) = tested.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Bounds the queue of fanotify groups made from then on.
const QUEUE: &str = "/proc/sys/fs/fanotify/max_queued_events";
/// As the kernel has it at boot.
const QUEUE_AT_BOOT: usize = 16_384;
/// Less is what a test that was killed has left.
const QUEUE_LEAST: usize = 64;

/// Does `open`, which makes a fanotify group, with the kernel's queue of so many
/// events.
///
/// # Panics
///
/// When the bound cannot be set.
pub fn small_queue<T>(events: usize, open: impl FnOnce() -> T) -> T {
    struct Bound(usize);
    impl Drop for Bound {
        fn drop(&mut self) {
            // Nobody is left to tell.
            let _unset = fs::write(QUEUE, self.0.to_string());
        }
    }
    assert!(events < QUEUE_LEAST, "not a small one");
    let before = fs::read_to_string(QUEUE).expect("a setting");
    let before = before.trim().parse().expect("a number");
    let _bound = Bound(match before < QUEUE_LEAST {
        true => QUEUE_AT_BOOT,
        false => before,
    });
    fs::write(QUEUE, events.to_string()).expect("root may set it");
    open()
}

/// Makes a program that nobody has seen before.
///
/// # Panics
///
/// When it cannot be written.
#[must_use]
pub fn program(place: &Path, name: &str) -> PathBuf {
    let path = place.join(name);
    fs::copy("/bin/true", &path).expect("a copy");
    let mut file = OpenOptions::new().append(true).open(&path).expect("a file");
    file.write_all(name.as_bytes()).expect("a file");
    path
}

/// Executes it; when this returns, it runs.
///
/// # Panics
///
/// When it cannot be executed.
#[must_use]
pub fn start(path: &Path) -> Child {
    Command::new(path).spawn().expect("it is executed")
}

/// Runs it to its end, and says how long its execution took.
///
/// # Panics
///
/// When it cannot be executed, or fails.
pub fn run(path: &Path) -> Duration {
    let begun = Instant::now();
    let mut child = start(path);
    let took = begun.elapsed();
    assert!(child.wait().expect("a child").success());
    took
}

/// A running gate; killed when dropped.
#[derive(Debug)]
pub struct Gate {
    child: Child,
    stdin: ChildStdin,
    output: PathBuf,
    // Removed after the child is gone.
    _scratch: Scratch,
}

impl Gate {
    /// Opens a gate before the file system mounted at `place`.
    ///
    /// # Panics
    ///
    /// When it does not become ready.
    #[must_use]
    pub fn on(place: &Path, limit: Duration) -> Self {
        let scratch = Scratch::new();
        let output = scratch.path().join("output");
        let mut child = Command::new(test_program())
            .args(["gate", "--limit", &limit.as_millis().to_string(), "--on"])
            .arg(place)
            .stdin(Stdio::piped())
            .stdout(File::create(&output).expect("a file"))
            .spawn()
            .expect("the test program can be started");
        let stdin = child.stdin.take().expect("stdin is a pipe");
        let gate = Self {
            child,
            stdin,
            output,
            _scratch: scratch,
        };
        gate.wait_for("ready");
        gate
    }

    /// Whether it has printed that line.
    pub fn said(&self, line: &str) -> bool {
        self.lines().iter().any(|said| said == line)
    }

    /// # Panics
    ///
    /// When it does not print a line that starts so.
    pub fn wait_for(&self, start: &str) -> String {
        let begun = Instant::now();
        loop {
            let found = self
                .lines()
                .into_iter()
                .rfind(|line| line.starts_with(start));
            if let Some(line) = found {
                return line;
            }
            assert!(begun.elapsed() < READY_LIMIT, "the gate never says {start}");
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Asks for one of its counts, or `open`.
    ///
    /// # Panics
    ///
    /// When there is no such count.
    pub fn count(&mut self, name: &str) -> String {
        let before = self.counts().len();
        self.stdin.write_all(b"\n").expect("the gate runs");
        let begun = Instant::now();
        let counts = loop {
            let counts = self.counts();
            if counts.len() > before {
                break counts;
            }
            assert!(begun.elapsed() < READY_LIMIT, "the gate does not answer");
            thread::sleep(LOOK_EVERY);
        };
        let last = counts.last().expect("one more than before");
        let (_, value) = last
            .split_once(&format!("{name}: "))
            .unwrap_or_else(|| panic!("no {name} in {last}"));
        value
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect()
    }

    fn counts(&self) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| line.starts_with("Counts"));
        lines
    }

    /// Whole lines so far.
    fn lines(&self) -> Vec<String> {
        let output = fs::read_to_string(&self.output).unwrap_or_default();
        let whole = output.split_inclusive('\n');
        whole
            .filter_map(|line| line.strip_suffix('\n').map(str::to_owned))
            .collect()
    }

    /// # Panics
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the gate runs");
    }

    /// Its watchdog.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn watchdog(&self) -> Pid {
        self.find_watchdog().expect("the gate has a child")
    }

    fn find_watchdog(&self) -> Option<Pid> {
        watchdog_of(Pid::from_child(&self.child))
    }
}

/// The watchdog of a process that has a gate, and no other child.
pub fn watchdog_of(gate: Pid) -> Option<Pid> {
    let gate = gate.as_raw_nonzero().to_string();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let parent = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, after_name) = stat.rsplit_once(") ")?;
        after_name.split(' ').nth(1).map(str::to_owned)
    };
    processes
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|pid| parent(pid).as_deref() == Some(&gate))
        .find_map(|pid| Pid::from_raw(pid.parse().ok()?))
}

impl Drop for Gate {
    fn drop(&mut self) {
        // One that a test has stopped would hold its programs up for good.
        if let Some(watchdog) = self.find_watchdog() {
            let _ended = kill_process(watchdog, Signal::KILL);
        }
        // Not an error where it has ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

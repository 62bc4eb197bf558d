//! A cgroup of a test's own: the agent attaches there and nowhere else, so that
//! a test cannot cut off the machine it runs on.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use crate::scratch::procid;

/// Directory names: `procid-test-PID-NUMBER`, PID being the test run's.
const PREFIX: &str = "procid-test-";
/// Where agents pin what is to outlive them.
pub const PINS: &str = "/sys/fs/bpf/procid";

/// Removed with all its processes, and all that killed agents enforce there,
/// when dropped.
#[derive(Debug)]
pub struct TestCgroup {
    path: PathBuf,
}

impl TestCgroup {
    /// Makes one below the cgroup v2 root; the first of a run removes what
    /// earlier runs have left.
    ///
    /// # Panics
    ///
    /// Without cgroup v2, or without the right to make a directory there.
    #[must_use]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = v2_root().expect("cgroup v2 is mounted");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            remove_leftovers(&root);
        }
        let path = root.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a cgroup can be made");
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets `command` start in this cgroup.
    ///
    /// # Panics
    ///
    /// When `cgroup.procs` cannot be opened.
    pub fn holds(&self, command: &mut Command) {
        start_in(&self.path, command);
    }
}

/// Lets `command` start in a cgroup.
///
/// # Panics
///
/// When its `cgroup.procs` cannot be opened.
pub fn start_in(cgroup: &Path, command: &mut Command) {
    let procs: File = OpenOptions::new()
        .write(true)
        .open(cgroup.join("cgroup.procs"))
        .expect("cgroup.procs can be opened");
    // SAFETY: between fork and exec the child calls write(2) on a
    // descriptor of its own, nothing else. 0 means the writer.
    unsafe { command.pre_exec(move || (&procs).write_all(b"0")) };
}

impl Default for TestCgroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// The directory where cgroup v2 is mounted.
pub fn v2_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_v2 = after.split(' ').next() == Some("cgroup2");
        is_v2.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn remove_leftovers(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(run) = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if !Path::new("/proc").join(run).exists() {
            remove(&entry.path());
        }
    }
}

fn remove(path: &Path) {
    if Path::new(PINS).exists() {
        let mut unload = Command::new(procid());
        let done = unload.args(["unload", "--cgroup"]).arg(path).output();
        if let Ok(output) = &done
            && !output.status.success()
        {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    // Only processes that a test put here: nothing else enters. Kernels before
    // 5.14 have no such file; there each test waits for its own.
    let _none = fs::write(path.join("cgroup.kill"), "1");
    for _ in 0..200 {
        if remove_tree(path).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    eprintln!("{} is left behind", path.display());
}

/// Removes a cgroup and those below it. Their files go with them.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

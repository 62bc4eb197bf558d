//! An exec gate before every file system of a host, which is one made for it:
//! a root and a first process of its own, and nothing mounted but a tmpfs.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use procid::{
    gate::{Config, Gate, Marks},
    identity::hash::statx::Statx,
};
use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    mount::{MountFlags, mount},
    process::chroot,
    thread::{UnshareFlags, unshare_unsafe},
};

/// Longest until a new file system is marked.
const LIMIT: Duration = Duration::from_secs(10);
/// Loaders by the names that programs ask for them.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

/// Prints `first` when an execution on the root was hashed, `later` when one
/// was on a file system mounted after.
#[derive(Debug, clap::Args)]
pub(crate) struct GateHost {
    /// An empty file system that nobody else has
    #[arg(long)]
    on: PathBuf,
    /// Be the first process
    #[arg(long)]
    inside: bool,
}

impl GateHost {
    pub(crate) fn run(self) -> Result<()> {
        if self.inside {
            return be_host(&self.on);
        }
        furnish(&self.on)?;
        // SAFETY: concerns only the children of this process.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?;
        let mut first = Command::new("/proc/self/exe");
        first.args(["gate-host", "--inside", "--on"]).arg(&self.on);
        ensure!(first.status()?.success(), "the first process failed");
        Ok(())
    }
}

/// Copies what this program and `/bin/true` need to be executed.
fn furnish(root: &Path) -> Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut files: BTreeSet<_> = maps
        .lines()
        .filter_map(|line| Some(&line[line.find('/')?..]))
        .filter(|path| path.contains(".so"))
        .collect();
    files.insert("/bin/true");
    files.extend(LOADERS.iter().filter(|path| Path::new(path).exists()));
    for file in files {
        let to = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a file in a directory")?)?;
        fs::copy(file, &to).with_context(|| format!("cannot copy {file}"))?;
        fs::set_permissions(&to, Permissions::from_mode(0o755))?;
    }
    fs::create_dir(root.join("proc"))?;
    fs::create_dir(root.join("new"))?;
    fs::create_dir(root.join("dev"))?;
    let (null, mode) = (root.join("dev/null"), Mode::from_raw_mode(0o666));
    mknodat(CWD, null, FileType::CharacterDevice, mode, makedev(1, 3))?;
    Ok(())
}

fn be_host(root: &Path) -> Result<()> {
    chroot(root)?;
    rustix::process::chdir("/")?;
    mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    ensure!(std::process::id() == 1, "not a first process");
    nothing_else_is_mounted()?;

    let published = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&published);
    let gate = Gate::open(Config::default(), Arc::new(Statx), move |_, _, _| {
        counter.fetch_add(1, Ordering::Relaxed);
    })?;
    gate.watch(Marks::Host)?;
    let runs_hashed = |path: String| -> Result<bool> {
        fs::copy("/bin/true", &path)?;
        let mut file = OpenOptions::new().append(true).open(&path)?;
        file.write_all(path.as_bytes())?;
        drop(file);
        // The loader's execution is of the root, and asks for itself.
        ensure!(Command::new("/bin/true").status()?.success());
        let before = published.load(Ordering::Relaxed);
        ensure!(Command::new(&path).status()?.success());
        Ok(published.load(Ordering::Relaxed) == before + 2)
    };
    ensure!(runs_hashed("/app".to_owned())?, "{:?}", gate.counts());
    println!("first");

    mount("tmpfs", "/new", "tmpfs", MountFlags::empty(), None)?;
    let mounted = Instant::now();
    for number in 0.. {
        if runs_hashed(format!("/new/app-{number}"))? {
            break;
        }
        ensure!(mounted.elapsed() < LIMIT, "never: {:?}", gate.counts());
    }
    println!("later");
    ensure!(gate.counts().unmarked == 0, "{:?}", gate.counts());
    Ok(())
}

/// Before anything is marked: this must not be the machine itself.
fn nothing_else_is_mounted() -> Result<()> {
    for mount in fs::read_to_string("/proc/1/mountinfo")?.lines() {
        let fs_type = mount
            .split(" - ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        if !matches!(fs_type, Some("tmpfs" | "proc")) {
            bail!("this is not a host made for a test: {mount}");
        }
    }
    Ok(())
}

//! Other users, namespaces, roots and mounts.

use std::{
    ffi::{CString, OsString},
    fs,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    io::Errno,
    mount::{
        MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change,
        mount_move, unmount,
    },
    process::{DumpableBehavior, Gid, Uid, chroot, pivot_root, set_dumpable_behavior},
    thread::{UnshareFlags, set_thread_res_gid, set_thread_res_uid, unshare_unsafe},
};

use crate::by::wait_for;

/// Each step that is asked for, in the order of these flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Enter {
    /// A mount namespace of its own (as --root, --container, --bind and --umount
    /// imply)
    #[arg(long)]
    mount_ns: bool,
    /// Put the whole tree below this directory, to change root there
    #[arg(long)]
    root: Option<PathBuf>,
    /// Make this directory the root of the mount namespace, with the libraries and
    /// the /proc of this one, as a container's runtime does
    #[arg(long, conflicts_with = "root")]
    container: Option<PathBuf>,
    /// Change root to this directory, and nothing else
    #[arg(long, conflicts_with = "root")]
    chroot: Option<PathBuf>,
    /// SOURCE:TARGET: mount a file or directory, below the new root if any
    #[arg(long)]
    bind: Vec<Bind>,
    /// Take this mount away
    #[arg(long)]
    umount: Vec<PathBuf>,
    /// A network namespace of its own, where not even loopback is up
    #[arg(long)]
    net_ns: bool,
    /// Bring loopback up
    #[arg(long)]
    loopback: bool,
    /// Become this user and group, for good
    #[arg(long)]
    uid: Option<u32>,
    /// A user namespace of its own, as its root
    #[arg(long)]
    user_ns: bool,
    /// A pid namespace of its own, as its first process
    #[arg(long)]
    pid_ns: bool,
    /// The program to run, and its arguments
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

#[derive(Clone, Debug)]
struct Bind {
    source: PathBuf,
    target: PathBuf,
}

impl FromStr for Bind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (source, target) = text.split_once(':').ok_or("SOURCE:TARGET")?;
        Ok(Self {
            source: source.into(),
            target: target.into(),
        })
    }
}

impl Enter {
    pub(crate) fn run(self) -> Result<()> {
        self.mounts().context("mounts")?;
        if self.net_ns {
            unshare(UnshareFlags::NEWNET)?;
        }
        if self.loopback {
            loopback_up().context("loopback")?;
        }
        if let Some(id) = self.uid {
            become_user(id).context("user")?;
        }
        if self.user_ns {
            root_of_a_user_namespace().context("user namespace")?;
        }
        if let Some(root) = self.root.as_ref().or(self.chroot.as_ref()) {
            chroot(root)?;
            std::env::set_current_dir("/")?;
        }
        if self.pid_ns {
            unshare(UnshareFlags::NEWPID)?;
            // SAFETY: this process has one thread, so that its child may go on
            // as it would.
            let pid = unsafe { libc::fork() };
            ensure!(pid >= 0, std::io::Error::last_os_error());
            if pid > 0 {
                return wait_for(pid);
            }
        }
        let (program, arguments) = self.program.split_first().context("no program")?;
        Err(Command::new(program).args(arguments).exec())
            .with_context(|| format!("cannot run {}", program.display()))
    }

    fn mounts(&self) -> Result<()> {
        let roots = self.root.is_some() || self.container.is_some();
        let changes = roots || !self.bind.is_empty() || !self.umount.is_empty();
        if !self.mount_ns && !changes {
            return Ok(());
        }
        unshare(UnshareFlags::NEWNS)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)?;
        if let Some(root) = &self.container {
            contain(root).context("container")?;
        }
        if let Some(root) = &self.root {
            mount_bind_recursive("/", root)?;
        }
        for Bind { source, target } in &self.bind {
            mount_bind(source, self.below_root(target))?;
        }
        for path in &self.umount {
            unmount(self.below_root(path), UnmountFlags::DETACH)?;
        }
        Ok(())
    }

    fn below_root(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }
}

/// What programs need of the host, in a container that is given its root.
const SHARED: [&str; 4] = ["lib", "lib64", "usr/lib", "proc"];

/// Puts a directory in the place of the root of this mount namespace.
fn contain(root: &Path) -> Result<()> {
    mount_bind(root, root)?;
    for name in SHARED {
        let (outside, inside) = (Path::new("/").join(name), root.join(name));
        if outside.exists() {
            fs::create_dir_all(&inside)?;
            mount_bind_recursive(outside, inside)?;
        }
    }
    std::env::set_current_dir(root)?;
    match pivot_root(".", ".") {
        Ok(()) => unmount(".", UnmountFlags::DETACH)?,
        // The root is the kernel's own first one, which stays where it is.
        Err(Errno::INVAL) => {
            mount_move(".", "/")?;
            chroot(".")?;
        }
        Err(error) => bail!(error),
    }
    Ok(std::env::set_current_dir("/")?)
}

fn unshare(flags: UnshareFlags) -> Result<()> {
    // SAFETY: no descriptor table is unshared, so that no other thread (there
    // is none) can lose one.
    unsafe { unshare_unsafe(flags) }.with_context(|| format!("unshare {flags:?}"))
}

fn become_user(id: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // Else its own /proc/self belongs to root.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
}

fn root_of_a_user_namespace() -> Result<()> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    unshare(UnshareFlags::NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    Ok(())
}

fn loopback_up() -> Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let name = CString::new("lo")?;
    // SAFETY: an all-zero ifreq is one with an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, &from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which `request` is.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    ensure!(done == 0, std::io::Error::last_os_error());
    Ok(())
}

//! Which thread or process of a program acts.

use std::{ffi::OsString, fs, io::Read as _, os::unix::ffi::OsStrExt as _, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Flags of every program that acts.
#[derive(Debug, clap::Args)]
pub(crate) struct Acting {
    /// Who acts
    #[arg(long, value_enum, default_value = "leader")]
    by: By,
    /// Take this name first (PR_SET_NAME)
    #[arg(long)]
    comm: Option<OsString>,
    /// Move to a user and a mount namespace of its own first, without an exec
    #[arg(long)]
    move_away: bool,
    /// Wait for a byte on stdin before the act
    #[arg(long)]
    wait: bool,
    /// Wait for the end of stdin before closing
    #[arg(long)]
    hold: bool,
    /// Not looked at: arguments for their own sake
    #[arg(last = true)]
    ignored: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    /// The process itself
    Leader,
    /// A thread beside a leader that waits
    Thread,
    /// A thread whose leader has ended
    Orphan,
    /// A forked child that never calls exec
    Fork,
    /// A child of vfork, in its parent's memory
    Vfork,
}

impl Acting {
    /// Acts: `open` does it and returns what is to be kept open until the end.
    pub(crate) fn act<T>(&self, open: impl FnOnce() -> Result<T> + Send) -> Result<()>
    where
        T: Send,
    {
        let act = || -> Result<()> {
            if let Some(name) = &self.comm {
                let name = std::ffi::CString::new(name.as_bytes())?;
                rustix::thread::set_name(&name)?;
            }
            if self.move_away {
                let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS;
                // SAFETY: no descriptor table is unshared.
                unsafe { unshare_unsafe(flags) }?;
            }
            if self.wait {
                std::io::stdin().read_exact(&mut [0])?;
            }
            let opened = open()?;
            if self.hold {
                std::io::stdin().read_to_end(&mut Vec::new())?;
            }
            drop(opened);
            Ok(())
        };
        match self.by {
            By::Leader => act(),
            By::Thread => thread::scope(|scope| joined(scope.spawn(act).join())),
            By::Orphan => as_orphan(act),
            By::Fork => in_child(act, 0),
            By::Vfork => in_child(act, libc::CLONE_VM | libc::CLONE_VFORK),
        }
    }
}

fn joined(ended: thread::Result<Result<()>>) -> Result<()> {
    ended.unwrap_or_else(|_| bail!("the thread panicked"))
}

/// Acts in a thread after the leader has ended (and become a zombie), then
/// ends the process.
fn as_orphan(act: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    thread::scope(|scope| {
        scope.spawn(|| {
            let done = leader_has_ended().and_then(|()| act());
            if let Err(error) = &done {
                eprintln!("procid-testprog: {error:#}");
            }
            std::process::exit(i32::from(done.is_err()));
        });
        // SAFETY: exit(2) ends the calling thread only. What it owns is never
        // dropped, so what the other thread borrows stays until it ends the
        // process.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
        bail!("exit(2) returned")
    })
}

fn leader_has_ended() -> Result<()> {
    let pid = std::process::id();
    for _ in 0..1000 {
        let stat = fs::read_to_string(format!("/proc/self/task/{pid}/stat"))?;
        if stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
        {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    bail!("the leader still lives")
}

/// Acts in a child made by clone(2) with `flags`, and waits for it. fork and
/// vfork are clone: with a stack of its own, a child in its parent's memory
/// cannot harm the frames its parent returns to.
fn in_child<F: FnOnce() -> Result<()>>(act: F, flags: i32) -> Result<()> {
    extern "C" fn child<F: FnOnce() -> Result<()>>(argument: *mut libc::c_void) -> i32 {
        // SAFETY: `argument` is the address of `act` below, which lives until
        // this child has ended, and which nobody else looks at meanwhile.
        let act = unsafe { &mut *argument.cast::<Option<F>>() };
        let done = act.take().map_or(Ok(()), |act| act());
        if let Err(error) = &done {
            eprintln!("procid-testprog: {error:#}");
        }
        i32::from(done.is_err())
    }
    const STACK: usize = 1 << 20;
    let mut stack: Vec<u128> = Vec::with_capacity(STACK / size_of::<u128>());
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let mut act = Some(act);
    // SAFETY: the stack is ours, aligned, and outlives the child, as does
    // `act`: this process is single-threaded and waits for the child below (and,
    // with CLONE_VFORK, inside clone as well).
    let pid = unsafe {
        libc::clone(
            child::<F>,
            top.cast(),
            flags | libc::SIGCHLD,
            (&raw mut act).cast(),
        )
    };
    ensure!(pid > 0, std::io::Error::last_os_error());
    wait_for(pid)
}

/// Waits for a child and fails where it failed.
pub(crate) fn wait_for(pid: i32) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).context("no pid")?;
    let (_, status) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?
        .context("no child")?;
    ensure!(status.exit_status() == Some(0), "the child: {status:?}");
    Ok(())
}

//! The exec gate: a file's hash is known before the file runs.
//!
//! Where the kernel cannot hash inside execve(2), a rule that turns on a hash
//! would meet images that nobody has hashed yet. So each execve(2) on the
//! marked file systems waits (fanotify, `FAN_OPEN_EXEC_PERM`) until the file's
//! SHA-256 was [published](Gate::open) or the limit is over. The gate never
//! denies: what has no hash is for the policy to judge.
//!
//! ```text
//! kernel ──event──► watchdog ──file──► receiver ─► pool: hash, publish
//!    ▲                 │  ▲                          │
//!    └──────allow──────┘  └───────────allow──────────┘
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`watch`] | the watchdog, a process of its own |
//! | [`dead_man`] | what ends it should it stand still |
//! | [`link`] | what it and the agent say to each other |
//! | [`fanotify`] | the calls |
//! | [`mounts`] | which file systems |
//! | [`marker`] | the thread that has them marked, from when it is asked to |
//! | [`pool`] | the threads that hash |
//! | [`writers`] | whether anybody could still write to a file |
//!
//! What it does not reach: a memfd, which belongs to no file system that can
//! be marked; a file system mounted a moment ago, or in another mount
//! namespace only; what an execution was let go on without (see [`Counts`]).

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use procid_common::image::FileState;
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, shutdown, socketpair,
};

use crate::identity::hash::Inspect;

mod dead_man;
mod fanotify;
mod link;
mod marker;
mod mounts;
mod pool;
pub mod watch;
mod writers;

pub use mounts::Marks;

use fanotify::Group;
use link::{News, Order, news, order};
use marker::Commands;
use pool::{Bounds, Intake, Pool};

/// The hidden command that a program with a gate runs [`watch::run`] as.
pub const WATCH: &str = "gate-watch";

/// Longest wait for the watchdog to mark a file system, and for its end.
const WATCHDOG_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for the end of one that is killed.
const KILL_LIMIT: Duration = Duration::from_secs(1);

/// Bounds of a gate.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Threads that hash; at least one is started.
    pub threads: usize,
    /// Longest that an execution waits. A read starts in its first half or not
    /// at all.
    pub limit: Duration,
    /// Bytes of the largest file that is read.
    pub size_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 4,
            limit: Duration::from_secs(1),
            size_max: 512 << 20,
        }
    }
}

/// What a gate has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Executions that asked; an interpreter or a loader asks for itself.
    pub events: u64,
    /// Files read, hashed and published.
    pub hashed: u64,
    /// Executions of a state hashed before, published again.
    pub cached: u64,
    /// Let go on without a hash: too large, or content that the kernel does not
    /// control.
    pub skipped: u64,
    /// The same: the file had a writer, changed while it was read, or could not
    /// be read in time.
    pub unproven: u64,
    /// The same: no answer within the limit.
    pub timed_out: u64,
    /// The same: too many waited already.
    pub passed: u64,
    /// Times that the kernel's queue was full; it then asks about nothing.
    pub overflows: u64,
    /// Executions that the kernel denied because it could not open their file
    /// for the watchdog.
    pub unopened: u64,
    /// File systems that programs could be run from and that are not marked.
    pub unmarked: u64,
}

/// A gate. Dropping it lets all that wait go on.
pub struct Gate {
    shared: Arc<Shared>,
    pool: Option<Pool>,
    watchdog: Child,
    marker: Option<Commands>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    socket: OwnedFd,
    /// What the watchdog last said of itself.
    told: Mutex<link::Tally>,
    unmarked: AtomicU64,
    open: AtomicBool,
}

/// Whether this kernel has permission events on executions.
///
/// # Errors
///
/// Of fanotify_init(2) and fanotify_mark(2).
pub fn probe() -> io::Result<()> {
    let group = Group::new()?;
    // A mark that meets nobody: no program lies on sysfs. (procfs refuses it.)
    let place = std::fs::File::open("/sys/kernel")?;
    group.mark(place.as_fd())
}

impl Gate {
    /// Makes a gate, which stands before nothing until it is told to
    /// [`watch`](Self::watch).
    ///
    /// `publish` gets each inode state with the SHA-256 of its content, and the
    /// file, before the execution that asked goes on; for one state often more than once,
    /// and from several threads. It must not wait for anything that might
    /// execute a program.
    ///
    /// This thread needs `CAP_SYS_ADMIN`, `CAP_SYS_PTRACE` (for the mounts of
    /// the first process), `CAP_DAC_READ_SEARCH` and `CAP_LEASE`; the gate's own
    /// threads keep what it has.
    ///
    /// # Errors
    ///
    /// fanotify refused, a watchdog or a thread that does not start.
    pub fn open(
        config: Config,
        inspect: Arc<dyn Inspect>,
        publish: impl Fn(&FileState, &[u8; 32], BorrowedFd<'_>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (socket, watchdog) = start_watchdog(config.limit)?;
        let shared = Arc::new(Shared {
            socket,
            told: Mutex::default(),
            unmarked: AtomicU64::new(0),
            open: AtomicBool::new(true),
        });
        // From here on, dropping it cleans up.
        let mut gate = Self {
            shared,
            pool: None,
            watchdog,
            marker: None,
            threads: Vec::new(),
        };
        let link = Arc::clone(&gate.shared);
        let bounds = Bounds {
            threads: config.threads,
            patience: config.limit / 2,
            size_max: config.size_max,
        };
        let allow = Box::new(move |number| link.order(order::ALLOW, number));
        let pool = Pool::new(bounds, inspect, Box::new(publish), allow)?;
        let intake = pool.intake();
        gate.pool = Some(pool);

        let (marked, answers) = sync_channel(1);
        let shared = Arc::clone(&gate.shared);
        gate.spawn("procid-gate", move || shared.receive(&intake, &marked))?;

        let (commands, marker) = marker::new(Arc::clone(&gate.shared), answers)?;
        gate.marker = Some(commands);
        gate.spawn("procid-gate-marks", move || marker.run())?;
        Ok(gate)
    }

    /// Stands before the file systems of `marks` from now on; before no others.
    ///
    /// # Errors
    ///
    /// A mount table that cannot be read, a file system of [`Marks::Only`] that
    /// cannot be marked, a watchdog that has ended.
    pub fn watch(&self, marks: Marks) -> io::Result<()> {
        self.command(Some(marks))
    }

    /// Stands before none.
    ///
    /// # Errors
    ///
    /// A watchdog that has ended, and then stands before none.
    pub fn rest(&self) -> io::Result<()> {
        self.command(None)
    }

    fn command(&self, marks: Option<Marks>) -> io::Result<()> {
        if !self.is_open() {
            return Err(io::Error::other("the exec gate's watchdog has ended"));
        }
        match &self.marker {
            Some(marker) => marker.command(marks),
            None => Err(io::Error::other("the exec gate is closed")),
        }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        let told = *self.shared.told();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let pool = self.pool.as_ref().map(Pool::tally);
        let of_pool =
            |field: fn(&pool::Tally) -> &AtomicU64| pool.map_or(0, |pool| read(field(pool)));
        Counts {
            events: told.events,
            hashed: of_pool(|pool| &pool.hashed),
            cached: of_pool(|pool| &pool.cached),
            skipped: of_pool(|pool| &pool.skipped),
            unproven: of_pool(|pool| &pool.unproven),
            timed_out: told.timed_out,
            passed: told.passed,
            overflows: told.overflows,
            unopened: told.unopened,
            unmarked: read(&self.shared.unmarked),
        }
    }

    /// The watchdog's process.
    pub fn watchdog(&self) -> u32 {
        self.watchdog.id()
    }

    /// Whether the watchdog still stands. Without it nothing is held up and
    /// nothing hashed; open another gate then.
    pub fn is_open(&self) -> bool {
        self.shared.open.load(Ordering::Relaxed)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.open.store(false, Ordering::Relaxed);
        // The watchdog ends, and so does the receiver. Fails when it had ended.
        let _ = shutdown(&self.shared.socket, Shutdown::Both);
        self.marker = None;
        if !has_ended(&mut self.watchdog, WATCHDOG_LIMIT) {
            let _gone = self.watchdog.kill();
            // It may wait in the kernel for what no signal ends.
            has_ended(&mut self.watchdog, KILL_LIMIT);
        }
        self.pool = None;
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

fn has_ended(child: &mut Child, within: Duration) -> bool {
    let start = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if start.elapsed() > within {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("watchdog", &self.watchdog.id())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// Starts the watchdog and gives it the group, which this process then has no
/// more.
fn start_watchdog(limit: Duration) -> io::Result<(OwnedFd, Child)> {
    let group = Group::new().map_err(|error| {
        io::Error::new(error.kind(), format!("fanotify refuses a group: {error}"))
    })?;
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let watchdog = Command::new("/proc/self/exe")
        .arg(WATCH)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| {
            let message = format!("cannot start the exec gate's watchdog: {error}");
            io::Error::new(error.kind(), message)
        })?;
    let start = Order {
        kind: order::START,
        value: u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX),
    };
    match link::send(ours.as_fd(), &start, Some(group.as_fd())) {
        Ok(()) => Ok((ours, watchdog)),
        Err(errno) => {
            let mut watchdog = watchdog;
            drop(ours);
            let _status = watchdog.wait();
            Err(errno.into())
        }
    }
}

impl Shared {
    fn told(&self) -> std::sync::MutexGuard<'_, link::Tally> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An order that gets lost is made up for: the watchdog allows by itself.
    fn order(&self, kind: u64, value: u64) {
        let sent = link::send(self.socket.as_fd(), &Order { kind, value }, None);
        if let Err(error) = sent
            && self.open.load(Ordering::Relaxed)
        {
            tracing::debug!(%error, "the exec gate's watchdog takes no order");
        }
    }

    /// Takes the watchdog's news until it is gone.
    fn receive(&self, intake: &Intake, marked: &SyncSender<u64>) {
        loop {
            let (news, file) = match link::receive::<News>(&self.socket, RecvFlags::empty()) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the exec gate's watchdog cannot be heard");
                    break;
                }
            };
            *self.told() = news.tally;
            match (news.kind, file) {
                (news::WAITS, Some(file)) => intake.take(news.value, file),
                // This process has no descriptor left.
                (news::WAITS, None) => self.order(order::ALLOW, news.value),
                (news::MARKED, _) => {
                    // Fails when the marker has stopped waiting for it.
                    let _late = marked.try_send(news.value);
                }
                _ => {}
            }
        }
        if self.open.swap(false, Ordering::Relaxed) {
            tracing::error!("the exec gate's watchdog has ended: programs run unhashed");
        }
        // Should this side have ended first, the other must not wait for it.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

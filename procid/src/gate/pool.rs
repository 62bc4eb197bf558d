//! The files of waiting executions: hashed, published, answered.
//!
//! What waits for a time (a ctime that is not stable yet, a writer that is
//! about to close) waits in the queue, not in a thread. Executions of one
//! inode state share one read.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use procid_common::image::{FileState, flags};

use super::writers::{self, Writers};
use crate::identity::hash::{
    Inspect, Inspected,
    cache::Cache,
    open::is_untrusted,
    read::{self, sha256},
    settle::{Offset, Rules, boot_now_ns},
};

/// How long a writer is given to close before it is looked for again.
const WRITER_PAUSE: Duration = Duration::from_millis(2);

/// Takes a state, the hash of its content, and a file that has it.
pub(super) type Publish = Box<dyn Fn(&FileState, &[u8; 32], BorrowedFd<'_>) + Send + Sync>;
/// Lets the execution of that number go on.
pub(super) type Allow = Box<dyn Fn(u64) + Send + Sync>;

/// Bounds of a [`Pool`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) threads: usize,
    /// Longest from the event to the start of the read.
    pub(super) patience: Duration,
    /// Bytes of the largest file that is read.
    pub(super) size_max: u64,
}

/// What became of the executions that the pool was asked about.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) hashed: AtomicU64,
    pub(super) cached: AtomicU64,
    /// Too large, or on a file system whose content the kernel does not control.
    pub(super) skipped: AtomicU64,
    /// Not hashed in time, changed while it was read, or with a writer.
    pub(super) unproven: AtomicU64,
}

pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The pool, for who brings it work.
#[derive(Clone)]
pub(super) struct Intake(Arc<Shared>);

struct Shared {
    bounds: Bounds,
    rules: Rules,
    inspect: Arc<dyn Inspect>,
    publish: Publish,
    allow: Allow,
    state: Mutex<State>,
    work: Condvar,
    stop: AtomicBool,
    tally: Tally,
}

#[derive(Default)]
struct State {
    cache: Cache,
    jobs: HashMap<FileState, Job>,
    /// States to read, by the time from which they may be.
    queue: BTreeMap<(Instant, u64), FileState>,
    queued: u64,
}

/// One inode state, and who waits for its hash.
struct Job {
    file: Arc<OwnedFd>,
    flags: u32,
    deadline: Instant,
    waiting: Vec<u64>,
}

/// Where one look at a job ended.
enum Outcome {
    Hashed([u8; 32]),
    Unproven,
    Later(Duration),
}

impl Pool {
    pub(super) fn new(
        bounds: Bounds,
        inspect: Arc<dyn Inspect>,
        publish: Publish,
        allow: Allow,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            bounds,
            rules: Rules::of_this_host(),
            inspect,
            publish,
            allow,
            state: Mutex::default(),
            work: Condvar::new(),
            stop: AtomicBool::new(false),
            tally: Tally::default(),
        });
        let mut pool = Self {
            shared,
            threads: Vec::with_capacity(bounds.threads),
        };
        for number in 0..bounds.threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new()
                .name(format!("procid-gate-{number}"))
                .spawn(move || shared.work())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    pub(super) fn intake(&self) -> Intake {
        Intake(Arc::clone(&self.shared))
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.shared.tally
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Whoever holds the lock has not yet looked at `stop`, or waits.
        drop(self.shared.state());
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("bounds", &self.shared.bounds)
            .field("tally", &self.shared.tally)
            .finish_non_exhaustive()
    }
}

impl Intake {
    /// Takes an execution, by number, and the file that it is of.
    pub(super) fn take(&self, number: u64, file: OwnedFd) {
        let shared = &*self.0;
        let Ok(Inspected {
            file: seen,
            fs_magic,
            flags,
        }) = shared.inspect.inspect(file.as_fd())
        else {
            return shared.give_up(&shared.tally.unproven, number);
        };
        if is_untrusted(fs_magic) || seen.size > shared.bounds.size_max {
            return shared.give_up(&shared.tally.skipped, number);
        }
        let mut state = shared.state();
        if let Some(sha256) = state.cache.get(&seen) {
            drop(state);
            count(&shared.tally.cached);
            // Again: who keeps what is published may have made room meanwhile.
            (shared.publish)(&seen, &sha256, file.as_fd());
            return (shared.allow)(number);
        }
        if let Some(job) = state.jobs.get_mut(&seen) {
            job.waiting.push(number);
            return;
        }
        let pause = shared.until_stable(&seen, flags);
        if pause > shared.bounds.patience {
            drop(state);
            return shared.give_up(&shared.tally.unproven, number);
        }
        let now = Instant::now();
        let job = Job {
            file: Arc::new(file),
            flags,
            deadline: now + shared.bounds.patience,
            waiting: vec![number],
        };
        state.jobs.insert(seen, job);
        state.enqueue(now + pause, seen);
        drop(state);
        shared.work.notify_one();
    }
}

impl Shared {
    fn work(&self) {
        let mut buffer = vec![0; read::CHUNK];
        while let Some((seen, file, flags, deadline)) = self.next() {
            let outcome = self.look(&seen, &file, flags, deadline, &mut buffer);
            let mut state = self.state();
            if let Outcome::Later(pause) = outcome {
                state.enqueue(deadline.min(Instant::now() + pause), seen);
                continue;
            }
            let waiting = state.jobs.remove(&seen).map(|job| job.waiting);
            if let Outcome::Hashed(sha256) = outcome {
                state.cache.put(seen, sha256);
                drop(state);
                count(&self.tally.hashed);
                (self.publish)(&seen, &sha256, file.as_fd());
            } else {
                drop(state);
                count(&self.tally.unproven);
            }
            waiting.into_iter().flatten().for_each(&self.allow);
        }
    }

    /// The next file whose time has come; `None` when the pool is to stop.
    fn next(&self) -> Option<(FileState, Arc<OwnedFd>, u32, Instant)> {
        let mut state = self.state();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let now = Instant::now();
            let pause = match state.queue.first_entry() {
                Some(first) if first.key().0 <= now => {
                    let seen = first.remove();
                    match state.jobs.get(&seen) {
                        Some(job) => {
                            return Some((seen, Arc::clone(&job.file), job.flags, job.deadline));
                        }
                        None => continue,
                    }
                }
                Some(first) => Some(first.key().0 - now),
                None => None,
            };
            state = match pause {
                Some(pause) => {
                    let waited = self.work.wait_timeout(state, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.work.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Hashes one file, if it can be told that what is read is what will run.
    fn look(
        &self,
        seen: &FileState,
        file: &OwnedFd,
        flags: u32,
        deadline: Instant,
        buffer: &mut [u8],
    ) -> Outcome {
        if Instant::now() >= deadline {
            return Outcome::Unproven;
        }
        let pause = self.until_stable(seen, flags);
        if !pause.is_zero() {
            return Outcome::Later(pause);
        }
        match writers::of(file.as_fd()) {
            Ok(Writers::None) => {}
            Ok(Writers::Some) => return Outcome::Later(WRITER_PAUSE),
            Ok(Writers::Unknown) | Err(_) => return Outcome::Unproven,
        }
        match sha256(&*self.inspect, file, seen, buffer, &self.stop) {
            Ok(sha256) => Outcome::Hashed(sha256),
            Err(_) => Outcome::Unproven,
        }
    }

    /// How long a write to the file could still leave its ctime as it is.
    fn until_stable(&self, seen: &FileState, state_flags: u32) -> Duration {
        if state_flags & flags::CTIME_QUERIED != 0 {
            return Duration::ZERO;
        }
        let now = Offset::now().to_real(boot_now_ns());
        let left = self.rules.stable_ns(seen).saturating_sub(now);
        Duration::from_nanos(u64::try_from(left).unwrap_or(0))
    }

    fn give_up(&self, tally: &AtomicU64, number: u64) {
        count(tally);
        (self.allow)(number);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enqueue(&mut self, due: Instant, seen: FileState) {
        self.queue.insert((due, self.queued), seen);
        self.queued += 1;
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;

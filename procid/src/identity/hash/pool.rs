//! The threads that hash, their queue, and the answers.
//!
//! One question goes in for each image, one answer comes out. Questions for
//! the same inode state wait for one read. No read starts before its file's
//! ctime is stable (see [`super::settle`]); until then the question waits in
//! the queue, not in a thread.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt, mem,
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use procid_common::image::{FileState, ImageId, flags};

use super::{
    Answer, FileHash, Grade, Inspect, Missing, Request,
    cache::Cache,
    open::{Opener, is_running, is_untrusted},
    parked::{Fate, Parked, Waiting, fate_of_ended},
    read::{self, sha256},
    settle::{Offset, Rules, Standing, boot_now_ns},
};
use crate::identity::quiet;

/// Longest that a read is put off until a ctime is stable. Beyond it lie only
/// files that were changed "in the future", by another clock.
const PUT_OFF_MAX_NS: u64 = 3_000_000_000;
/// Longest that a hash waits for word that its image was alive.
const PARK_MAX_NS: u64 = 5_000_000_000;

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Threads; at least one is started.
    pub threads: usize,
    /// Bytes of the largest file that is read.
    pub size_max: u64,
    /// Most questions that wait for an answer.
    pub queue_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 2,
            size_max: 4 << 30,
            queue_max: 65_536,
        }
    }
}

/// Hashes files. Dropping it stops its threads; what waits then gets no answer.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    config: Config,
    rules: Rules,
    inspector: Arc<dyn Inspect>,
    opener: Opener,
    answers: Sender<Answer>,
    state: Mutex<State>,
    work: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    cache: Cache,
    /// Questions that wait for an answer, the parked ones included.
    jobs: HashMap<ImageId, Job>,
    /// Images that wait for a read of that state to start.
    waiting: HashMap<FileState, Vec<ImageId>>,
    /// States to read, by the time (boot clock) from which they may be.
    queue: BTreeMap<(u64, u64), FileState>,
    queued: u64,
    /// States being read.
    reading: HashSet<FileState>,
    parked: Parked,
    refused: u64,
}

struct Job {
    request: Request,
    /// The least seen since the question came.
    offset: Offset,
    ended_ns: Option<u64>,
}

impl Pool {
    pub fn new(inspector: Arc<dyn Inspect>, threads: usize, answers: Sender<Answer>) -> Self {
        let config = Config {
            threads,
            ..Config::default()
        };
        Self::with_config(inspector, config, answers)
    }

    /// A pool with other bounds.
    pub fn with_config(
        inspector: Arc<dyn Inspect>,
        config: Config,
        answers: Sender<Answer>,
    ) -> Self {
        let shared = Arc::new(Shared {
            config,
            rules: Rules::of_this_host(),
            inspector,
            opener: Opener::of_this_process(),
            answers,
            state: Mutex::default(),
            work: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let threads = (0..config.threads.max(1))
            .filter_map(|number| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("procid-hash-{number}"))
                    .spawn(move || shared.work())
                    .inspect_err(|error| tracing::error!(%error, "no thread for hashing"))
                    .ok()
            })
            .collect();
        Self { shared, threads }
    }

    /// The answer, where it is known without opening anything.
    pub fn lookup(&self, request: &Request) -> Option<FileHash> {
        let mut state = self.shared.state();
        self.shared.immediate(&mut state, request, Offset::now())
    }

    /// Asks; the answer comes by the channel, once for each image.
    pub fn submit(&self, request: Request) {
        let shared = &self.shared;
        let offset = Offset::now();
        let now_ns = boot_now_ns();
        let mut state = shared.state();
        if state.jobs.contains_key(&request.id) {
            return;
        }
        if let Some(hash) = shared.immediate(&mut state, &request, offset) {
            shared.answer(request.id, hash);
            return;
        }
        let due_ns = shared.rules.read_from_ns(&request, offset).max(now_ns);
        if due_ns - now_ns > PUT_OFF_MAX_NS {
            shared.answer(request.id, FileHash::None(Missing::Unsettled));
            return;
        }
        if state.jobs.len() >= shared.config.queue_max {
            state.refused += 1;
            shared.answer(request.id, FileHash::None(Missing::Pending));
            return;
        }
        let (id, file) = (request.id, request.file);
        state.jobs.insert(
            id,
            Job {
                request,
                offset,
                ended_ns: None,
            },
        );
        let waiting = state.waiting.entry(file).or_default();
        waiting.push(id);
        if waiting.len() == 1 && !state.reading.contains(&file) {
            state.enqueue(due_ns, file);
            drop(state);
            shared.work.notify_one();
        }
    }

    /// An image has ended: its process exited, or called exec.
    pub fn exited(&self, id: ImageId, at_boot_ns: u64) {
        let mut state = self.shared.state();
        state.parked.told(at_boot_ns);
        if let Some((waiting, fate)) = state.parked.ended(&id, at_boot_ns) {
            self.shared.settle(&mut state, id, &waiting, fate);
        } else if let Some(job) = state.jobs.get_mut(&id) {
            job.ended_ns = Some(at_boot_ns);
        }
        self.shared.settle_decided(&mut state);
    }

    /// Every event up to this time has been told: there was no other end of an
    /// image. To be called whenever the ring was found empty, with the time
    /// before it was; without it, fresh files wait for the next event.
    pub fn caught_up(&self, boot_ns: u64) {
        let mut state = self.shared.state();
        state.parked.told(boot_ns);
        self.shared.settle_decided(&mut state);
    }

    /// Questions that wait for an answer.
    pub fn queue_len(&self) -> usize {
        self.shared.state().jobs.len()
    }

    /// Questions answered "pending" because the queue was full.
    pub fn refused(&self) -> u64 {
        self.shared.state().refused
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Under the lock, so that no thread is between its look at it and its
        // wait.
        let state = self.shared.state();
        self.shared.stop.store(true, Ordering::Relaxed);
        drop(state);
        self.shared.work.notify_all();
        for thread in mem::take(&mut self.threads) {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.shared.config)
            .field("queue_len", &self.queue_len())
            .finish_non_exhaustive()
    }
}

impl State {
    fn enqueue(&mut self, due_ns: u64, file: FileState) {
        self.queued += 1;
        self.queue.insert((due_ns, self.queued), file);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: ImageId, hash: FileHash) {
        // Nobody listens any more: the pool is about to be dropped.
        let _ = self.answers.send(Answer { id, hash });
    }

    fn immediate(&self, state: &mut State, request: &Request, offset: Offset) -> Option<FileHash> {
        if request.flags & (flags::KTHREAD | flags::NO_EXE) != 0 {
            return Some(FileHash::None(Missing::NoFile));
        }
        if is_untrusted(request.fs_magic) {
            return Some(FileHash::None(Missing::UntrustedFs));
        }
        if request.file.size > self.config.size_max {
            return Some(FileHash::None(Missing::TooLarge));
        }
        match self.rules.judge(request, offset) {
            Standing::Settled => state.cache.get(&request.file).map(verified),
            Standing::IfAliveAt(_) => None,
            Standing::Unsettled => Some(FileHash::None(Missing::Unsettled)),
        }
    }

    /// A thread's life.
    fn work(&self) {
        let mut buffer = vec![0; read::CHUNK];
        while let Some(file) = self.next() {
            let batch = self.take(&file);
            let outcome = self.read(&file, &batch, &mut buffer);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.finish(&file, &batch, &outcome);
        }
    }

    /// Waits for a state to read, and marks it as being read; `None`: stop.
    fn next(&self) -> Option<FileState> {
        let mut state = self.state();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            self.settle_decided(&mut state);
            let now_ns = boot_now_ns();
            let due_ns = state.queue.first_key_value().map(|((due, _), _)| *due);
            let wait_ns = match due_ns {
                Some(due_ns) if due_ns <= now_ns => {
                    let (_, file) = state.queue.pop_first()?;
                    state.reading.insert(file);
                    return Some(file);
                }
                Some(due_ns) => due_ns - now_ns,
                None => u64::MAX,
            };
            // The parked are given up by whichever thread looks next.
            let wait_ns = if state.parked.is_empty() {
                wait_ns
            } else {
                wait_ns.min(PARK_MAX_NS / 10)
            };
            state = self
                .work
                .wait_timeout(state, Duration::from_nanos(wait_ns))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The questions that wait for this state. All their execs came before the
    /// read that follows, so that it can speak for all of them.
    fn take(&self, file: &FileState) -> Vec<Request> {
        let mut state = self.state();
        let ids = state.waiting.remove(file).unwrap_or_default();
        ids.iter()
            .filter_map(|id| Some(state.jobs.get(id)?.request.clone()))
            .collect()
    }

    /// The content's hash, or for each question why it cannot be had.
    fn read(
        &self,
        file: &FileState,
        batch: &[Request],
        buffer: &mut [u8],
    ) -> Result<[u8; 32], Vec<Missing>> {
        if let Some(sha256) = self.state().cache.get(file) {
            return Ok(sha256);
        }
        let fd = self.open_any(batch)?;
        sha256(&*self.inspector, &fd, file, buffer, &self.stop)
            .map_err(|missing| vec![missing; batch.len()])
    }

    fn open_any(&self, batch: &[Request]) -> Result<OwnedFd, Vec<Missing>> {
        let mut reasons = Vec::with_capacity(batch.len());
        for request in batch {
            match self.opener.open(&*self.inspector, request) {
                // An overlay's content is that of what it lies on.
                Ok(fd)
                    if request.flags & flags::OVERLAY != 0
                        && quiet::is_foreign(&fd, request.id.tgid) =>
                {
                    reasons.push(Missing::UntrustedFs);
                }
                Ok(fd) => return Ok(fd),
                Err(missing) => reasons.push(missing),
            }
        }
        Err(reasons)
    }

    fn finish(
        &self,
        file: &FileState,
        batch: &[Request],
        outcome: &Result<[u8; 32], Vec<Missing>>,
    ) {
        match outcome {
            Ok(sha256) => {
                for request in batch {
                    self.conclude(request, *sha256);
                }
            }
            Err(reasons) => {
                let mut state = self.state();
                for (request, missing) in batch.iter().zip(reasons) {
                    state.jobs.remove(&request.id);
                    self.answer(request.id, FileHash::None(*missing));
                }
            }
        }
        let mut state = self.state();
        state.reading.remove(file);
        if state.waiting.contains_key(file) {
            state.enqueue(boot_now_ns(), *file);
            drop(state);
            self.work.notify_one();
        }
    }

    /// Judges one exec of a state whose content is known now.
    fn conclude(&self, request: &Request, sha256: [u8; 32]) {
        let offset = {
            let state = self.state();
            let Some(job) = state.jobs.get(&request.id) else {
                return;
            };
            job.offset.min(Offset::now())
        };
        let standing = self.rules.judge(request, offset);
        let alive_at_ns = match standing {
            Standing::IfAliveAt(alive_at_ns) => alive_at_ns,
            Standing::Settled | Standing::Unsettled => 0,
        };
        let seen_running = alive_at_ns > 0
            && boot_now_ns() >= alive_at_ns
            && is_running(&*self.inspector, request);
        let now_ns = boot_now_ns();
        let waiting = Waiting {
            file: request.file,
            sha256,
            alive_at_ns,
            seen_running,
            give_up_ns: now_ns.saturating_add(PARK_MAX_NS),
        };

        let mut state = self.state();
        let ended_ns = state.jobs.get(&request.id).and_then(|job| job.ended_ns);
        match (standing, ended_ns) {
            (Standing::Settled, _) => {
                self.settle(&mut state, request.id, &waiting, Fate::Settled);
            }
            (Standing::Unsettled, _) => {
                self.settle(&mut state, request.id, &waiting, Fate::Unsettled);
            }
            (Standing::IfAliveAt(alive_at_ns), Some(ended_ns)) => {
                let fate = fate_of_ended(alive_at_ns, ended_ns);
                self.settle(&mut state, request.id, &waiting, fate);
            }
            (Standing::IfAliveAt(_), None) => {
                state.parked.park(request.id, waiting);
                self.settle_decided(&mut state);
            }
        }
    }

    fn settle_decided(&self, state: &mut State) {
        if state.parked.is_empty() {
            return;
        }
        for (id, waiting, fate) in state.parked.decided(boot_now_ns()) {
            self.settle(state, id, &waiting, fate);
        }
    }

    fn settle(&self, state: &mut State, id: ImageId, waiting: &Waiting, fate: Fate) {
        state.jobs.remove(&id);
        let hash = match fate {
            Fate::Settled => {
                state.cache.put(waiting.file, waiting.sha256);
                verified(waiting.sha256)
            }
            Fate::Unsettled => FileHash::None(Missing::Unsettled),
        };
        self.answer(id, hash);
    }
}

fn verified(sha256: [u8; 32]) -> FileHash {
    FileHash::Known {
        sha256,
        grade: Grade::Verified,
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;

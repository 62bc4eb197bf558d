//! The thread that writes.
//!
//! Facts are gathered for [`BATCH_TIME`] or until the batch is full, and
//! written in one transaction. What cannot be written is held and tried again;
//! beyond [`HELD_MAX`] facts it is dropped, and the gap is written once writing
//! is possible.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::ErrorCode;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::{
    batch::Batch,
    bounds::{Bounds, Limits},
    fact::{Fact, Gap, Run},
    feed::{Feed, Message, Shared, now},
    file::{self, FILE, FileError},
    store::Store,
};
use crate::identity::hash::settle::boot_now_ns;

/// Longest time from a fact to its row.
pub const BATCH_TIME: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Facts that are held while nothing can be written.
pub const HELD_MAX: usize = 16_384;

/// The writer's thread; it ends with its [`Feed`].
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

impl Writer {
    /// Waits until all that was handed over is written, or cannot be. Its
    /// [`Feed`] is dropped before.
    pub fn finish(self) {
        if self.0.join().is_err() {
            tracing::error!("the history's thread has failed");
        }
    }
}

/// Starts to write one run's history.
///
/// # Errors
///
/// Of making the thread. What is wrong with the file is said by
/// [`Feed::state`].
pub fn start(state_dir: PathBuf, run: Run, limits: Limits) -> io::Result<(Feed, Writer)> {
    let (sender, receiver) = channel();
    let shared = Arc::new(Shared::default());
    let feed = Feed::new(sender, Arc::clone(&shared));
    let work = Work {
        state_dir,
        run,
        shared,
        open: None,
        bounds: Bounds::new(limits),
        batch: Batch::default(),
        gaps: Vec::new(),
        dropped: None,
        due: Instant::now(),
        is_troubled: false,
        is_over: false,
    };
    let thread = thread::Builder::new()
        .name("procid-history".to_owned())
        .spawn(move || work.run(&receiver))?;
    Ok((feed, Writer(thread)))
}

struct Work {
    state_dir: PathBuf,
    run: Run,
    shared: Arc<Shared>,
    open: Option<(Store, File)>,
    bounds: Bounds,
    batch: Batch,
    /// To be written with the batch.
    gaps: Vec<Gap>,
    /// What is being dropped.
    dropped: Option<Gap>,
    /// When the batch is to be written, or tried again.
    due: Instant,
    /// The last try failed.
    is_troubled: bool,
    /// It is useless to try again.
    is_over: bool,
}

impl Work {
    fn run(mut self, receiver: &Receiver<Message>) {
        give_up();
        self.flush();
        loop {
            let wait = self.due.saturating_duration_since(Instant::now());
            let message = match receiver.recv_timeout(wait) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match message {
                Some(Message::Facts(facts)) => self.take(facts),
                Some(Message::Gap(gap)) => self.gaps.push(gap),
                None => {}
            }
            let is_due = Instant::now() >= self.due;
            let is_asked = !self.batch.waiting.is_empty();
            if is_due || (!self.is_troubled && (self.batch.is_full() || is_asked)) {
                self.flush();
            }
            if is_asked {
                // Nobody waits for a disk that is full.
                self.batch.answer();
            }
        }
        self.flush();
    }

    fn take(&mut self, facts: Vec<Fact>) {
        self.shared.queued.fetch_sub(facts.len(), Ordering::Relaxed);
        for fact in facts {
            if let Fact::Clock(offset) = &fact {
                self.run.offset = *offset;
            }
            if self.batch.len() < HELD_MAX || !fact.takes_room() {
                self.batch.put(fact);
                if self.batch.is_full() && !self.is_troubled {
                    self.flush();
                }
            } else {
                self.drop_one();
            }
        }
    }

    fn drop_one(&mut self) {
        let now = now();
        let cause = self.shared.with(|state| {
            state.missed += 1;
            state.trouble.clone()
        });
        let gap = self.dropped.get_or_insert_with(|| Gap {
            from: Some(now),
            to: now,
            count: Some(0),
            cause: cause.unwrap_or_else(|| "not written".to_owned()),
        });
        gap.to = now;
        gap.count = gap.count.map(|count| count + 1);
    }

    /// Writes the batch, if that is possible now.
    fn flush(&mut self) {
        self.due = Instant::now() + BATCH_TIME;
        let flushed = self.try_flush();
        self.is_troubled = flushed.is_err();
        if let Err(trouble) = flushed {
            self.due = Instant::now() + RETRY;
            let is_new = self.shared.with(|state| {
                let is_new = state.trouble.as_ref() != Some(&trouble);
                state.trouble = Some(trouble.clone());
                is_new
            });
            if is_new {
                tracing::error!("{trouble}");
            }
        }
    }

    fn try_flush(&mut self) -> Result<(), String> {
        if self.is_over {
            return Err(self
                .shared
                .with(|state| state.trouble.clone().unwrap_or_default()));
        }
        if self.open.is_none() {
            self.open()?;
        }
        let Some((store, _)) = &mut self.open else {
            return Ok(());
        };
        let gaps: Vec<Gap> = self.gaps.iter().chain(&self.dropped).cloned().collect();
        if self.batch.is_empty() && gaps.is_empty() {
            return store
                .bound(&mut self.bounds)
                .map_err(|error| sentence(&error));
        }
        match store.write(&self.batch, &gaps, boot_now_ns()) {
            Ok(()) => {}
            Err(error) if file::is_damage(&error) => {
                self.start_anew(&error);
                return Err(sentence(&error));
            }
            Err(error) => return Err(sentence(&error)),
        }
        let written = self.batch.facts();
        if !gaps.is_empty() {
            // Images may have been among what was dropped.
            self.shared.wants_images.store(true, Ordering::Relaxed);
            self.gaps.clear();
            self.dropped = None;
        }
        self.batch.clear();
        let bounded = store.bound(&mut self.bounds);
        let (size, removed) = (self.bounds.size(), self.bounds.removed());
        self.shared.with(|state| {
            if bounded.is_ok() && state.trouble.take().is_some() {
                tracing::info!("the history is written again");
            }
            state.written += written;
            state.size = size;
            state.removed = removed;
        });
        bounded.map_err(|error| sentence(&error))
    }

    fn open(&mut self) -> Result<(), String> {
        let opened = file::open(&self.state_dir).map_err(|error| {
            self.is_over = matches!(error, FileError::Newer { .. });
            format!("the history cannot be written: {error}")
        })?;
        self.gaps.extend(opened.gap);
        let store = Store::new(opened.database, &self.run).map_err(|error| sentence(&error))?;
        self.open = Some((store, opened.lock));
        let path = self.state_dir.join(FILE).display().to_string();
        self.shared.with(|state| state.file = Some(path));
        Ok(())
    }

    /// A damaged file is left at once.
    fn start_anew(&mut self, error: &rusqlite::Error) {
        self.open = None;
        match file::set_aside(&self.state_dir.join(FILE), &error.to_string()) {
            Ok(gap) => {
                self.gaps.push(gap);
                self.shared.wants_images.store(true, Ordering::Relaxed);
                self.due = Instant::now();
            }
            Err(error) => tracing::error!("{error}"),
        }
    }
}

/// The files are its user's own: no capability is needed.
fn give_up() {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    if let Err(error) = set_capabilities(None, sets) {
        tracing::error!("the history's thread keeps its capabilities: {error}");
    }
}

/// What cannot be written, and what to do.
fn sentence(error: &rusqlite::Error) -> String {
    let remedy = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "disk full: make room, or give a smaller --history-size",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "locked by another program: end what holds it"
        }
        Some(ErrorCode::ReadOnly) => "its file system is mounted read-only",
        _ => return format!("the history is not written: {error}"),
    };
    format!("the history is not written: {remedy}")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;
    use crate::history::fixtures::{reader, run};

    const LIMITS: Limits = Limits {
        size: 1 << 30,
        age: Duration::from_secs(3600),
    };

    fn lost(at_ns: u64) -> Fact {
        Fact::Lost(at_ns, BTreeMap::from([("ring".to_owned(), 1)]))
    }

    /// Waits until it is so, for a while.
    fn until(what: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if what() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    #[test]
    fn what_was_handed_over_is_written_when_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let (mut feed, writer) = start(directory.path().to_owned(), run("run", 5), LIMITS).unwrap();
        feed.put(lost(7));
        feed.put(Fact::End(9));
        feed.hand_over();
        drop(feed);
        writer.finish();
        let reader = reader(directory.path());
        assert_eq!(reader.missing().unwrap().losses.len(), 1);
        assert_eq!(reader.runs().unwrap()[0].ended_ns, Some(9));
    }

    #[test]
    fn what_cannot_be_written_is_held_then_dropped_and_the_gap_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path().join("later");
        let (mut feed, writer) = start(state_dir.clone(), run("run", 5), LIMITS).unwrap();
        assert!(until(|| feed.state().trouble.is_some()));
        for at_ns in 0..HELD_MAX as u64 + 5 {
            feed.put(lost(at_ns));
            if at_ns % 1000 == 0 {
                feed.hand_over();
                assert!(until(|| feed.queued() == 0));
            }
        }
        feed.hand_over();
        assert!(until(|| feed.state().missed == 5));
        fs::create_dir(&state_dir).unwrap();
        assert!(until(|| feed.state().trouble.is_none()));
        assert!(feed.wants_images());
        drop(feed);
        writer.finish();
        let missing = reader(&state_dir).missing().unwrap();
        assert_eq!(missing.losses.len(), HELD_MAX);
        assert_eq!(missing.gaps.len(), 1);
        assert_eq!(missing.gaps[0].count, Some(5));
        assert!(missing.gaps[0].cause.contains("cannot be written"));
    }
}

//! Every record as it is emitted, to whoever reads along.
//!
//! ```text
//! the agent's thread            the API's thread
//! Tap ── a bounded channel ──► Backlog ──► a Reader each
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`tap`] | the agent's end: a record's line, handed over and never waited for |
//! | [`backlog`] | the last lines, bounded, and what lies behind a sequence |
//! | [`reader`] | one reader's place, and what it missed |
//!
//! The agent gives lines away through a channel and shares no lock with anyone
//! who reads: where the channel is full, it keeps lines back and then drops
//! them. Each reader has a place in the backlog, a sequence, and nothing of its
//! own: who is slow is overtaken by the backlog's end, and told which records
//! that cost it. What is dropped anywhere on the way is a gap in the sequences,
//! and found as one.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::origin::Origin;

mod backlog;
mod reader;
mod tap;
#[cfg(test)]
mod tests;

use backlog::Backlog;
pub use reader::{Reader, Start};
pub use tap::Tap;

/// Readers at a time.
pub const READERS_MAX: usize = 16;
/// Pieces on their way from the agent; each is at most [`tap::PIECE_MAX`] and a
/// record.
const ON_THE_WAY: usize = 8;
/// Where lines are made for readers alone, they are made this much longer than
/// there is a reader, so that one who comes back misses nothing.
const LINGER: Duration = Duration::from_secs(300);

/// Whole lines of records that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    /// Sequences.
    first: u64,
    last: u64,
    lines: Bytes,
}

/// What both threads look at.
#[derive(Debug, Default)]
struct Signs {
    /// Lines are to be made, whoever else wants them.
    wanted: AtomicBool,
    readers: AtomicUsize,
    /// Sequence of the last record emitted.
    emitted: AtomicU64,
    /// Sequence of the first record of which lines have been made ever since.
    since: AtomicU64,
    /// Records that readers were told they missed.
    missed: AtomicU64,
}

/// The readers' end, of which there are as many as wanted.
#[derive(Clone, Debug)]
pub struct Stream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Origin,
    signs: Arc<Signs>,
    /// Until [`Stream::pump`] takes it.
    pieces: Mutex<Option<mpsc::Receiver<Piece>>>,
    kept: Mutex<Kept>,
    /// Changes with the backlog.
    grown: watch::Sender<()>,
}

/// Touched by the API's thread alone.
#[derive(Debug, Default)]
struct Kept {
    backlog: Backlog,
    /// The agent writes no more.
    ended: bool,
    /// When the last reader left.
    left: Option<Instant>,
}

/// How many read along now, and how many records readers have missed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    pub now: usize,
    pub missed: u64,
}

/// Both ends. `origin` says in whose name a reader is told what it missed.
pub fn stream(origin: Origin) -> (Tap, Stream) {
    let signs = Arc::new(Signs::default());
    let (sender, pieces) = mpsc::channel(ON_THE_WAY);
    let shared = Shared {
        origin,
        signs: Arc::clone(&signs),
        pieces: Mutex::new(Some(pieces)),
        kept: Mutex::default(),
        grown: watch::Sender::new(()),
    };
    (Tap::new(sender, signs), Stream(Arc::new(shared)))
}

impl Stream {
    /// It has ended before it began.
    pub fn of_nothing() -> Self {
        let (_ended, stream) = stream(Origin::default());
        stream
    }

    /// Takes in what the agent hands over, until it ends. Only the first call
    /// does so; further ones return at once.
    pub async fn pump(&self) {
        let pieces = lock(&self.0.pieces).take();
        let Some(mut pieces) = pieces else { return };
        while let Some(piece) = pieces.recv().await {
            self.take(piece);
        }
        lock(&self.0.kept).ended = true;
        self.0.grown.send_replace(());
    }

    fn take(&self, piece: Piece) {
        let mut kept = lock(&self.0.kept);
        kept.backlog.push(piece);
        let signs = &self.0.signs;
        let is_over = kept.left.is_some_and(|left| left.elapsed() > LINGER);
        if is_over && signs.readers.load(Ordering::Acquire) == 0 {
            signs.wanted.store(false, Ordering::Release);
            kept.left = None;
        }
        drop(kept);
        self.0.grown.send_replace(());
    }

    /// A reader at that place; `None`: there are [`READERS_MAX`] already.
    pub fn read(&self, start: Start) -> Option<Reader> {
        let signs = &self.0.signs;
        let seated = signs
            .readers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |readers| {
                (readers < READERS_MAX).then_some(readers + 1)
            });
        seated.ok()?;
        signs.wanted.store(true, Ordering::Release);
        Some(Reader::new(self.clone(), start))
    }

    /// `agent.ephemeral_id` of the records.
    pub fn ephemeral_id(&self) -> Option<&str> {
        self.0.origin.agent.ephemeral_id.as_deref()
    }

    /// Sequence of the last record emitted.
    pub fn emitted(&self) -> u64 {
        self.0.signs.emitted.load(Ordering::Acquire)
    }

    pub fn readers(&self) -> Readers {
        Readers {
            now: self.0.signs.readers.load(Ordering::Acquire),
            missed: self.0.signs.missed.load(Ordering::Relaxed),
        }
    }

    fn leave(&self) {
        self.0.signs.readers.fetch_sub(1, Ordering::AcqRel);
        lock(&self.0.kept).left = Some(Instant::now());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

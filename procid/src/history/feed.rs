//! From the agent's thread to the writer's: bounded, and never waiting.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::Sender,
    },
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fact::{Fact, Gap};

/// Facts that may wait for the writer.
pub const QUEUE_MAX: usize = 16_384;
/// Cause of a [`Gap`]: the writer did not keep up.
pub const QUEUE_FULL: &str = "queue-full";

/// What both threads know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) queued: AtomicUsize,
    /// Images told of may not be in the file: they are to be told again.
    pub(super) wants_images: AtomicBool,
    pub(super) state: Mutex<State>,
}

impl Shared {
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How history fares, in `procid status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The file; absent: it was not opened yet, or cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its size, bytes.
    pub size: u64,
    /// Facts written.
    pub written: u64,
    /// Facts that are missing in it, all gaps together.
    pub missed: u64,
    /// Connections removed, for want of room or for their age.
    pub removed: u64,
    /// Why nothing is written now, one clear sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What goes over.
#[derive(Debug)]
pub(super) enum Message {
    Facts(Vec<Fact>),
    Gap(Gap),
}

/// The agent's end.
#[derive(Debug)]
pub struct Feed {
    sender: Sender<Message>,
    shared: Arc<Shared>,
    facts: Vec<Fact>,
    gap: Option<Gap>,
}

impl Feed {
    pub(super) const fn new(sender: Sender<Message>, shared: Arc<Shared>) -> Self {
        Self {
            sender,
            shared,
            facts: Vec::new(),
            gap: None,
        }
    }

    pub fn put(&mut self, fact: Fact) {
        self.facts.push(fact);
    }

    /// Hands over what was put. Where the writer is too far behind, it is
    /// dropped instead, and the writer will be told so.
    pub fn hand_over(&mut self) {
        if self.facts.is_empty() {
            return;
        }
        let count = self.facts.len();
        let queued = self.shared.queued.load(Ordering::Relaxed);
        if queued + count > QUEUE_MAX && queued > 0 {
            self.drop_all();
            return;
        }
        if let Some(gap) = self.gap.take() {
            // A writer that is gone is noticed below.
            let _gone = self.sender.send(Message::Gap(gap));
            self.shared.wants_images.store(true, Ordering::Relaxed);
        }
        self.shared.queued.fetch_add(count, Ordering::Relaxed);
        let facts = mem::take(&mut self.facts);
        if self.sender.send(Message::Facts(facts)).is_err() {
            self.shared.with(|state| {
                state.missed += count as u64;
                state.trouble.get_or_insert_with(|| {
                    "the history is not written: its thread has ended; restart procid".to_owned()
                });
            });
        }
    }

    fn drop_all(&mut self) {
        let now = now();
        let gap = self.gap.get_or_insert_with(|| Gap {
            from: Some(now),
            to: now,
            count: Some(0),
            cause: QUEUE_FULL.to_owned(),
        });
        gap.to = now;
        let count = self.facts.len() as u64;
        gap.count = gap.count.map(|before| before + count);
        self.facts.clear();
        self.shared.with(|state| state.missed += count);
    }

    /// Whether all images that live are to be told again; says so once.
    pub fn wants_images(&self) -> bool {
        self.shared.wants_images.swap(false, Ordering::Relaxed)
    }

    /// Facts that wait for the writer.
    pub fn queued(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    pub fn state(&self) -> State {
        self.shared.with(|state| state.clone())
    }
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::identity::hash::settle::Offset;

    #[test]
    fn a_writer_that_does_not_keep_up_is_told_of_the_gap() {
        let (sender, receiver) = channel();
        let shared = Arc::new(Shared::default());
        let mut feed = Feed::new(sender, Arc::clone(&shared));
        let mut put = |count: usize| {
            for _ in 0..count {
                feed.put(Fact::Clock(Offset(0)));
            }
            feed.hand_over();
        };
        put(QUEUE_MAX);
        put(5);
        put(2);
        assert_eq!(shared.queued.load(Ordering::Relaxed), QUEUE_MAX);
        assert_eq!(shared.with(|state| state.missed), 7);
        assert!(!shared.wants_images.load(Ordering::Relaxed));
        // The writer has taken them.
        shared.queued.store(0, Ordering::Relaxed);
        put(1);
        let counts: Vec<_> = receiver
            .try_iter()
            .map(|message| match message {
                Message::Facts(facts) => (facts.len(), String::new()),
                Message::Gap(gap) => (7, format!("{:?} {}", gap.count, gap.cause)),
            })
            .collect();
        assert_eq!(
            counts,
            [
                (QUEUE_MAX, String::new()),
                (7, "Some(7) queue-full".to_owned()),
                (1, String::new())
            ]
        );
        assert!(feed.wants_images());
        assert!(!feed.wants_images());
    }

    #[test]
    fn a_writer_that_is_gone_is_said() {
        let (sender, _) = channel();
        let mut feed = Feed::new(sender, Arc::default());
        feed.put(Fact::Clock(Offset(0)));
        feed.hand_over();
        let state = feed.state();
        assert_eq!(state.missed, 1);
        assert!(state.trouble.is_some());
    }
}

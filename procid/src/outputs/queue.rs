//! What lies between the agent and one output: records that wait, how many of
//! them were lost, and why.
//!
//! The agent never waits for an output: where there is no room, the record is
//! lost to that output, and counted.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Bytes that may wait for one output.
pub const QUEUE_MAX: usize = 8 << 20;
/// Bytes that an output is given at once, about.
const BATCH: usize = 256 << 10;
/// Cause of loss: there was no room in the queue.
pub const FULL: &str = "full";
/// Cause of loss: the agent ended before the output took them.
pub const UNSENT: &str = "unsent";
/// Cause of loss: there was nobody to take them.
pub const REFUSED: &str = "refused";

/// A record as NDJSON, with its line end; shared by all outputs.
pub type Line = Arc<[u8]>;

/// What became of records that an output was given.
#[derive(Debug, Default)]
pub struct Tally {
    pub written: u64,
    /// Of those written, how many without some of their fields.
    pub shortened: u64,
    /// By cause.
    pub lost: BTreeMap<&'static str, u64>,
    /// Records that were taken for written earlier, and were refused.
    pub refused: u64,
}

impl Tally {
    pub fn lose(&mut self, cause: &'static str, records: u64) {
        *self.lost.entry(cause).or_default() += records;
    }

    /// The records that are dealt with.
    pub fn done(&self) -> usize {
        let done = self.written + self.lost.values().sum::<u64>();
        usize::try_from(done).unwrap_or(usize::MAX)
    }
}

/// How an output fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    pub written: u64,
    pub shortened: u64,
    pub lost: BTreeMap<&'static str, u64>,
    /// Records that wait.
    pub waiting: u64,
    /// Why it takes nothing at present.
    pub trouble: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    bytes: usize,
    /// Of the first lines, how many the output is busy with.
    taken: usize,
    /// Lines up to this number, counted from the beginning of the queue's life,
    /// hold the last `loss` record about this output.
    loss_at: u64,
    /// Lines that have left the queue.
    left: u64,
    fate: Fate,
    /// Until then what waits may still be written; then the output ends.
    closes: Option<Instant>,
    has_ended: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    /// Something to do for an output that has nothing, or it is time to end.
    filled: Condvar,
    /// It is time to end for one that failed.
    closed: Condvar,
    ended: Condvar,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole: what a panicking thread left can be read.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record, or counts it as lost. A `loss` record that tells what
    /// this output has lost is taken even where there is no room: see
    /// [`Self::can_tell`].
    pub fn put(&self, line: &Line, tells_loss: bool) {
        let mut state = self.state();
        if state.bytes + line.len() > QUEUE_MAX && !tells_loss {
            *state.fate.lost.entry(FULL).or_default() += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(Arc::clone(line));
        if tells_loss {
            state.loss_at = state.left + state.lines.len() as u64;
        }
    }

    /// Wakes the output, if there is something for it.
    pub fn wake(&self) {
        let state = self.state();
        if !state.lines.is_empty() && state.taken == 0 {
            self.filled.notify_one();
        }
    }

    /// Whether what this output has lost can be told in its own stream: one such
    /// record waits at most, so that an output that takes nothing does not
    /// gather them.
    pub fn can_tell(&self) -> bool {
        let state = self.state();
        state.loss_at <= state.left
    }

    pub fn fate(&self) -> Fate {
        let state = self.state();
        let mut fate = state.fate.clone();
        fate.waiting = state.lines.len() as u64;
        fate
    }

    /// The next records, some at least; `None`: it is time to end. They stay in
    /// the queue until [`Self::settle`].
    pub fn take(&self) -> Option<Vec<Line>> {
        let mut state = self.state();
        while state.lines.is_empty() {
            if state.closes.is_some() {
                return None;
            }
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = 0;
        let batch: Vec<Line> = state
            .lines
            .iter()
            .take_while(|line| {
                bytes += line.len();
                bytes == line.len() || bytes <= BATCH
            })
            .cloned()
            .collect();
        state.taken = batch.len();
        Some(batch)
    }

    /// What became of the first records of a batch; the rest is given again by
    /// [`Self::take`].
    pub fn settle(&self, tally: &Tally, trouble: Option<String>) {
        let mut state = self.state();
        let done = tally.done().min(state.taken);
        let bytes: usize = state.lines.drain(..done).map(|line| line.len()).sum();
        state.bytes -= bytes;
        state.left += done as u64;
        state.taken = 0;
        state.fate.written = (state.fate.written + tally.written).saturating_sub(tally.refused);
        state.fate.shortened += tally.shortened;
        let refused = (tally.refused > 0).then_some((&REFUSED, &tally.refused));
        for (cause, records) in tally.lost.iter().chain(refused) {
            *state.fate.lost.entry(cause).or_default() += records;
        }
        state.fate.trouble = trouble;
    }

    /// Waits before an output that failed is tried again; false: it is time to
    /// end.
    pub fn pause(&self, span: Duration) -> bool {
        let until = Instant::now() + span;
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let end = match state.closes {
                Some(closes) if closes <= now => return false,
                Some(closes) => until.min(closes),
                None => until,
            };
            let Some(left) = end.checked_duration_since(now).filter(|it| !it.is_zero()) else {
                return true;
            };
            state = self
                .closed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// No record comes any more, and what waits is given up at that time.
    pub fn close(&self, at: Instant) {
        self.state().closes = Some(at);
        self.filled.notify_all();
        self.closed.notify_all();
    }

    /// The output writes nothing any more: what still waits is lost.
    pub fn end(&self) {
        let mut state = self.state();
        let lost = state.lines.len() as u64;
        if lost > 0 {
            *state.fate.lost.entry(UNSENT).or_default() += lost;
            state.lines.clear();
            state.bytes = 0;
        }
        state.has_ended = true;
        self.ended.notify_all();
    }

    /// Waits for [`Self::end`], until `at`.
    pub fn wait_for_end(&self, at: Instant) -> bool {
        let mut state = self.state();
        while !state.has_ended {
            let Some(left) = at.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self
                .ended
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(bytes: usize) -> Line {
        vec![b'x'; bytes].into()
    }

    fn written(records: u64) -> Tally {
        Tally {
            written: records,
            ..Tally::default()
        }
    }

    #[test]
    fn what_has_no_room_is_counted_and_what_was_taken_stays() {
        let queue = Queue::default();
        let big = line(QUEUE_MAX / 2);
        for _ in 0..4 {
            queue.put(&big, false);
        }
        let fate = queue.fate();
        assert_eq!((fate.waiting, fate.lost), (2, [(FULL, 2)].into()));
        // What an output is busy with takes room until it is done.
        assert_eq!(queue.take().unwrap().len(), 1);
        queue.put(&big, false);
        assert_eq!(queue.fate().lost[FULL], 3);
        queue.settle(&written(1), None);
        queue.put(&big, false);
        assert_eq!((queue.fate().waiting, queue.fate().lost[FULL]), (2, 3));
    }

    #[test]
    fn what_was_lost_is_told_once_at_a_time_even_to_a_full_queue() {
        let queue = Queue::default();
        queue.put(&line(QUEUE_MAX), false);
        queue.put(&line(1), false);
        assert!(queue.can_tell());
        queue.put(&line(1), true);
        assert!(!queue.can_tell());
        assert_eq!(queue.fate().waiting, 2);
        queue.take().unwrap();
        queue.settle(&written(1), None);
        assert!(!queue.can_tell(), "it still waits");
        queue.take().unwrap();
        queue.settle(&written(1), None);
        assert!(queue.can_tell());
    }

    #[test]
    fn what_failed_is_given_again_and_what_is_left_at_the_end_is_lost() {
        let queue = Queue::default();
        for bytes in 1..=3 {
            queue.put(&line(bytes), false);
        }
        assert_eq!(queue.take().unwrap().len(), 3);
        queue.settle(&written(1), Some("no".to_owned()));
        assert_eq!(queue.fate().trouble.as_deref(), Some("no"));
        assert_eq!(queue.take().unwrap()[0].len(), 2);
        queue.settle(&Tally::default(), Some("no".to_owned()));
        queue.close(Instant::now());
        assert!(!queue.pause(Duration::from_secs(600)));
        assert!(!queue.wait_for_end(Instant::now()));
        queue.end();
        assert!(queue.wait_for_end(Instant::now()));
        let fate = queue.fate();
        assert_eq!(fate.written, 1);
        assert_eq!(fate.lost, [(UNSENT, 2)].into());
    }

    #[test]
    fn what_was_refused_later_was_not_written() {
        let queue = Queue::default();
        queue.put(&line(1), false);
        queue.take().unwrap();
        queue.settle(&written(1), None);
        let refused = Tally {
            refused: 1,
            ..Tally::default()
        };
        queue.settle(&refused, None);
        let fate = queue.fate();
        assert_eq!((fate.written, fate.lost), (0, [(REFUSED, 1)].into()));
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let queue = Queue::default();
        queue.put(&line(1), false);
        queue.close(Instant::now() + Duration::from_secs(600));
        assert!(queue.take().is_some());
        queue.settle(&written(1), None);
        assert!(queue.take().is_none());
    }

    proptest! {
        /// Whatever an output makes of its batches, each record is written, lost
        /// or waiting.
        #[test]
        fn every_record_is_accounted_for(
            steps in prop::collection::vec((1_usize..QUEUE_MAX / 3, 0_u64..4, 0_u64..2, any::<bool>()), 0..40),
        ) {
            let queue = Queue::default();
            for (put, (bytes, fit, lost, tells)) in (1..).zip(steps) {
                queue.put(&line(bytes), tells && queue.can_tell());
                if fit == 3 {
                    continue;
                }
                let Some(batch) = (queue.fate().waiting > 0).then(|| queue.take().unwrap()) else {
                    continue;
                };
                let written = fit.min(batch.len() as u64);
                let lost = lost.min(batch.len() as u64 - written);
                let mut tally = Tally { written, ..Tally::default() };
                tally.lose("too-long", lost);
                queue.settle(&tally, None);
                let fate = queue.fate();
                prop_assert_eq!(put, fate.written + fate.waiting + fate.lost.values().sum::<u64>());
                prop_assert!(queue.state().bytes <= QUEUE_MAX + QUEUE_MAX / 3);
                let bytes: usize = queue.state().lines.iter().map(|line| line.len()).sum();
                prop_assert_eq!(bytes, queue.state().bytes);
            }
        }
    }
}

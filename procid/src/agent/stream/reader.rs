//! One reader's place, and what it missed.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{Stream, backlog::Behind, lock};
use crate::{
    records::{Event, Missed, Procid, Record},
    time::rfc3339_ns,
};

/// Cause of loss, of one reader alone: records that were not kept for it until
/// it read on.
const READER_LAG: &str = "reader-lag";

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what comes.
    Now,
    /// Behind that sequence.
    After(u64),
}

/// Reads along; holds one of the readers' seats until it is dropped.
#[derive(Debug)]
pub struct Reader {
    stream: Stream,
    grown: watch::Receiver<()>,
    /// Sequence of the last record it was given, or told that it missed.
    seen: u64,
    /// It has been given nothing yet and asked for nothing that is past: lines
    /// may not have been made before it came.
    is_new: bool,
}

impl Reader {
    pub(super) fn new(stream: Stream, start: Start) -> Self {
        Self {
            grown: stream.0.grown.subscribe(),
            seen: match start {
                Start::Now => stream.emitted(),
                Start::After(sequence) => sequence,
            },
            is_new: start == Start::Now,
            stream,
        }
    }

    /// The next lines, whole ones; `None` when the agent has ended. What was
    /// missed is a line of its own, in its place.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.grown.mark_unchanged();
            let (behind, ended) = {
                let kept = lock(&self.stream.0.kept);
                (kept.backlog.behind(self.seen), kept.ended)
            };
            match behind {
                Behind::Lines(piece) => {
                    self.is_new = false;
                    self.seen = piece.last;
                    return Some(piece.lines);
                }
                Behind::Gone { from, to } => {
                    self.seen = to;
                    let since = match self.is_new {
                        true => self.stream.0.signs.since.load(Ordering::Acquire),
                        false => 0,
                    };
                    if since <= to {
                        return Some(self.loss(from.max(since), to));
                    }
                }
                Behind::Nothing if ended => return None,
                Behind::Nothing => self.grown.changed().await.ok()?,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    fn loss(&self, from: u64, to: u64) -> Bytes {
        let missed = to - from + 1;
        let signs = &self.stream.0.signs;
        signs.missed.fetch_add(missed, Ordering::Relaxed);
        let origin = &self.stream.0.origin;
        let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let record = Record {
            timestamp: rfc3339_ns(now),
            ecs: Some(origin.ecs.clone()),
            event: Some(Event {
                kind: "event".to_owned(),
                types: vec!["info".to_owned()],
                action: "loss".to_owned(),
                module: "procid".to_owned(),
                dataset: "procid.agent".to_owned(),
                ..Event::default()
            }),
            host: Some(origin.host.clone()),
            agent: Some(origin.agent.clone()),
            procid: Some(Box::new(Procid {
                lost: Some(BTreeMap::from([(READER_LAG.to_owned(), missed)])),
                missed: Some(Missed { from, to }),
                unknown: BTreeMap::from([(
                    "event.sequence".to_owned(),
                    "it is this reader's alone".to_owned(),
                )]),
                ..Procid::default()
            })),
            ..Record::default()
        };
        let mut line = serde_json::to_vec(&record).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stream.leave();
    }
}

//! Taps, backlogs and readers.

use std::{collections::VecDeque, ops::RangeInclusive};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use serde_json::Value;

use super::{backlog::BYTES_MAX, tap::PIECE_MAX, *};
use crate::records::{Event, Record, schema};

fn record(sequence: u64) -> Record {
    Record {
        event: Some(Event {
            sequence: Some(sequence),
            ..Event::default()
        }),
        ..Record::default()
    }
}

fn origin() -> Origin {
    let mut origin = Origin::default();
    origin.ecs.version = crate::records::ECS_VERSION.to_owned();
    origin.host.boot = Some(crate::records::Id {
        id: "boot".to_owned(),
    });
    origin.agent.agent_type = "procid".to_owned();
    origin.agent.version = "0.1.0".to_owned();
    origin.agent.ephemeral_id = Some("run".to_owned());
    origin
}

/// Both ends in one thread.
struct Ends {
    tap: Option<Tap>,
    stream: Stream,
    pieces: mpsc::Receiver<Piece>,
    emitted: u64,
}

impl Ends {
    fn new() -> Self {
        let (tap, stream) = stream(origin());
        let pieces = lock(&stream.0.pieces).take().unwrap();
        Self {
            tap: Some(tap),
            stream,
            pieces,
            emitted: 0,
        }
    }

    /// Emits a record; `bytes` long where it has a line already.
    fn emit(&mut self, bytes: Option<usize>) {
        self.emitted += 1;
        let line = bytes.map(|bytes| vec![b'x'; bytes]);
        let tap = self.tap.as_mut().unwrap();
        tap.put(&record(self.emitted), line.as_deref()).unwrap();
    }

    fn flush(&mut self) {
        self.tap.as_mut().unwrap().flush();
    }

    /// What [`Stream::pump`] does.
    fn pump(&mut self) {
        while let Ok(piece) = self.pieces.try_recv() {
            self.stream.take(piece);
        }
    }

    fn end(&mut self) {
        self.tap = None;
        self.pump();
        lock(&self.stream.0.kept).ended = true;
        self.stream.0.grown.send_replace(());
    }
}

/// What one piece of a reader's lines says.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Lines(u64),
    Missed(RangeInclusive<u64>),
}

/// The next piece, where there is one.
fn got(reader: &mut Reader) -> Option<Got> {
    let bytes = reader.next().now_or_never()??;
    assert_eq!(bytes.last(), Some(&b'\n'));
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
    if !bytes.starts_with(b"{\"@timestamp\"") {
        return Some(Got::Lines(lines));
    }
    let loss: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(schema::check(&loss), [""; 0], "{loss}");
    assert_eq!(loss["event"]["action"], "loss");
    let number = |pointer: &str| loss.pointer(pointer).and_then(Value::as_u64).unwrap();
    let (from, to) = (number("/procid/missed/from"), number("/procid/missed/to"));
    assert_eq!(number("/procid/lost/reader-lag"), to - from + 1);
    Some(Got::Missed(from..=to))
}

fn all(reader: &mut Reader) -> Vec<Got> {
    std::iter::from_fn(|| got(reader)).collect()
}

#[test]
fn lines_come_as_they_are_emitted_and_end_with_the_agent() {
    let mut ends = Ends::new();
    let mut reader = ends.stream.read(Start::Now).unwrap();
    assert_eq!(got(&mut reader), None);
    ends.emit(Some(5));
    ends.emit(Some(0));
    ends.flush();
    assert_eq!(got(&mut reader), None);
    ends.pump();
    assert_eq!(all(&mut reader), [Got::Lines(2)]);
    // The last record waits for no flush.
    ends.emit(Some(7));
    ends.end();
    assert_eq!(all(&mut reader), [Got::Lines(1)]);
    assert_eq!(reader.next().now_or_never(), Some(None));
}

#[test]
fn a_reader_goes_on_behind_what_it_has() {
    let mut ends = Ends::new();
    let _reader = ends.stream.read(Start::Now).unwrap();
    for _ in 0..10 {
        ends.emit(Some(3));
        ends.emit(Some(3));
        ends.flush();
        ends.pump();
    }
    for after in 0..=20 {
        let mut reader = ends.stream.read(Start::After(after)).unwrap();
        let lines: u64 = all(&mut reader)
            .into_iter()
            .map(|got| match got {
                Got::Lines(lines) => lines,
                Got::Missed(missed) => panic!("{missed:?}"),
            })
            .sum();
        assert_eq!(lines, 20 - after, "after {after}");
    }
}

#[test]
fn nothing_is_made_for_nobody_and_that_is_told_as_a_gap() {
    let mut ends = Ends::new();
    for _ in 0..3 {
        ends.emit(None);
        ends.flush();
    }
    ends.pump();
    assert_eq!(ends.tap.as_ref().unwrap().bytes(), 0);
    let mut now = ends.stream.read(Start::Now).unwrap();
    let mut after = ends.stream.read(Start::After(1)).unwrap();
    ends.emit(None);
    ends.flush();
    ends.pump();
    // Who asks for what comes has missed nothing.
    assert_eq!(all(&mut now), [Got::Lines(1)]);
    assert_eq!(all(&mut after), [Got::Missed(2..=3), Got::Lines(1)]);
    assert_eq!(ends.stream.readers(), Readers { now: 2, missed: 2 });
}

#[test]
fn lines_that_are_there_anyway_are_kept_for_who_may_come() {
    let mut ends = Ends::new();
    ends.emit(Some(10));
    ends.flush();
    // They wake nobody while nobody reads.
    assert!(ends.pieces.try_recv().is_err());
    let mut reader = ends.stream.read(Start::After(0)).unwrap();
    ends.flush();
    ends.pump();
    assert_eq!(all(&mut reader), [Got::Lines(1)]);
}

#[test]
fn who_is_slow_is_told_what_it_missed_and_costs_no_more_memory() {
    let mut ends = Ends::new();
    let mut slow = ends.stream.read(Start::Now).unwrap();
    let mut quick = ends.stream.read(Start::Now).unwrap();
    let mut quick_lines = 0;
    const BYTES: usize = 1000;
    let records = 3 * BYTES_MAX / BYTES;
    for _ in 0..records {
        ends.emit(Some(BYTES - 1));
        ends.flush();
        ends.pump();
        quick_lines += all(&mut quick).len();
        let kept: usize = ends.stream.0.kept.lock().unwrap().backlog.bytes();
        assert!(kept <= BYTES_MAX);
    }
    assert_eq!(quick_lines, records);
    let kept = (BYTES_MAX / BYTES) as u64;
    let missed = records as u64 - kept;
    let told = all(&mut slow);
    assert_eq!(told[0], Got::Missed(1..=missed));
    assert_eq!(told.len() as u64, 1 + kept);
}

/// The agent is never held up by who takes nothing off the channel.
#[test]
fn what_nobody_takes_is_dropped_and_told_as_a_gap() {
    let mut ends = Ends::new();
    let mut reader = ends.stream.read(Start::Now).unwrap();
    for _ in 0..4 * ON_THE_WAY {
        ends.emit(Some(PIECE_MAX / 2));
        ends.flush();
        assert!(ends.tap.as_ref().unwrap().bytes() <= 2 * PIECE_MAX);
    }
    ends.pump();
    ends.emit(Some(1));
    ends.end();
    let told = all(&mut reader);
    assert_eq!(told[..ON_THE_WAY], [const { Got::Lines(1) }; ON_THE_WAY]);
    let Got::Missed(missed) = &told[ON_THE_WAY] else {
        panic!("{told:?}");
    };
    assert_eq!(*missed.start(), ON_THE_WAY as u64 + 1);
    let lines: u64 = told[ON_THE_WAY + 1..]
        .iter()
        .map(|got| match got {
            Got::Lines(lines) => *lines,
            Got::Missed(missed) => panic!("{missed:?}"),
        })
        .sum();
    assert_eq!(missed.end() + lines, ends.emitted);
}

#[test]
fn seats_are_bounded_and_given_back() {
    let ends = Ends::new();
    let mut readers: VecDeque<_> = (0..READERS_MAX)
        .map(|_| ends.stream.read(Start::Now).unwrap())
        .collect();
    assert!(ends.stream.read(Start::Now).is_none());
    readers.pop_front();
    assert!(ends.stream.read(Start::Now).is_some());
}

#[derive(Clone, Debug)]
enum Step {
    Emit(Option<usize>),
    Flush,
    Pump,
    Read,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens, each record behind a reader's start is given to it or
    /// told as missed, once, in order.
    #[test]
    fn no_record_is_given_twice_or_lost_in_silence(
        steps in prop::collection::vec(
            prop_oneof![
                8 => prop::option::weighted(0.8, 0_usize..400_000).prop_map(Step::Emit),
                3 => Just(Step::Flush),
                2 => Just(Step::Pump),
                2 => Just(Step::Read),
            ],
            1..200,
        ),
    ) {
        let mut ends = Ends::new();
        let mut reader = ends.stream.read(Start::After(0)).unwrap();
        let mut seen = 0;
        let mut read = |reader: &mut Reader| {
            for got in all(reader) {
                match got {
                    Got::Lines(lines) => seen += lines,
                    Got::Missed(missed) => {
                        assert_eq!(*missed.start(), seen + 1);
                        seen = *missed.end();
                    }
                }
            }
            assert_eq!(seen, reader.seen());
        };
        for step in steps {
            match step {
                Step::Emit(bytes) => ends.emit(bytes),
                Step::Flush => ends.flush(),
                Step::Pump => ends.pump(),
                Step::Read => read(&mut reader),
            }
        }
        ends.pump();
        ends.emit(Some(1));
        ends.flush();
        ends.end();
        read(&mut reader);
        prop_assert_eq!(seen, ends.emitted);
    }
}

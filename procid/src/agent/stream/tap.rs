//! The agent's end: a record's line, handed over and never waited for.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Piece, Signs};
use crate::records::Record;

/// Lines are handed over when they are about this much, while nobody reads: so
/// that what is kept for who may come does not wake the API's thread for each
/// record.
const PIECE: usize = 64 * 1024;
/// Most bytes of lines that wait for room in the channel, and one record.
pub(super) const PIECE_MAX: usize = 256 * 1024;

/// Takes a copy of each record's line.
#[derive(Debug)]
pub struct Tap {
    sender: mpsc::Sender<Piece>,
    signs: Arc<Signs>,
    /// Sequences of what waits; of the last record, where nothing does.
    first: u64,
    last: u64,
    lines: Vec<u8>,
}

impl Tap {
    pub(super) fn new(sender: mpsc::Sender<Piece>, signs: Arc<Signs>) -> Self {
        Self {
            sender,
            signs,
            first: 0,
            last: 0,
            lines: Vec::new(),
        }
    }

    /// Takes a record; `line` is the line of it, without its end, where there is
    /// one already. Where there is none, it is made only for who reads.
    ///
    /// # Errors
    ///
    /// A record that is no JSON.
    pub fn put(&mut self, record: &Record, line: Option<&[u8]>) -> io::Result<()> {
        let sequence = record.event.as_ref().and_then(|event| event.sequence);
        let Some(sequence) = sequence else {
            return Ok(());
        };
        self.signs.emitted.store(sequence, Ordering::Release);
        if line.is_none() && !self.signs.wanted.load(Ordering::Acquire) {
            return Ok(());
        }
        let goes_on = sequence == self.last + 1;
        if !goes_on {
            self.signs.since.store(sequence, Ordering::Release);
        }
        if self.lines.len() >= PIECE_MAX || !goes_on {
            self.hand_over();
            // Still there: nobody takes them, and they are a gap.
            self.lines.clear();
        }
        if self.lines.is_empty() {
            self.first = sequence;
        }
        self.last = sequence;
        match line {
            Some(line) => self.lines.extend_from_slice(line),
            None => serde_json::to_writer(&mut self.lines, record)?,
        }
        self.lines.push(b'\n');
        Ok(())
    }

    /// Hands over what there is, where somebody waits for it or it is much.
    pub fn flush(&mut self) {
        if self.lines.len() >= PIECE || self.signs.readers.load(Ordering::Acquire) > 0 {
            self.hand_over();
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lines.len()
    }

    fn hand_over(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let Ok(place) = self.sender.try_reserve() else {
            return;
        };
        place.send(Piece {
            first: self.first,
            last: self.last,
            lines: Bytes::copy_from_slice(&self.lines),
        });
        self.lines.clear();
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.hand_over();
    }
}

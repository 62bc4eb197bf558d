//! The last lines, bounded, and what lies behind a sequence.

use std::collections::VecDeque;

use super::Piece;

/// Most bytes of lines that are kept.
pub(super) const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Pieces in the order of their sequences, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

/// What lies behind a sequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// The records that follow it, or the first of them.
    Lines(Piece),
    /// They are not kept any more, from here to there.
    Gone {
        from: u64,
        to: u64,
    },
    Nothing,
}

impl Backlog {
    pub(super) fn push(&mut self, piece: Piece) {
        self.bytes += piece.lines.len();
        self.pieces.push_back(piece);
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.pieces.pop_front()
        {
            self.bytes -= oldest.lines.len();
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn behind(&self, seen: u64) -> Behind {
        let at = self.pieces.partition_point(|piece| piece.last <= seen);
        let Some(piece) = self.pieces.get(at) else {
            return Behind::Nothing;
        };
        let Some(known) = (seen + 1).checked_sub(piece.first) else {
            return Behind::Gone {
                from: seen + 1,
                to: piece.first - 1,
            };
        };
        Behind::Lines(Piece {
            first: seen + 1,
            last: piece.last,
            lines: piece.lines.slice(line_start(&piece.lines, known)..),
        })
    }
}

/// Where the line after the first `lines` begins.
fn line_start(text: &[u8], lines: u64) -> usize {
    let Some(before) = usize::try_from(lines).ok().and_then(|n| n.checked_sub(1)) else {
        return 0;
    };
    let mut ends = text.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
    ends.nth(before).map_or(text.len(), |(at, _)| at + 1)
}

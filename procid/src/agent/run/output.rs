//! Records to where they are read.

use std::io::{self, IsTerminal as _, Write};

use crate::{
    agent::stream::Tap,
    records::{
        Record,
        line::{Style, header, is_for_people, line},
    },
};

/// Output is handed over in pieces of about this many bytes.
const PIECE: usize = 256 * 1024;

/// Records as bytes, handed over in pieces.
pub(super) struct Output<W> {
    out: W,
    json: bool,
    style: Style,
    buffer: Vec<u8>,
    tap: Tap,
}

impl<W: Write> Output<W> {
    pub(super) fn new(out: W, json: bool, tap: Tap) -> Self {
        let style = Style {
            colour: !json && io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        let mut buffer = Vec::with_capacity(PIECE + PIECE / 4);
        if !json {
            buffer.extend_from_slice(header(style).as_bytes());
            buffer.push(b'\n');
        }
        Self {
            out,
            json,
            style,
            buffer,
            tap,
        }
    }

    pub(super) fn put(&mut self, record: &Record) -> io::Result<()> {
        if self.json {
            let start = self.buffer.len();
            serde_json::to_writer(&mut self.buffer, record)?;
            self.tap.put(record, self.buffer.get(start..))?;
        } else {
            self.tap.put(record, None)?;
            if !is_for_people(record) {
                return Ok(());
            }
            self.buffer
                .extend_from_slice(line(record, self.style).as_bytes());
        }
        self.buffer.push(b'\n');
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.tap.flush();
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        written?;
        self.out.flush()
    }
}

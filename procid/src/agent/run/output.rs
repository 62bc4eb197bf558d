//! Records to where they are read.

use std::io::{self, IsTerminal as _, Write};

use crate::records::{
    Record,
    line::{Style, header, line},
};

/// Output is handed over in pieces of about this many bytes.
const PIECE: usize = 256 * 1024;

/// Whether a record belongs in the table: connections do, and what the agent
/// says of itself. The births and ends of every process of the host would
/// drown them; `--json` has them all.
fn is_for_people(record: &Record) -> bool {
    let Some(event) = &record.event else {
        return true;
    };
    !matches!(event.action.as_str(), "fork" | "exec" | "exit" | "hash")
}

/// Records as bytes, handed over in pieces.
pub(super) struct Output<W> {
    out: W,
    json: bool,
    style: Style,
    buffer: Vec<u8>,
}

impl<W: Write> Output<W> {
    pub(super) fn new(out: W, json: bool) -> Self {
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
        }
    }

    pub(super) fn put(&mut self, record: &Record) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.buffer, record)?;
        } else if !is_for_people(record) {
            return Ok(());
        } else {
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
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        written?;
        self.out.flush()
    }
}

//! A connection as a line of a table
//! ([RFC 4180](https://www.rfc-editor.org/rfc/rfc4180)).

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, Write},
};

use crate::records::{Process, Record};

/// A column: its name, and its cell in a record.
type Column = (&'static str, fn(&Record) -> Option<Cow<'_, str>>);

/// Names are those of the JSON record, but for the `@` that would make the
/// first one a formula.
const COLUMNS: [Column; 54] = [
    ("timestamp", |r| Some(Cow::Borrowed(&r.timestamp))),
    ("event.action", |r| text(&r.event.as_ref()?.action)),
    ("event.outcome", |r| {
        text(r.event.as_ref()?.outcome.as_ref()?)
    }),
    ("error.code", |r| text(&r.error.as_ref()?.code)),
    ("event.start", |r| text(r.event.as_ref()?.start.as_ref()?)),
    ("event.end", |r| text(r.event.as_ref()?.end.as_ref()?)),
    ("event.duration", |r| number(r.event.as_ref()?.duration?)),
    ("network.transport", |r| {
        text(r.network.as_ref()?.transport.as_ref()?)
    }),
    ("network.direction", |r| {
        text(r.network.as_ref()?.direction.as_ref()?)
    }),
    ("source.ip", |r| number(r.source.as_ref()?.ip?)),
    ("source.port", |r| number(r.source.as_ref()?.port?)),
    ("destination.ip", |r| number(r.destination.as_ref()?.ip?)),
    ("destination.port", |r| {
        number(r.destination.as_ref()?.port?)
    }),
    ("network.community_id", |r| {
        text(r.network.as_ref()?.community_id.as_ref()?)
    }),
    ("procid.flow_id", |r| {
        text(r.procid.as_ref()?.flow_id.as_ref()?)
    }),
    ("procid.role", |r| text(r.procid.as_ref()?.role.as_ref()?)),
    ("procid.verdict", |r| {
        text(r.procid.as_ref()?.verdict.as_ref()?)
    }),
    ("procid.provenance", |r| {
        text(r.procid.as_ref()?.provenance.as_ref()?)
    }),
    ("process.pid", |r| number(r.process.as_ref()?.pid?)),
    ("process.entity_id", |r| {
        text(r.process.as_ref()?.entity_id.as_ref()?)
    }),
    ("process.name", |r| text(r.process.as_ref()?.name.as_ref()?)),
    ("process.executable", |r| {
        text(r.process.as_ref()?.executable.as_ref()?)
    }),
    ("process.command_line", |r| {
        text(r.process.as_ref()?.command_line.as_ref()?)
    }),
    ("process.hash.sha256", |r| {
        text(&r.process.as_ref()?.hash.as_ref()?.sha256)
    }),
    ("procid.hash.grade", |r| {
        text(&r.procid.as_ref()?.hash.as_ref()?.grade)
    }),
    ("procid.hash.reason", |r| {
        text(r.procid.as_ref()?.hash.as_ref()?.reason.as_ref()?)
    }),
    ("user.id", |r| text(&r.user.as_ref()?.id)),
    ("container.id", |r| text(&r.container.as_ref()?.id)),
    ("process.parent.pid", |r| {
        number(r.process.as_ref()?.parent.as_ref()?.pid?)
    }),
    ("process.parent.entity_id", |r| {
        text(r.process.as_ref()?.parent.as_ref()?.entity_id.as_ref()?)
    }),
    ("process.parent.executable", |r| {
        text(r.process.as_ref()?.parent.as_ref()?.executable.as_ref()?)
    }),
    ("user.name", |r| text(r.user.as_ref()?.name.as_ref()?)),
    ("container.runtime", |r| {
        text(r.container.as_ref()?.runtime.as_ref()?)
    }),
    ("orchestrator.namespace", |r| {
        text(r.orchestrator.as_ref()?.namespace.as_ref()?)
    }),
    ("orchestrator.resource.name", |r| {
        text(r.orchestrator.as_ref()?.resource.name.as_ref()?)
    }),
    ("orchestrator.resource.id", |r| {
        text(&r.orchestrator.as_ref()?.resource.id)
    }),
    ("procid.unit", |r| text(r.procid.as_ref()?.unit.as_ref()?)),
    ("procid.cgroup.path", |r| {
        text(r.procid.as_ref()?.cgroup.as_ref()?.path.as_ref()?)
    }),
    ("source.nat.ip", |r| {
        number(r.source.as_ref()?.nat.as_ref()?.ip)
    }),
    ("source.nat.port", |r| {
        number(r.source.as_ref()?.nat.as_ref()?.port)
    }),
    ("destination.nat.ip", |r| {
        number(r.destination.as_ref()?.nat.as_ref()?.ip)
    }),
    ("destination.nat.port", |r| {
        number(r.destination.as_ref()?.nat.as_ref()?.port)
    }),
    ("procid.nat.grade", |r| {
        text(&r.procid.as_ref()?.nat.as_ref()?.grade)
    }),
    ("procid.login.from.ip", |r| {
        number(r.procid.as_ref()?.login.as_ref()?.from.ip)
    }),
    ("procid.login.from.port", |r| {
        number(r.procid.as_ref()?.login.as_ref()?.from.port)
    }),
    ("procid.peer.flow_id", |r| {
        text(&r.procid.as_ref()?.peer.as_ref()?.flow_id)
    }),
    ("procid.peer.role", |r| {
        text(r.procid.as_ref()?.peer.as_ref()?.role.as_ref()?)
    }),
    ("procid.peer.process.pid", |r| number(peer(r)?.pid?)),
    ("procid.peer.process.entity_id", |r| {
        text(peer(r)?.entity_id.as_ref()?)
    }),
    ("procid.peer.process.executable", |r| {
        text(peer(r)?.executable.as_ref()?)
    }),
    ("procid.peer.process.hash.sha256", |r| {
        text(&peer(r)?.hash.as_ref()?.sha256)
    }),
    ("destination.domain", |r| {
        text(r.destination.as_ref()?.domain.as_ref()?)
    }),
    ("procid.domain.relation", |r| {
        text(&r.procid.as_ref()?.domain.as_ref()?.relation)
    }),
    ("procid.domain.asked_by", |r| {
        text(r.procid.as_ref()?.domain.as_ref()?.asked_by.as_ref()?)
    }),
];

/// The image at the other end.
fn peer(record: &Record) -> Option<&Process> {
    let procid = record.procid.as_deref()?;
    procid.peer.as_deref()?.process.as_deref()
}

/// # Errors
///
/// Of writing.
pub fn header(out: &mut impl Write) -> io::Result<()> {
    line(COLUMNS.iter().map(|(name, _)| Cow::Borrowed(*name)), out)
}

/// # Errors
///
/// Of writing.
pub fn row(record: &Record, out: &mut impl Write) -> io::Result<()> {
    let cells = COLUMNS
        .iter()
        .map(|(_, cell)| neutral(cell(record).unwrap_or_default()));
    line(cells, out)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every arm of the table has one type"
)]
fn text(text: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(text))
}

fn number(value: impl Display) -> Option<Cow<'static, str>> {
    Some(Cow::Owned(format!("{value}")))
}

/// Puts an apostrophe before what a spreadsheet would run as a formula, and
/// before anything that holds a control character
/// (<https://owasp.org/www-community/attacks/CSV_Injection>).
fn neutral(cell: Cow<'_, str>) -> Cow<'_, str> {
    let formula = cell.starts_with(['=', '+', '-', '@']);
    if formula || cell.contains(char::is_control) {
        Cow::Owned(format!("'{cell}"))
    } else {
        cell
    }
}

fn line<'a>(cells: impl Iterator<Item = Cow<'a, str>>, out: &mut impl Write) -> io::Result<()> {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        if cell.contains([',', '"', '\r', '\n', ' ', '\'']) {
            write!(out, "\"{}\"", cell.replace('"', "\"\""))?;
        } else {
            out.write_all(cell.as_bytes())?;
        }
    }
    out.write_all(b"\r\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_executable(executable: &str) -> Record {
        Record {
            process: Some(Box::new(Process {
                executable: Some(executable.to_owned()),
                ..Process::default()
            })),
            ..Record::default()
        }
    }

    /// The cells of one line, read as RFC 4180 says.
    fn cells(line: &str) -> Vec<String> {
        let mut cells = vec![String::new()];
        let mut quoted = false;
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    cells.last_mut().unwrap().push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                c => cells.last_mut().unwrap().push(c),
            }
        }
        cells
    }

    proptest! {
        #[test]
        fn a_cell_stays_a_cell(executable in ".*") {
            let mut out = Vec::new();
            row(&with_executable(&executable), &mut out).unwrap();
            let out = String::from_utf8(out).unwrap();
            let cells = cells(out.strip_suffix("\r\n").unwrap());
            prop_assert_eq!(cells.len(), COLUMNS.len());
            let at = COLUMNS.iter().position(|(name, _)| *name == "process.executable").unwrap();
            let cell = &cells[at];
            prop_assert!(!cell.starts_with(['=', '+', '-', '@']));
            let unquoted = cell.strip_prefix('\'').filter(|rest| *rest == executable);
            prop_assert!(cell == &executable || unquoted.is_some());
        }
    }

    #[test]
    fn a_formula_is_not_run() {
        let mut out = Vec::new();
        row(&with_executable("=cmd|' /C calc'!A0"), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("\"'=cmd|' /C calc'!A0\""), "{out}");
    }

    #[test]
    fn the_header_names_the_columns() {
        let mut out = Vec::new();
        header(&mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with("timestamp,event.action,"), "{out}");
        assert_eq!(out.matches(',').count(), COLUMNS.len() - 1);
    }
}

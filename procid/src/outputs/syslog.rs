//! Messages of syslog ([RFC 5424](https://www.rfc-editor.org/rfc/rfc5424)),
//! each the record as JSON behind a header, in a datagram of its own
//! ([RFC 5426](https://www.rfc-editor.org/rfc/rfc5426)).
//!
//! The JSON is plain ASCII, so that it needs no byte order mark, which the RFC
//! asks for before UTF-8 and JSON's own does not allow. `meta sequenceId` is the
//! record's number: what a network has dropped is a gap. There is no structured
//! data of procid's own, for that takes a registered enterprise number.
//!
//! A record that is longer than the output's messages loses fields, step by
//! step, and names them in `procid.unknown`: see [`shorten`].

use std::fmt::Write as _;

use serde::Deserialize;

use super::{
    TOO_LONG, UNREADABLE,
    datagram::{Datagrams, Failure},
    queue::{Line, Tally},
    severity,
    shorten::shorten,
    spec::Receiver,
    worker::{Sink, Trouble},
};

/// Longest host name and message id of a header.
const HOST_MAX: usize = 255;
const ID_MAX: usize = 32;
/// Largest number of a message; the next one is 1.
const SEQUENCE_MAX: u64 = 2_147_483_647;

/// What the header tells of a record.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    event: Event,
    host: Host,
    procid: Procid,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    action: String,
    outcome: Option<String>,
    sequence: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Host {
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Procid {
    verdict: Option<String>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Syslog {
    datagrams: Datagrams,
    max: usize,
}

impl Syslog {
    pub const fn to(receiver: Receiver, max: usize) -> Self {
        Self {
            datagrams: Datagrams::to(receiver),
            max,
        }
    }
}

impl Sink for Syslog {
    fn write(&mut self, lines: &[Line], tally: &mut Tally) -> Result<(), Trouble> {
        for line in lines {
            let (message, is_shortened) = match message(line, self.max) {
                Ok(message) => message,
                Err(cause) => {
                    tally.lose(cause, 1);
                    continue;
                }
            };
            match self.datagrams.send(message.as_bytes()) {
                Ok(()) => {
                    tally.written += 1;
                    tally.shortened += u64::from(is_shortened);
                }
                Err(Failure::TooLong) => tally.lose(TOO_LONG, 1),
                Err(Failure::Trouble(trouble)) => return Err(trouble),
                Err(Failure::Refused(trouble)) => {
                    // The one before was taken for written.
                    tally.refused += 1;
                    return Err(trouble);
                }
            }
        }
        Ok(())
    }
}

/// The message of a record, and whether it is without some of its fields; else
/// why there is none.
fn message(line: &[u8], max: usize) -> Result<(String, bool), &'static str> {
    let json = std::str::from_utf8(line).map_err(|_| UNREADABLE)?;
    let head: Head = serde_json::from_str(json).map_err(|_| UNREADABLE)?;
    let mut message = header(&head);
    let room = max.saturating_sub(message.len());
    let json = ascii(json.trim_end_matches('\n'));
    if json.len() <= room {
        message.push_str(&json);
        return Ok((message, false));
    }
    let record = serde_json::from_str(&json).map_err(|_| UNREADABLE)?;
    let fits = |json: &str| ascii(json).len() <= room;
    let json = shorten(record, fits).ok_or(TOO_LONG)?;
    message.push_str(&ascii(&json));
    Ok((message, true))
}

fn header(head: &Head) -> String {
    let event = &head.event;
    let verdict = head.procid.verdict.as_deref();
    let severity = severity::of(&event.action, event.outcome.as_deref(), verdict);
    let priority = severity::AUTHPRIV * 8 + severity;
    let host = name(head.host.name.as_deref().unwrap_or_default(), HOST_MAX);
    let id = name(&event.action, ID_MAX);
    let time = time(&head.timestamp);
    let own = std::process::id();
    let mut header = format!("<{priority}>1 {time} {host} procid {own} {id} ");
    match event.sequence.and_then(|sequence| sequence.checked_sub(1)) {
        // Writing to a String cannot fail.
        Some(before) => {
            let number = before % SEQUENCE_MAX + 1;
            let _ = write!(header, "[meta sequenceId=\"{number}\"] ");
        }
        None => header.push_str("- "),
    }
    header
}

/// A time with the six digits that the header allows.
fn time(timestamp: &str) -> String {
    match timestamp.split_once('.') {
        Some((seconds, fraction)) if fraction.len() == 10 && fraction.ends_with('Z') => {
            format!("{seconds}.{}Z", fraction.get(..6).unwrap_or("0"))
        }
        _ => "-".to_owned(),
    }
}

/// A word of the header: printable ASCII.
fn name(text: &str, max: usize) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    let allowed = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(max).map(allowed).collect()
}

/// JSON with what is not printable ASCII escaped: it stands in strings only.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;

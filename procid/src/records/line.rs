//! A record as one line of a table, for people.
//!
//! ```text
//! TIME +01:00        PID PROGRAM      SHA-256      ACTION   OUTCOME             SPORT DESTINATION
//! 16:04:05.123      5580 curl         9f86d081884c connect  allowed             45384 203.0.113.7:443
//! 16:04:05.125      5581 nc           (pending)    connect  failed ECONNREFUSED 45386 203.0.113.7:80
//! ```
//!
//! The columns are fixed and meant for 100 characters; the destination is the
//! last one and is never cut. Widths count characters, which is a column each
//! for all but East Asian text.

use std::{borrow::Cow, fmt::Write as _, net::IpAddr};

use jiff::{Timestamp, Zoned};

use super::{Endpoint, Process, Procid, Record, escape::is_printable};

mod message;

pub use message::message;

/// How lines are to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// ANSI colours: only for a terminal.
    pub colour: bool,
}

/// The line above the table; it names the offset from UTC that times are in.
pub fn header(style: Style) -> String {
    header_at(style, &Zoned::now())
}

/// Whether a record belongs in the table: connections do, and what the agent
/// says of itself. The births and ends of every process of the host would
/// drown them; `--json` has them all.
pub fn is_for_people(record: &Record) -> bool {
    let Some(event) = &record.event else {
        return true;
    };
    !matches!(event.action.as_str(), "fork" | "exec" | "exit" | "hash")
}

/// One record as a line, without a line end. Times are local; those of another
/// day show the date instead of milliseconds.
pub fn line(record: &Record, style: Style) -> String {
    line_at(record, style, &Zoned::now())
}

/// Arguments as one would type them to a shell: what `process.command_line`
/// holds. A description for people, made of arguments that are escaped already.
pub fn command_line<S: AsRef<str>>(args: &[S]) -> String {
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(&quoted(arg.as_ref()));
    }
    out
}

fn quoted(arg: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
    if !arg.is_empty() && arg.chars().all(is_plain) {
        Cow::Borrowed(arg)
    } else {
        Cow::Owned(format!("'{}'", arg.replace('\'', "'\\''")))
    }
}

/// Columns of a line for which the table is meant.
const LINE_WIDTH: usize = 100;
const TIME: usize = 14;
const PID: usize = 7;
const PROGRAM: usize = 12;
const HASH: usize = 12;
const ACTION: usize = 8;
const OUTCOME: usize = 19;
const PORT: usize = 5;
/// What is left behind ACTION for lines that are not about a connection.
const DETAIL: usize = LINE_WIDTH - (TIME + PID + PROGRAM + HASH + ACTION + 5);

/// Select Graphic Rendition codes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Bold,
    Dim,
    Red,
    Yellow,
}

/// A line being put together.
struct Row {
    style: Style,
    text: String,
}

impl Row {
    fn new(style: Style) -> Self {
        Self {
            style,
            text: String::with_capacity(LINE_WIDTH + 40),
        }
    }

    /// Adds a column of exactly `width` characters and a space.
    fn left(&mut self, text: &str, width: usize, paint: Paint) {
        let text = cut(text, width);
        self.last(&text, paint);
        self.pad(width - text.chars().count() + 1);
    }

    /// [`Row::left`], aligned at the right.
    fn right(&mut self, text: &str, width: usize) {
        let text = cut(text, width);
        self.pad(width - text.chars().count());
        self.last(&text, Paint::Plain);
        self.pad(1);
    }

    /// Adds a column that needs no padding.
    fn last(&mut self, text: &str, paint: Paint) {
        let code = match paint {
            _ if !self.style.colour => "",
            Paint::Plain => "",
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Red => "31",
            Paint::Yellow => "33",
        };
        if code.is_empty() || text.is_empty() {
            self.text.push_str(text);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(self.text, "\x1b[{code}m{text}\x1b[0m");
        }
    }

    fn pad(&mut self, spaces: usize) {
        self.text.extend(std::iter::repeat_n(' ', spaces));
    }

    fn finish(mut self) -> String {
        self.text.truncate(self.text.trim_end().len());
        self.text
    }
}

/// Cuts text to `width` characters, the last one an ellipsis where some are
/// missing, and replaces what a terminal would act on. (The agent escapes it
/// already; a record may come from elsewhere.)
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.chars().all(is_printable) && text.chars().count() <= width {
        return Cow::Borrowed(text);
    }
    let mut safe = text
        .chars()
        .map(|c| if is_printable(c) { c } else { '\u{fffd}' });
    let mut out: String = safe.by_ref().take(width).collect();
    if safe.next().is_some() {
        out.pop();
        out.push('…');
    }
    Cow::Owned(out)
}

fn header_at(style: Style, now: &Zoned) -> String {
    let mut row = Row::new(Style { colour: false });
    row.left(&now.strftime("TIME %:z").to_string(), TIME, Paint::Plain);
    row.right("PID", PID);
    row.left("PROGRAM", PROGRAM, Paint::Plain);
    row.left("SHA-256", HASH, Paint::Plain);
    row.left("ACTION", ACTION, Paint::Plain);
    row.left("OUTCOME", OUTCOME, Paint::Plain);
    row.right("SPORT", PORT);
    row.last("DESTINATION", Paint::Plain);
    let mut painted = Row::new(style);
    painted.last(&row.finish(), Paint::Bold);
    painted.finish()
}

fn line_at(record: &Record, style: Style, now: &Zoned) -> String {
    let mut row = Row::new(style);
    let procid = record.procid.as_deref();
    if let Some(coverage) = procid.and_then(|procid| procid.coverage.as_ref()) {
        row.last(&coverage_text(coverage), Paint::Dim);
        return row.finish();
    }
    let event = record.event.as_ref();
    let action = event.map_or("", |event| event.action.as_str());
    let is_snapshot = event.is_some_and(|event| event.kind == "state");
    let process = record.process.as_deref();

    row.left(&time_text(&record.timestamp, now), TIME, Paint::Dim);
    let pid = process.and_then(|process| process.pid);
    row.right(
        &pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        PID,
    );
    row.left(program(action, process, procid), PROGRAM, Paint::Plain);
    hash_column(&mut row, process, procid);
    if is_snapshot {
        row.left("snapshot", ACTION, Paint::Dim);
    } else {
        row.left(action, ACTION, Paint::Plain);
    }
    let is_network = event.is_some_and(|event| event.category.iter().any(|c| c == "network"));
    if is_network {
        connection_columns(&mut row, record);
    } else {
        let detail = detail(action, record);
        row.last(&cut(&detail, DETAIL), Paint::Plain);
    }
    row.finish()
}

/// A timestamp in the time zone of `now`.
fn time_text(timestamp: &str, now: &Zoned) -> String {
    let Ok(time) = timestamp.parse::<Timestamp>() else {
        return "-".to_owned();
    };
    let time = time.to_zoned(now.time_zone().clone());
    let format = if time.date() == now.date() {
        "%H:%M:%S%.3f"
    } else if time.year() == now.year() {
        "%m-%d %H:%M:%S"
    } else {
        "%Y-%m-%d"
    };
    time.strftime(format).to_string()
}

fn program<'a>(action: &str, process: Option<&'a Process>, procid: Option<&Procid>) -> &'a str {
    if let Some(name) = process.and_then(|process| process.name.as_deref()) {
        name
    } else if matches!(action, "ready" | "loss") {
        "procid"
    } else if procid.is_some_and(|procid| procid.flags.iter().any(|flag| flag == "kernel")) {
        "(kernel)"
    } else {
        "(unknown)"
    }
}

fn hash_column(row: &mut Row, process: Option<&Process>, procid: Option<&Procid>) {
    let sha256 = process.and_then(|process| process.hash.as_ref());
    let reason = procid
        .and_then(|procid| procid.hash.as_ref())
        .and_then(|hash| hash.reason.as_deref());
    match (sha256, reason) {
        (Some(hash), _) => {
            let prefix: String = hash.sha256.chars().take(HASH).collect();
            row.left(&prefix, HASH, Paint::Plain);
        }
        (None, Some(reason)) => row.left(&format!("({reason})"), HASH, Paint::Yellow),
        (None, None) => row.left("-", HASH, Paint::Plain),
    }
}

/// Outcome, ports and addresses of a record about a connection.
fn connection_columns(row: &mut Row, record: &Record) {
    let (text, paint) = outcome(record);
    row.left(&text, OUTCOME, paint);

    let local = if is_ingress(record) {
        &record.destination
    } else {
        &record.source
    };
    let port = local.as_ref().and_then(|end| end.port);
    row.right(
        &port.map_or_else(|| "-".to_owned(), |port| port.to_string()),
        PORT,
    );
    row.last(&cut(&remote(record), usize::MAX), Paint::Plain);
}

fn is_ingress(record: &Record) -> bool {
    let network = record.network.as_ref();
    network.and_then(|network| network.direction.as_deref()) == Some("ingress")
}

/// The other end, with what went to and fro and who opened the connection.
fn remote(record: &Record) -> String {
    let (remote, preposition) = if is_ingress(record) {
        (&record.source, "from ")
    } else {
        (&record.destination, "")
    };
    let network = record.network.as_ref();
    let mut text = preposition.to_owned();
    text.push_str(&remote.as_ref().map_or_else(|| "-".to_owned(), endpoint));
    if let Some(transport) = network.and_then(|network| network.transport.as_deref())
        && transport != "tcp"
    {
        let _ = write!(text, "/{transport}");
    }
    if let Some((sent, received)) = bytes(record) {
        let known = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let (sent, received) = (known(sent), known(received));
        let _ = write!(text, ", {sent} B out, {received} B in");
    }
    if let Some(opener) = record.procid.as_ref().and_then(|p| p.opener.as_ref()) {
        let _ = write!(
            text,
            " (opened by {}",
            opener.name.as_deref().unwrap_or("?")
        );
        if let Some(pid) = opener.pid {
            let _ = write!(text, " {pid}");
        }
        text.push(')');
    }
    text
}

/// Payload bytes that the socket has sent and received; `None` where the record
/// tells of neither.
pub fn bytes(record: &Record) -> Option<(Option<u64>, Option<u64>)> {
    let of = |end: &Option<Endpoint>| end.as_ref().and_then(|end| end.bytes);
    let network = record.network.as_ref();
    let total = network.and_then(|network| network.bytes);
    let (sent, received) = match network.and_then(|network| network.direction.as_deref()) {
        Some("ingress") => (of(&record.destination), of(&record.source)),
        _ => (of(&record.source), of(&record.destination)),
    };
    // A packet socket has no destination: the sum tells.
    let received = received.or_else(|| total?.checked_sub(sent?));
    (sent.is_some() || received.is_some()).then_some((sent, received))
}

fn endpoint(end: &Endpoint) -> String {
    match (end.ip, end.port) {
        (Some(IpAddr::V6(ip)), Some(port)) => format!("[{ip}]:{port}"),
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        (Some(ip), None) => ip.to_string(),
        (None, Some(port)) => format!(":{port}"),
        (None, None) => "-".to_owned(),
    }
}

/// What became of it, in at most [`OUTCOME`] characters for the usual errors.
fn outcome(record: &Record) -> (Cow<'_, str>, Paint) {
    let plain = |text| (Cow::Borrowed(text), Paint::Plain);
    let procid = record.procid.as_deref();
    let Some(event) = &record.event else {
        return plain("-");
    };
    if event.kind == "state" {
        let state = procid
            .and_then(|procid| procid.socket.as_ref())
            .and_then(|socket| socket.state.as_deref());
        return plain(state.unwrap_or("open"));
    }
    if event.action == "close" {
        let after = event.duration.map(|ns| format!("after {}", seconds(ns)));
        return (
            after.map_or(Cow::Borrowed("closed"), Cow::Owned),
            Paint::Plain,
        );
    }
    match procid.and_then(|procid| procid.verdict.as_deref()) {
        Some("deny") => return (Cow::Borrowed("denied"), Paint::Red),
        Some("audit") => return (Cow::Borrowed("would be denied"), Paint::Yellow),
        _ => {}
    }
    match event.outcome.as_deref() {
        Some("success") => plain("allowed"),
        Some("failure") => {
            let code = record
                .error
                .as_ref()
                .map_or("", |error| error.code.as_str());
            (Cow::Owned(format!("failed {code}")), Paint::Yellow)
        }
        Some("unknown") => (Cow::Borrowed("unknown"), Paint::Yellow),
        _ => plain("-"),
    }
}

/// A length of time with milliseconds.
fn seconds(ns: u64) -> String {
    format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1_000)
}

/// The free text of a record that is not about a connection.
fn detail(action: &str, record: &Record) -> String {
    let process = record.process.as_deref();
    let executable = process
        .and_then(|process| process.executable.as_deref())
        .unwrap_or("(unknown)");
    let procid = record.procid.as_deref();
    match action {
        "ready" => format!(
            "{} backend, {} hooks, {} uncovered",
            procid.and_then(|p| p.backend.as_deref()).unwrap_or("no"),
            procid.and_then(|p| p.hooks.as_ref()).map_or(0, Vec::len),
            procid
                .and_then(|p| p.uncovered.as_ref())
                .map_or(0, Vec::len),
        ),
        "loss" => causes(procid.and_then(|p| p.lost.as_ref())),
        "policy" => policy_text(record),
        "exit" => match process.and_then(|process| process.exit_code) {
            Some(code) => format!("{executable} exited with {code}"),
            None => executable.to_owned(),
        },
        "exec" => {
            let args = process.and_then(|process| process.args.as_deref());
            match args {
                Some([_, args @ ..]) if !args.is_empty() => {
                    format!("{executable} {}", command_line(args))
                }
                _ => executable.to_owned(),
            }
        }
        _ => executable.to_owned(),
    }
}

/// What became of the policy: `apply: generation 3 of 9f86d081884c`.
fn policy_text(record: &Record) -> String {
    let procid = record.procid.as_deref();
    let change = procid
        .and_then(|procid| procid.policy.as_ref())
        .map_or("change", |policy| policy.change.as_str());
    let event = record.event.as_ref();
    let reason = event.and_then(|event| event.reason.as_deref());
    if event.and_then(|event| event.outcome.as_deref()) == Some("failure") {
        return format!("{change} failed: {}", reason.unwrap_or("no reason given"));
    }
    let mut text = change.to_owned();
    let rule = record.rule.as_ref();
    if let Some(name) = rule.and_then(|rule| rule.name.as_deref()) {
        let _ = write!(text, " {name}");
    }
    if let Some(reason) = reason {
        let _ = write!(text, " ({reason})");
    }
    match procid.and_then(|procid| procid.generation) {
        Some(generation) => {
            let version = rule.and_then(|rule| rule.version.as_deref());
            let version: String = version.unwrap_or("?").chars().take(HASH).collect();
            let _ = write!(text, ": generation {generation} of {version}");
        }
        None => text.push_str(": no policy"),
    }
    text
}

fn causes(lost: Option<&std::collections::BTreeMap<String, u64>>) -> String {
    let counts: Vec<_> = lost
        .into_iter()
        .flatten()
        .map(|(cause, count)| format!("{count} {cause}"))
        .collect();
    if counts.is_empty() {
        "nothing".to_owned()
    } else {
        counts.join(", ")
    }
}

fn coverage_text(coverage: &super::Coverage) -> String {
    let from = match &coverage.from {
        Some(from) => format!("from {from} "),
        None => String::new(),
    };
    let text = format!(
        "-- {} {from}to {}; lost: {}; {} paths not covered",
        coverage.provenance,
        coverage.to,
        causes(Some(&coverage.lost)),
        coverage.uncovered.len()
    );
    cut(&text, usize::MAX).into_owned()
}

#[cfg(test)]
mod tests;

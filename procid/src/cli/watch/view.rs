//! The rows that are to be seen, and their cells.

use std::collections::HashMap;

use jiff::{Timestamp, tz::TimeZone};

use super::{
    model::{Connection, Denial, Image, Model, Searched, endpoint, entity},
    ui::{Sort, Tab, Ui},
};
use crate::{
    cli::{output::printable, ps::family},
    records::Record,
};

/// Digits of a hash in a table; the detail has them all.
const HASH_DIGITS: usize = 8;

/// What a row is about.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    Connection(&'a Connection),
    Denial(&'a Denial),
    /// With its depth in the tree.
    Image(&'a Image, usize),
}

/// How a row is to stand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    /// It has ended.
    Faint,
    /// It failed, or would have been denied.
    Warning,
    Denied,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// `None`: what is left.
    pub width: Option<u16>,
    pub is_right: bool,
    /// Narrower screens do without it.
    pub from: u16,
}

pub const fn columns(tab: Tab) -> &'static [Column] {
    match tab {
        Tab::Connections => CONNECTIONS,
        Tab::Denials => DENIALS,
        Tab::Processes => PROCESSES,
    }
}

/// The widths leave an IPv4 address and port their room on 80 columns.
const CONNECTIONS: &[Column] = &[
    right("PID", 7, 0),
    left("PROGRAM", 12, 0),
    left("SHA-256", 8, 75),
    left("STATE", 7, 60),
    right("OUT", 5, 66),
    right("IN", 5, 66),
    right("AGE", 4, 50),
    rest("DESTINATION"),
];

const DENIALS: &[Column] = &[
    left("TIME", 8, 72),
    right("PID", 7, 0),
    left("PROGRAM", 10, 0),
    left("SHA-256", 8, 80),
    left("WHAT", 5, 60),
    left("DESTINATION", 21, 0),
    rest("RULE"),
];

const PROCESSES: &[Column] = &[
    right("PID", 7, 0),
    right("USER", 6, 50),
    right("SOCK", 4, 40),
    left("SHA-256", 8, 60),
    left("GRADE", 9, 70),
    rest("IMAGE"),
];

const fn left(name: &'static str, width: u16, from: u16) -> Column {
    Column {
        name,
        width: Some(width),
        is_right: false,
        from,
    }
}

const fn right(name: &'static str, width: u16, from: u16) -> Column {
    Column {
        is_right: true,
        ..left(name, width, from)
    }
}

const fn rest(name: &'static str) -> Column {
    Column {
        width: None,
        ..left(name, 0, 0)
    }
}

/// The rows of the tab that is looked at, in order.
pub fn rows<'a>(model: &'a Model, ui: &Ui) -> Vec<Row<'a>> {
    let words: Vec<String> = ui
        .filter
        .split_whitespace()
        .map(str::to_lowercase)
        .collect();
    let mut rows: Vec<Row<'a>> = match ui.tab {
        Tab::Connections => {
            let connections = model.connections().filter(|it| it.holds(&words));
            connections.map(Row::Connection).collect()
        }
        Tab::Denials => {
            let denials = model.denials().rev().filter(|it| it.holds(&words));
            denials.map(Row::Denial).collect()
        }
        Tab::Processes => return tree(model, &words),
    };
    order(&mut rows, ui.sort);
    if ui.is_reversed {
        rows.reverse();
    }
    rows
}

fn order(rows: &mut [Row<'_>], sort: Sort) {
    // Whatever comes first, rows that are alike keep an order of their own.
    rows.sort_by(|a, b| {
        b.number()
            .cmp(&a.number())
            .then_with(|| a.key().cmp(b.key()))
    });
    match sort {
        Sort::Age => {}
        Sort::Pid => rows.sort_by_key(Row::pid),
        Sort::Program => rows.sort_by(|a, b| a.program().cmp(b.program())),
        Sort::Bytes => rows.sort_by_key(|row| std::cmp::Reverse(row.bytes())),
        Sort::Destination => rows.sort_by_key(|row| {
            let end = row.record().destination.as_ref();
            end.map(|end| (end.ip, end.port))
        }),
    }
}

/// Children after the image that forked them, in the order of their births.
fn tree<'a>(model: &'a Model, words: &[String]) -> Vec<Row<'a>> {
    let mut images: Vec<&Image> = model.images().collect();
    images.sort_by_key(|image| {
        let process = image.record.process.as_deref();
        // Threads of the kernel are many, and nobody's connections.
        (
            is_kernels(&image.record),
            process.and_then(|process| process.start.as_deref()),
            process.and_then(|process| process.pid),
        )
    });
    let records: Vec<&Record> = images.iter().map(|image| &image.record).collect();
    family(&records)
        .into_iter()
        .filter_map(|(at, depth)| Some((*images.get(at)?, depth)))
        .filter(|(image, _)| image.holds(words))
        .map(|(image, depth)| Row::Image(image, depth))
        .collect()
}

/// Open connections by image, for a column of the tree.
pub fn sockets(model: &Model) -> HashMap<&str, usize> {
    let mut sockets: HashMap<&str, usize> = HashMap::new();
    for connection in model.connections().filter(|it| it.ended.is_none()) {
        let records = std::iter::once(&connection.record).chain(&connection.speakers);
        for id in records.filter_map(entity) {
            *sockets.entry(id).or_default() += 1;
        }
    }
    sockets
}

impl<'a> Row<'a> {
    pub fn key(&self) -> &'a str {
        match self {
            Self::Connection(it) => &it.key,
            Self::Denial(it) => &it.key,
            Self::Image(it, _) => entity(&it.record).unwrap_or_default(),
        }
    }

    pub fn record(&self) -> &'a Record {
        match self {
            Self::Connection(it) => &it.record,
            Self::Denial(it) => &it.record,
            Self::Image(it, _) => &it.record,
        }
    }

    /// The greater, the younger.
    fn number(&self) -> i64 {
        match self {
            Self::Connection(it) => it.started_ns.unwrap_or(i64::MIN),
            Self::Denial(it) => it.key.parse().unwrap_or(0),
            Self::Image(..) => 0,
        }
    }

    fn pid(&self) -> Option<u32> {
        self.record().process.as_ref()?.pid
    }

    fn program(&self) -> &'a str {
        let process = self.record().process.as_deref();
        let name = process.and_then(|process| process.name.as_deref());
        name.unwrap_or_else(|| {
            if is_kernels(self.record()) {
                "(kernel)"
            } else {
                "(unknown)"
            }
        })
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Connection(it) => it
                .sent
                .unwrap_or(0)
                .saturating_add(it.received.unwrap_or(0)),
            Self::Denial(_) | Self::Image(..) => 0,
        }
    }

    pub fn tone(&self) -> Tone {
        let verdict = || self.record().procid.as_ref()?.verdict.as_deref();
        match self {
            Self::Connection(it) if has_failed(&it.record) => Tone::Warning,
            Self::Connection(it) if it.ended.is_some() => Tone::Faint,
            Self::Image(it, _) if it.ended.is_some() => Tone::Faint,
            Self::Denial(_) if verdict() == Some("deny") => Tone::Denied,
            Self::Denial(_) => Tone::Warning,
            Self::Connection(_) if verdict() == Some("audit") => Tone::Warning,
            Self::Connection(_) | Self::Image(..) => Tone::Plain,
        }
    }

    /// What stands in the [`columns`]; nothing that steers a terminal.
    pub fn cells(&self, now_ns: i64, sockets: &HashMap<&str, usize>) -> Vec<String> {
        let record = self.record();
        let process = record.process.as_deref();
        let safe = |text: &str| printable(text).into_owned();
        let pid = self
            .pid()
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let program = safe(self.program());
        match self {
            Self::Connection(it) => vec![
                pid,
                program,
                hash(record),
                state(it).to_owned(),
                size(it.sent),
                size(it.received),
                age(it.started_ns, now_ns),
                destination(record, it.speakers.len()),
            ],
            Self::Denial(_) => vec![
                clock(&record.timestamp),
                pid,
                program,
                hash(record),
                verdict(record),
                destination(record, 0),
                safe(rule(record)),
            ],
            Self::Image(_, depth) => {
                let id = entity(record).unwrap_or_default();
                let user = process.and_then(|process| process.user.as_ref());
                let path = process.and_then(|process| process.executable.as_deref());
                vec![
                    pid,
                    user.map_or_else(|| "-".to_owned(), |user| safe(&user.id)),
                    sockets.get(id).copied().unwrap_or(0).to_string(),
                    hash(record),
                    grade(record),
                    format!(
                        "{}{}",
                        "  ".repeat(*depth),
                        safe(path.unwrap_or(self.program()))
                    ),
                ]
            }
        }
    }
}

fn is_kernels(record: &Record) -> bool {
    let procid = record.procid.as_deref();
    procid.is_some_and(|procid| procid.flags.iter().any(|flag| flag == "kernel"))
}

fn has_failed(record: &Record) -> bool {
    let outcome = record.event.as_ref().and_then(|it| it.outcome.as_deref());
    outcome == Some("failure")
}

fn state(connection: &Connection) -> &'static str {
    let record = &connection.record;
    if has_failed(record) {
        return "failed";
    }
    if connection.ended.is_some() {
        return "closed";
    }
    let procid = record.procid.as_deref();
    match procid.and_then(|procid| procid.verdict.as_deref()) {
        Some("audit") => "audit",
        Some(_) => "allow",
        None => "open",
    }
}

fn verdict(record: &Record) -> String {
    let procid = record.procid.as_deref();
    let verdict = procid.and_then(|procid| procid.verdict.as_deref());
    printable(verdict.unwrap_or("-")).into_owned()
}

fn rule(record: &Record) -> &str {
    let rule = record.rule.as_ref().and_then(|rule| rule.name.as_deref());
    rule.unwrap_or("(default)")
}

fn hash(record: &Record) -> String {
    let process = record.process.as_deref();
    match process.and_then(|process| process.hash.as_ref()) {
        Some(hash) => printable(hash.sha256.get(..HASH_DIGITS).unwrap_or(&hash.sha256)).into(),
        None => "-".to_owned(),
    }
}

fn grade(record: &Record) -> String {
    let state = record.procid.as_ref().and_then(|it| it.hash.as_ref());
    let grade = state.map_or("-", |it| it.reason.as_deref().unwrap_or(&it.grade));
    printable(grade).into_owned()
}

/// The other end, and how many further images have used the connection.
fn destination(record: &Record, speakers: usize) -> String {
    let network = record.network.as_ref();
    let is_ingress = network.and_then(|it| it.direction.as_deref()) == Some("ingress");
    let (from, end) = if is_ingress {
        ("< ", &record.source)
    } else {
        ("", &record.destination)
    };
    let mut text = format!("{from}{}", endpoint(end.as_ref()));
    if let Some(transport) = network.and_then(|it| it.transport.as_deref())
        && transport != "tcp"
    {
        text.push('/');
        text.push_str(&printable(transport));
    }
    if speakers > 0 {
        text.push_str(&format!(" +{speakers}"));
    }
    text
}

/// At most five characters.
pub fn size(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else {
        return "-".to_owned();
    };
    let mut rest = bytes;
    let mut below = 0;
    for unit in ["", "K", "M", "G", "T", "P", "E"] {
        if rest < 1024 {
            let tenth = below * 10 / 1024;
            return if unit.is_empty() || rest >= 100 {
                format!("{rest}{unit}")
            } else {
                format!("{rest}.{tenth}{unit}")
            };
        }
        below = rest % 1024;
        rest /= 1024;
    }
    bytes.to_string()
}

/// At most four characters, for 27 years.
pub fn age(started_ns: Option<i64>, now_ns: i64) -> String {
    let Some(started_ns) = started_ns else {
        return "-".to_owned();
    };
    let seconds = now_ns.saturating_sub(started_ns).max(0) / 1_000_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn clock(timestamp: &str) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(time) => {
            let time = time.to_zoned(TimeZone::system());
            time.strftime("%H:%M:%S").to_string()
        }
        Err(_) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fit_their_column() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (102_400, "100K"),
            (1_048_575, "1023K"),
            (99 << 20, "99.0M"),
            (u64::MAX, "15.9E"),
        ] {
            assert_eq!(size(Some(bytes)), text);
            assert!(text.len() <= 5);
        }
        assert_eq!(size(None), "-");
    }

    #[test]
    fn ages_fit_their_column() {
        let now = 2_000_000_000_000_000_000;
        for (seconds, text) in [
            (-5, "0s"),
            (59, "59s"),
            (60, "1m"),
            (86_399, "23h"),
            (864_000, "10d"),
        ] {
            assert_eq!(age(Some(now - seconds * 1_000_000_000), now), text);
        }
        assert_eq!(age(None, now), "-");
        assert_eq!(age(Some(i64::MIN), i64::MAX).len(), 7);
    }
}

//! Connections, denials and images, as records tell of them.
//!
//! Bounded: what there is no room for is counted and not shown. What has ended
//! stays for [`LINGER`], so that one sees it go.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    feed::{News, Open},
    ui::Key,
};
use crate::records::{Endpoint, Process, Record, line::bytes};

/// How long what has ended is shown.
pub const LINGER: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: usize = 20_000;
const DENIALS_MAX: usize = 1_000;
const IMAGES_MAX: usize = 100_000;
/// Most further images of one connection that are kept.
const SPEAKERS_MAX: usize = 32;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Model {
    connections: HashMap<Key, Connection>,
    /// Oldest first.
    denials: VecDeque<Denial>,
    images: HashMap<Key, Image>,
    /// Why no agent answers; `None`: one does.
    pub gone: Option<String>,
    /// Records that were emitted and did not get here.
    pub missed: u64,
    /// Records that the agent lost.
    pub lost: u64,
    /// Connections and images for which there was no room.
    pub unshown: u64,
    denied: u64,
}

/// A connection that is open, or was a moment ago.
#[derive(Debug)]
pub struct Connection {
    pub key: Key,
    /// Of the image that opened or accepted it.
    pub record: Record,
    /// Of each further image that used it.
    pub speakers: Vec<Record>,
    pub sent: Option<u64>,
    pub received: Option<u64>,
    /// Nanoseconds since the epoch; `None`: before the agent was attached.
    pub started_ns: Option<i64>,
    pub ended: Option<Instant>,
    taken: Instant,
    text: String,
}

/// An act that was denied, or would have been.
#[derive(Debug)]
pub struct Denial {
    pub key: Key,
    pub record: Record,
    text: String,
}

/// A process image that runs, or did a moment ago.
#[derive(Debug)]
pub struct Image {
    pub record: Record,
    pub ended: Option<Instant>,
    text: String,
}

impl Model {
    pub fn news(&mut self, news: News, now: Instant) {
        match news {
            News::Record(record) => self.record(*record, now),
            News::Images(records) => {
                self.images.clear();
                for record in records {
                    self.born(record);
                }
            }
            News::Connections { asked, open } => self.open(asked, open, now),
            News::Gone(why) => self.gone = Some(why),
            News::Back => self.gone = None,
        }
    }

    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
    }

    pub fn denials(&self) -> impl DoubleEndedIterator<Item = &Denial> {
        self.denials.iter()
    }

    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.images.values()
    }

    pub fn connection(&self, key: &str) -> Option<&Connection> {
        self.connections.get(key)
    }

    pub fn denial(&self, key: &str) -> Option<&Denial> {
        self.denials.iter().find(|denial| denial.key == key)
    }

    pub fn image(&self, entity: &str) -> Option<&Image> {
        self.images.get(entity)
    }

    /// Forgets what ended long enough ago.
    pub fn sweep(&mut self, now: Instant) {
        let stays = |ended: Option<Instant>| {
            ended.is_none_or(|ended| now.saturating_duration_since(ended) < LINGER)
        };
        self.connections.retain(|_, it| stays(it.ended));
        self.images.retain(|_, it| stays(it.ended));
    }

    fn record(&mut self, record: Record, now: Instant) {
        let Some(event) = &record.event else { return };
        let procid = record.procid.as_deref();
        if event.kind == "state" {
            if event.category.iter().any(|it| it == "network") {
                self.opened(record, now);
            } else {
                self.born(record);
            }
            return;
        }
        match event.action.as_str() {
            "connect" | "send" | "accept" => {
                match procid.and_then(|procid| procid.verdict.as_deref()) {
                    Some("deny") => return self.denied(record),
                    Some("audit") => self.denied(record.clone()),
                    _ => {}
                }
                self.used(record, now);
            }
            "update" | "close" => self.counted(&record, now),
            "exec" | "fork" => {
                let previous = record.process.as_ref().and_then(|it| it.previous.as_ref());
                if let Some(entity) = previous.and_then(|it| it.entity_id.as_deref()) {
                    self.images.remove(entity);
                }
                self.born(record);
            }
            "exit" => {
                if let Some(image) = entity(&record).and_then(|it| self.images.get_mut(it)) {
                    image.ended = Some(now);
                }
            }
            "hash" => self.hashed(&record),
            "loss" => {
                let lost = procid.and_then(|procid| procid.lost.as_ref());
                let lost: u64 = lost.into_iter().flatten().map(|(_, count)| count).sum();
                if procid.is_some_and(|procid| procid.missed.is_some()) {
                    self.missed += lost;
                } else {
                    self.lost += lost;
                }
            }
            _ => {}
        }
    }

    /// Connections as they were at `asked`: those that are not among them and
    /// were known then have ended unseen.
    fn open(&mut self, asked: Instant, open: Open, now: Instant) {
        let mut there: HashMap<Key, ()> = HashMap::with_capacity(open.records.len());
        for record in open.records {
            there.insert(key(&record), ());
            self.used(record, now);
        }
        for connection in self.connections.values_mut() {
            let is_old = connection.taken < asked && connection.ended.is_none();
            if is_old && !open.is_cut && !there.contains_key(&connection.key) {
                connection.ended = Some(now);
            }
        }
    }

    /// By its opener or by another one.
    fn used(&mut self, record: Record, now: Instant) {
        let role = record.procid.as_ref().and_then(|it| it.role.as_deref());
        if role != Some("speaker") {
            return self.opened(record, now);
        }
        let key = key(&record);
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let is_known = |it: &Record| entity(it) == entity(&record);
        if !connection.speakers.iter().any(is_known) && connection.speakers.len() < SPEAKERS_MAX {
            connection.text.push_str(&text(&record));
            connection.speakers.push(record);
        }
    }

    fn opened(&mut self, record: Record, now: Instant) {
        let key = key(&record);
        let has_failed = record
            .event
            .as_ref()
            .is_some_and(|event| event.outcome.as_deref() == Some("failure"));
        let (sent, received) = bytes(&record).unwrap_or_default();
        if let Some(connection) = self.connections.get_mut(&key) {
            // Bytes only grow; what is old is told late.
            connection.sent = connection.sent.max(sent);
            connection.received = connection.received.max(received);
            connection.record = record;
            return;
        }
        if self.connections.len() >= CONNECTIONS_MAX {
            self.unshown += 1;
            return;
        }
        let connection = Connection {
            key: key.clone(),
            text: text(&record),
            sent,
            received,
            started_ns: started_ns(&record),
            ended: has_failed.then_some(now),
            taken: now,
            speakers: Vec::new(),
            record,
        };
        self.connections.insert(key, connection);
    }

    fn counted(&mut self, record: &Record, now: Instant) {
        let Some(connection) = self.connections.get_mut(&key(record)) else {
            return;
        };
        let (sent, received) = bytes(record).unwrap_or_default();
        connection.sent = connection.sent.max(sent);
        connection.received = connection.received.max(received);
        if record.event.as_ref().is_some_and(|it| it.action == "close") {
            connection.ended.get_or_insert(now);
        }
    }

    fn denied(&mut self, record: Record) {
        self.denied += 1;
        if self.denials.len() >= DENIALS_MAX {
            self.denials.pop_front();
        }
        self.denials.push_back(Denial {
            key: self.denied.to_string(),
            text: text(&record),
            record,
        });
    }

    fn born(&mut self, record: Record) {
        let Some(entity) = entity(&record).map(str::to_owned) else {
            return;
        };
        if self.images.len() >= IMAGES_MAX && !self.images.contains_key(&entity) {
            self.unshown += 1;
            return;
        }
        let image = Image {
            text: text(&record),
            record,
            ended: None,
        };
        self.images.insert(entity, image);
    }

    /// A hash became known after its image's records.
    fn hashed(&mut self, hash: &Record) {
        let Some(id) = entity(hash) else { return };
        if let Some(image) = self.images.get_mut(id) {
            put_hash(&mut image.record, hash);
            image.text = text(&image.record);
        }
        for connection in self.connections.values_mut() {
            if entity(&connection.record) == Some(id) {
                put_hash(&mut connection.record, hash);
                connection.text.push_str(&text(hash));
            }
            let speakers = connection.speakers.iter_mut();
            for speaker in speakers.filter(|speaker| entity(speaker) == Some(id)) {
                put_hash(speaker, hash);
            }
        }
        for denial in &mut self.denials {
            if entity(&denial.record) == Some(id) {
                put_hash(&mut denial.record, hash);
                denial.text.push_str(&text(hash));
            }
        }
    }
}

fn put_hash(record: &mut Record, hash: &Record) {
    if let (Some(process), Some(known)) = (&mut record.process, &hash.process) {
        process.hash.clone_from(&known.hash);
    }
    if let (Some(procid), Some(known)) = (&mut record.procid, &hash.procid) {
        procid.hash.clone_from(&known.hash);
    }
}

/// What can be looked through by a filter.
pub trait Searched {
    /// In lower case.
    fn text(&self) -> &str;

    /// Whether it holds each of the words, which are in lower case.
    fn holds(&self, words: &[String]) -> bool {
        words.iter().all(|word| self.text().contains(word.as_str()))
    }
}

impl Searched for Connection {
    fn text(&self) -> &str {
        &self.text
    }
}

impl Searched for Denial {
    fn text(&self) -> &str {
        &self.text
    }
}

impl Searched for Image {
    fn text(&self) -> &str {
        &self.text
    }
}

pub fn entity(record: &Record) -> Option<&str> {
    record.process.as_ref()?.entity_id.as_deref()
}

/// `203.0.113.7:443`, `[2001:db8::1]:443`.
pub fn endpoint(end: Option<&Endpoint>) -> String {
    match end.map(|end| (end.ip, end.port)) {
        Some((Some(ip), Some(port))) => std::net::SocketAddr::new(ip, port).to_string(),
        Some((Some(ip), None)) => ip.to_string(),
        Some((None, Some(port))) => format!(":{port}"),
        _ => "-".to_owned(),
    }
}

fn key(record: &Record) -> Key {
    let procid = record.procid.as_deref();
    procid.and_then(|it| it.flow_id.clone()).unwrap_or_else(|| {
        // A socket found open without a cookie.
        format!(
            "{} {}",
            endpoint(record.source.as_ref()),
            endpoint(record.destination.as_ref())
        )
    })
}

fn started_ns(record: &Record) -> Option<i64> {
    let event = record.event.as_ref()?;
    let time: &str = match &event.start {
        Some(start) => start,
        None if event.kind == "state" => return None,
        None => &record.timestamp,
    };
    let time: Timestamp = time.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// What a filter looks through.
fn text(record: &Record) -> String {
    fn put(text: &mut String, piece: Option<&str>) {
        if let Some(piece) = piece {
            text.push_str(&piece.to_lowercase());
            text.push('\n');
        }
    }
    fn put_process(text: &mut String, process: &Process) {
        put(text, process.pid.map(|pid| pid.to_string()).as_deref());
        for piece in [
            &process.name,
            &process.executable,
            &process.command_line,
            &process.entity_id,
        ] {
            put(text, piece.as_deref());
        }
        put(text, process.hash.as_ref().map(|it| it.sha256.as_str()));
    }
    let mut text = String::new();
    if let Some(process) = &record.process {
        put_process(&mut text, process);
    }
    for end in [&record.source, &record.destination].into_iter().flatten() {
        put(&mut text, Some(&endpoint(Some(end))));
    }
    let network = record.network.as_ref();
    put(&mut text, network.and_then(|it| it.transport.as_deref()));
    put(&mut text, network.and_then(|it| it.community_id.as_deref()));
    if let Some(user) = &record.user {
        put(&mut text, Some(&user.id));
        put(&mut text, user.name.as_deref());
    }
    put(
        &mut text,
        record.container.as_ref().map(|it| it.id.as_str()),
    );
    if let Some(pod) = &record.orchestrator {
        put(&mut text, Some(&pod.resource.id));
        put(&mut text, pod.resource.name.as_deref());
    }
    put(
        &mut text,
        record.rule.as_ref().and_then(|it| it.name.as_deref()),
    );
    if let Some(procid) = &record.procid {
        put(&mut text, procid.verdict.as_deref());
        put(&mut text, procid.script.as_ref().map(|it| it.path.as_str()));
        if let Some(opener) = &procid.opener {
            put_process(&mut text, opener);
        }
        for rule in procid.audit.iter().flat_map(|audit| &audit.rule) {
            put(&mut text, Some(rule));
        }
    }
    text
}

#[cfg(test)]
pub(super) mod tests;

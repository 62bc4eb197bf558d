//! Records, checked as they come and asked for what a test wants to know.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use procid::records::schema;
use serde_json::Value;

use crate::truth::{Act, FileId, canonical};

/// The field at a JSON pointer as text; empty when it is absent.
pub fn text<'a>(record: &'a Value, pointer: &str) -> Cow<'a, str> {
    match record.pointer(pointer) {
        None | Some(Value::Null) => Cow::Borrowed(""),
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(other) => Cow::Owned(other.to_string()),
    }
}

/// Whether `procid.flags` has a flag.
pub fn has_flag(record: &Value, flag: &str) -> bool {
    let flags = record.pointer("/procid/flags").and_then(Value::as_array);
    flags.is_some_and(|flags| flags.contains(&flag.into()))
}

/// The file that a record says was run.
pub fn file_of(record: &Value) -> FileId {
    FileId {
        dev: text(record, "/procid/exe/dev").into_owned(),
        inode: text(record, "/procid/exe/inode").into_owned(),
    }
}

/// Holds every record of one agent to the table of fields, and its sequence to
/// be consecutive.
#[derive(Debug, Default)]
pub struct Checker {
    next: Option<u64>,
    run: String,
    /// Each complaint with the first record that gave cause for it.
    wrong: BTreeMap<String, String>,
}

/// Most complaints that are kept: the first ones tell.
const WRONG_MAX: usize = 20;

impl Checker {
    pub(crate) fn check(&mut self, line: &[u8]) -> Value {
        let record: Value = match serde_json::from_slice(line) {
            Ok(record) => record,
            Err(error) => {
                self.complain(error.to_string(), line.escape_ascii().to_string());
                return Value::Null;
            }
        };
        for wrong in schema::check(&record) {
            self.complain(wrong, record.to_string());
        }
        let run = text(&record, "/agent/ephemeral_id");
        let sequence = record.pointer("/event/sequence").and_then(Value::as_u64);
        if let Some(next) = self.next
            && (sequence != Some(next) || run != self.run)
        {
            let expected = format!("not record {next} of run {}", self.run);
            self.complain(expected, record.to_string());
        }
        self.run = run.into_owned();
        self.next = sequence.map(|sequence| sequence + 1);
        if self.next.is_none() {
            self.complain("no sequence".to_owned(), record.to_string());
        }
        record
    }

    fn complain(&mut self, sentence: String, example: String) {
        if self.wrong.len() < WRONG_MAX {
            self.wrong.entry(sentence).or_insert(example);
        }
    }

    /// # Panics
    ///
    /// When any record was wrong.
    pub(crate) fn finish(&self) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
    }
}

/// What is known of the file of one image, from all records together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hash {
    pub sha256: Option<String>,
    pub grade: String,
    pub reason: String,
}

/// All records of one agent so far.
#[derive(Debug, Default)]
pub struct Records {
    all: Vec<Value>,
    /// By entity id.
    hashes: HashMap<String, Hash>,
}

impl Records {
    /// Keeps a record.
    ///
    /// # Panics
    ///
    /// When it takes back a hash that another record gave.
    pub fn push(&mut self, record: Value) {
        let entity = text(&record, "/process/entity_id").into_owned();
        let grade = text(&record, "/procid/hash/grade").into_owned();
        if !entity.is_empty() && !grade.is_empty() {
            let told = Hash {
                sha256: record
                    .pointer("/process/hash/sha256")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                grade,
                reason: text(&record, "/procid/hash/reason").into_owned(),
            };
            let known = self.hashes.entry(entity).or_default();
            let is_kept = known.sha256.is_none() || known.sha256 == told.sha256;
            assert!(is_kept, "{known:?} is taken back: {record}");
            *known = told;
        }
        self.all.push(record);
    }

    pub fn all(&self) -> &[Value] {
        &self.all
    }

    /// Records of events (not rows of the snapshot) of that action.
    pub fn of_action<'a>(&'a self, action: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all.iter().filter(move |record| {
            text(record, "/event/action") == action && text(record, "/event/kind") == "event"
        })
    }

    pub fn ready(&self) -> Option<&Value> {
        self.of_action("ready").next()
    }

    /// Records of calls that were denied.
    pub fn denials(&self) -> impl Iterator<Item = &Value> {
        let acts = self.of_action("connect").chain(self.of_action("send"));
        acts.filter(|record| text(record, "/procid/verdict") == "deny")
    }

    /// Records lost, all causes together.
    pub fn lost(&self) -> u64 {
        self.losses().values().sum()
    }

    /// Records lost, by cause.
    pub fn losses(&self) -> BTreeMap<String, u64> {
        let mut losses = BTreeMap::new();
        let told = self
            .of_action("loss")
            .filter_map(|record| record.pointer("/procid/lost")?.as_object());
        for (cause, count) in told.flatten() {
            *losses.entry(cause.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
        losses
    }

    /// `connect` and `send` records that are of this act.
    pub fn of_act(&self, act: &Act) -> Vec<&Value> {
        self.of_action("connect")
            .chain(self.of_action("send"))
            .filter(|record| is_of(record, act))
            .collect()
    }

    /// The birth (`exec` or `fork`) of that image.
    pub fn birth(&self, entity: &str) -> Option<&Value> {
        self.of_action("exec")
            .chain(self.of_action("fork"))
            .find(|record| text(record, "/process/entity_id") == entity)
    }

    /// Births by exec in that process, oldest first.
    pub fn execs(&self, pid: u32) -> Vec<&Value> {
        self.of_action("exec")
            .filter(|record| text(record, "/process/pid") == pid.to_string())
            .collect()
    }

    /// The latest record of that process that names its script and says what
    /// was found. Where the agent was slow, it is not the birth: that waits
    /// 100 ms, and the script then comes with a `hash` record.
    pub fn script(&self, pid: u32) -> Option<&Value> {
        self.all.iter().rfind(|record| {
            text(record, "/process/pid") == pid.to_string()
                && record.pointer("/procid/script").is_some()
                && text(record, "/procid/script/hash/reason") != "pending"
        })
    }

    /// `close` records of that flow.
    pub fn closes(&self, flow: &str) -> Vec<&Value> {
        self.of_action("close")
            .filter(|record| text(record, "/procid/flow_id") == flow)
            .collect()
    }

    /// The latest word on the hash of that image's file.
    pub fn hash(&self, entity: &str) -> Hash {
        self.hashes.get(entity).cloned().unwrap_or_default()
    }

    /// Whether the hash of some image's file is still to come.
    pub fn await_hashes(&self) -> bool {
        self.hashes.values().any(|hash| hash.reason == "pending")
    }

    /// Whether the act, its end and its image's hash are all told of.
    pub(crate) fn tell_all_of(&self, act: &Act) -> bool {
        self.of_act(act).first().is_some_and(|record| {
            let hash = self.hash(&text(record, "/process/entity_id"));
            let is_hashed = hash.sha256.is_some() || hash.reason != "pending";
            let is_closed = !self.closes(&text(record, "/procid/flow_id")).is_empty();
            is_hashed && (is_closed || act.error.is_some())
        })
    }
}

/// Whether a record's process, ends and transport are the act's.
fn is_of(record: &Value, act: &Act) -> bool {
    let destination = canonical(act.destination);
    text(record, "/process/pid") == act.actor.pid.to_string()
        && text(record, "/network/transport") == act.transport.name()
        && text(record, "/destination/ip") == destination.ip().to_string()
        && text(record, "/destination/port") == destination.port().to_string()
        && act
            .source
            .is_none_or(|source| text(record, "/source/port") == source.port().to_string())
}

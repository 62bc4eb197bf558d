//! All records of one agent, found by socket, flow, image and process.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    path::Path,
};

use procid_tests::{
    records::{Records, file_of, text},
    scratch::Image,
    truth::{Actor, FileId},
};
use serde_json::Value;

use crate::run::{End, Run};

#[derive(Debug)]
pub(crate) struct Told<'a> {
    pub(crate) records: &'a Records,
    by_cookie: HashMap<String, Vec<&'a Value>>,
    closes: HashMap<String, Vec<&'a Value>>,
    births: HashMap<String, &'a Value>,
    by_pid: HashMap<String, Vec<&'a Value>>,
    /// Cookies of the sockets that the programs told of, all runs together: a
    /// pid can come twice.
    named: HashSet<String>,
    /// SHA-256 of files that are still there.
    files: RefCell<HashMap<FileId, Option<String>>>,
}

impl<'a> Told<'a> {
    /// What the records of these runs say. `app` is the program that ran, whose
    /// hash is known.
    pub(crate) fn new(records: &'a Records, app: &Image, runs: &[Run]) -> Self {
        let flows = runs.iter().flat_map(|run| match &run.end {
            End::Flows(flows) => flows.as_slice(),
            _ => &[],
        });
        let mut told = Self {
            named: flows.map(|flow| flow.cookie.clone()).collect(),
            records,
            by_cookie: HashMap::new(),
            closes: HashMap::new(),
            births: HashMap::new(),
            by_pid: HashMap::new(),
            files: RefCell::new(HashMap::from([(
                app.file.clone(),
                Some(app.sha256.clone()),
            )])),
        };
        for record in records.all() {
            told.insert(record);
        }
        told
    }

    fn insert(&mut self, record: &'a Value) {
        if text(record, "/event/kind") != "event" {
            return;
        }
        let action = text(record, "/event/action");
        if ["exec", "fork"].contains(&&*action) {
            let entity = text(record, "/process/entity_id").into_owned();
            self.births.entry(entity).or_insert(record);
        }
        let cookie = text(record, "/procid/socket/cookie");
        if cookie.is_empty() {
            return;
        }
        let pid = text(record, "/process/pid").into_owned();
        self.by_pid.entry(pid).or_default().push(record);
        if action == "close" {
            let flow = text(record, "/procid/flow_id").into_owned();
            self.closes.entry(flow).or_default().push(record);
        }
        self.by_cookie
            .entry(cookie.into_owned())
            .or_default()
            .push(record);
    }

    /// Every record of the socket.
    pub(crate) fn of_socket(&self, cookie: &str) -> &[&'a Value] {
        self.by_cookie.get(cookie).map_or(&[], Vec::as_slice)
    }

    /// Every record of a socket that names a process of that id.
    /// Whether some program told of that socket.
    pub(crate) fn is_named(&self, cookie: &str) -> bool {
        self.named.contains(cookie)
    }

    pub(crate) fn of_process(&self, pid: u32) -> &[&'a Value] {
        self.by_pid.get(&pid.to_string()).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn closes(&self, flow: &str) -> &[&'a Value] {
        self.closes.get(flow).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn birth(&self, entity: &str) -> Option<&'a Value> {
        self.births.get(entity).copied()
    }

    /// SHA-256 of the file that a record names, if the file is still there.
    pub(crate) fn file_hash(&self, record: &Value) -> Option<String> {
        let file = file_of(record);
        let mut files = self.files.borrow_mut();
        let known = files.entry(file.clone()).or_insert_with(|| {
            let executable = text(record, "/process/executable");
            let path = Path::new(&*executable);
            let is_it = FileId::of(path).is_ok_and(|there| there == file);
            is_it.then(|| Image::of(path).sha256)
        });
        known.clone()
    }

    /// Why the agent does not cover what has one of these names.
    pub(crate) fn uncovered(&self, names: &[&str]) -> Option<String> {
        uncovered(self.records, names)
    }
}

/// Why the agent that wrote these records does not cover what has one of these
/// names.
pub(crate) fn uncovered(records: &Records, names: &[&str]) -> Option<String> {
    let ready = records.ready()?;
    let entries = ready.pointer("/procid/uncovered")?.as_array()?;
    entries
        .iter()
        .find(|entry| names.contains(&&*text(entry, "/path")))
        .map(|entry| text(entry, "/reason").into_owned())
}

/// A record as evidence: what it says of its socket and its image.
pub(crate) fn brief(record: &Value) -> String {
    const KEPT: [&str; 13] = [
        "/event/action",
        "/event/outcome",
        "/error/code",
        "/network",
        "/source",
        "/destination",
        "/process/pid",
        "/process/thread",
        "/process/executable",
        "/process/entity_id",
        "/process/parent/pid",
        "/procid",
        "/@timestamp",
    ];
    let kept = KEPT.into_iter().filter_map(|pointer| {
        let mut value = record.pointer(pointer)?.clone();
        if let Some(procid) = value.as_object_mut() {
            procid.remove("ancestry");
        }
        Some(format!("{}={value}", &pointer[1..]))
    });
    kept.collect::<Vec<_>>().join(" ")
}

/// A process by its id and its file, as records and programs both tell them.
pub(crate) type Who = (String, FileId);

pub(crate) fn who(record: &Value) -> Who {
    (text(record, "/process/pid").into_owned(), file_of(record))
}

pub(crate) fn actor(actor: &Actor) -> Who {
    (actor.pid.to_string(), actor.exe.clone())
}

//! What several parts of the page say in the same way.

use maud::{Markup, html};

use crate::{
    cli::output::{duration, local, printable},
    records::{Process, Record},
};

/// Digits of a hash where the whole is elsewhere on the page.
const SHORT_HASH: usize = 12;

/// `curl, pid 7`, as far as it is known.
pub fn name(process: Option<&Process>) -> String {
    let Some(process) = process else {
        return "not known".to_owned();
    };
    let name = process.name.as_deref().or(process.executable.as_deref());
    let name = printable(name.unwrap_or("no name")).into_owned();
    match process.pid {
        Some(pid) => format!("{name}, pid {pid}"),
        None => name,
    }
}

/// The place of an image on the page.
pub fn anchor(entity: &str) -> String {
    format!("image-{entity}")
}

/// A link to an image.
pub fn link(process: Option<&Process>) -> Markup {
    let entity = process.and_then(|process| process.entity_id.as_deref());
    html! {
        @match entity {
            Some(entity) => a href={ "#" (anchor(entity)) } { (name(process)) },
            None => (name(process)),
        }
    }
}

pub fn short_hash(process: Option<&Process>) -> String {
    let hash = process.and_then(|process| process.hash.as_ref());
    let digits = hash.map_or("", |hash| &hash.sha256);
    printable(digits).chars().take(SHORT_HASH).collect()
}

/// `allow`, `deny`, `audit`; empty where no act was seen.
pub fn verdict(record: &Record) -> &str {
    let procid = record.procid.as_deref();
    let verdict = procid.and_then(|procid| procid.verdict.as_deref());
    verdict
        .filter(|word| matches!(*word, "allow" | "deny" | "audit"))
        .unwrap_or("")
}

pub fn start(record: &Record) -> &str {
    let event = record.event.as_ref();
    event
        .and_then(|event| event.start.as_deref())
        .unwrap_or(&record.timestamp)
}

/// How long it lasted, or why that is not known.
pub fn lasted(record: &Record) -> String {
    let event = record.event.as_ref();
    if let Some(ns) = event.and_then(|event| event.duration) {
        return duration(ns);
    }
    if let Some(end) = event.and_then(|event| event.end.as_deref()) {
        return format!("until {}", local(end));
    }
    let procid = record.procid.as_deref();
    let reason = procid.and_then(|procid| procid.unknown.get("event.end"));
    match reason {
        Some(reason) => format!("no end: {}", printable(reason)),
        None if verdict(record) == "deny" => String::new(),
        None => "open".to_owned(),
    }
}

//! Holds the records to what one run of a program said.

use std::collections::{HashMap, HashSet};

use procid_tests::{
    records::text,
    truth::canonical,
    way::{Flow, Role},
};
use serde_json::Value;

use crate::{
    detail,
    told::{Told, Who, actor, brief, who},
};

/// What is not as the program said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// A record that should be is not.
    Missing(String),
    /// A record says something else, or should not be.
    Wrong(String),
    /// A record names an image that had nothing to do with the socket.
    WrongImage(String),
}

/// What the records told of one run's bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes {
    /// Counts that were told, and right.
    pub(crate) exact: usize,
    /// Why counts are absent.
    pub(crate) unknown: Vec<String>,
}

/// What the records of one run amount to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) problems: Vec<Problem>,
    pub(crate) bytes: Bytes,
    /// The images named as openers.
    openers: Vec<String>,
}

/// Holds the records of every socket in `flows` to these lines.
pub(crate) fn hold(told: &Told<'_>, flows: &[Flow], distinct_images: bool) -> Held {
    let mut held = Held::default();
    let cookies: HashSet<&str> = flows.iter().map(|flow| &*flow.cookie).collect();
    for &cookie in &cookies {
        let claims: Vec<&Flow> = flows.iter().filter(|flow| flow.cookie == cookie).collect();
        images(told, cookie, &claims, &mut held);
        for role in [Role::Opener, Role::Acceptor, Role::Speaker] {
            of_role(told, cookie, &claims, role, &mut held);
        }
    }
    other_sockets(told, flows, &mut held);
    if distinct_images {
        let different: HashSet<&String> = held.openers.iter().collect();
        if different.len() < held.openers.len() {
            let sentence = format!("one image named for several: {:?}", held.openers);
            held.problems.push(Problem::WrongImage(sentence));
        }
    }
    held
}

/// No record of the socket may name an image that no line names.
fn images(told: &Told<'_>, cookie: &str, claims: &[&Flow], held: &mut Held) {
    let actors: HashSet<Who> = claims.iter().map(|claim| actor(&claim.actor)).collect();
    for &record in told.of_socket(cookie) {
        let who = who(record);
        // One that names none is missed by the line it should have been for.
        if !who.0.is_empty() && !actors.contains(&who) {
            let record = brief(record);
            let sentence = format!("no line of socket {cookie} names this image: {record}");
            held.problems.push(Problem::WrongImage(sentence));
        }
    }
}

/// Each line of one role has exactly one record, and each record a line.
fn of_role(told: &Told<'_>, cookie: &str, claims: &[&Flow], role: Role, held: &mut Held) {
    let mut records: HashMap<(Who, Destination), Vec<&Value>> = HashMap::new();
    for &record in told.of_socket(cookie) {
        if role_of(record) == Some(role) {
            let key = (who(record), told_destination(record));
            records.entry(key).or_default().push(record);
        }
    }
    for claim in claims.iter().filter(|claim| claim.role == role) {
        let key = (actor(&claim.actor), destination(claim));
        let candidates = records.entry(key).or_default();
        // Of several that could be it, the one that fits best.
        let best = candidates
            .iter()
            .enumerate()
            .map(|(at, record)| (at, detail::problems(told, claim, record)))
            .min_by_key(|(_, problems)| problems.len());
        let Some((at, problems)) = best else {
            held.problems.push(missing(told, claim));
            continue;
        };
        let record = candidates.remove(at);
        held.problems
            .extend(problems.into_iter().map(Problem::Wrong));
        if role != Role::Speaker {
            held.problems.extend(detail::wire(claim, record));
        }
        match role {
            Role::Speaker => held.problems.extend(speaker(told, claims, record)),
            Role::Opener | Role::Acceptor => {
                held.openers
                    .push(text(record, "/process/entity_id").into_owned());
                let problems = detail::end(told, claim, record, &mut held.bytes);
                held.problems.extend(problems);
            }
        }
    }
    for record in records.into_values().flatten() {
        let sentence = format!("no line for this record, or told twice: {}", brief(record));
        held.problems.push(Problem::Wrong(sentence));
    }
}

/// The role of a record that opens a flow or tells a new user of it.
fn role_of(record: &Value) -> Option<Role> {
    let action = text(record, "/event/action");
    let role = text(record, "/procid/role");
    let flags = record.pointer("/procid/flags").and_then(Value::as_array);
    if flags.is_some_and(|flags| flags.iter().any(|flag| flag == "mptcp-subflow")) {
        return None; // a further one, beside the connection's own record
    }
    match (&*action, &*role) {
        // Of an opener that is not known: no line is as vague.
        ("send", "speaker") if record.pointer("/procid/opener").is_none() => None,
        ("send", "speaker") => Some(Role::Speaker),
        ("connect" | "send", "opener") => Some(Role::Opener),
        ("accept", "acceptor") => Some(Role::Acceptor),
        _ => None,
    }
}

/// An address and a port, which protocols without ports do not have.
type Destination = (String, Option<u64>);

fn told_destination(record: &Value) -> Destination {
    let port = record.pointer("/destination/port").and_then(Value::as_u64);
    let ip = text(record, "/destination/ip").into_owned();
    (ip, port.filter(|&port| port != 0))
}

fn destination(claim: &Flow) -> Destination {
    let to = claim.destination.map(canonical);
    let ip = to.map_or_else(String::new, |to| to.ip().to_string());
    let port = to.map(|to| u64::from(to.port()));
    (ip, port.filter(|&port| port != 0))
}

/// A speaker's record joins the flow of the image it names as the opener.
fn speaker(told: &Told<'_>, claims: &[&Flow], record: &Value) -> Option<Problem> {
    let flow = text(record, "/procid/flow_id");
    let entity = text(record, "/procid/opener/entity_id");
    let cookie = text(record, "/procid/socket/cookie");
    let is_told = told.of_socket(&cookie).iter().any(|first| {
        matches!(role_of(first), Some(Role::Opener | Role::Acceptor))
            && text(first, "/procid/flow_id") == flow
            && text(first, "/process/entity_id") == entity
    });
    let pid = text(record, "/procid/opener/pid");
    let is_right = claims
        .iter()
        .any(|claim| claim.role != Role::Speaker && claim.actor.pid.to_string() == pid);
    if !is_right {
        let sentence = format!("procid.opener did not open the socket: {}", brief(record));
        return Some(Problem::WrongImage(sentence));
    }
    (!is_told).then(|| {
        Problem::Wrong(format!(
            "procid.opener and procid.flow_id are not those of an opening record: {}",
            brief(record)
        ))
    })
}

/// The record that is missing, with all that was told of its socket and, where
/// that is nothing, of its process.
fn missing(told: &Told<'_>, claim: &Flow) -> Problem {
    let mut evidence = told.of_socket(&claim.cookie);
    if evidence.is_empty() {
        evidence = told.of_process(claim.actor.pid);
    }
    let mut sentence = format!("no record of {claim:?}; told was");
    if evidence.is_empty() {
        sentence.push_str(" nothing");
    }
    for record in evidence.iter().take(4) {
        sentence.push_str("\n    ");
        sentence.push_str(&brief(record));
    }
    Problem::Missing(sentence)
}

/// No process of the run opened a socket that the program knows nothing of: a
/// subflow told as a connection of its own, say.
fn other_sockets(told: &Told<'_>, flows: &[Flow], held: &mut Held) {
    let mut seen = HashSet::new();
    let actors: HashSet<Who> = flows.iter().map(|flow| actor(&flow.actor)).collect();
    for flow in flows.iter().filter(|flow| seen.insert(flow.actor.pid)) {
        for &record in told.of_process(flow.actor.pid) {
            let cookie = text(record, "/procid/socket/cookie");
            if actors.contains(&who(record)) && role_of(record).is_some() && !told.is_named(&cookie)
            {
                let sentence = format!(
                    "a socket that the program did not tell of: {}",
                    brief(record)
                );
                held.problems.push(Problem::Wrong(sentence));
            }
        }
    }
}

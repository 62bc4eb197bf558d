//! What one record of a flow, and its end, must say.

use std::borrow::Cow;

use procid_tests::{
    records::{file_of, text},
    truth::{canonical, errno_name},
    way::{Flow, Role},
};
use serde_json::Value;

use crate::{
    hold::{Bytes, Problem},
    told::{Told, brief},
};

/// Whatever is not as the line says, but for the image and the destination,
/// by which the record was found.
pub(crate) fn problems(told: &Told<'_>, claim: &Flow, record: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |pointer: &str, wanted: &str| {
        if text(record, pointer) != wanted {
            problems.push(format!("{pointer} is not {wanted:?}: {}", brief(record)));
        }
    };
    expect("/procid/verdict", "allow");
    expect("/procid/provenance", "live");
    expect("/procid/socket/type", &claim.kind);
    expect(
        "/network/transport",
        claim.transport.as_deref().unwrap_or_default(),
    );
    match claim.role {
        Role::Opener => expect("/network/direction", "egress"),
        Role::Acceptor => expect("/network/direction", "ingress"),
        // Whichever the flow's is.
        Role::Speaker => {}
    }
    problems.extend(outcome(told, claim, record));
    problems.extend(source(claim, record));
    problems.extend(birth(told, claim, record));
    problems.extend(hash(told, record));
    problems
}

/// The address on the wire, where it is another than was asked for.
pub(crate) fn wire(claim: &Flow, record: &Value) -> Option<Problem> {
    let wanted = claim.wire.map(|ip| ip.to_canonical().to_string());
    let wanted = wanted.unwrap_or_default();
    let told = text(record, "/procid/wire/destination");
    if told == wanted {
        return None;
    }
    let sentence = format!(
        "the wire's destination is not {wanted:?}: {}",
        brief(record)
    );
    Some(if told.is_empty() {
        Problem::Missing(sentence)
    } else {
        Problem::Wrong(sentence)
    })
}

/// Why a field is absent, in the record's own words.
fn unknown<'a>(record: &'a Value, field: &str) -> Option<Cow<'a, str>> {
    let reason = record
        .pointer("/procid/unknown")
        .and_then(|unknown| unknown.get(field))?;
    Some(text(reason, ""))
}

fn outcome(told: &Told<'_>, claim: &Flow, record: &Value) -> Option<String> {
    let (outcome, code) = match claim.error {
        None => ("success", ""),
        Some(errno) => ("failure", errno_name(errno)),
    };
    let said = text(record, "/event/outcome");
    let is_right = said == outcome && text(record, "/error/code") == code;
    let may_be_unknown = text(record, "/event/action") == "send" && !sees_sends(told);
    let is_excused = said == "unknown" && may_be_unknown;
    (!is_right && !is_excused)
        .then(|| format!("the outcome is not {outcome} {code}: {}", brief(record)))
}

/// Whether something tells what became of a datagram: the packet, or the
/// return of the send.
fn sees_sends(told: &Told<'_>) -> bool {
    let hooks = told
        .records
        .ready()
        .and_then(|ready| ready.pointer("/procid/hooks")?.as_array());
    hooks.into_iter().flatten().any(|hook| {
        let name = text(hook, "");
        name.starts_with("cgroup_skb/egress") || name.starts_with("tp_btf/sock_send_length")
    })
}

fn source(claim: &Flow, record: &Value) -> Option<String> {
    let source = claim.source.map(canonical)?;
    let (ip, port) = (text(record, "/source/ip"), text(record, "/source/port"));
    let is_port = source.port() == 0
        || port == source.port().to_string()
        || (port.is_empty()
            && (unknown(record, "source.port").is_some()
                || text(record, "/event/outcome") != "success"));
    let is_ip = source.ip().is_unspecified() || ip.is_empty() || ip == source.ip().to_string();
    (!is_port || !is_ip).then(|| format!("the source is not {source}: {}", brief(record)))
}

/// The image named was born in that process, from that file.
fn birth(told: &Told<'_>, claim: &Flow, record: &Value) -> Option<String> {
    let entity = text(record, "/process/entity_id");
    let Some(birth) = told.birth(&entity) else {
        return Some(format!("no birth of image {entity:?}: {}", brief(record)));
    };
    let is_right = text(birth, "/process/pid") == claim.actor.pid.to_string()
        && file_of(birth) == claim.actor.exe
        && text(birth, "/process/start") == text(record, "/process/start");
    (!is_right).then(|| {
        let (birth, record) = (brief(birth), brief(record));
        format!("the image was born otherwise: {birth}, told by {record}")
    })
}

fn hash(told: &Told<'_>, record: &Value) -> Option<String> {
    let hash = told.records.hash(&text(record, "/process/entity_id"));
    match told.file_hash(record) {
        Some(right) if hash.sha256.as_ref() != Some(&right) => Some(format!(
            "the hash is not {right} but {hash:?}: {}",
            brief(record)
        )),
        None if hash.sha256.is_none() && (hash.reason.is_empty() || hash.reason == "pending") => {
            Some(format!("neither a hash nor a reason: {}", brief(record)))
        }
        _ => None,
    }
}

/// The end of the flow that a record opened: told once, with its bytes.
pub(crate) fn end(
    told: &Told<'_>,
    claim: &Flow,
    record: &Value,
    bytes: &mut Bytes,
) -> Vec<Problem> {
    let flow = text(record, "/procid/flow_id");
    let close = match told.closes(&flow) {
        [close] => close,
        [] if claim.error.is_some() => return Vec::new(), // never opened
        [] => return vec![Problem::Missing(format!("no close of {}", brief(record)))],
        more => return vec![Problem::Wrong(format!("several closes: {more:#?}"))],
    };
    let mut problems = Vec::new();
    for pointer in ["/process/entity_id", "/source", "/destination"] {
        let mut at_the_end = close.pointer(pointer).cloned();
        // The counts stand beside the ends' addresses.
        if let Some(end) = at_the_end.as_mut().and_then(Value::as_object_mut) {
            end.remove("bytes");
            if end.is_empty() {
                at_the_end = None;
            }
        }
        if at_the_end.as_ref() != record.pointer(pointer) {
            let (close, record) = (brief(close), brief(record));
            let sentence = format!("{pointer} is another at the end: {close}, opened by {record}");
            problems.push(Problem::Wrong(sentence));
        }
    }
    if claim.error.is_none() {
        problems.extend(counts(claim, close, bytes));
    }
    problems
}

fn counts(claim: &Flow, close: &Value, bytes: &mut Bytes) -> Option<Problem> {
    // An accepted socket's source is the client.
    let (sent, received) = match claim.role {
        Role::Acceptor => ("destination", "source"),
        Role::Opener | Role::Speaker => ("source", "destination"),
    };
    let total = close.pointer("/network/bytes").and_then(Value::as_u64);
    let mut sum = 0;
    for (end, claimed) in [(sent, claim.sent), (received, claim.received)] {
        let field = format!("{end}.bytes");
        let mut told = close
            .pointer(&format!("/{end}/bytes"))
            .and_then(Value::as_u64);
        if claim.kind == "packet" && end == received {
            // It has no destination: the sum tells.
            told = total.and_then(|total| total.checked_sub(sum));
        }
        match (claimed, told, unknown(close, &field)) {
            (Some(claimed), Some(told), _) if claimed != told => {
                let sentence = format!("{field} is not {claimed}: {}", brief(close));
                return Some(Problem::Wrong(sentence));
            }
            (Some(_), None, None) => {
                let sentence = format!("neither {field} nor a reason: {}", brief(close));
                return Some(Problem::Missing(sentence));
            }
            (Some(_), None, Some(reason)) => bytes.unknown.push(reason.into_owned()),
            (Some(_), Some(_), _) => bytes.exact += 1,
            (None, _, _) => {}
        }
        sum += told.unwrap_or(0);
    }
    let is_sum = total.is_none_or(|total| total == sum);
    (!is_sum).then(|| Problem::Wrong(format!("network.bytes is not {sum}: {}", brief(close))))
}

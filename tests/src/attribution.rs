//! What the records of one act must say.

use std::path::Path;

use serde_json::Value;

use crate::{
    records::{Records, text},
    scratch::Image,
    truth::{Act, canonical, errno_name},
};

/// What a test knows of an act beside the act itself.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub action: &'a str,
    pub image: &'a Image,
    /// Effective uid, in the initial user namespace.
    pub uid: u32,
}

impl<'a> Expected<'a> {
    /// A TCP connect, or a connect over UDP, of root.
    pub fn connect(image: &'a Image) -> Self {
        Self {
            action: "connect",
            image,
            uid: 0,
        }
    }

    /// Datagrams of root on an unconnected socket.
    pub fn send(image: &'a Image) -> Self {
        Self {
            action: "send",
            ..Self::connect(image)
        }
    }
}

/// Asserts that the act has exactly one record, that everything in it is as the
/// actor and the file themselves say, and that it has one end; returns the record.
///
/// # Panics
///
/// When anything is otherwise.
pub fn assert_attributed<'a>(
    records: &'a Records,
    act: &Act,
    expected: &Expected<'_>,
) -> &'a Value {
    let record = assert_told_once(records, act, expected);
    let entity = text(record, "/process/entity_id");
    let hash = records.hash(&entity);
    assert_eq!(
        hash.sha256.as_ref(),
        Some(&expected.image.sha256),
        "{hash:?}: {record}"
    );
    assert!(["kernel", "verified"].contains(&&*hash.grade), "{hash:?}");
    record
}

/// [`assert_attributed`] but for the hash.
///
/// # Panics
///
/// When anything else is otherwise.
pub fn assert_told_once<'a>(records: &'a Records, act: &Act, expected: &Expected<'_>) -> &'a Value {
    let told = records.of_act(act);
    let [record] = told[..] else {
        panic!("{} records of {act:?}: {told:#?}", told.len());
    };
    assert_ends(record, act);
    assert_outcome(record, act);
    assert_actor(record, act, expected);
    assert_entity(records, record, act);
    assert_closed(records, record, act);
    record
}

fn assert_fields<'a, T: ToString>(record: &Value, fields: impl IntoIterator<Item = (&'a str, T)>) {
    for (pointer, value) in fields {
        assert_eq!(
            text(record, pointer),
            value.to_string(),
            "{pointer}: {record}"
        );
    }
}

fn assert_ends(record: &Value, act: &Act) {
    let destination = canonical(act.destination);
    let ip_type = if destination.is_ipv4() {
        "ipv4"
    } else {
        "ipv6"
    };
    assert_fields(
        record,
        [("/network/direction", "egress"), ("/network/type", ip_type)],
    );
    let Some(source) = act.source.map(canonical) else {
        return;
    };
    assert_fields(record, [("/source/port", source.port())]);
    if !source.ip().is_unspecified() {
        assert_fields(record, [("/source/ip", source.ip())]);
    }
}

fn assert_outcome(record: &Value, act: &Act) {
    let (outcome, code) = match act.error {
        None => ("success", ""),
        Some(errno) => ("failure", errno_name(errno)),
    };
    assert_fields(record, [("/event/outcome", outcome), ("/error/code", code)]);
}

fn assert_actor(record: &Value, act: &Act, expected: &Expected<'_>) {
    let actor = &act.actor;
    assert_eq!(
        actor.exe, expected.image.file,
        "the program ran another file"
    );
    assert_fields(
        record,
        [
            ("/event/action", expected.action),
            ("/procid/role", "opener"),
            ("/procid/verdict", "allow"),
            ("/procid/provenance", "live"),
            ("/procid/exe/dev", &actor.exe.dev),
            ("/procid/exe/inode", &actor.exe.inode),
        ],
    );
    assert_fields(
        record,
        [
            ("/process/pid", u64::from(actor.pid)),
            ("/process/thread/id", u64::from(actor.tid)),
            ("/process/vpid", u64::from(actor.vpid)),
            ("/process/user/id", u64::from(expected.uid)),
            ("/procid/socket/netns", actor.netns),
        ],
    );
}

/// The image named must have been born in that process, from that file.
fn assert_entity(records: &Records, record: &Value, act: &Act) {
    let entity = text(record, "/process/entity_id");
    let birth = records
        .birth(&entity)
        .unwrap_or_else(|| panic!("no birth of {entity}: {record}"));
    assert_fields(birth, [("/process/pid", act.actor.pid)]);
    for pointer in ["/procid/exe/dev", "/procid/exe/inode", "/process/start"] {
        assert_eq!(text(birth, pointer), text(record, pointer), "{pointer}");
    }
}

fn assert_closed(records: &Records, record: &Value, act: &Act) {
    let flow = text(record, "/procid/flow_id");
    let closes = records.closes(&flow);
    if act.error.is_some() && closes.is_empty() {
        // What never opened need not close.
        return;
    }
    let [close] = closes[..] else {
        panic!("{} closes of {record}", closes.len());
    };
    for pointer in [
        "/process/entity_id",
        "/source/ip",
        "/source/port",
        "/destination/ip",
        "/destination/port",
    ] {
        assert_eq!(record.pointer(pointer), close.pointer(pointer), "{close}");
    }
    let duration = close.pointer("/event/duration").and_then(Value::as_u64);
    assert!(duration.is_some(), "no duration: {close}");
}

/// Asserts what `process.executable` says: the path at exec, as it prints.
///
/// # Panics
///
/// When it says something else.
pub fn assert_executable(record: &Value, path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    assert_fields(
        record,
        [
            ("/process/executable", path.to_string_lossy()),
            ("/process/name", name),
        ],
    );
}

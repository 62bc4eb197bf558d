use rstest::rstest;
use serde_json::json;

use super::*;
use crate::records::Record;

/// The example of the record's contract, word for word.
const EXAMPLE: &str = r#"
{"@timestamp":"2026-11-22T15:04:05.123456789Z","ecs":{"version":"9.4.0"},
 "event":{"kind":"event","category":["network"],"type":["connection","start","allowed"],"action":"connect","outcome":"success","module":"procid","dataset":"procid.connection","sequence":4711},
 "host":{"name":"web-3","id":"...","boot":{"id":"..."}},"agent":{"type":"procid","version":"0.1.0","id":"...","ephemeral_id":"..."},
 "network":{"transport":"tcp","type":"ipv4","iana_number":"6","direction":"egress","community_id":"1:..."},
 "source":{"ip":"10.0.0.5","port":45384},"destination":{"ip":"203.0.113.7","port":443},
 "process":{"entity_id":"...","pid":5580,"vpid":1,"name":"curl","executable":"/usr/bin/curl","args":["curl","https://..."],"command_line":"curl https://...","start":"...",
            "thread":{"id":5580,"name":"curl"},"user":{"id":"1000"},"group":{"id":"1000"},"hash":{"sha256":"..."},
            "parent":{"entity_id":"...","pid":5500,"executable":"/usr/bin/bash","hash":{"sha256":"..."}}},
 "user":{"id":"1000"},"container":{"id":"..."},"rule":{"name":"...","version":"<policy sha-256>"},"related":{"ip":["..."],"hash":["..."]},
 "procid":{"role":"opener","verdict":"allow","hook":"cgroup/connect4","provenance":"live","flow_id":"8812.1","socket":{"cookie":"8812","type":"stream","netns":"4026531840"},
           "exe":{"dev":"254:0","inode":"1234"},"hash":{"grade":"verified"},"parent":{"hash":{"grade":"gated"}},"ancestry":["..."],"generation":3}}
"#;

const SHA256: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// What stands for the ellipses of [`EXAMPLE`] whose type forbids an ellipsis.
const ELLIPSES: &[(&str, &str)] = &[
    ("/network/community_id", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    ("/process/start", "2026-11-22T15:04:05.100000000Z"),
    ("/process/hash/sha256", SHA256),
    ("/process/parent/hash/sha256", SHA256),
    ("/rule/version", SHA256),
    ("/related/ip/0", "203.0.113.7"),
];

fn set(record: &mut Value, pointer: &str, value: Value) {
    *record.pointer_mut(pointer).unwrap() = value;
}

/// The example, its ellipses filled in.
fn example() -> Value {
    let mut record = serde_json::from_str(EXAMPLE).unwrap();
    for (pointer, value) in ELLIPSES {
        set(&mut record, pointer, json!(value));
    }
    record
}

/// Changes a record by a JSON merge patch, where null removes.
fn patched(mut record: Value, patch: &Value) -> Value {
    fn merge(into: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *into = patch.clone();
            return;
        };
        if !into.is_object() {
            *into = json!({});
        }
        if let Value::Object(into) = into {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
    }
    merge(&mut record, patch);
    record
}

const NOTHING: [String; 0] = [];

#[test]
fn the_contracts_example_passes() {
    assert_eq!(check(&example()), NOTHING);
}

#[test]
fn the_record_struct_holds_the_contracts_example() {
    let expected = example();
    let record: Record = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(serde_json::to_value(&record).unwrap(), expected);
}

#[test]
fn a_record_is_written_in_the_contracts_order() {
    let record: Record = serde_json::from_value(example()).unwrap();
    let text = serde_json::to_string(&record).unwrap();
    assert!(text.starts_with(
        r#"{"@timestamp":"2026-11-22T15:04:05.123456789Z","ecs":{"version":"9.4.0"},"event":{"kind":"event","category":["network"],"type":["connection","start","allowed"],"action":"connect","outcome":"success","module":"procid","dataset":"procid.connection","sequence":4711},"host":"#
    ));
    assert!(!text.contains('\n'));
}

#[test]
fn an_empty_record_says_nothing() {
    assert_eq!(serde_json::to_string(&Record::default()).unwrap(), "{}");
}

/// One patch of the example for each other form of record.
#[rstest]
#[case::denied(json!({
    "event": {"type": ["connection", "denied"]}, "source": null, "procid": {"verdict": "deny"},
    "network": {"community_id": null}
}))]
#[case::failure(json!({"event": {"outcome": "failure"}, "error": {"code": "ECONNREFUSED"}}))]
#[case::failure_without_errno(json!({
    "event": {"outcome": "failure"}, "procid": {"unknown": {"error.code": "the socket was closed first"}}
}))]
#[case::unknown(json!({"event": {"outcome": "unknown"}, "source": null, "network": {"community_id": null}}))]
#[case::datagram(json!({
    "event": {"action": "send"}, "network": {"transport": "udp", "iana_number": "17"},
    "procid": {"socket": {"type": "dgram"}}
}))]
#[case::speaker(json!({
    "event": {"action": "send", "type": ["connection", "info", "allowed"]},
    "procid": {"role": "speaker", "opener": {"entity_id": "a", "pid": 1, "parent": {"pid": 2}}}
}))]
#[case::no_hash(json!({
    "process": {"hash": null}, "procid": {"hash": {"grade": "none", "reason": "pending"}}
}))]
#[case::kernel(json!({"process": null, "procid": {"flags": ["kernel"], "hash": null, "parent": null}}))]
#[case::unknown_owner(json!({
    "process": null, "procid": {"unknown": {"process": "older than the hooks"}, "hash": null, "parent": null}
}))]
#[case::packet(json!({
    "event": {"action": "send"}, "network": {"transport": null, "iana_number": null, "type": null},
    "source": null, "destination": null, "procid": {"socket": {"type": "packet"}}
}))]
#[case::close(json!({"event": {
    "action": "close", "type": ["connection", "end"], "outcome": null, "duration": 1_203_000_000,
    "start": "2026-11-22T15:04:05.123456789Z", "end": "2026-11-22T15:04:06.326456789Z"
}}))]
#[case::update(json!({
    "event": {"action": "update", "type": ["connection", "info"], "outcome": null},
    "source": {"bytes": 7}, "destination": {"bytes": 8}, "network": {"bytes": 15}
}))]
#[case::exec(json!({
    "event": {"action": "exec", "category": ["process"], "type": ["start"], "outcome": null},
    "process": {"args": ["sh", "-c", ""], "previous": {"executable": "/usr/bin/bash"}},
    "network": null, "source": null, "destination": null
}))]
#[case::exit(json!({
    "event": {"action": "exit", "category": ["process"], "type": ["end"], "outcome": null},
    "process": {"exit_code": 137, "end": "2026-11-22T15:04:06.326456789Z"}
}))]
#[case::hash(json!({"event": {"action": "hash", "category": ["process"], "type": ["info"], "outcome": null}}))]
#[case::ready(json!({
    "event": {"action": "ready", "category": null, "type": ["info"], "outcome": null},
    "procid": {
        "backend": "lsm+cgroup", "hooks": ["cgroup/connect4"],
        "uncovered": [{"path": "AF_PACKET", "reason": "no LSM"}]
    }
}))]
#[case::loss(json!({
    "event": {"action": "loss", "category": null, "type": ["info"], "outcome": null},
    "procid": {"lost": {"ring-full-process": 12}}
}))]
#[case::policy(json!({
    "event": {"action": "policy", "category": ["configuration"], "type": ["change"], "outcome": "success"},
    "procid": {"policy": {"change": "apply", "confirm_by": "2026-11-22T15:04:06.326456789Z"}}
}))]
#[case::policy_refused(json!({
    "event": {
        "action": "policy", "category": ["configuration"], "type": ["change"], "outcome": "failure",
        "reason": "no such file"
    },
    "process": null, "rule": null,
    "procid": {
        "policy": {"change": "reload"}, "hash": null, "parent": null,
        "unknown": {"process": "a signal", "rule.version": "no policy"}
    }
}))]
#[case::snapshot(json!({
    "event": {"kind": "state", "type": ["info"], "outcome": null, "sequence": null, "action": "snapshot"},
    "agent": {"ephemeral_id": null}, "procid": {"provenance": "snapshot", "socket": {"state": "ESTABLISHED"}}
}))]
fn every_form_of_record_passes(#[case] patch: Value) {
    assert_eq!(check(&patched(example(), &patch)), NOTHING);
}

#[test]
fn a_coverage_record_passes() {
    let coverage = json!({"procid": {"coverage": {
        "from": "2026-11-22T15:04:05.123456789Z", "to": "2026-11-22T15:04:05.123456789Z",
        "lost": {"images-full": 2}, "uncovered": [{"path": "AF_PACKET", "reason": "no LSM"}],
        "provenance": "live"
    }}});
    assert_eq!(check(&coverage), NOTHING);
    let with_more = patched(coverage.clone(), &json!({"event": {"kind": "event"}}));
    assert_eq!(check(&with_more).len(), 1);
    let less = patched(coverage, &json!({"procid": {"coverage": {"to": null}}}));
    assert_eq!(check(&less).len(), 1);
}

/// Each violation planted in the example, and the one sentence it is to give.
#[rstest]
#[case(json!({"colour": 1}), r#""colour" is not a field"#)]
#[case(json!({"process": {"colour": {"a": 1}}}), r#""process.colour" is not a field"#)]
#[case(json!({"process": {"parent": {"parent": {"pid": 1}}}}), r#""process.parent.parent" is not a field"#)]
#[case(json!({"process": {"pid": "5580"}}), r#"process.pid is "5580", not a 32-bit number"#)]
#[case(json!({"process": {"pid": -1}}), "process.pid is -1")]
#[case(json!({"process": {"pid": 4_294_967_296_u64}}), "process.pid is 4294967296")]
#[case(json!({"process": {"thread": 5}}), "process.thread is 5, not an object")]
#[case(json!({"process": {"name": ""}}), "process.name is an empty string")]
#[case(json!({"process": {"name": "a\u{1b}[31m"}}), "process.name holds a control character")]
#[case(json!({"process": {"args": ["a\nb"]}}), "process.args[0] holds a control character")]
#[case(json!({"process": {"args": "curl"}}), r#"process.args is "curl", not an array"#)]
#[case(json!({"process": {"user": {"id": 1000}}}), "process.user.id is 1000, not a 64-bit number as a decimal string")]
#[case(json!({"process": {"start": "2026-11-22T15:04:05Z"}}), "process.start is")]
#[case(json!({"@timestamp": "2026-11-22 15:04:05.123456789Z"}), "@timestamp is")]
#[case(json!({"@timestamp": "2026-13-22T15:04:05.123456789Z"}), "@timestamp is")]
#[case(json!({"@timestamp": null}), "@timestamp is missing")]
#[case(json!({"ecs": {"version": "8.0.0"}}), "ecs.version is \"8.0.0\", not one of 9.4.0")]
#[case(json!({"event": {"module": "other"}}), "event.module is")]
#[case(json!({"event": {"action": "dial"}}), "which is no action")]
#[case(json!({"event": {"sequence": null}}), "event.sequence is missing")]
#[case(json!({"event": {"outcome": null}}), "event.outcome of connect is None")]
#[case(json!({"event": {"type": ["connection", "start"]}}), "event.type of connect is")]
#[case(json!({"event": {"category": ["process"]}}), "event.category of connect is")]
#[case(json!({"event": {"kind": "metric"}}), "event.kind is \"metric\", not one of")]
#[case(json!({"host": {"boot": null}}), "host.boot.id is missing")]
#[case(json!({"network": {"transport": "TCP"}}), "network.transport is \"TCP\", not one of")]
#[case(json!({"network": {"type": "ipv6"}}), "network.type is not ipv4, but source.ip")]
#[case(json!({"network": {"iana_number": "17"}}), "network.iana_number is not the number")]
#[case(json!({"network": {"iana_number": "262"}}), "network.iana_number is \"262\"")]
#[case(json!({"network": {"direction": "outbound"}}), "network.direction is")]
#[case(json!({"network": {"community_id": "1:abc"}}), "network.community_id is \"1:abc\", not a Community ID")]
#[case(json!({"source": {"port": 65536}}), "source.port is 65536, not a port number")]
#[case(json!({"source": {"ip": "::ffff:10.0.0.5"}}), "source.ip is \"::ffff:10.0.0.5\", not an address")]
#[case(json!({"destination": {"port": null}}), "destination.port is missing")]
#[case(json!({"destination": {"ip": null}}), "destination.ip is missing")]
#[case(json!({"related": {"ip": []}}), "related.ip is an empty array")]
#[case(json!({"error": {"code": "ECONNREFUSED"}}), "error.code stands in a record that is no failure")]
#[case(json!({"error": {"code": "refused"}, "event": {"outcome": "failure"}}), "error.code is \"refused\", not an errno")]
#[case(json!({"event": {"outcome": "failure"}}), "error.code is missing")]
#[case(json!({"process": {"entity_id": null}}), "process.entity_id is missing")]
#[case(json!({"process": {"hash": {"sha256": "9F86"}}}), "process.hash.sha256 is \"9F86\"")]
#[case(json!({"process": {"hash": null}}), "disagree on whether the hash is known")]
#[case(json!({"procid": {"hash": {"reason": "gone"}}}), "procid.hash.reason stands beside")]
#[case(json!({"procid": {"hash": {"grade": "sure"}}, "process": {"hash": null}}), "procid.hash.grade is \"sure\"")]
#[case(json!({"procid": {"verdict": "deny"}}), "disagree on whether it was denied")]
#[case(json!({"procid": {"socket": {"cookie": 8812}}}), "procid.socket.cookie is 8812, not a 64-bit number as a decimal string")]
#[case(json!({"procid": {"socket": {"cookie": "0x8812"}}}), "procid.socket.cookie is \"0x8812\"")]
#[case(json!({"procid": {"socket": {"type": "packet"}}}), "network.transport stands in a record of a packet socket")]
#[case(json!({"procid": {"exe": {"dev": "fe00"}}}), "procid.exe.dev is \"fe00\", not major:minor")]
#[case(json!({"procid": {"flow_id": "8812"}}), "procid.flow_id is \"8812\", not COOKIE.COUNT")]
#[case(json!({"procid": {"role": "listener"}}), "procid.role is \"listener\"")]
#[case(json!({"procid": {"role": null}}), "procid.role is missing")]
#[case(json!({"procid": {"lost": {"x": "1"}}}), "procid.lost.x is \"1\", not a whole number")]
#[case(json!({"procid": {"uncovered": [{"path": "x", "why": "y"}]}}), "procid.uncovered[0].reason is missing")]
fn planted_violations_are_found(#[case] patch: Value, #[case] sentence: &str) {
    let wrong = check(&patched(example(), &patch));
    assert!(
        wrong.iter().any(|wrong| wrong.contains(sentence)),
        "{wrong:#?}"
    );
}

/// Violations of records that are not connection attempts.
#[rstest]
#[case(json!({"event": {"action": "close", "type": ["connection", "end"], "outcome": null}}), "event.duration is missing")]
#[case(json!({"event": {"kind": "state", "type": ["info"], "outcome": null}}), "procid.provenance of a snapshot row is not snapshot")]
#[case(json!({"event": {"kind": "state"}}), "event.type of a snapshot row")]
#[case(json!({"event": {"action": "ready", "type": ["info"], "category": null, "outcome": null}}), "procid.uncovered is missing")]
#[case(json!({"event": {"action": "loss", "type": ["info"], "category": null, "outcome": null}, "procid": {"lost": {"x": 0}}}), "counts nothing")]
#[case(json!({
    "event": {"action": "hash", "category": ["process"], "type": ["info"], "outcome": null},
    "process": {"hash": null}, "procid": {"hash": {"grade": "none", "reason": "pending"}}
}), "says that the hash is pending")]
#[case(json!({"event": {"type": ["connection", "denied"]}, "procid": {"verdict": "deny"}}), "a denied connect has a source")]
#[case(json!({
    "event": {"type": ["connection", "denied"], "outcome": "failure"}, "procid": {"verdict": "deny"}
}), "event.outcome of a denial is not success")]
#[case(json!({"event": {"kind": "state"}}), "a snapshot row has an event.outcome")]
#[case(json!({"event": {"kind": "state", "category": ["configuration"]}}), "is not network or process")]
#[case(json!({"procid": {"socket": {"type": "packet"}}}), "destination stands in a record of a packet socket")]
#[case(json!({"process": {"parent": {"hash": null}}}), "process.parent.hash.sha256 and procid.parent.hash.grade disagree")]
#[case(json!({"procid": {"hash": null}}), "procid.hash.grade is missing")]
#[case(json!({"event": {"action": "exec", "category": ["process"], "type": ["start"], "outcome": null}, "process": {"start": null}}), "process.start is missing")]
#[case(json!({
    "event": {"action": "send", "type": ["connection", "start", "allowed"]}, "procid": {"role": "speaker"}
}), "event.type of send is")]
fn violations_of_other_records_are_found(#[case] patch: Value, #[case] sentence: &str) {
    let wrong = check(&patched(example(), &patch));
    assert!(
        wrong.iter().any(|wrong| wrong.contains(sentence)),
        "{wrong:#?}"
    );
}

#[test]
fn what_is_no_object_is_no_record() {
    assert_eq!(check(&json!([1])).len(), 1);
    let mut record = example();
    set(&mut record, "/source", json!({}));
    assert_eq!(check(&record), [r#""source" is an empty object"#]);
}

#[test]
fn a_step_of_a_chain_is_checked() {
    let checked = |hop: Value| {
        let mut record = example();
        record["procid"]["chain"] = json!([hop]);
        check(&record)
    };
    let hop = sample(Kind::Hops)[0].clone();
    assert_eq!(checked(hop.clone()), NOTHING);
    for (change, wrong) in [
        (json!({"why": null}), "procid.chain[0].why is missing"),
        (
            json!({"relation": "certain"}),
            r#"procid.chain[0].relation is "certain", not one of peer, inferred"#,
        ),
        (
            json!({"flow_id": "8"}),
            r#"procid.chain[0].flow_id is "8", not COOKIE.COUNT"#,
        ),
        (
            json!({"process": {"secret": 1}}),
            r#""process.secret" is not a field of records"#,
        ),
        (
            json!({"sure": "yes"}),
            r#""procid.chain[0].sure" is not a field of records"#,
        ),
    ] {
        assert_eq!(checked(patched(hop.clone(), &change)), [wrong]);
    }
}

#[test]
fn the_table_names_each_field_once() {
    let mut names: Vec<_> = fields::FIELDS.iter().map(|field| field.name).collect();
    for object in fields::PROCESS_OBJECTS {
        assert!(
            fields::is_object(object) && field(object).is_none(),
            "{object}"
        );
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// A value that a field accepts.
fn sample(kind: Kind) -> Value {
    match kind {
        Kind::Keyword | Kind::Text => json!("word"),
        Kind::Date => json!("2026-11-22T15:04:05.123456789Z"),
        Kind::Ip => json!("fe80::1"),
        Kind::Long | Kind::Port | Kind::Id32 => json!(7),
        Kind::Decimal => json!("18446744073709551615"),
        Kind::IanaNumber => json!("6"),
        Kind::Sha256 => json!(SHA256),
        Kind::CommunityId => json!("1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        Kind::Errno => json!("ECONNREFUSED"),
        Kind::FlowId => json!("8812.1"),
        Kind::Device => json!("254:0"),
        Kind::Keywords | Kind::KeywordsOrNone | Kind::Texts => json!(["word"]),
        Kind::Ips => json!(["10.0.0.5"]),
        Kind::Uncovered => json!([{"path": "word", "reason": "word"}]),
        Kind::Gaps => json!([{
            "from": "2026-11-22T15:04:05.123456789Z",
            "to": "2026-11-22T15:04:06.123456789Z",
            "count": 7,
            "cause": "word",
        }]),
        Kind::Hops => json!([{
            "of": "8812.1",
            "flow_id": "8813.1",
            "relation": "inferred",
            "toward": "onward",
            "why": "word",
            "process": {"pid": 7, "hash": {"sha256": SHA256}},
            "hash": {"grade": "verified"},
            "transport": "tcp",
            "source": {"ip": "10.0.0.5", "port": 7},
            "destination": {"ip": "10.0.0.6", "port": 443},
        }]),
        Kind::KeywordMap => json!({"name": "word"}),
        Kind::LongMap => json!({"name": 7}),
    }
}

/// The struct and the table agree on names, nesting and types.
#[test]
fn the_record_struct_holds_every_field_of_the_table() {
    const ONLY_WITH_A_POLICY: [&str; 4] = [
        "rule.name",
        "rule.version",
        "procid.audit.rule",
        "procid.generation",
    ];
    let inner = fields::PROCESS_OBJECTS.iter().flat_map(|object| {
        fields::PROCESS_FIELDS
            .iter()
            .map(move |field| (format!("{object}.{}", field.name), field))
    });
    let outer = fields::FIELDS
        .iter()
        .map(|field| (field.name.to_owned(), field));
    let mut everything = json!({});
    for (name, field) in inner.chain(outer) {
        if ONLY_WITH_A_POLICY.contains(&name.as_str()) {
            continue;
        }
        let value = match (field.values.first(), field.kind) {
            (Some(word), Kind::Keyword) => json!(word),
            (Some(word), _) => json!([word]),
            (None, kind) => sample(kind),
        };
        let nested = name
            .rsplit('.')
            .fold(value, |value, key| json!({ key: value }));
        everything = patched(everything, &nested);
    }
    let record: Record = serde_json::from_value(everything.clone()).unwrap();
    assert_eq!(serde_json::to_value(&record).unwrap(), everything);
    let mut wrong = Vec::new();
    check_object("", everything.as_object().unwrap(), &mut wrong);
    assert_eq!(wrong, NOTHING);
}

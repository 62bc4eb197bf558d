use serde_json::{Value, json};

use super::*;
use crate::policy::text::{Names, parse};

struct Nobody;

impl Names for Nobody {
    fn uid(&self, _: &str) -> Option<u32> {
        None
    }

    fn gid(&self, _: &str) -> Option<u32> {
        None
    }
}

fn policy(rules: &str) -> Policy {
    let text = format!("mode = \"enforce\"\ndefault = \"allow\"\nunknown_hash = \"deny\"\n{rules}");
    parse(&text, "p.toml", &Nobody).unwrap().policy
}

/// A policy of one rule that denies.
fn denying(fields: &str) -> Policy {
    policy(&format!(
        "[[rule]]\nname = \"r\"\naction = \"deny\"\n{fields}\n"
    ))
}

/// A connect of curl's, with `more` merged into it.
fn record(more: &Value) -> Record {
    let mut record = json!({
        "@timestamp": "2026-11-22T15:04:05.000000000Z",
        "network": {"transport": "tcp"},
        "source": {"ip": "10.0.0.5", "port": 40000},
        "destination": {"ip": "203.0.113.7", "port": 443},
        "process": {
            "entity_id": "me", "pid": 7, "executable": "/usr/bin/curl",
            "user": {"id": "1000"}, "group": {"id": "100"},
            "hash": {"sha256": "11".repeat(32)},
            "parent": {"entity_id": "bash", "pid": 6, "executable": "/usr/bin/bash"},
        },
        "procid": {
            "role": "opener", "verdict": "allow", "provenance": "live",
            "socket": {"type": "stream"}, "exe": {"dev": "254:0", "inode": "12"},
            "ancestry": ["bash", "init"],
            "cgroup": {"id": "7", "path": "/system.slice/a\\\\x2db.service"},
        },
    });
    merge(&mut record, more);
    serde_json::from_value(record).unwrap()
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

fn judge(policy: &Policy, record: &Record) -> Again {
    let images = Images::default();
    Past::of(record, &images).unwrap().judge(policy)
}

const LET: Again = Again {
    deny: false,
    rule: None,
    uncertain: false,
};
const DENIED: Again = Again {
    deny: true,
    rule: Some(0),
    uncertain: false,
};
/// `unknown_hash` is to deny.
const UNCERTAIN: Again = Again {
    deny: true,
    rule: Some(0),
    uncertain: true,
};

#[test]
fn what_a_record_says_decides() {
    let curl = record(&json!({}));
    let ones = "11".repeat(32);
    let twos = "22".repeat(32);
    for (fields, again) in [
        (
            "process = { executable = \"/usr/bin/curl\" }".to_owned(),
            DENIED,
        ),
        (
            "process = { executable = \"/usr/bin/**\" }".to_owned(),
            DENIED,
        ),
        (
            "process = { executable = \"/usr/bin/wget\" }".to_owned(),
            LET,
        ),
        (format!("process = {{ sha256 = \"{ones}\" }}"), DENIED),
        (format!("process = {{ sha256 = \"{twos}\" }}"), LET),
        ("process = { inode = \"254:0:12\" }".to_owned(), DENIED),
        ("process = { inode = \"254:0:13\" }".to_owned(), LET),
        (
            "process = { uid = 1000, gid = \"99-100\" }".to_owned(),
            DENIED,
        ),
        ("process = { uid = 0 }".to_owned(), LET),
        ("process = { role = \"speaker\" }".to_owned(), LET),
        (
            "process = { parent = { executable = \"/usr/bin/bash\" } }".to_owned(),
            DENIED,
        ),
        ("process = { container = \"0123456789ab\" }".to_owned(), LET),
        (
            "process = { cgroup = \"/system.slice\", unit = \"a\\\\x2db.service\" }".to_owned(),
            DENIED,
        ),
        ("process = { cgroup = \"/system\" }".to_owned(), LET),
        ("process = { unit = \"b.service\" }".to_owned(), LET),
        (
            "destination = { cidr = \"203.0.113.0/24\", port = 443, transport = \"tcp\" }"
                .to_owned(),
            DENIED,
        ),
        ("destination = { port = 80 }".to_owned(), LET),
        ("destination = { transport = \"udp\" }".to_owned(), LET),
        ("source = { port = 40000 }".to_owned(), DENIED),
        ("direction = \"ingress\"".to_owned(), LET),
    ] {
        assert_eq!(judge(&denying(&fields), &curl), again, "{fields}");
    }
}

#[test]
fn what_it_does_not_say_is_not_certain() {
    let missing = json!({"process": {
        "executable": null, "hash": null, "user": null, "group": null, "parent": null,
    }, "procid": {"exe": null, "cgroup": null, "unknown": {"process.parent": "x", "container.id": "x"}}});
    let unknown = record(&missing);
    let ones = "11".repeat(32);
    for fields in [
        "process = { executable = \"/usr/bin/curl\" }".to_owned(),
        format!("process = {{ sha256 = \"{ones}\" }}"),
        "process = { inode = \"254:0:12\" }".to_owned(),
        "process = { uid = 0 }".to_owned(),
        "process = { gid = 0 }".to_owned(),
        "process = { cgroup = \"/system.slice\" }".to_owned(),
        "process = { unit = \"a.service\" }".to_owned(),
        "process = { container = \"0123456789ab\" }".to_owned(),
        "process = { parent = { executable = \"/usr/bin/bash\" } }".to_owned(),
        "process = { ancestor = { executable = \"/usr/bin/bash\" } }".to_owned(),
    ] {
        assert_eq!(judge(&denying(&fields), &unknown), UNCERTAIN, "{fields}");
        // Certain all the same, where something else decides.
        let elsewhere = denying(&format!("{fields}\ndestination = {{ port = 80 }}"));
        assert_eq!(judge(&elsewhere, &unknown), LET, "{fields}");
    }
}

#[test]
fn a_file_of_a_container_is_not_the_host_s() {
    let id = "0123456789abcdef".repeat(4);
    let inside = record(&json!({"container": {"id": id}}));
    let host = denying("process = { executable = \"/usr/bin/curl\" }");
    assert_eq!(judge(&host, &inside), UNCERTAIN);
    let own = denying("process = { executable = \"/usr/bin/curl\", container = \"0123456789ab\" }");
    assert_eq!(judge(&own, &inside), DENIED);
    assert_eq!(judge(&own, &record(&json!({}))), LET);
}

#[test]
fn both_the_address_asked_for_and_that_on_the_wire_are_judged() {
    let routed = record(&json!({"procid": {"wire": {"destination": "198.51.100.1"}}}));
    let wire = denying("destination = { cidr = \"198.51.100.1/32\" }");
    assert_eq!(judge(&wire, &routed), DENIED);
    let asked = denying("destination = { cidr = \"203.0.113.7/32\" }");
    assert_eq!(judge(&asked, &routed), DENIED);
    let neither = denying("destination = { cidr = \"192.0.2.1/32\" }");
    assert_eq!(judge(&neither, &routed), LET);
}

#[test]
fn an_accepted_connection_is_judged_by_its_peer() {
    let accepted = record(&json!({"procid": {"role": "acceptor"}}));
    let peer = denying("direction = \"ingress\"\ndestination = { cidr = \"10.0.0.5/32\" }");
    assert_eq!(judge(&peer, &accepted), DENIED);
    let own = denying("direction = \"ingress\"\ndestination = { cidr = \"203.0.113.7/32\" }");
    assert_eq!(judge(&own, &accepted), LET);
    let mut default = policy("");
    default.default = crate::policy::Verdict::Deny;
    assert_eq!(judge(&default, &accepted), LET);
}

#[test]
fn loopback_is_left_alone_where_the_policy_says_so() {
    let rule = "[[rule]]\nname = \"r\"\naction = \"deny\"\n";
    let judged = policy(rule);
    let alone = policy(&format!("loopback = \"allow\"\n{rule}"));
    for (ip, is_local) in [("127.0.0.1", true), ("10.0.0.5", true), ("10.0.0.6", false)] {
        let record = record(&json!({"destination": {"ip": ip}}));
        assert_eq!(judge(&judged, &record), DENIED);
        assert_eq!(judge(&alone, &record).deny, !is_local, "{ip}");
    }
}

#[test]
fn what_is_no_act_is_not_judged() {
    let images = Images::default();
    let of = |more: Value| Past::of(&record(&more), &images).map(|_| ()).unwrap_err();
    assert_eq!(
        of(json!({"procid": {"provenance": "snapshot"}})),
        Unjudged::Found
    );
    assert_eq!(of(json!({"procid": {"role": null}})), Unjudged::Role);
    assert_eq!(of(json!({"procid": null})), Unjudged::NotAnAct);
    assert_eq!(of(json!({"@timestamp": "soon"})), Unjudged::NotAnAct);
}

/// The record of an image.
fn image(entity: &str, pid: u32, executable: &str, more: &Value) -> Option<Record> {
    let mut image = json!({
        "process": {"entity_id": entity, "pid": pid, "executable": executable},
        "procid": {"provenance": "live"},
    });
    merge(&mut image, more);
    Some(serde_json::from_value(image).unwrap())
}

/// Answers what a record wants to know, and says of how many images.
fn learn(images: &mut Images, record: &Record, known: &[(&str, Option<Record>)]) -> usize {
    let mut asked = 0;
    while let Some(entity) = images.wanted(record) {
        let found = known.iter().find(|(name, _)| *name == entity);
        images.learn(entity, found.and_then(|(_, record)| record.clone()));
        asked += 1;
    }
    asked
}

#[test]
fn ancestors_are_those_that_forked_and_those_that_called_exec() {
    let curl = record(&json!({}));
    let forked = json!({"procid": {"flags": ["forked"]}});
    let known = [
        (
            "me",
            image(
                "me",
                7,
                "/usr/bin/curl",
                &json!({"process": {"previous": {"entity_id": "sh"}}}),
            ),
        ),
        (
            "sh",
            image(
                "sh",
                7,
                "/usr/bin/dash",
                &json!({"process": {"previous": {"entity_id": "fork"}}}),
            ),
        ),
        ("fork", image("fork", 7, "/usr/bin/bash", &forked)),
        ("bash", image("bash", 6, "/usr/bin/bash", &forked)),
        (
            "init",
            image(
                "init",
                1,
                "/sbin/init",
                &json!({"procid": {"provenance": "snapshot"}}),
            ),
        ),
    ];
    let mut images = Images::default();
    assert_eq!(learn(&mut images, &curl, &known), 5);
    let again = |path: &str| {
        let policy = denying(&format!(
            "process = {{ ancestor = {{ executable = \"{path}\" }} }}"
        ));
        Past::of(&curl, &images).unwrap().judge(&policy)
    };
    assert_eq!(again("/usr/bin/dash"), DENIED);
    assert_eq!(again("/sbin/init"), DENIED);
    // It is not its own ancestor.
    assert_eq!(again("/usr/bin/curl"), LET);
}

#[test]
fn an_ancestor_that_is_not_known_may_be_any() {
    let curl = record(&json!({}));
    let policy = denying("process = { ancestor = { executable = \"/usr/bin/tool\" } }");
    let forked = json!({"procid": {"flags": ["forked"]}});
    let init = ("init", image("init", 1, "/sbin/init", &json!({})));
    let bash = ("bash", image("bash", 6, "/usr/bin/bash", &forked));
    let me = ("me", image("me", 7, "/usr/bin/curl", &forked));
    // Nobody knows who called exec before it.
    let exec = ("me", image("me", 7, "/usr/bin/curl", &json!({})));
    // Who was found running has none that count.
    let found = (
        "me",
        image(
            "me",
            7,
            "/usr/bin/curl",
            &json!({"procid": {"provenance": "snapshot"}}),
        ),
    );
    for (known, again) in [
        (vec![me.clone(), bash.clone(), init.clone()], LET),
        (vec![found, bash.clone(), init.clone()], LET),
        (vec![exec, bash.clone(), init.clone()], UNCERTAIN),
        (vec![me.clone(), bash.clone()], UNCERTAIN),
        (vec![me.clone(), init], UNCERTAIN),
        (vec![bash], UNCERTAIN),
        (Vec::new(), UNCERTAIN),
    ] {
        let mut images = Images::default();
        learn(&mut images, &curl, &known);
        let past = Past::of(&curl, &images).unwrap();
        assert_eq!(past.judge(&policy), again, "{known:?}");
    }
}

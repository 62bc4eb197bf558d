//! Records to what is shown of them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Half past noon, UTC.
pub(in crate::cli::watch) const NOW: &str = "2026-11-22T12:30:00.000000000Z";

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A record with these fields beside the usual ones.
pub(in crate::cli::watch) fn record(fields: Value) -> Record {
    let mut record = json!({
        "@timestamp": NOW,
        "event": {"kind": "event", "category": ["network"], "module": "procid"},
        "agent": {"type": "procid", "version": "0.1.0", "ephemeral_id": "run"},
    });
    merge(&mut record, fields);
    serde_json::from_value(record).unwrap()
}

/// A connection of `pid` to port `port`.
pub(in crate::cli::watch) fn connect(flow: &str, pid: u32, port: u16, fields: Value) -> Record {
    let mut record = json!({
        "event": {"action": "connect", "outcome": "success"},
        "network": {"transport": "tcp", "direction": "egress"},
        "source": {"ip": "10.0.0.5", "port": 40000},
        "destination": {"ip": "203.0.113.7", "port": port},
        "process": {
            "entity_id": format!("entity-{pid}"), "pid": pid, "name": format!("prog{pid}"),
            "executable": format!("/usr/bin/prog{pid}"),
            "command_line": format!("prog{pid} --token=Secret"),
            "hash": {"sha256": "ab".repeat(32)},
        },
        "user": {"id": "1000"},
        "procid": {
            "flow_id": flow, "role": "opener", "verdict": "allow", "hash": {"grade": "verified"},
            "ancestry": ["entity-1", "entity-0"],
        },
    });
    merge(&mut record, fields);
    self::record(record)
}

pub(in crate::cli::watch) fn image(pid: u32, parent: u32, path: &str) -> Record {
    record(json!({
        "event": {"action": "exec", "category": ["process"]},
        "process": {
            "entity_id": format!("entity-{pid}"), "pid": pid, "executable": path,
            "name": path.rsplit('/').next().unwrap(), "start": NOW,
            "user": {"id": "0"}, "hash": {"sha256": "cd".repeat(32)},
            "parent": {"entity_id": format!("entity-{parent}"), "pid": parent},
        },
        "procid": {"hash": {"grade": "verified"}},
    }))
}

fn told(model: &mut Model, record: Record) {
    model.news(News::Record(Box::new(record)), Instant::now());
}

fn flow(action: &str, flow: &str, fields: Value) -> Record {
    let mut record = json!({
        "event": {"action": action}, "procid": {"flow_id": flow},
        "network": {"direction": "egress"},
    });
    merge(&mut record, fields);
    self::record(record)
}

#[test]
fn a_connection_opens_is_used_counts_and_goes() {
    let mut model = Model::default();
    told(&mut model, connect("7.1", 10, 443, json!({})));
    let speaker = json!({
        "event": {"action": "send"}, "procid": {"role": "speaker", "opener": {"pid": 10}},
    });
    told(&mut model, connect("7.1", 11, 443, speaker.clone()));
    told(&mut model, connect("7.1", 11, 443, speaker));
    let bytes = json!({"source": {"bytes": 5}, "destination": {"bytes": 7}});
    told(&mut model, flow("update", "7.1", bytes));
    let connection = model.connection("7.1").unwrap();
    assert_eq!(entity(&connection.record), Some("entity-10"));
    assert_eq!(connection.speakers.len(), 1);
    assert_eq!((connection.sent, connection.received), (Some(5), Some(7)));
    assert!(connection.holds(&["prog11".to_owned(), "token=secret".to_owned()]));
    assert!(!connection.holds(&["prog12".to_owned()]));

    // What was counted before comes after.
    let less = json!({"source": {"bytes": 3}});
    told(&mut model, flow("close", "7.1", less));
    let connection = model.connection("7.1").unwrap();
    assert_eq!((connection.sent, connection.received), (Some(5), Some(7)));
    let ended = connection.ended.unwrap();
    model.sweep(ended + LINGER / 2);
    assert!(model.connection("7.1").is_some());
    model.sweep(ended + LINGER);
    assert!(model.connection("7.1").is_none());
    // An end of what is not known is none.
    told(&mut model, flow("close", "8.1", json!({})));
    assert_eq!(model.connections().count(), 0);
}

#[test]
fn what_is_denied_is_no_connection_and_what_would_be_is_one() {
    let mut model = Model::default();
    for (flow, verdict) in [("1.1", "deny"), ("2.1", "audit"), ("3.1", "allow")] {
        let fields = json!({"procid": {"verdict": verdict}, "rule": {"name": "No Way"}});
        told(&mut model, connect(flow, 10, 443, fields));
    }
    let verdicts: Vec<_> = model
        .denials()
        .map(|denial| {
            denial
                .record
                .procid
                .as_ref()
                .unwrap()
                .verdict
                .clone()
                .unwrap()
        })
        .collect();
    assert_eq!(verdicts, ["deny", "audit"]);
    assert!(model.denials().all(|it| it.holds(&["no way".to_owned()])));
    let mut open: Vec<_> = model.connections().map(|it| it.key.as_str()).collect();
    open.sort_unstable();
    assert_eq!(open, ["2.1", "3.1"]);
    // A failed one is shown for a moment.
    let failed = json!({"event": {"outcome": "failure"}, "error": {"code": "ECONNREFUSED"}});
    told(&mut model, connect("4.1", 10, 443, failed));
    assert!(model.connection("4.1").unwrap().ended.is_some());
}

#[test]
fn images_are_born_replaced_hashed_and_end() {
    let mut model = Model::default();
    let now = Instant::now();
    model.news(
        News::Images(vec![image(1, 0, "/sbin/init"), image(10, 1, "/bin/sh")]),
        now,
    );
    let mut exec = image(12, 1, "/usr/bin/curl");
    exec.process.as_mut().unwrap().previous = image(10, 1, "/bin/sh").process;
    told(&mut model, exec);
    assert!(model.image("entity-10").is_none());
    told(&mut model, connect("7.1", 12, 443, json!({})));
    let sha256 = "ef".repeat(32);
    let hash = record(json!({
        "event": {"action": "hash"},
        "process": {"entity_id": "entity-12", "hash": {"sha256": sha256}},
        "procid": {"hash": {"grade": "verified"}},
    }));
    told(&mut model, hash);
    for record in [
        &model.image("entity-12").unwrap().record,
        &model.connection("7.1").unwrap().record,
    ] {
        let process = record.process.as_ref().unwrap();
        assert_eq!(process.hash.as_ref().unwrap().sha256, sha256);
    }
    assert!(model.connection("7.1").unwrap().holds(&["efef".to_owned()]));
    let exit = json!({"event": {"action": "exit"}, "process": {"entity_id": "entity-12"}});
    told(&mut model, record(exit));
    let ended = model.image("entity-12").unwrap().ended.unwrap();
    model.sweep(ended + LINGER);
    assert_eq!(model.images().count(), 1);
}

/// Ends that were missed are seen by what is no longer among the open ones.
#[test]
fn what_is_not_open_any_more_has_ended() {
    let mut model = Model::default();
    let then = Instant::now();
    let second = Duration::from_secs(1);
    let open = |flows: &[&str], is_cut| Open {
        records: flows
            .iter()
            .map(|flow| connect(flow, 10, 443, json!({})))
            .collect(),
        is_cut,
    };
    let news = |asked, open| News::Connections { asked, open };
    model.news(news(then, open(&["1.1", "2.1"], false)), then);
    let young = connect("3.1", 10, 443, json!({}));
    model.news(News::Record(Box::new(young)), then + 2 * second);
    let has_ended = |model: &Model| {
        ["1.1", "2.1", "3.1"].map(|key| model.connection(key).unwrap().ended.is_some())
    };
    // Asked for before the third one came.
    model.news(news(then + second, open(&["1.1"], true)), then + 3 * second);
    assert_eq!(has_ended(&model), [false; 3]);
    model.news(
        news(then + second, open(&["1.1"], false)),
        then + 3 * second,
    );
    assert_eq!(has_ended(&model), [false, true, false]);
}

#[test]
fn what_is_missing_is_counted() {
    let mut model = Model::default();
    let loss = |fields: Value| {
        let mut record = json!({"event": {"action": "loss", "category": []}});
        merge(&mut record, fields);
        self::record(record)
    };
    told(
        &mut model,
        loss(json!({"procid": {"lost": {"ring": 3, "map": 1}}})),
    );
    let here = json!({"procid": {"lost": {"reader-lag": 9}, "missed": {"from": 2, "to": 10}}});
    told(&mut model, loss(here));
    assert_eq!((model.lost, model.missed), (4, 9));
    let now = Instant::now();
    model.news(News::Gone("why".to_owned()), now);
    assert_eq!(model.gone.as_deref(), Some("why"));
    model.news(News::Back, now);
    assert_eq!(model.gone, None);
}

#[test]
fn there_is_room_for_so_many() {
    let mut model = Model::default();
    let denied = json!({"procid": {"verdict": "deny"}});
    for at in 0..DENIALS_MAX + 5 {
        told(
            &mut model,
            connect(&format!("{at}.1"), 10, 443, denied.clone()),
        );
    }
    assert_eq!(model.denials().count(), DENIALS_MAX);
    assert_eq!(model.denials().next().unwrap().key, "6");
}

proptest! {
    /// Whatever records come in whatever order, there is an end to it: with
    /// everything closed and a while gone, nothing is left.
    #[test]
    fn what_ends_goes(
        steps in prop::collection::vec((0_u8..5, 0_usize..6, 1_u32..4), 0..60),
    ) {
        let mut model = Model::default();
        for (what, at, pid) in steps {
            let key = format!("{at}.1");
            let record = match what {
                0 => connect(&key, pid, 1, json!({})),
                1 => connect(&key, pid, 1, json!({"procid": {"role": "speaker"}})),
                2 => flow("close", &key, json!({})),
                3 => image(pid, 0, "/bin/x"),
                _ => record(json!({
                    "event": {"action": "exit"},
                    "process": {"entity_id": format!("entity-{pid}")},
                })),
            };
            told(&mut model, record);
        }
        for at in 0..6 {
            told(&mut model, flow("close", &format!("{at}.1"), json!({})));
        }
        model.sweep(Instant::now() + LINGER);
        prop_assert_eq!(model.connections().count(), 0);
    }
}

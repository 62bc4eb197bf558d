//! The start, `ready` and `loss`.

use super::*;

#[test]
fn losses_are_told_once_by_what_they_grew() {
    let mut engine = engine();
    engine.losses([("ring-full-process", 0)]);
    engine.losses([("ring-full-process", 3), ("images-full", 1)]);
    engine.losses([("ring-full-process", 5), ("images-full", 1)]);
    let records = records(&mut engine);
    assert_eq!(actions(&records), ["loss", "loss"]);
    let told: Vec<_> = records
        .iter()
        .map(|r| r["procid"]["lost"].clone())
        .collect();
    assert_eq!(
        told,
        [
            serde_json::json!({"images-full": 1, "ring-full-process": 3}),
            serde_json::json!({"ring-full-process": 2}),
        ]
    );
    assert_eq!(engine.status().lost["ring-full-process"], 5);
}

#[test]
fn ready_names_the_hooks_that_are_attached() {
    let hook = |name: &str, attached| HookStatus {
        name: name.to_owned(),
        attached,
        ..HookStatus::default()
    };
    let mut engine = engine();
    engine.ready(&Report {
        backend: "cgroup".to_owned(),
        hooks: vec![hook("a", true), hook("b", false)],
        uncovered: Vec::new(),
        lengths: true,
        withholds: true,
        hashes: false,
        unprotectable: None,
    });
    let record = &records(&mut engine)[0];
    assert_eq!(record["procid"]["hooks"], serde_json::json!(["a"]));
    assert_eq!(record["event"]["sequence"], 1);
}

#[test]
fn what_was_seen_live_is_not_told_as_snapshot() {
    let mut engine = engine();
    let rows = vec![
        Event::TaskRow(exec(image(10), NOW)),
        Event::TaskRow(exec(image(11), NOW)),
        Event::SocketRow(row(8, 10, NOW)),
        Event::SocketRow(row(9, 11, NOW)),
        Event::SocketRow(row(9, 10, NOW)),
    ];
    let held = vec![
        fork(image(11), image(10), NOW),
        Event::Attempt(attempt(8, 1, NOW)),
        Event::Outcome(outcome(8, 1, NOW, 0)),
        Event::Close(close(9, 0, NOW)),
    ];
    engine.start(rows, held);
    hash_all(&mut engine, HASH);
    let records = records(&mut engine);
    let told: Vec<_> = records
        .iter()
        .map(|r| {
            (
                &r["event"]["kind"],
                &r["event"]["action"],
                &r["process"]["pid"],
            )
        })
        .map(|(kind, action, pid)| format!("{kind} {action} {pid}").replace('"', ""))
        .collect();
    assert_eq!(
        told,
        [
            "state exec 10",
            "state connect 10",
            "event fork 11",
            "event connect 10",
            "event close 10"
        ]
    );
    let found = &records[1];
    assert_eq!(found["procid"]["provenance"], "snapshot");
    assert_eq!(found["procid"]["flow_id"], "9.0");
    assert_eq!(found["procid"]["holders"].as_array().unwrap().len(), 2);
    assert_eq!(found["procid"].get("role"), None);
    assert_eq!(found["procid"]["socket"]["state"], "ESTABLISHED");
    assert_eq!(records[4]["event"].get("duration"), None);
}

#[test]
fn a_fork_of_an_image_that_was_gone_takes_its_file_from_its_row() {
    let Event::Fork(mut orphan) = fork(image(11), image(10), NOW) else {
        unreachable!()
    };
    orphan.image.exe = FileState::default();
    orphan.image.flags = image_flags::NO_EXE;
    let mut engine = engine();
    engine.start(
        vec![Event::TaskRow(exec(image(11), NOW))],
        vec![Event::Fork(orphan)],
    );
    hash_all(&mut engine, HASH);
    let records = records(&mut engine);
    assert_eq!(actions(&records), ["fork"]);
    assert_eq!(records[0]["process"]["name"], "cu\\x1brl");
    assert_eq!(records[0]["procid"]["exe"]["inode"], "77");
    assert_eq!(records[0]["procid"]["hash"]["grade"], "verified");
    assert_eq!(records[0]["procid"]["flags"], serde_json::json!(["forked"]));
}

#[test]
fn sockets_without_another_end_are_no_connections() {
    let mut rows = Vec::new();
    for state in [7, 10, 13] {
        let mut row = row(u64::from(state), 10, NOW);
        row.state = state;
        rows.push(Event::SocketRow(row));
    }
    let mut nowhere = row(1, 10, NOW);
    nowhere.destination = [0; 16];
    rows.push(Event::SocketRow(nowhere));
    let mut engine = engine();
    engine.start(rows, Vec::new());
    assert_eq!(records(&mut engine).len(), 0);
}

#[test]
fn sockets_without_a_cookie_are_told_apart_and_not_kept() {
    let mut rows = Vec::new();
    for inode in [1, 2, 2] {
        let mut row = row(0, 10, NOW);
        row.inode = inode;
        rows.push(Event::SocketRow(row));
    }
    let mut engine = engine();
    engine.start(rows, Vec::new());
    let told = records(&mut engine);
    assert_eq!(told.len(), 2);
    assert!(told[0]["procid"]["unknown"]["procid.flow_id"].is_string());
    assert_eq!(engine.who(&Query::default()).len(), 1);
}

#[test]
fn a_row_read_in_the_midst_of_an_exec_is_a_row_all_the_same() {
    let mut engine = engine();
    engine.start(vec![Event::TaskRow(exec(image(10), NOW))], Vec::new());
    engine.event(Event::Exec(exec(image(10), NOW)));
    hash_all(&mut engine, HASH);
    let records = records(&mut engine);
    let told: Vec<_> = records
        .iter()
        .filter(|record| record["event"]["action"] == "exec")
        .map(|record| {
            (
                record["event"]["kind"].as_str(),
                record["procid"]["provenance"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (Some("state"), Some("snapshot")),
            (Some("event"), Some("live"))
        ]
    );
}

//! Flows that live on, and sockets that have very many.

use std::{
    collections::{HashMap, HashSet},
    process::Command,
};

use procid_tests::{listener, records::text, stage::Stage, way::Flow};
use serde_json::Value;

fn flow_of(record: &Value) -> String {
    text(record, "/procid/flow_id").into_owned()
}

#[test]
fn what_lives_on_is_told_now_and_then_and_at_the_end() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::with(&["--update-every", "1s"]);
    let to = listener.address().to_string();
    let mut program = stage.start(["connect", "--to", &to, "--hold"]);
    let act = program.act();
    let is_told_twice = stage
        .agent
        .until(|records| records.of_action("update").count() >= 2);
    assert!(is_told_twice, "no updates");
    let records = stage.agent.stop();
    let [connect] = records.of_act(&act)[..] else {
        panic!("not one record of {act:?}");
    };
    let of_flow = |record: &&Value| flow_of(record) == flow_of(connect);
    let updates: Vec<_> = records.of_action("update").filter(of_flow).collect();
    assert!(updates.len() >= 3, "none at the end: {updates:#?}");
    for update in updates {
        assert_eq!(update["source"]["bytes"], 0, "{update}");
        assert_eq!(update["destination"]["bytes"], 0, "{update}");
        assert_eq!(update["process"]["pid"], act.actor.pid, "{update}");
    }
    assert!(records.closes(&flow_of(connect)).is_empty());
    program.finish();
}

/// One socket, 100,000 destinations: each is told, and nothing is kept of them
/// all.
#[test]
fn a_scan_of_a_hundred_thousand_destinations_is_bounded() {
    const DESTINATIONS: usize = 100_000;
    let stage = Stage::new();
    let mut command = Command::new(&stage.app.path);
    command.args(["way", "udp-scan", "--count", &DESTINATIONS.to_string()]);
    stage.cgroup.holds(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let flow: Flow = serde_json::from_str(said.lines().next().unwrap()).unwrap();

    let mut sends: HashMap<String, String> = HashMap::new();
    let mut closes = HashSet::new();
    let mut lost = 0_u64;
    stage.agent.stop_and_look(|record| {
        if let Some(causes) = record.pointer("/procid/lost").and_then(Value::as_object) {
            lost += causes.values().filter_map(Value::as_u64).sum::<u64>();
        }
        if text(record, "/procid/socket/cookie") != flow.cookie {
            return;
        }
        assert_eq!(record["process"]["pid"], flow.actor.pid, "{record}");
        match &*text(record, "/event/action") {
            "send" => {
                let to = text(record, "/destination/ip").into_owned();
                let before = sends.insert(flow_of(record), to);
                assert_eq!(before, None, "told twice: {record}");
            }
            "close" => {
                assert!(closes.insert(flow_of(record)), "closed twice: {record}");
                let bytes = record.pointer("/source/bytes");
                assert!(
                    bytes.is_none_or(|bytes| bytes == 5),
                    "bytes of another flow: {record}"
                );
            }
            _ => {}
        }
    });
    let told: HashSet<_> = sends.values().collect();
    // A destination that was forgotten may be told again.
    println!(
        "{} records of {} of {DESTINATIONS} destinations, {lost} lost",
        sends.len(),
        told.len()
    );
    assert!(
        told.len() as u64 + lost >= DESTINATIONS as u64,
        "what was not told was not counted as lost"
    );
    if lost == 0 {
        assert_eq!(told.len(), DESTINATIONS);
        assert_eq!(closes.len(), sends.len(), "flows without an end");
    }
}

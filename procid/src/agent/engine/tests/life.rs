//! What becomes of processes and connections.

use super::*;
use crate::names::fixtures::told;

#[test]
fn a_connection_from_birth_to_end() {
    let mut engine = engine();
    engine.event(Event::Exec(exec(image(10), NOW)));
    engine.event(Event::Attempt(attempt(9, 1, NOW + 1)));
    engine.event(Event::Outcome(outcome(9, 1, NOW + 2, 0)));
    engine.event(exit(image(10), NOW + 3, 9));
    engine.event(Event::Close(close(9, 1, NOW + 4)));
    hash_all(&mut engine, HASH);
    let records = records(&mut engine);
    assert_eq!(actions(&records), ["exec", "connect", "exit", "close"]);

    let [exec, connect, exit, close] = &records[..] else {
        unreachable!()
    };
    assert_eq!(exec["process"]["executable"], "/usr/bin/cu\\x1brl");
    assert_eq!(exec["process"]["name"], "cu\\x1brl");
    assert_eq!(exec["process"]["command_line"], "curl 'a b\\x0a'");
    assert_eq!(exec["process"]["thread"]["name"], "co\\x0amm");
    assert_eq!(exec["procid"]["exe"]["dev"], "254:1");
    assert_eq!(exec["process"]["parent"]["pid"], 5);

    assert_eq!(connect["event"]["outcome"], "success");
    assert_eq!(connect["process"]["user"]["id"], "1001");
    assert_eq!(connect["process"]["real_user"]["id"], "1000");
    assert_eq!(connect["process"]["thread"]["id"], 11);
    assert_eq!(connect["procid"]["loginuid"], 1000);
    assert_eq!(connect["procid"].get("sessionid"), None);
    assert_eq!(connect["procid"]["flow_id"], "9.1");
    assert_eq!(connect["procid"]["role"], "opener");
    assert_eq!(connect["source"]["port"], 50_000);
    assert!(connect["network"]["community_id"].is_string());
    assert_eq!(connect["process"]["hash"]["sha256"], "ab".repeat(32));

    assert_eq!(exit["process"]["exit_code"], 137);
    assert_eq!(close["process"], connect["process"]);
    assert_eq!(close["event"]["duration"], 3);
    assert_eq!(close["event"]["start"], connect["@timestamp"]);
}

#[test]
fn a_destination_has_the_name_that_was_told_before() {
    let mut engine = engine_with_curl();
    let answer = |name, by, at_ns| {
        let to = "10.0.0.7".parse().unwrap();
        Event::Answer(Box::new(told(name, to, by, at_ns)))
    };
    engine.event(answer("old.test", 10, NOW));
    engine.event(answer("other.test", 11, NOW + 1));
    engine.event(Event::Attempt(attempt(9, 1, NOW + 2)));
    engine.event(answer("late.test", 10, NOW + 3));
    engine.event(Event::Outcome(outcome(9, 1, NOW + 4, 0)));
    let mut other = attempt(9, 2, NOW + 5);
    other.image = image(12);
    engine.event(Event::Attempt(other));
    engine.event(Event::Outcome(outcome(9, 2, NOW + 6, 0)));
    // Its destination is this host, whatever that is called.
    let mut accepted = attempt(9, 3, NOW + 7);
    accepted.source = ipv4(7);
    accepted.flags |= flags::ACCEPTED;
    engine.event(Event::Accept(accepted));
    let records = records(&mut engine);
    assert_eq!(records[0]["destination"]["domain"], "old.test");
    let domain = &records[0]["procid"]["domain"];
    assert_eq!(domain["relation"], "image");
    assert_eq!(domain["asked_by"], records[0]["process"]["entity_id"]);
    assert_eq!(domain["others"], serde_json::json!(["other.test"]));
    assert_eq!(records[1]["destination"]["domain"], "late.test");
    let domain = &records[1]["procid"]["domain"];
    assert_eq!(domain["relation"], "namespace");
    assert_eq!(domain["asked_by"], records[0]["process"]["entity_id"]);
    assert_eq!(actions(&records)[2], "accept");
    assert_eq!(records[2]["destination"].get("domain"), None);
    let read = engine.status().answers;
    assert_eq!((read.read, read.unreadable), (3, 0));
}

#[test]
fn exit_codes_are_a_shells() {
    for (status, code) in [(0, 0), (3 << 8, 3), (9, 137), (0x80 | 11, 139)] {
        let mut engine = engine_with_curl();
        engine.event(exit(image(10), NOW, status));
        assert_eq!(records(&mut engine)[0]["process"]["exit_code"], code);
    }
}

#[test]
fn failures_carry_their_error_and_abandoned_ones_the_reason_for_none() {
    let mut engine = engine_with_curl();
    engine.event(Event::Attempt(attempt(9, 1, NOW)));
    engine.event(Event::Outcome(outcome(9, 1, NOW, libc::ECONNREFUSED)));
    engine.event(Event::Attempt(attempt(9, 2, NOW)));
    engine.event(Event::Outcome(outcome(9, 2, NOW, Outcome::ABANDONED)));
    engine.event(Event::Close(close(9, 0, NOW)));
    let records = records(&mut engine);
    assert_eq!(actions(&records), ["connect", "connect"]);
    assert_eq!(records[0]["event"]["outcome"], "failure");
    assert_eq!(records[0]["error"]["code"], "ECONNREFUSED");
    assert_eq!(records[1]["event"]["outcome"], "failure");
    assert!(records[1]["procid"]["unknown"]["error.code"].is_string());
}

#[test]
fn an_outcome_that_is_overdue_is_unknown_and_its_late_failure_a_close() {
    let mut engine = engine_with_curl();
    engine.event(Event::Attempt(attempt(9, 1, NOW)));
    engine.tick(NOW + 1_000 * MS);
    assert_eq!(records(&mut engine).len(), 0);
    engine.tick(NOW + 1_100 * MS);
    let first = records(&mut engine);
    assert_eq!(actions(&first), ["connect"]);
    assert_eq!(first[0]["event"]["outcome"], "unknown");
    assert_eq!(first[0].get("source"), None, "not bound: nothing to tell");
    let late = outcome(9, 1, NOW + 9_000 * MS, libc::ETIMEDOUT);
    engine.event(Event::Outcome(late));
    let last = records(&mut engine);
    assert_eq!(actions(&last), ["close"]);
    assert_eq!(last[0]["error"]["code"], "ETIMEDOUT");
}

#[test]
fn at_the_end_what_is_undecided_is_unknown() {
    let mut engine = engine_with_curl();
    engine.event(Event::Attempt(attempt(9, 1, NOW)));
    engine.finish([]);
    let records = records(&mut engine);
    assert_eq!(records[0]["event"]["outcome"], "unknown");
    assert!(!engine.is_waiting());
}

#[test]
fn kernel_traffic_is_the_kernels_and_not_of_whom_it_interrupted() {
    let mut engine = engine_with_curl();
    let mut event = attempt(9, 1, NOW);
    event.flags = flags::KERNEL;
    engine.event(Event::Attempt(event));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    let record = &records(&mut engine)[0];
    assert_eq!(
        record["process"],
        serde_json::json!({"pid": 0, "name": "kernel"})
    );
    assert_eq!(record["procid"]["flags"][0], "kernel");
    assert_eq!(record.get("user"), None);
    assert_eq!(record["procid"].get("hash"), None);
    assert_eq!(record["procid"].get("cgroup"), None);
}

#[test]
fn an_image_that_was_not_seen_is_named_by_the_attempt_alone() {
    let mut engine = engine();
    engine.event(Event::Attempt(attempt(9, 1, NOW)));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    let record = &records(&mut engine)[0];
    assert_eq!(record["process"]["pid"], 10);
    assert_eq!(record["process"]["thread"]["id"], 11);
    assert!(record["process"]["entity_id"].is_string());
    assert_eq!(record["process"].get("executable"), None);
    for field in ["process.executable", "process.parent", "procid.hash"] {
        assert!(record["procid"]["unknown"][field].is_string(), "{field}");
    }
}

#[test]
fn a_sender_that_did_not_make_the_socket_speaks_for_its_opener() {
    let mut engine = engine_with_curl();
    let mut event = datagram(9, 1, NOW);
    event.image = image(20);
    engine.event(Event::Attempt(event));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    let record = &records(&mut engine)[0];
    assert_eq!(record["event"]["action"], "send");
    assert_eq!(
        record["event"]["type"],
        serde_json::json!(["connection", "info", "allowed"])
    );
    assert_eq!(record["procid"]["role"], "speaker");
    assert_eq!(record["procid"]["opener"]["pid"], 10);
    assert_eq!(record["process"]["pid"], 20);
}

#[test]
fn command_lines_are_kept_back_when_asked() {
    let mut engine = engine();
    engine.frame.args = Args::None;
    engine.event(Event::Exec(exec(image(10), NOW)));
    hash_all(&mut engine, HASH);
    let record = &records(&mut engine)[0];
    assert_eq!(record["process"].get("args"), None);
    assert_eq!(record["process"].get("command_line"), None);
}

#[test]
fn names_and_arguments_that_are_empty_are_absent() {
    let mut engine = engine();
    let mut facts = exec(image(10), NOW);
    facts.event.actor.comm = [0; 16];
    facts.event.image.parent = ImageId::UNKNOWN;
    facts.path = Some(b"/".to_vec());
    facts.args = Some(Vec::new());
    engine.event(Event::Exec(facts));
    hash_all(&mut engine, HASH);
    let record = &records(&mut engine)[0];
    for field in ["name", "args", "command_line", "parent"] {
        assert_eq!(record["process"].get(field), None, "{field}");
    }
    assert_eq!(record["process"]["thread"].get("name"), None);
    assert_eq!(record["procid"].get("ancestry"), None);
}

#[test]
fn an_exec_names_the_image_it_replaced() {
    let mut engine = engine_with_curl();
    let next = ImageId {
        self_exec_id: 2,
        ..image(10)
    };
    let mut facts = exec(next, NOW);
    facts.event.image.previous = image(10);
    engine.event(Event::Exec(facts));
    let ended = matches!(engine.next_work(), Some(Work::Ended(id, NOW)) if id == image(10));
    assert!(ended);
    hash_all(&mut engine, HASH);
    let record = &records(&mut engine)[0];
    assert_eq!(record["process"]["previous"]["pid"], 10);
    assert_ne!(
        record["process"]["previous"]["entity_id"],
        record["process"]["entity_id"]
    );
}

#[test]
fn images_of_connections_outlive_their_processes() {
    let mut engine = engine_with_curl();
    engine.event(Event::Attempt(attempt(9, 1, NOW)));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    engine.event(exit(image(10), NOW, 0));
    engine.tick(NOW + 300_000 * MS);
    assert!(engine.images.get(&image(10)).is_some());
    engine.event(Event::Close(close(9, 1, NOW + 300_000 * MS)));
    engine.tick(NOW + 1_000_000 * MS);
    engine.tick(NOW + 1_001_000 * MS);
    assert!(engine.images.get(&image(10)).is_none());
}

#[test]
fn v4_mapped_addresses_are_ipv4() {
    let mut engine = engine_with_curl();
    let mut event = attempt(9, 1, NOW);
    event.socket.family = 10;
    engine.event(Event::Attempt(event));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    let record = engine.next_record().unwrap();
    let ip: IpAddr = "10.0.0.7".parse().unwrap();
    assert_eq!(record.destination.unwrap().ip, Some(ip));
    assert_eq!(record.network.unwrap().network_type.unwrap(), "ipv4");
}

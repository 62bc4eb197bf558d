use std::net::IpAddr;

use procid_common::{
    event::kind,
    image::{FileState, ImageId, ImageRecord, flags as image_flags},
    process::{Exec, Exit, Fork},
    socket::{Outcome, flags},
};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    agent::handle::HookStatus,
    connections::fixtures::{
        MS, actor, attempt, close, datagram, header, image, ipv4, outcome, row,
    },
    flow::Query,
    identity::hash::{Grade, settle::Offset},
    records::schema,
};

const NOW: u64 = 1_000_000 * MS;
const HASH: FileHash = FileHash::Known {
    sha256: [0xab; 32],
    grade: Grade::Verified,
};

fn engine() -> Engine {
    let mut origin = Origin::default();
    origin.ecs.version = crate::records::ECS_VERSION.to_owned();
    origin.host.boot = Some(crate::records::Id {
        id: "boot".to_owned(),
    });
    origin.agent.agent_type = "procid".to_owned();
    origin.agent.version = "0.1.0".to_owned();
    origin.agent.ephemeral_id = Some("run".to_owned());
    Engine::new(Setup {
        boot_id: [1; 16],
        origin,
        args: Args::Full,
        clock: Clock::fixed(Offset(1_700_000_000_000_000_000)),
        now_ns: NOW,
    })
}

fn exec(id: ImageId, at_ns: u64) -> ExecFacts {
    ExecFacts {
        event: Exec {
            header: header::<Exec>(kind::EXEC, at_ns),
            image: ImageRecord {
                id,
                parent: image(5),
                previous: ImageId::UNKNOWN,
                exe: FileState {
                    ino: 77,
                    dev: 254 << 20 | 1,
                    ..FileState::default()
                },
                fs_magic: 0xef53,
                flags: 0,
            },
            actor: actor(id.tgid),
            sha256: [0; 32],
            hashed: 0,
            path_len: 0,
            args_len: 0,
            reserved: 0,
        },
        path: Some(b"/usr/bin/cu\x1brl".to_vec()),
        args: Some(vec![b"curl".to_vec(), b"a b\n".to_vec()]),
    }
}

/// An image that forked itself off `parent`.
fn fork(id: ImageId, parent: ImageId, at_ns: u64) -> Event {
    Event::Fork(Fork {
        header: header::<Fork>(kind::FORK, at_ns),
        image: ImageRecord {
            parent,
            ..exec(id, at_ns).event.image
        },
        actor: actor(id.tgid),
    })
}

fn exit(id: ImageId, at_ns: u64, status: u32) -> Event {
    Event::Exit(Exit {
        header: header::<Exit>(kind::EXIT, at_ns),
        id,
        status,
        reserved: 0,
    })
}

/// Hashes every file at once.
fn hash_all(engine: &mut Engine, hash: FileHash) {
    while let Some(work) = engine.next_work() {
        if let Work::Hash(request) = work {
            engine.hash(Answer {
                id: request.id,
                hash,
            });
        }
    }
}

/// All records that are ready, as JSON, each checked against the schema.
fn records(engine: &mut Engine) -> Vec<Value> {
    std::iter::from_fn(|| engine.next_record())
        .map(|record| checked(&record))
        .collect()
}

fn checked(record: &Record) -> Value {
    let value = serde_json::to_value(record).unwrap();
    assert_eq!(schema::check(&value), [""; 0], "{value:#}");
    value
}

fn actions(records: &[Value]) -> Vec<&str> {
    records
        .iter()
        .map(|record| record["event"]["action"].as_str().unwrap())
        .collect()
}

/// An engine that knows the image of process 10, hash and all.
fn engine_with_curl() -> Engine {
    let mut engine = engine();
    engine.event(Event::Exec(exec(image(10), NOW)));
    hash_all(&mut engine, HASH);
    assert_eq!(actions(&records(&mut engine)), ["exec"]);
    engine
}

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
    engine.finish();
    let records = records(&mut engine);
    assert_eq!(records[0]["event"]["outcome"], "unknown");
    assert!(!engine.is_waiting());
}

#[test]
fn a_record_waits_for_its_hash_and_those_behind_it_wait_too() {
    let mut engine = engine();
    engine.event(Event::Exec(exec(image(10), NOW)));
    engine.event(exit(image(99), NOW, 0));
    engine.tick(NOW + HOLD_NS - 1);
    assert_eq!(records(&mut engine).len(), 0);
    assert!(engine.is_waiting());
    hash_all(&mut engine, HASH);
    let told = records(&mut engine);
    assert_eq!(actions(&told), ["exec", "exit"], "and no hash record");
    assert_eq!(told[0]["procid"]["hash"]["grade"], "verified");
}

#[test]
fn a_hash_that_comes_too_late_is_a_record_for_each_image_that_went_without() {
    let mut engine = engine();
    engine.event(Event::Exec(exec(image(10), NOW)));
    engine.event(fork(image(11), image(10), NOW));
    engine.event(Event::Attempt(attempt(9, 1, NOW)));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    engine.tick(NOW + HOLD_NS);
    let told = records(&mut engine);
    assert_eq!(actions(&told), ["exec", "fork", "connect"]);
    for record in &told {
        assert_eq!(record["procid"]["hash"]["grade"], "none");
        assert_eq!(record["procid"]["hash"]["reason"], "pending");
        assert_eq!(record["process"].get("hash"), None);
    }
    // Another fork, whose record is made after the answer, needs none.
    engine.event(fork(image(12), image(10), NOW));
    hash_all(&mut engine, HASH);
    engine.hash(Answer {
        id: image(10),
        hash: HASH,
    });
    let late = records(&mut engine);
    assert_eq!(actions(&late), ["fork", "hash", "hash"]);
    let pids: Vec<_> = late.iter().map(|r| r["process"]["pid"].clone()).collect();
    assert_eq!(pids, [12, 10, 11]);
    assert_eq!(late[1]["process"]["hash"]["sha256"], "ab".repeat(32));
}

#[test]
fn a_full_hash_queue_answers_nothing_and_makes_no_record() {
    let mut engine = engine();
    engine.event(Event::Exec(exec(image(10), NOW)));
    engine.tick(NOW + HOLD_NS);
    assert_eq!(records(&mut engine).len(), 1);
    hash_all(&mut engine, FileHash::None(Missing::Pending));
    assert_eq!(records(&mut engine).len(), 0);
    engine.hash(Answer {
        id: image(10),
        hash: FileHash::None(Missing::Gone),
    });
    assert_eq!(records(&mut engine)[0]["procid"]["hash"]["reason"], "gone");
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
fn who_answers_oldest_first_and_says_what_it_could_have_missed() {
    let mut engine = engine_with_curl();
    for (cookie, at_ns) in [(9, NOW + 5), (8, NOW + 6), (7, NOW + 4)] {
        let mut event = attempt(cookie, 1, at_ns);
        event.destination = ipv4(u8::try_from(cookie).unwrap());
        engine.event(Event::Attempt(event));
        engine.event(Event::Outcome(outcome(cookie, 1, at_ns, 0)));
    }
    let told = records(&mut engine);
    engine.event(Event::Close(close(9, 1, NOW + 10)));
    engine.tick(NOW + 20);
    let mut answer = engine.who(&Query::default());
    let coverage = checked(&answer.pop().unwrap());
    assert_eq!(coverage["procid"]["coverage"]["provenance"], "live");
    let flows: Vec<_> = answer
        .iter()
        .map(|record| checked(record)["procid"]["flow_id"].clone())
        .collect();
    assert_eq!(flows, ["7.1", "9.1", "8.1"]);
    // The answer is the record that was written, and its end.
    let mut first = checked(&answer[1]);
    let event = first["event"].as_object_mut().unwrap();
    assert_eq!(event.remove("duration"), Some(5.into()));
    event.remove("start");
    event.remove("end");
    assert_eq!(first, told[0]);
}

#[test]
fn who_matches_by_what_is_known() {
    let mut engine = engine_with_curl();
    engine.event(Event::Attempt(attempt(9, 1, NOW)));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    let told = records(&mut engine);
    let found = |query: Query| engine.who(&query).len() - 1;
    let exe = |text: &str| Query {
        exe: Some(text.to_owned()),
        ..Query::default()
    };
    assert_eq!(found(exe("/usr/bin/cu\\x1brl")), 1);
    assert_eq!(found(exe("cu\\x1brl")), 1);
    assert_eq!(found(exe("curl")), 0);
    for (sha256, count) in [("abab", 1), ("ff", 0)] {
        let query = Query {
            sha256: Some(sha256.to_owned()),
            ..Query::default()
        };
        assert_eq!(found(query), count);
    }
    for (user, pid, count) in [(1001, 10, 1), (1000, 10, 0), (1001, 11, 0)] {
        let query = Query {
            user: Some(user),
            pid: Some(pid),
            ..Query::default()
        };
        assert_eq!(found(query), count);
    }
    let id = told[0]["network"]["community_id"].as_str().unwrap();
    let query = Query {
        community_id: Some(id.to_owned()),
        ..Query::default()
    };
    assert_eq!(found(query), 1);
}

#[test]
fn one_answer_is_bounded_and_says_so() {
    let mut engine = engine_with_curl();
    for cookie in 1..=WHO_MAX as u64 + 3 {
        engine.event(Event::Attempt(attempt(cookie, 1, NOW + cookie)));
    }
    let answer = engine.who(&Query::default());
    assert_eq!(answer.len(), WHO_MAX + 1);
    let coverage = checked(answer.last().unwrap());
    assert_eq!(
        coverage["procid"]["coverage"]["lost"]["over-answer-limit"],
        3
    );
}

#[test]
fn an_image_is_found_by_its_entity_id() {
    let engine = engine_with_curl();
    let entity = engine.images.get(&image(10)).unwrap().entity.to_string();
    let record = engine.process(&entity).unwrap();
    assert_eq!(record.process.unwrap().entity_id.unwrap(), entity);
    assert_eq!(engine.process("nothing"), None);
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

/// Any event, of few processes and few sockets, so that they meet.
fn event() -> impl Strategy<Value = Event> {
    let id = (8..12_u32, 1..3_u64).prop_map(|(tgid, self_exec_id)| ImageId {
        self_exec_id,
        ..image(tgid)
    });
    let errors = prop_oneof![Just(0), Just(-1), Just(-2), Just(libc::ECONNREFUSED)];
    let some_flags = prop_oneof![
        Just(0),
        Just(flags::KERNEL),
        Just(flags::CREATOR_UNSEEN),
        Just(flags::IO_WORKER),
    ];
    (
        0..8_u8,
        id,
        1..6_u64,
        1..4_u32,
        errors,
        some_flags,
        0..2000 * MS,
    )
        .prop_map(|(what, id, cookie, flow, error, attempt_flags, after)| {
            let at_ns = NOW + after;
            match what {
                0 => fork(id, image(8), at_ns),
                1 => {
                    let mut facts = exec(id, at_ns);
                    if flow == 1 {
                        facts.path = None;
                        facts.args = None;
                        facts.event.image.flags = image_flags::PATH_TRUNCATED
                            | image_flags::ARGS_UNREADABLE
                            | image_flags::MEMFD;
                    }
                    Event::Exec(facts)
                }
                2 => exit(id, at_ns, flow),
                3 | 4 => {
                    let mut event = if what == 3 {
                        attempt(cookie, flow, at_ns)
                    } else {
                        datagram(cookie, flow, at_ns)
                    };
                    event.image = id;
                    event.flags |= attempt_flags;
                    Event::Attempt(event)
                }
                5 | 6 => Event::Outcome(outcome(cookie, flow, at_ns, error)),
                _ => Event::Close(close(cookie, flow - 1, at_ns)),
            }
        })
}

proptest! {
    /// Whatever comes in whatever order, at whatever time it is asked for:
    /// numbers are consecutive and every record is one the schema knows.
    #[test]
    fn records_are_numbered_without_gaps(
        steps in prop::collection::vec((event(), 0..4_u8, 0..300 * MS), 0..60)
    ) {
        let mut engine = engine();
        let mut now_ns = NOW;
        let mut sequence = 0;
        let mut take = |engine: &mut Engine| {
            for record in records(engine) {
                sequence += 1;
                assert_eq!(record["event"]["sequence"], sequence);
            }
        };
        for (event, then, after) in steps {
            engine.event(event);
            match then {
                0 => hash_all(&mut engine, HASH),
                1 => hash_all(&mut engine, FileHash::None(Missing::Gone)),
                2 => {
                    now_ns += after;
                    engine.tick(now_ns);
                }
                _ => {}
            }
            take(&mut engine);
        }
        engine.finish();
        engine.tick(now_ns + HOLD_NS);
        take(&mut engine);
        prop_assert!(!engine.is_waiting());
        for record in engine.who(&Query::default()) {
            checked(&record);
        }
    }
}

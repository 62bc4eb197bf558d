//! The event stream, open connections and metrics of the API.

use std::{net::SocketAddr, path::Path, time::Instant};

use procid::records::schema;
use procid_tests::{
    agent::{Agent, LIMIT},
    cgroup::TestCgroup,
    http, listener,
    records::{Records, text},
    stage::Stage,
};
use serde_json::Value;

fn number(record: &Value, pointer: &str) -> u64 {
    let number = record.pointer(pointer).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("{pointer}: {record}"))
}

fn records<S: std::io::Read>(mut answer: http::Answer<S>) -> Vec<Value> {
    assert_eq!(answer.status, 200);
    std::iter::from_fn(|| answer.record()).collect()
}

/// Open connections whose process has that pid, and the coverage record.
fn open_of(socket: &Path, pid: u32) -> Vec<Value> {
    let mut all = records(http::get(socket, &format!("/v1/connections?pid={pid}")));
    let coverage = all.pop().unwrap();
    assert!(coverage.pointer("/procid/coverage").is_some());
    for record in &all {
        assert_eq!(schema::check(record), [""; 0], "{record}");
    }
    all
}

#[test]
fn a_reader_gets_every_record_that_stdout_gets() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let socket = stage.agent.socket();
    let reader = std::thread::spawn(move || records(http::get(&socket, "/v1/events?after=0")));
    let to = listener.address().to_string();
    let acts: Vec<_> = (0..20)
        .flat_map(|_| stage.run(["connect", "--to", &to]))
        .collect();
    let written = stage.end(&acts);
    // It ends with the agent, whose last records it has.
    assert_eq!(reader.join().unwrap(), written.all());
}

#[test]
fn a_reader_goes_on_where_it_was() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let socket = stage.agent.socket();
    let to = listener.address().to_string();
    let mut acts = stage.run(["connect", "--to", &to]);
    stage.agent.settle(&acts);
    let mut first = http::get(&socket, "/v1/events?after=0");
    let seen = std::iter::from_fn(|| first.record())
        .find(|record| text(record, "/event/action") == "close")
        .unwrap();
    drop(first);
    acts.extend(stage.run(["connect", "--to", &to]));
    stage.agent.settle(&acts);
    let after = number(&seen, "/event/sequence");
    let run = text(&seen, "/agent/ephemeral_id").into_owned();
    let mut again = http::get(
        &socket,
        &format!("/v1/events?after={after}&ephemeral_id={run}"),
    );
    let next = again.record().unwrap();
    assert_eq!(number(&next, "/event/sequence"), after + 1, "{next}");
    // Of another run: everything is new.
    let mut other = http::get(
        &socket,
        &format!("/v1/events?after={after}&ephemeral_id=another"),
    );
    assert_eq!(number(&other.record().unwrap(), "/event/sequence"), 1);
    let refused = http::get(&socket, "/v1/events?after=99999999");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("the last record"));
    drop((again, other));
    let _records = stage.end(&acts);
}

/// A reader that does not read holds nobody up, and is told what it missed:
/// with that, it has every record.
#[test]
fn a_slow_reader_is_told_what_it_missed() {
    /// Far more records than are kept, and not so fast that events are lost.
    const COUNT: u64 = 4_000;
    const RATE: u64 = 2_000;
    let listener = listener::Tcp::on("0.0.0.0:0");
    let stage = Stage::new();
    let mut slow = http::get(&stage.agent.socket(), "/v1/events?after=0");
    let port = listener.address().port().to_string();
    let (rate, count) = (RATE.to_string(), COUNT.to_string());
    let load = stage.start([
        "load", "--sum", "--port", &port, "--rate", &rate, "--count", &count,
    ]);
    let summary = load.finish().summary.unwrap();
    assert_eq!(summary.failures, 0);
    // The agent goes on all the while.
    let start = Instant::now();
    let status = loop {
        let status = stage.agent.ask(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        if number(&status, "/emitted") > COUNT + COUNT / 2 {
            break status;
        }
        assert!(start.elapsed() < LIMIT, "{status}");
    };
    // It reads up to where the agent is now, and only then the agent ends.
    let end = number(&status, "/emitted");
    let (mut seen, mut missed) = (0, 0);
    while seen < end {
        let record = slow.record().expect("the stream goes on");
        assert_eq!(schema::check(&record), [""; 0], "{record}");
        if record.pointer("/procid/missed").is_some() {
            assert_eq!(number(&record, "/procid/missed/from"), seen + 1);
            seen = number(&record, "/procid/missed/to");
            missed += number(&record, "/procid/lost/reader-lag");
        } else {
            assert_eq!(number(&record, "/event/sequence"), seen + 1);
            seen += 1;
        }
    }
    assert!(missed > 0, "the reader was not overtaken");
    assert!(missed < end, "nothing was kept for it");
    let metrics = http::get(&stage.agent.socket(), "/metrics").text();
    let told = format!("procid_event_records_missed_total {missed}\n");
    assert!(metrics.contains(&told), "{metrics}");
    drop(slow);
    let _life = stage.agent.stop_and_look(|_| {});
}

#[test]
fn open_connections_have_their_bytes() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let to = listener.address().to_string();
    let mut program = stage.start(["connect", "--hold", "--to", &to]);
    let act = program.act();
    let told = |records: &Records| records.of_act(&act).len() == 1;
    assert!(stage.agent.until(told));
    let socket = stage.agent.socket();
    let open = open_of(&socket, act.actor.pid);
    assert_eq!(open.len(), 1, "{open:?}");
    let flow = text(&open[0], "/procid/flow_id").into_owned();
    assert_eq!(
        flow,
        text(stage.agent.records().of_act(&act)[0], "/procid/flow_id")
    );
    assert!(open[0].pointer("/source/bytes").is_some(), "{}", open[0]);
    assert!(open[0].pointer("/event/end").is_none(), "{}", open[0]);
    // The same as the command says, which looks at the past too.
    let pid = act.actor.pid.to_string();
    let who = stage.agent.ask(&["who", "--json", "--pid", &pid]);
    let who = String::from_utf8(who.stdout).unwrap();
    let who: Value = serde_json::from_str(who.lines().next().unwrap()).unwrap();
    for field in [
        "/event/sequence",
        "/process/entity_id",
        "/procid/flow_id",
        "/procid/ancestry",
    ] {
        assert_eq!(open[0].pointer(field), who.pointer(field), "{field}");
    }
    program.finish();
    let acts = [act];
    stage.agent.settle(&acts);
    assert!(open_of(&socket, acts[0].actor.pid).is_empty());
    let _records = stage.end(&acts);
}

#[test]
fn metrics_over_tcp_and_nothing_else_there() {
    let cgroup = TestCgroup::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = free.local_addr().unwrap();
    drop(free);
    let agent = Agent::start_with(&cgroup, &["--metrics", &address.to_string()]);
    let metrics = http::get_tcp(address, "/metrics");
    assert_eq!(metrics.status, 200);
    let metrics = metrics.text();
    for line in [
        "procid_build_info{version=",
        "procid_healthy ",
        "procid_records_total{action=\"ready\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    for other in ["/v1/status", "/v1/events", "/v1/who", "/"] {
        assert_eq!(http::get_tcp(address, other).status, 404, "{other}");
    }
    assert_eq!(http::get(&agent.socket(), "/metrics").status, 200);
    // A second agent cannot have the address.
    let scratch = tempfile::tempdir().unwrap();
    let second = procid_tests::agent::command(
        cgroup.path(),
        &scratch.path().join("state"),
        &scratch.path().join("socket"),
    )
    .args(["--metrics", &address.to_string()])
    .output()
    .unwrap();
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&format!("--metrics {address}")), "{said}");
    let _records = agent.stop();
}

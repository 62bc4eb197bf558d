//! The agent starts while connections come and go: nothing falls between the
//! hooks and the snapshot, and nothing is told twice.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use procid_tests::{
    agent::{Agent, Life},
    cgroup::TestCgroup,
    listener,
    program::Program,
    records::text,
    scratch::Scratch,
    truth::Lived,
};
use serde_json::Value;

/// Starts of the agent, unless `PROCID_TEST_STARTS` says otherwise.
const STARTS: usize = 50;
const RATE: &str = "5000";
/// Bounds the load should a test hang: ten minutes of it.
const COUNT: &str = "3000000";
/// How long each agent watches.
const WATCH: Duration = Duration::from_millis(200);

/// What one agent told of the load: its life, and each connection's records.
struct Watched {
    life: Life,
    told: HashMap<(SocketAddr, SocketAddr), Vec<&'static str>>,
    entities: HashSet<String>,
    lost: u64,
}

#[test]
fn every_connection_once_live_or_snapshot() {
    let starts = std::env::var("PROCID_TEST_STARTS")
        .map_or(STARTS, |starts| starts.parse().expect("a number"));
    let listener = listener::Tcp::on("0.0.0.0:0");
    let cgroup = TestCgroup::new();
    let scratch = Scratch::new();
    let app = scratch.program("app");
    let port = listener.address().port().to_string();
    // At 5,000 a second, 50 open at a time live 10 ms, and 400 of every tenth
    // live 800 ms: longer than a start.
    let load = Program::start(
        &cgroup,
        &app.path,
        [
            "load",
            "--port",
            &port,
            "--rate",
            RATE,
            "--count",
            COUNT,
            "--until-told",
            "--alive",
            "50",
            "--long-every",
            "10",
            "--long-alive",
            "400",
        ],
    );
    let pid = load.pid().to_string();
    thread::sleep(Duration::from_secs(1));
    let watched: Vec<_> = (0..starts).map(|_| watch(&cgroup, &pid)).collect();
    let report = load.finish();
    assert_eq!(report.summary.unwrap().failures, 0);

    let mut expected = 0;
    let mut from_before = 0;
    for (number, one) in watched.iter().enumerate() {
        assert_eq!(one.lost, 0, "start {number} lost records");
        assert_eq!(one.entities.len(), 1, "start {number}");
        for lived in &report.lived {
            let told = one.told.get(&(lived.source, lived.destination));
            let times = told.map_or(0, Vec::len);
            assert!(
                times <= 1,
                "start {number}: {told:?} of {lived:?}, {:?}",
                one.life
            );
            if must_be_told(lived, one.life) {
                expected += 1;
                assert_eq!(times, 1, "start {number}: {lived:?}, {:?}", one.life);
            }
            from_before += usize::from(told.is_some_and(|told| told == &["snapshot"]));
        }
    }
    let same: HashSet<_> = watched.iter().flat_map(|one| &one.entities).collect();
    assert_eq!(same.len(), 1, "one process, several names");
    assert!(
        expected > 500 * starts,
        "too few to prove anything: {expected}"
    );
    assert!(from_before > 50 * starts, "too few: {from_before}");
    println!("{starts} starts, {expected} connections due, {from_before} from before");
}

/// Open when the agent was ready, or begun and connected while it watched.
/// What ended before it was ready may or may not have been seen.
fn must_be_told(lived: &Lived, life: Life) -> bool {
    lived.closing > life.ready && lived.connected < life.stopping
}

fn watch(cgroup: &TestCgroup, pid: &str) -> Watched {
    let agent = Agent::start(cgroup);
    thread::sleep(WATCH);
    let mut told: HashMap<_, Vec<_>> = HashMap::new();
    let mut entities = HashSet::new();
    let mut lost = 0;
    let life = agent.stop_and_look(|record| {
        if text(record, "/event/action") == "loss" {
            lost += 1;
        }
        let Some((provenance, ends)) = connection(record, pid) else {
            return;
        };
        entities.insert(text(record, "/process/entity_id").into_owned());
        told.entry(ends).or_default().push(provenance);
    });
    Watched {
        life,
        told,
        entities,
        lost,
    }
}

/// Source and destination of a record that presents a connection of `pid`.
fn connection(record: &Value, pid: &str) -> Option<(&'static str, (SocketAddr, SocketAddr))> {
    let is_network = record.pointer("/event/category/0")? == "network";
    let provenance = match &*text(record, "/event/kind") {
        "state" => "snapshot",
        _ if text(record, "/event/action") == "connect" => "live",
        _ => return None,
    };
    if !is_network || text(record, "/process/pid") != pid {
        return None;
    }
    Some((
        provenance,
        (end(record, "source")?, end(record, "destination")?),
    ))
}

fn end(record: &Value, side: &str) -> Option<SocketAddr> {
    let end = record.get(side)?;
    let ip: IpAddr = end.get("ip")?.as_str()?.parse().ok()?;
    Some(SocketAddr::new(
        ip,
        end.get("port")?.as_u64()?.try_into().ok()?,
    ))
}

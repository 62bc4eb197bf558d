//! The other end of a connection, and chains through processes.

use super::{
    past::{facts, recalled, remembered},
    *,
};
use crate::{
    connections::fixtures::{local_accept, local_attempt, local_outcome},
    history::fixtures::Kept,
};

/// A proxy, process 20, beside curl, process 10, whose requests it takes at
/// port 8080.
fn engine_with_proxy() -> Engine {
    let mut engine = engine_with_curl();
    let mut proxy = exec(image(20), NOW);
    proxy.path = Some(b"/usr/bin/proxy".to_vec());
    engine.event(Event::Exec(proxy));
    hash_all(&mut engine, HASH);
    records(&mut engine);
    engine
}

/// Curl connects by that socket from that port.
fn ask(engine: &mut Engine, cookie: u64, port: u16, at_ns: u64) {
    engine.event(Event::Attempt(local_attempt(cookie, port, at_ns)));
    engine.event(Event::Outcome(local_outcome(cookie, port, at_ns, 0)));
}

fn take(engine: &mut Engine, cookie: u64, port: u16, at_ns: u64) {
    engine.event(Event::Accept(local_accept(cookie, port, at_ns)));
}

/// The proxy connects to the outside.
fn go_out(engine: &mut Engine, cookie: u64, at_ns: u64) {
    let mut event = attempt(cookie, 1, at_ns);
    event.image = image(20);
    event.creator = image(20);
    engine.event(Event::Attempt(event));
    engine.event(Event::Outcome(outcome(cookie, 1, at_ns, 0)));
}

/// The answer about one flow.
fn answer(engine: &mut Engine, flow: &str) -> Value {
    records(engine);
    let found = engine.who(&Query::default());
    let flows = found.iter().map(checked);
    let mut flows = flows.filter(|record| record["procid"]["flow_id"] == flow);
    flows.next().unwrap_or_else(|| panic!("no {flow}"))
}

/// The chain of an answer: toward, relation, flow, what it is of, pid, why.
fn chain(record: &Value) -> Vec<String> {
    let hops = record["procid"]["chain"].as_array();
    hops.into_iter()
        .flatten()
        .map(|hop| {
            let word = |name: &str| hop[name].as_str().unwrap().to_owned();
            let pid = &hop["process"]["pid"];
            let [toward, relation, flow, of, why] =
                ["toward", "relation", "flow_id", "of", "why"].map(word);
            format!("{toward} {relation} {flow} of {of} by {pid}: {why}")
        })
        .collect()
}

#[test]
fn each_record_names_the_other_end_once_it_is_known() {
    let mut engine = engine_with_proxy();
    ask(&mut engine, 1, 5000, NOW + MS);
    let connect = records(&mut engine).remove(0);
    assert!(connect["procid"]["unknown"]["procid.peer"].is_string());
    take(&mut engine, 2, 5000, NOW + 2 * MS);
    engine.event(Event::Close(close(1, 1, NOW + 9 * MS)));
    let told = records(&mut engine);
    assert_eq!(actions(&told), ["accept", "close"]);
    let accept = &told[0]["procid"]["peer"];
    assert_eq!(accept["flow_id"], "1.1");
    assert_eq!(accept["role"], "opener");
    assert_eq!(accept["process"]["name"], "cu\\x1brl");
    assert_eq!(accept["process"]["hash"]["sha256"], "ab".repeat(32));
    assert_eq!(accept["hash"]["grade"], "verified");
    let close = &told[1]["procid"]["peer"];
    assert_eq!(close["flow_id"], "2.1");
    assert_eq!(close["role"], "acceptor");
    assert_eq!(close["process"]["pid"], 20);
    assert_eq!(close["process"]["executable"], "/usr/bin/proxy");
    assert_eq!(told[1]["procid"]["unknown"].get("procid.peer"), None);
    let open = engine.connections(&Query::default());
    assert_eq!(checked(&open[0])["procid"]["peer"]["flow_id"], "1.1");
}

#[test]
fn who_spoke_last_at_the_other_end_is_named_too() {
    let mut engine = engine_with_proxy();
    ask(&mut engine, 1, 5000, NOW + MS);
    take(&mut engine, 2, 5000, NOW + 2 * MS);
    for tgid in [30, 31] {
        let mut event = local_accept(2, 5000, NOW + u64::from(tgid) * MS);
        event.image = image(tgid);
        engine.event(Event::Use(event));
    }
    let peer = &answer(&mut engine, "1.1")["procid"]["peer"];
    assert_eq!(peer["process"]["pid"], 20);
    assert_eq!(peer["speaker"]["pid"], 31);
}

#[test]
fn a_request_is_followed_through_a_proxy_either_way() {
    let mut engine = engine_with_proxy();
    // Open before the request, and closed before it: neither is left out nor in.
    go_out(&mut engine, 3, NOW + MS);
    go_out(&mut engine, 4, NOW + MS);
    engine.event(Event::Close(close(4, 1, NOW + 2 * MS)));
    ask(&mut engine, 1, 5000, NOW + 3 * MS);
    take(&mut engine, 2, 5000, NOW + 4 * MS);
    go_out(&mut engine, 5, NOW + 7 * MS);
    records(&mut engine);
    let onward = [
        "onward inferred 5.1 of 2.1 by 20: same process, opened 3 ms after",
        "onward inferred 3.1 of 2.1 by 20: same process, opened 3 ms before and still open",
    ];
    let to_the_proxy = "onward peer 2.1 of 1.1 by 20: the other end";
    let asked = answer(&mut engine, "1.1");
    assert_eq!(chain(&asked), [to_the_proxy, onward[0], onward[1]]);
    let hop = &asked["procid"]["chain"][1];
    assert_eq!(hop["destination"]["ip"], "10.0.0.7");
    assert_eq!(hop["destination"]["port"], 443);
    assert_eq!(hop["process"]["executable"], "/usr/bin/proxy");
    assert_eq!(
        chain(&answer(&mut engine, "2.1")),
        [
            "back peer 1.1 of 2.1 by 10: the other end",
            onward[0],
            onward[1]
        ]
    );
    assert_eq!(
        chain(&answer(&mut engine, "5.1")),
        [
            "back inferred 2.1 of 5.1 by 20: same process, accepted 3 ms before",
            "back peer 1.1 of 2.1 by 10: the other end"
        ]
    );
    // It was opened before anybody asked.
    assert_eq!(chain(&answer(&mut engine, "3.1")), [""; 0]);
}

#[test]
fn of_two_requests_at_once_neither_is_taken_for_the_one() {
    let mut engine = engine_with_proxy();
    for (cookie, port) in [(1, 5000), (3, 5001)] {
        ask(&mut engine, cookie, port, NOW + cookie * MS);
        take(&mut engine, cookie + 1, port, NOW + (cookie + 1) * MS);
    }
    go_out(&mut engine, 5, NOW + 9 * MS);
    assert_eq!(
        chain(&answer(&mut engine, "5.1")),
        [
            "back inferred 4.1 of 5.1 by 20: same process, accepted 5 ms before",
            "back peer 3.1 of 4.1 by 10: the other end",
            "back inferred 2.1 of 5.1 by 20: same process, accepted 7 ms before",
            "back peer 1.1 of 2.1 by 10: the other end"
        ]
    );
    // What ended before, did not ask.
    engine.event(Event::Close(close(4, 1, NOW + 10 * MS)));
    go_out(&mut engine, 6, NOW + 11 * MS);
    assert_eq!(chain(&answer(&mut engine, "6.1")).len(), 2);
}

#[test]
fn a_chain_is_bounded_and_says_so() {
    let mut engine = engine_with_proxy();
    ask(&mut engine, 1, 5000, NOW + MS);
    take(&mut engine, 2, 5000, NOW + 2 * MS);
    for cookie in 10..60 {
        go_out(&mut engine, cookie, NOW + cookie * MS);
    }
    let asked = answer(&mut engine, "1.1");
    assert_eq!(chain(&asked).len(), 1 + 8);
    assert!(asked["procid"]["unknown"]["procid.chain"].is_string());
}

/// A proxy that asks itself is followed no further than it is deep.
#[test]
fn a_circle_ends() {
    let mut engine = engine_with_proxy();
    for round in 0..20_u64 {
        let port = 5000 + u16::try_from(round).unwrap();
        let (opens, takes) = (100 + 2 * round, 101 + 2 * round);
        let mut event = local_attempt(opens, port, NOW + opens * MS);
        event.image = image(20);
        event.creator = image(20);
        engine.event(Event::Attempt(event));
        let outcome = local_outcome(opens, port, NOW + opens * MS, 0);
        engine.event(Event::Outcome(outcome));
        take(&mut engine, takes, port, NOW + takes * MS);
    }
    for flow in ["100.1", "139.1"] {
        let asked = answer(&mut engine, flow);
        let flows = chain(&asked).len();
        assert!((1..=64).contains(&flows), "{flows}");
        assert!(asked["procid"]["unknown"]["procid.chain"].is_string());
    }
}

/// Whatever the question leaves out, the other end is read for it.
#[test]
fn history_names_the_other_ends_that_memory_does() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = engine_with_proxy();
    let mut kept = Kept::begin(directory.path(), &engine.run());
    for (round, port) in [(0, 5000), (1, 5000), (2, 5001)] {
        let at_ns = NOW + 10 * round * MS;
        ask(&mut engine, 10 + round, port, at_ns);
        take(&mut engine, 20 + round, port, at_ns + MS);
        let mut used = local_accept(20 + round, port, at_ns + 2 * MS);
        used.image = image(30);
        engine.event(Event::Use(used));
        if round != 2 {
            engine.event(Event::Close(close(10 + round, 1, at_ns + 3 * MS)));
            engine.event(Event::Close(close(20 + round, 1, at_ns + 4 * MS)));
        }
    }
    records(&mut engine);
    kept.write(facts(&mut engine), NOW + 100 * MS);
    for pid in [10, 20, 30] {
        let query = Query {
            pid: Some(pid),
            ..Query::default()
        };
        let found = recalled(directory.path(), &query);
        assert_eq!(found, remembered(&engine, &query));
        assert_eq!(found.len(), 3);
        for record in found {
            assert!(
                record["procid"]["peer"]["process"]["pid"].is_u64(),
                "{record}"
            );
        }
    }
}

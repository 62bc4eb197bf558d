//! Requests through a proxy of the same host: who is at the other end, and what
//! may belong together.

use std::{collections::HashSet, net::TcpListener};

use procid::records::schema;
use procid_tests::{
    agent::Agent, listener, program::Program, records::text, scratch::Image, stage::Stage,
    truth::Act,
};
use serde_json::Value;

/// The records that `who` answers with, each checked, without its coverage.
fn who(agent: &Agent, question: &str) -> Vec<Value> {
    let output = agent.ask(&["who", "--json", question]);
    let stdout = std::str::from_utf8(&output.stdout).unwrap();
    let mut records: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    records.pop().unwrap_or_else(|| panic!("{output:?}"));
    for record in &records {
        assert_eq!(schema::check(record), Vec::<String>::new(), "{record}");
    }
    records
}

fn with_role<'r>(records: &'r [Value], role: &str) -> &'r Value {
    let mut of_role = records
        .iter()
        .filter(|record| text(record, "/procid/role") == role);
    match (of_role.next(), of_role.next()) {
        (Some(record), None) => record,
        _ => panic!("not one {role}: {records:#?}"),
    }
}

fn hops(record: &Value) -> &[Value] {
    record["procid"]["chain"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

/// A port that nobody has.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// That each of the records names another one of them as its other end, which
/// names it in turn.
fn assert_paired(records: &[Value]) {
    for record in records {
        let peer = text(record, "/procid/peer/flow_id");
        let other = records
            .iter()
            .find(|other| text(other, "/procid/flow_id") == peer)
            .unwrap_or_else(|| panic!("the other end of {record}"));
        let back = text(other, "/procid/peer/flow_id");
        assert_eq!(back, text(record, "/procid/flow_id"));
        for field in ["entity_id", "pid", "executable"] {
            let named = text(record, &format!("/procid/peer/process/{field}")).into_owned();
            assert_eq!(named, text(other, &format!("/process/{field}")), "{field}");
            assert_ne!(named, "");
        }
    }
}

/// A proxy in the stage's cgroup, and an image of its own.
fn proxy(stage: &Stage, to: &listener::Tcp, further: &[&str]) -> (Program, Image, String) {
    let image = stage.scratch.program("proxy");
    let to = to.address().to_string();
    let arguments = [&["proxy", "--to", &to], further].concat();
    let mut program = stage.start_file(&image.path, arguments);
    let at = program.listens().to_string();
    (program, image, at)
}

fn port(act: &Act) -> String {
    format!(":{}", act.source.unwrap().port())
}

#[test]
fn a_request_is_followed_through_a_proxy() {
    let outside = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let app = stage.app.clone();
    let (mut proxy, proxy_image, at) = proxy(&stage, &outside, &[]);
    let mut requester = stage.start(["connect", "--hold", "--to", &at]);
    let (asked, out) = (requester.act(), proxy.act());
    stage.wait_for_hash(asked.actor.pid, &app.file);
    stage.wait_for_hash(out.actor.pid, &proxy_image.file);
    stage.agent.settle(&[asked.clone(), out.clone()]);

    let ends = who(&stage.agent, &port(&asked));
    assert_eq!(ends.len(), 2, "{ends:#?}");
    assert_paired(&ends);
    let opener = with_role(&ends, "opener");
    let acceptor = with_role(&ends, "acceptor");
    assert_eq!(text(opener, "/procid/peer/role"), "acceptor");
    assert_eq!(opener["procid"]["peer"]["process"]["pid"], out.actor.pid);
    let hash = "/procid/peer/process/hash/sha256";
    assert_eq!(text(opener, hash), proxy_image.sha256);
    assert_eq!(
        acceptor["procid"]["peer"]["process"]["pid"],
        asked.actor.pid
    );
    assert_eq!(text(acceptor, hash), app.sha256);

    let [peer, onward] = hops(opener) else {
        panic!("{opener:#}");
    };
    assert_eq!(peer["relation"], "peer");
    assert_eq!(peer["flow_id"], acceptor["procid"]["flow_id"]);
    assert_eq!(onward["relation"], "inferred");
    assert_eq!(onward["of"], peer["flow_id"]);
    assert_eq!(onward["process"]["pid"], out.actor.pid);
    assert_eq!(onward["destination"]["port"], outside.address().port());

    let outs = who(&stage.agent, &port(&out));
    let [outward] = &outs[..] else {
        panic!("{outs:#?}");
    };
    // Who took it is no process of the cgroup.
    assert_eq!(outward["procid"].get("peer"), None);
    let [inferred, peer] = hops(outward) else {
        panic!("{outward:#}");
    };
    assert_eq!(inferred["relation"], "inferred");
    assert_eq!(inferred["toward"], "back");
    assert_eq!(peer["relation"], "peer");
    assert_eq!(peer["process"]["pid"], asked.actor.pid);

    let said = stage.agent.ask(&["who", &port(&asked)]);
    let said = String::from_utf8(said.stdout).unwrap();
    for word in ["    peer ", "    onward ", "    back ", "└ inferred: tcp "] {
        assert!(said.contains(word), "{word}: {said}");
    }
    requester.finish();
    proxy.finish();
    stage.agent.settle(std::slice::from_ref(&asked));
    let records = stage.agent.stop();
    let pid = |record: &Value| record["procid"]["peer"]["process"]["pid"].clone();
    let accepts: Vec<_> = records.of_action("accept").map(pid).collect();
    assert_eq!(accepts, [Value::from(asked.actor.pid)]);
    let [connect] = records.of_act(&asked)[..] else {
        panic!("not one record of {asked:?}");
    };
    let [close] = records.closes(&text(connect, "/procid/flow_id"))[..] else {
        panic!("not one end of {connect}");
    };
    assert_eq!(pid(close), out.actor.pid);
    assert_eq!(records.lost(), 0);
}

#[test]
fn a_port_that_is_used_again_is_another_connection() {
    const ROUNDS: usize = 3;
    let outside = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let (mut proxy, _, at) = proxy(&stage, &outside, &["--count", "3"]);
    let from = format!("127.0.0.1:{}", free_port());
    let mut pids = HashSet::new();
    let mut acts = Vec::new();
    for _ in 0..ROUNDS {
        let arguments = ["connect", "--hold", "--reset", "--from", &from, "--to", &at];
        let mut requester = stage.start(arguments);
        let act = requester.act();
        pids.insert(u64::from(act.actor.pid));
        // Once it was passed on, it was accepted.
        acts.push(proxy.act());
        acts.push(act);
        requester.finish();
    }
    stage.agent.settle(&acts);
    let all = who(&stage.agent, &from);
    assert_eq!(all.len(), 2 * ROUNDS, "{all:#?}");
    assert_paired(&all);
    let peers: HashSet<_> = all
        .iter()
        .filter(|record| text(record, "/procid/role") == "acceptor")
        .filter_map(|record| record["procid"]["peer"]["process"]["pid"].as_u64())
        .collect();
    assert_eq!(peers, pids);
    proxy.finish();
    assert_eq!(stage.agent.stop().lost(), 0);
}

#[test]
fn of_two_requests_at_once_none_is_given_as_the_one() {
    let outside = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let (mut proxy, _, at) = proxy(&stage, &outside, &["--together", "2", "--count", "2"]);
    let mut requesters = [0, 1].map(|_| stage.start(["connect", "--hold", "--to", &at]));
    let asked = [requesters[0].act(), requesters[1].act()];
    let outs = [proxy.act(), proxy.act()];
    stage.agent.settle(&outs);
    let pids: HashSet<_> = asked.iter().map(|act| u64::from(act.actor.pid)).collect();
    for out in &outs {
        let records = who(&stage.agent, &port(out));
        let [record] = &records[..] else {
            panic!("{records:#?}");
        };
        let flow = &record["procid"]["flow_id"];
        let (own, others): (Vec<_>, Vec<_>) =
            hops(record).iter().partition(|hop| hop["of"] == *flow);
        assert_eq!(own.len(), 2, "{record:#}");
        assert!(own.iter().all(|hop| hop["relation"] == "inferred"));
        let found: HashSet<_> = others
            .iter()
            .filter(|hop| hop["relation"] == "peer")
            .filter_map(|hop| hop["process"]["pid"].as_u64())
            .collect();
        assert_eq!(found, pids);
    }
    for requester in requesters {
        requester.finish();
    }
    proxy.finish();
    assert_eq!(stage.agent.stop().lost(), 0);
}

/// The same addresses and ports at the same time, in another network namespace,
/// where nobody accepts.
#[test]
fn the_same_ends_in_another_network_namespace_are_others() {
    let outside = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let app = stage.app.path.display().to_string();
    let (mut proxy, _, at) = proxy(&stage, &outside, &[]);
    let from = format!("127.0.0.1:{}", free_port());
    let connect = ["connect", "--hold", "--from", &from, "--to", &at];
    let place = ["enter", "--net-ns", "--loopback", "--", &app];
    let mut elsewhere = stage.start([&place[..], &connect, &["--listen"]].concat());
    let mut requester = stage.start(connect);
    let acts = [elsewhere.act(), requester.act(), proxy.act()];
    assert_ne!(acts[0].actor.netns, acts[1].actor.netns);
    stage.agent.settle(&acts);
    let mut all = who(&stage.agent, &from);
    assert_eq!(all.len(), 3, "{all:#?}");
    let at = all
        .iter()
        .position(|record| record["process"]["pid"] == acts[0].actor.pid)
        .unwrap();
    let alone = all.remove(at);
    assert_eq!(alone["procid"].get("peer"), None, "{alone:#}");
    assert_ne!(text(&alone, "/procid/unknown/procid.peer"), "");
    assert_paired(&all);
    requester.finish();
    elsewhere.finish();
    proxy.finish();
    assert_eq!(stage.agent.stop().lost(), 0);
}

#[test]
fn both_ends_that_outlive_an_agent_are_found_again() {
    let outside = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let (mut proxy, _, at) = proxy(&stage, &outside, &[]);
    let mut requester = stage.start(["connect", "--hold", "--to", &at]);
    let acts = [requester.act(), proxy.act()];
    stage.agent.settle(&acts);
    let home = stage.agent.kill();
    let agent = Agent::start_at(&stage.cgroup, home, &[]);
    let ends = who(&agent, &port(&acts[0]));
    // What the killed one knew of them is not told beside what is open now.
    assert_eq!(ends.len(), 2, "{ends:#?}");
    let pairs: HashSet<_> = ends
        .iter()
        .map(|end| {
            [
                &end["process"]["pid"],
                &end["procid"]["peer"]["process"]["pid"],
            ]
        })
        .map(|pair| pair.map(Value::as_u64))
        .collect();
    let [one, other] = [0, 1].map(|at| Some(u64::from(acts[at].actor.pid)));
    let expected = HashSet::from([[one, other], [other, one]]);
    assert_eq!(pairs, expected, "{ends:#?}");
    requester.finish();
    proxy.finish();
    assert_eq!(agent.stop().lost(), 0);
}

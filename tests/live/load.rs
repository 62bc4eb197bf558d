//! More connections than anyone reads: what is lost is counted.

use std::collections::HashSet;

use procid_tests::{listener, records::text, stage::Stage};

const RATE: u64 = 30_000;
const SECONDS: u64 = 10;

#[test]
fn thirty_thousand_connections_a_second() {
    let listener = listener::Tcp::on("0.0.0.0:0");
    let stage = Stage::new();
    let port = listener.address().port().to_string();
    let (rate, count) = (RATE.to_string(), (RATE * SECONDS).to_string());
    let load = stage.start([
        "load", "--sum", "--port", &port, "--rate", &rate, "--count", &count,
    ]);
    let pid = load.pid().to_string();
    let summary = load.finish().summary.unwrap();
    assert_eq!((summary.attempts, summary.failures), (RATE * SECONDS, 0));

    let (mut connects, mut closes) = (HashSet::new(), HashSet::new());
    let mut unknown = 0_u64;
    let mut lost = 0_u64;
    stage.agent.stop_and_look(|record| {
        let action = text(record, "/event/action");
        if action == "loss" {
            let causes = record
                .pointer("/procid/lost")
                .and_then(|lost| lost.as_object());
            lost += causes
                .into_iter()
                .flat_map(|causes| causes.values().filter_map(serde_json::Value::as_u64))
                .sum::<u64>();
        }
        if text(record, "/process/pid") != pid {
            return;
        }
        let flow = text(record, "/procid/flow_id").into_owned();
        match &*action {
            "connect" => {
                unknown += u64::from(text(record, "/event/outcome") != "success");
                assert!(connects.insert(flow), "told twice: {record}");
            }
            "close" => assert!(closes.insert(flow), "closed twice: {record}"),
            _ => {}
        }
    });
    let told = connects.len() as u64;
    println!(
        "{} connections in {} ms, {told} told, {unknown} without outcome, {} closes, {lost} lost",
        summary.attempts,
        summary.elapsed / 1_000_000,
        closes.len()
    );
    assert!(told <= summary.attempts);
    if lost == 0 {
        assert_eq!((told, unknown), (summary.attempts, 0));
        assert_eq!(closes, connects, "a connection without an end");
    } else {
        // A lost event is an attempt, an outcome or a close.
        let missing = summary.attempts - told;
        assert!(missing <= lost, "{missing} missing, {lost} counted");
        assert!(missing + unknown + told - closes.len() as u64 <= lost + unknown);
    }
}

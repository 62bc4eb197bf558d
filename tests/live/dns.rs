//! What a DNS answer called the destination of a connection.

use std::net::IpAddr;

use procid_tests::{
    dns::{
        Answers,
        Data::{self, Address, Alias},
        Server, answer,
    },
    listener,
    records::{Records, text},
    stage::Stage,
    truth::Act,
};
use serde_json::{Value, json};

fn address(text: &str) -> Data<'static> {
    Address(text.parse::<IpAddr>().unwrap())
}

fn zone(names: &[(&str, &[(&str, Data<'_>)])]) -> Answers {
    names
        .iter()
        .map(|(name, records)| ((*name).to_owned(), answer(name, records)))
        .collect()
}

/// Asks for the names, connects, and waits until that is told.
fn ask(stage: &mut Stage, server: &Server, over: &str, names: &[&str], to: &str) -> Act {
    let server = server.address().to_string();
    let mut arguments = vec!["resolve", "--server", &server, "--over", over, "--to", to];
    for name in names {
        arguments.extend(["--name", name]);
    }
    let acts = stage.run(arguments);
    stage.agent.settle(&acts);
    acts.into_iter().next().unwrap()
}

fn record<'a>(records: &'a Records, act: &Act) -> &'a Value {
    records
        .of_act(act)
        .into_iter()
        .find(|record| text(record, "/event/action") == "connect")
        .unwrap()
}

fn assert_own(record: &Value, name: &str) {
    assert_eq!(text(record, "/destination/domain"), name);
    let domain = &record["procid"]["domain"];
    assert_eq!(domain["grade"], "observed");
    assert_eq!(domain["relation"], "image");
    assert_eq!(domain["asked_by"], record["process"]["entity_id"]);
    let (at, told) = (text(domain, "/at"), text(record, "/@timestamp"));
    assert!(at < told, "{at} is not before {told}");
}

#[test]
fn the_name_that_was_asked_for() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let sixth = listener::Tcp::on("[::1]:0");
    let server = Server::start(zone(&[
        (
            "www.example.test",
            &[
                ("www.example.test", Alias("a.cdn.test")),
                ("a.cdn.test", Alias("b.cdn.test")),
                ("b.cdn.test", address("192.0.2.1")),
                ("b.cdn.test", address("127.0.0.1")),
            ],
        ),
        ("six.example.test", &[("six.example.test", address("::1"))]),
    ]));
    let mut stage = Stage::new();
    let to = listener.address().to_string();
    for over in ["connected", "udp", "tcp"] {
        let act = ask(&mut stage, &server, over, &["www.example.test"], &to);
        let record = record(stage.agent.records(), &act);
        assert_own(record, "www.example.test");
        assert_eq!(record["procid"]["domain"].get("others"), None, "{over}");
    }
    // What is asked for over IPv4 may be an address of IPv6; the name is asked for
    // as an address of IPv4 here, which the program does not look at.
    let to = sixth.address().to_string();
    let act = ask(&mut stage, &server, "udp", &["six.example.test"], &to);
    assert_own(record(stage.agent.records(), &act), "six.example.test");

    let port = act.source.unwrap().port().to_string();
    let who = stage.agent.ask(&["who", "--json", &format!(":{port}")]);
    let first: Value =
        serde_json::from_slice(who.stdout.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_own(&first, "six.example.test");
    let who = stage.agent.ask(&["who", &format!(":{port}")]);
    let said = String::from_utf8_lossy(&who.stdout).into_owned();
    let line = "domain     six.example.test (observed, asked for by this image)";
    assert!(said.contains(line), "{said}");
    for (name, count) in [
        ("cdn.test", 0),
        ("www.example.test", 3),
        ("Example.test", 4),
    ] {
        let who = stage.agent.ask(&["who", "--json", "--domain", name]);
        let said = String::from_utf8_lossy(&who.stdout).into_owned();
        // The last line says what the answer could have missed.
        let lines = said.lines().filter(|line| line.contains("\"connect\""));
        assert_eq!(lines.count(), count, "{name}: {said}");
    }
    assert_eq!(stage.agent.stop().lost(), 0);
}

#[test]
fn a_name_that_another_image_asked_for_is_told_as_that() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let server = Server::start(zone(&[
        ("one.test", &[("one.test", address("127.0.0.1"))]),
        ("two.test", &[("two.test", address("127.0.0.1"))]),
        ("three.test", &[("three.test", address("127.0.0.1"))]),
    ]));
    let mut stage = Stage::new();
    let to = listener.address().to_string();
    let before = ask(&mut stage, &server, "udp", &[], &to);
    let first = ask(&mut stage, &server, "udp", &["one.test", "two.test"], &to);
    let silent = ask(&mut stage, &server, "udp", &[], &to);
    let third = ask(&mut stage, &server, "tcp", &["three.test"], &to);
    let records = stage.end(&[]);

    assert_eq!(record(&records, &before)["destination"].get("domain"), None);
    assert_eq!(record(&records, &before)["procid"].get("domain"), None);
    let first = record(&records, &first);
    assert_own(first, "two.test");
    assert_eq!(first["procid"]["domain"]["others"], json!(["one.test"]));
    let silent = record(&records, &silent);
    assert_eq!(text(silent, "/destination/domain"), "two.test");
    let domain = &silent["procid"]["domain"];
    assert_eq!(domain["relation"], "namespace");
    assert_eq!(domain["asked_by"], first["process"]["entity_id"]);
    assert_eq!(domain["others"], json!(["one.test"]));
    let third = record(&records, &third);
    assert_own(third, "three.test");
    let others = &third["procid"]["domain"]["others"];
    assert_eq!(*others, json!(["two.test", "one.test"]));
    assert_eq!(records.lost(), 0);
}

/// Nor does what nobody was asked.
#[test]
fn answers_that_are_none_do_no_harm() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut answers = zone(&[
        ("good.test", &[("good.test", address("127.0.0.1"))]),
        // Of another name than was asked for.
        ("stray.test", &[("bank.test", address("127.0.0.1"))]),
    ]);
    let good = answers["good.test"].clone();
    let cut = good[..good.len() - 3].to_vec();
    let mut looped = good.clone();
    // The first record's name points at itself.
    looped.splice(27.., [0xc0, 27, 0, 1, 0, 1]);
    answers.insert("cut.test".to_owned(), cut);
    answers.insert("loop.test".to_owned(), looped);
    answers.insert("short.test".to_owned(), vec![0; 3]);
    answers.insert("noise.test".to_owned(), vec![0xff; 4000]);
    answers.insert("long.test".to_owned(), [&good[..], &[0xff; 4000]].concat());
    let server = Server::with_liar(
        answers,
        Some(answer("lie.test", &[("lie.test", address("127.0.0.1"))])),
    );
    let mut stage = Stage::new();
    let to = listener.address().to_string();
    let bad = [
        "cut.test",
        "loop.test",
        "short.test",
        "noise.test",
        "stray.test",
    ];
    for over in ["udp", "tcp"] {
        let act = ask(&mut stage, &server, over, &bad, &to);
        let record = record(stage.agent.records(), &act);
        assert_eq!(record["destination"].get("domain"), None, "{over}");
    }
    let status = stage.agent.ask(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    // Two of them look like answers, each over UDP and TCP; the stray one is one.
    assert_eq!(status["answers"], json!({"read": 6, "unreadable": 4}));
    for over in ["udp", "connected", "tcp"] {
        let act = ask(&mut stage, &server, over, &["long.test"], &to);
        let record = record(stage.agent.records(), &act);
        assert_own(record, "good.test");
        assert_eq!(record["procid"]["domain"].get("others"), None, "{over}");
    }
    assert_eq!(stage.agent.stop().lost(), 0);
}

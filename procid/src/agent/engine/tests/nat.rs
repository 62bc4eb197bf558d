//! How connections are translated.

use super::*;
use crate::conntrack::{Answer, Translation, Tuple};

/// Of the agent's own network namespace, and of others.
const OWN: u32 = 100;

fn end(last: u8, port: u16) -> (IpAddr, u16) {
    (IpAddr::from([192, 0, 2, last]), port)
}

pub(super) fn masqueraded() -> Answer {
    Answer::Found(Translation {
        local: Some(end(1, 61_000)),
        remote: None,
    })
}

/// Opens a connection from 10.0.0.5:50000 in that namespace.
pub(super) fn open(engine: &mut Engine, cookie: u64, netns: u32) {
    let mut event = attempt(cookie, 1, NOW + cookie);
    event.netns = netns;
    engine.event(Event::Attempt(event));
    engine.event(Event::Outcome(outcome(cookie, 1, NOW + cookie, 0)));
}

/// Looks up what is wanted in a table that says this of everything.
pub(super) fn look_up(engine: &mut Engine, answer: Answer) -> Vec<Tuple> {
    let wanted = engine.untranslated();
    for one in &wanted {
        engine.translated(one, answer);
    }
    wanted.iter().map(|one| one.tuple).collect()
}

fn who(engine: &Engine, flow: &str) -> Vec<Value> {
    let mut records = engine.who(&Query::from_words(&[flow.to_owned()]).unwrap());
    records.pop();
    records.iter().map(checked).collect()
}

#[test]
fn the_record_tells_the_other_face_and_either_finds_it() {
    let mut engine = engine_with_curl();
    open(&mut engine, 9, OWN);
    let tuples = look_up(&mut engine, masqueraded());
    let tuple = Tuple {
        protocol: 6,
        local: ([10, 0, 0, 5].into(), 50_000),
        remote: ([10, 0, 0, 7].into(), 443),
    };
    assert_eq!(tuples, [tuple]);
    let told = records(&mut engine);
    assert_eq!(told[0]["source"]["nat"]["ip"], "192.0.2.1");
    assert_eq!(told[0]["source"]["nat"]["port"], 61_000);
    assert!(told[0]["destination"].get("nat").is_none());
    assert_eq!(told[0]["procid"]["nat"]["grade"], "exact");
    let related = told[0]["related"]["ip"].as_array().unwrap();
    assert!(related.contains(&"192.0.2.1".into()), "{related:?}");
    for flow in [":61000", "192.0.2.1:61000", "10.0.0.5:50000"] {
        let found = who(&engine, flow);
        assert_eq!(found.len(), 1, "{flow}");
        assert_eq!(found[0]["source"], told[0]["source"], "{flow}");
    }
    assert!(who(&engine, "192.0.2.1:50000").is_empty());
    // It is not looked up again, and its end tells the same.
    engine.event(Event::Close(close(9, 1, NOW + 50)));
    assert!(look_up(&mut engine, Answer::Missing).is_empty());
    let told = records(&mut engine);
    assert_eq!(actions(&told), ["close"]);
    assert_eq!(told[0]["source"]["nat"]["port"], 61_000);
}

#[test]
fn of_an_accepted_connection_the_source_is_the_peer() {
    let mut engine = engine_with_curl();
    let mut event = attempt(9, 1, NOW);
    event.flags = flags::ACCEPTED;
    event.source = ipv4(5);
    event.source_port = 8443;
    event.destination = ipv4(7);
    event.destination_port = 40_000;
    engine.event(Event::Accept(event));
    let answer = Answer::Found(Translation {
        local: Some(end(3, 443)),
        remote: None,
    });
    let tuples = look_up(&mut engine, answer);
    assert_eq!(tuples[0].local, ([10, 0, 0, 5].into(), 8443));
    let told = records(&mut engine);
    assert_eq!(told[0]["destination"]["ip"], "10.0.0.5");
    assert_eq!(told[0]["destination"]["nat"]["ip"], "192.0.2.3");
    assert_eq!(told[0]["destination"]["nat"]["port"], 443);
    assert!(told[0]["source"].get("nat").is_none());
}

#[test]
fn what_is_not_translated_has_no_such_fields_and_is_looked_up_once() {
    let mut engine = engine_with_curl();
    open(&mut engine, 9, OWN);
    let plain = Answer::Found(Translation::default());
    assert_eq!(look_up(&mut engine, plain).len(), 1);
    engine.event(Event::Close(close(9, 1, NOW + 50)));
    assert!(look_up(&mut engine, masqueraded()).is_empty());
    for record in records(&mut engine) {
        assert!(record["source"].get("nat").is_none(), "{record}");
        assert!(record["procid"].get("nat").is_none(), "{record}");
    }
}

#[test]
fn what_was_not_found_is_looked_up_when_it_is_told_of_again() {
    let mut engine = engine_with_curl();
    open(&mut engine, 9, OWN);
    assert_eq!(look_up(&mut engine, Answer::Missing).len(), 1);
    engine.look_up_again();
    assert!(look_up(&mut engine, masqueraded()).is_empty());
    engine.event(Event::Close(close(9, 1, NOW + 50)));
    assert_eq!(look_up(&mut engine, masqueraded()).len(), 1);
    let told = records(&mut engine);
    assert_eq!(told[1]["source"]["nat"]["ip"], "192.0.2.1");
}

#[test]
fn a_datagram_socket_is_looked_up_once_more_before_that() {
    let mut engine = engine_with_curl();
    let mut event = datagram(9, 1, NOW);
    event.source = ipv4(5);
    event.source_port = 50_000;
    engine.event(Event::Attempt(event));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    assert_eq!(look_up(&mut engine, Answer::Missing).len(), 1);
    let told = records(&mut engine);
    assert!(told[0]["source"].get("nat").is_none());
    engine.look_up_again();
    assert_eq!(look_up(&mut engine, Answer::Missing).len(), 1);
    engine.look_up_again();
    assert!(look_up(&mut engine, masqueraded()).is_empty());
}

#[test]
fn of_another_namespace_it_is_inferred() {
    let mut engine = engine_with_curl();
    open(&mut engine, 9, 200);
    look_up(&mut engine, masqueraded());
    let told = records(&mut engine);
    assert_eq!(told[0]["procid"]["nat"]["grade"], "inferred");
    assert_eq!(told[0]["source"]["nat"]["port"], 61_000);
}

#[test]
fn loopback_of_another_namespace_is_not_looked_up() {
    let mut engine = engine_with_curl();
    let mut event = attempt(9, 1, NOW);
    event.destination[12..].copy_from_slice(&[127, 0, 0, 1]);
    event.netns = 200;
    engine.event(Event::Attempt(event));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    assert!(look_up(&mut engine, masqueraded()).is_empty());
}

#[test]
fn sockets_of_two_namespaces_with_the_same_ends_have_none() {
    let mut engine = engine_with_curl();
    open(&mut engine, 8, 200);
    look_up(&mut engine, masqueraded());
    assert_eq!(records(&mut engine).len(), 1);
    assert_eq!(who(&engine, ":61000").len(), 1);
    open(&mut engine, 9, 201);
    look_up(&mut engine, masqueraded());
    assert_eq!(records(&mut engine).len(), 1);
    assert!(who(&engine, ":61000").is_empty());
    for record in who(&engine, ":50000") {
        assert!(record["procid"]["unknown"].get("procid.nat").is_some());
        assert!(record["source"].get("nat").is_none(), "{record}");
    }
    // The agent's own namespace is certain all the same.
    open(&mut engine, 10, OWN);
    look_up(&mut engine, masqueraded());
    assert_eq!(records(&mut engine).len(), 1);
    assert_eq!(who(&engine, ":61000").len(), 1);
}

#[test]
fn one_that_has_ended_does_not_make_the_next_one_ambiguous() {
    let mut engine = engine_with_curl();
    open(&mut engine, 8, 200);
    look_up(&mut engine, masqueraded());
    engine.event(Event::Close(close(8, 1, NOW + 50)));
    open(&mut engine, 9, 201);
    look_up(&mut engine, masqueraded());
    assert_eq!(records(&mut engine).len(), 3);
    assert_eq!(who(&engine, ":61000").len(), 2);
}

#[test]
fn a_denied_connection_is_not_looked_up() {
    let mut engine = engine_with_curl();
    let mut event = attempt(9, 1, NOW);
    event.source = ipv4(5);
    event.source_port = 50_000;
    event.verdict = verdict::DENY;
    event.generation = 1;
    engine.event(Event::Attempt(event));
    assert!(look_up(&mut engine, masqueraded()).is_empty());
}

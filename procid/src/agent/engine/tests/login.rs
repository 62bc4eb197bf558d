//! Where logins came from.

use super::*;

const SESSION: u32 = 3;
const UNSET: u32 = u32::MAX;

/// An image of that process in that session, forked by another one.
fn born(engine: &mut Engine, pid: u32, parent: u32, session: u32, at_ns: u64) {
    let mut facts = exec(image(pid), at_ns);
    facts.event.image.parent = image(parent);
    facts.event.actor.creds.sessionid = session;
    engine.event(Event::Exec(facts));
    hash_all(engine, HASH);
}

/// A connection that this process takes from 10.0.0.PEER:50022.
fn accepted(engine: &mut Engine, cookie: u64, pid: u32, peer: u8, at_ns: u64) {
    let mut event = attempt(cookie, 1, at_ns);
    event.flags = flags::ACCEPTED;
    (event.image, event.creator, event.actor) = (image(pid), image(pid), actor(pid));
    (event.source, event.source_port) = (ipv4(1), 22);
    (event.destination, event.destination_port) = (ipv4(peer), 50_022);
    engine.event(Event::Accept(event));
}

/// Another process sends on it.
fn used(engine: &mut Engine, cookie: u64, pid: u32, at_ns: u64) {
    let mut event = attempt(cookie, 1, at_ns);
    event.flags = flags::ACCEPTED;
    (event.image, event.actor) = (image(pid), actor(pid));
    engine.event(Event::Use(event));
}

/// What the answer about a connect of this process in that session says.
fn login(engine: &mut Engine, pid: u32, session: u32) -> Value {
    let cookie = 1000 + u64::from(pid);
    let mut event = attempt(cookie, 1, NOW + 900);
    (event.image, event.creator, event.actor) = (image(pid), image(pid), actor(pid));
    event.actor.creds.sessionid = session;
    engine.event(Event::Attempt(event));
    engine.event(Event::Outcome(outcome(cookie, 1, NOW + 900, 0)));
    records(engine);
    let mut answer = engine.who(&Query {
        pid: Some(pid),
        destination: ":443".parse().ok(),
        ..Query::default()
    });
    answer.pop();
    let last = answer.last().map(checked).unwrap();
    last["procid"]["login"].clone()
}

/// A listener (20), what it started for one connection (21), the user's part of
/// it (22), a shell (23) and a command (24).
fn ssh(engine: &mut Engine) {
    born(engine, 20, 1, UNSET, NOW);
    accepted(engine, 1, 20, 9, NOW + 10);
    born(engine, 21, 20, UNSET, NOW + 20);
    born(engine, 22, 21, SESSION, NOW + 30);
    born(engine, 23, 22, SESSION, NOW + 40);
    born(engine, 24, 23, SESSION, NOW + 50);
}

#[test]
fn the_users_part_of_the_server_tells_the_peer() {
    let mut engine = engine();
    ssh(&mut engine);
    used(&mut engine, 1, 21, NOW + 25);
    used(&mut engine, 1, 22, NOW + 35);
    let login = login(&mut engine, 24, SESSION);
    assert_eq!(login["from"]["ip"], "10.0.0.9");
    assert_eq!(login["from"]["port"], 50_022);
    assert_eq!(login["grade"], "inferred");
    let by = engine.images.get(&image(22)).unwrap().entity.to_string();
    assert_eq!(login["entity_id"], by);
}

/// As it is for root, who needs no process of another user.
#[test]
fn the_image_that_began_the_session_tells_it_too() {
    let mut engine = engine();
    ssh(&mut engine);
    used(&mut engine, 1, 21, NOW + 25);
    assert_eq!(login(&mut engine, 24, SESSION)["from"]["ip"], "10.0.0.9");
}

#[test]
fn the_listener_and_what_runs_in_the_session_tell_nothing() {
    let mut engine = engine();
    ssh(&mut engine);
    // A server of the user's own, which has a client.
    accepted(&mut engine, 2, 23, 8, NOW + 45);
    assert_eq!(login(&mut engine, 24, SESSION), Value::Null);
}

#[test]
fn several_connections_tell_nothing() {
    let mut engine = engine();
    ssh(&mut engine);
    used(&mut engine, 1, 22, NOW + 35);
    accepted(&mut engine, 2, 20, 8, NOW + 11);
    used(&mut engine, 2, 22, NOW + 36);
    assert_eq!(login(&mut engine, 24, SESSION), Value::Null);
}

#[test]
fn a_connection_that_was_not_open_when_the_session_began_tells_nothing() {
    for is_over in [true, false] {
        let mut engine = engine();
        born(&mut engine, 20, 1, UNSET, NOW);
        if is_over {
            accepted(&mut engine, 1, 20, 9, NOW + 10);
            engine.event(Event::Close(close(1, 1, NOW + 20)));
        }
        born(&mut engine, 24, 20, SESSION, NOW + 30);
        if !is_over {
            accepted(&mut engine, 1, 24, 9, NOW + 40);
        }
        assert_eq!(login(&mut engine, 24, SESSION), Value::Null, "{is_over}");
    }
}

#[test]
fn who_is_in_no_session_has_not_logged_in() {
    let mut engine = engine();
    born(&mut engine, 20, 1, UNSET, NOW);
    accepted(&mut engine, 1, 20, 9, NOW + 10);
    born(&mut engine, 24, 20, UNSET, NOW + 30);
    assert_eq!(login(&mut engine, 24, UNSET), Value::Null);
}

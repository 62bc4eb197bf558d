use std::collections::HashMap;

use procid_common::{
    policy::verdict,
    socket::{Attempt, Close, Outcome as OutcomeEvent, flags},
};
use proptest::prelude::*;

use super::{
    fixtures::{Ledger, MS, attempt, close, datagram, image, ipv4, outcome, row},
    *,
};

const KEY: Key = Key { cookie: 9, flow: 1 };

/// What there is to tell, in words.
fn news(connections: &mut Connections) -> Vec<String> {
    std::iter::from_fn(|| connections.next_news())
        .map(|news| match news {
            News::Opened(key) => format!("opened {key}"),
            News::Used(key, speaker) => format!("used {key} by {}", speaker.image.tgid),
            News::Denied(told) => format!("denied {}", told.0),
            News::Closed(key) => format!("closed {key}"),
            News::Forgotten(_) => "forgotten".to_owned(),
        })
        .collect()
}

#[test]
fn the_first_outcome_wins_and_a_source_may_come_before_it() {
    let mut connections = Connections::default();
    assert_eq!(connections.attempt(&attempt(9, 1, 0)), Some(KEY));
    assert_eq!(connections.attempt(&attempt(9, 1, 5)), None, "told twice");
    assert_eq!(connections.get(&KEY).unwrap().source_ip(), None);
    connections.outcome(&outcome(9, 1, 1, OutcomeEvent::UNDECIDED));
    assert_eq!(news(&mut connections), [""; 0]);
    connections.outcome(&OutcomeEvent {
        source: [0; 16],
        source_port: 0,
        ..outcome(9, 1, 2, 0)
    });
    connections.outcome(&outcome(9, 1, 3, libc::ECONNREFUSED));
    assert_eq!(news(&mut connections), ["opened 9.1"]);
    let connection = connections.get(&KEY).unwrap();
    assert_eq!(connection.outcome, Outcome::Success);
    assert_eq!(connection.source_port(), Some(50_000));
    assert_eq!(connection.source_ip(), Some("10.0.0.5".parse().unwrap()));
}

#[test]
fn a_failure_ends_the_flow_without_a_close() {
    for error in [libc::ECONNREFUSED, OutcomeEvent::ABANDONED] {
        let mut connections = Connections::default();
        connections.attempt(&attempt(9, 1, 0));
        connections.outcome(&outcome(9, 1, 1, error));
        connections.close(&close(9, 1, 2), &mut Ledger::default());
        assert_eq!(news(&mut connections), ["opened 9.1"]);
        assert_eq!(connections.open(), 0);
    }
}

#[test]
fn no_outcome_in_time_is_unknown_and_a_late_failure_is_the_end() {
    let mut connections = Connections::default();
    connections.attempt(&attempt(9, 1, MS));
    connections.tick(UNDECIDED_MAX_NS);
    assert_eq!(news(&mut connections), [""; 0]);
    connections.tick(MS + UNDECIDED_MAX_NS);
    assert_eq!(news(&mut connections), ["opened 9.1"]);
    assert_eq!(connections.get(&KEY).unwrap().outcome, Outcome::Unknown);
    connections.outcome(&outcome(9, 1, 5000 * MS, libc::ETIMEDOUT));
    connections.close(&close(9, 1, 5000 * MS), &mut Ledger::default());
    assert_eq!(news(&mut connections), ["closed 9.1"]);
    let connection = connections.get(&KEY).unwrap();
    assert_eq!(connection.outcome, Outcome::Failure(libc::ETIMEDOUT));
}

#[test]
fn a_late_success_is_kept_and_told_to_who_asks() {
    let mut connections = Connections::default();
    connections.attempt(&attempt(9, 1, 0));
    connections.tick(u64::from(u32::MAX));
    connections.outcome(&outcome(9, 1, 5000 * MS, 0));
    connections.outcome(&outcome(9, 1, 5001 * MS, libc::ETIMEDOUT));
    assert_eq!(news(&mut connections), ["opened 9.1"]);
    let connection = connections.get(&KEY).unwrap();
    assert_eq!(connection.outcome, Outcome::Success);
    assert_eq!(connection.ended_ns, None);
}

#[test]
fn the_end_of_a_datagram_socket_ends_its_flows_and_no_other() {
    let mut connections = Connections::default();
    for (cookie, flow) in [(8, 1), (9, 1), (9, 2), (9, 3), (10, 1)] {
        connections.attempt(&datagram(cookie, flow, 0));
        let error = if (cookie, flow) == (9, 2) {
            libc::EPERM
        } else {
            0
        };
        if (cookie, flow) != (9, 3) {
            connections.outcome(&outcome(cookie, flow, 1, error));
        }
    }
    news(&mut connections);
    connections.close(&close(9, 0, 2), &mut Ledger::default());
    connections.close(&close(9, 0, 3), &mut Ledger::default());
    assert_eq!(
        news(&mut connections),
        ["closed 9.1", "opened 9.3", "closed 9.3"]
    );
    assert_eq!(connections.open(), 2);
}

#[test]
fn a_released_socket_ends_with_its_state_or_at_last_with_its_release() {
    let release = |at_ns| Close {
        hook: Hook::SockRelease as u32,
        ..close(9, 1, at_ns)
    };
    let begun = || {
        let mut connections = Connections::default();
        connections.attempt(&attempt(9, 1, 0));
        connections.outcome(&outcome(9, 1, MS, 0));
        connections.close(&release(2 * MS), &mut Ledger::default());
        assert_eq!(news(&mut connections), ["opened 9.1"]);
        connections
    };
    let ended = |connections: &Connections| connections.get(&KEY).unwrap().ended_ns.unwrap().get();
    let mut connections = begun();
    connections.close(&close(9, 1, 3 * MS), &mut Ledger::default());
    assert_eq!(news(&mut connections), ["closed 9.1"]);
    assert_eq!(ended(&connections), 3 * MS);
    connections.give_up_waiting();
    assert_eq!(news(&mut connections), [""; 0], "told twice");

    let mut connections = begun();
    connections.tick(RELEASED_MAX_NS);
    assert_eq!(news(&mut connections), [""; 0], "TCP may go on");
    connections.tick(RELEASED_MAX_NS + RELEASED_LOOK_NS + 3 * MS);
    assert_eq!(news(&mut connections), ["closed 9.1"]);
    assert_eq!(ended(&connections), 2 * MS);

    let mut connections = begun();
    connections.give_up_waiting();
    assert_eq!(news(&mut connections), ["closed 9.1"]);
}

#[test]
fn a_socket_found_open_is_told_once_and_closes_by_any_count() {
    for flow in [0, 1] {
        let mut connections = Connections::default();
        assert!(connections.found(&row(9, 10, 0), &[image(10), image(11)]));
        assert!(!connections.found(&row(9, 11, 0), &[image(11)]));
        connections.close(&close(9, flow, 1), &mut Ledger::default());
        assert_eq!(news(&mut connections), ["opened 9.0", "closed 9.0"]);
    }
}

#[test]
fn what_was_never_seen_has_no_outcome_and_no_end() {
    let mut connections = Connections::default();
    connections.outcome(&outcome(9, 1, 1, 0));
    connections.close(&close(9, 1, 1), &mut Ledger::default());
    connections.close(&close(9, 0, 1), &mut Ledger::default());
    assert_eq!(news(&mut connections), [""; 0]);
    assert!(connections.is_empty());
}

#[test]
fn flows_of_a_socket_without_a_tag_are_told_apart() {
    let mut connections = Connections::default();
    assert!(connections.attempt(&attempt(9, 0, 0)).is_some());
    assert!(connections.attempt(&attempt(9, 0, 1)).is_some());
    assert!(
        connections.attempt(&attempt(9, 1, 2)).is_some(),
        "tagged late"
    );
    assert!(connections.attempt(&datagram(8, 0, 0)).is_some());
    assert_eq!(connections.attempt(&datagram(8, 0, 1)), None);
    let mut elsewhere = datagram(8, 0, 2);
    elsewhere.destination = ipv4(8);
    assert!(connections.attempt(&elsewhere).is_some());
    assert_eq!(connections.len(), 5);
    connections.close(&close(8, 0, 3), &mut Ledger::default());
    connections.close(&close(9, 0, 3), &mut Ledger::default());
    assert_eq!(connections.open(), 0);
}

#[test]
fn only_a_creator_that_is_known_and_another_makes_a_speaker() {
    let role = |attempt: &Attempt| Connection::of_attempt(attempt).role();
    let mut send = datagram(9, 1, 0);
    assert_eq!(role(&send), Role::Opener);
    send.creator = image(11);
    assert_eq!(role(&send), Role::Speaker(image(11)));
    send.flags |= flags::CREATOR_UNSEEN;
    assert_eq!(role(&send), Role::NotSeen);
    let mut connect = attempt(9, 1, 0);
    connect.creator = image(11);
    assert_eq!(role(&connect), Role::Opener, "who connects opens");
    connect.flags |= flags::KERNEL;
    let connection = Connection::of_attempt(&connect);
    assert_eq!(connection.role(), Role::Opener);
    assert_eq!(
        connection.images().count(),
        0,
        "nobody was interrupted into it"
    );
}

#[test]
fn a_port_is_told_where_the_protocol_has_ports() {
    let mut raw = attempt(9, 1, 0);
    raw.socket.sock_type = 3;
    raw.socket.protocol = 1;
    raw.destination_port = 0;
    assert_eq!(Connection::of_attempt(&raw).destination_port(), None);
    let mut zero = attempt(9, 1, 0);
    zero.destination_port = 0;
    zero.source = ipv4(0);
    assert_eq!(Connection::of_attempt(&zero).destination_port(), Some(0));
}

#[test]
fn ended_flows_make_room_first_and_open_ones_are_counted() {
    let mut connections = Connections::with_capacity(2, 3);
    connections.attempt(&attempt(1, 1, 0));
    connections.attempt(&attempt(2, 1, 0));
    connections.outcome(&outcome(2, 1, 70, libc::EPERM));
    connections.attempt(&attempt(3, 1, 0));
    assert_eq!(news(&mut connections), ["opened 2.1", "forgotten"]);
    assert_eq!((connections.since_ns(), connections.evicted()), (70, 0));
    connections.attempt(&attempt(4, 1, 0));
    assert_eq!(news(&mut connections), [""; 0]);
    connections.attempt(&attempt(5, 1, 0));
    assert_eq!(news(&mut connections), ["forgotten"]);
    assert_eq!((connections.len(), connections.evicted()), (3, 1));
    assert!(connections.get(&Key { cookie: 1, flow: 1 }).is_none());
}

#[test]
fn ended_flows_are_forgotten_after_their_time() {
    let mut connections = Connections::default();
    connections.attempt(&attempt(9, 1, 0));
    connections.outcome(&outcome(9, 1, 1, libc::EPERM));
    connections.tick(1 + KEEP_CLOSED_NS);
    assert_eq!(connections.len(), 1);
    connections.tick(2 + KEEP_CLOSED_NS);
    assert_eq!(connections.len(), 0);
}

/// One thing that happens to a flow.
#[derive(Clone, Debug)]
enum Step {
    Attempt(Attempt),
    Outcome(OutcomeEvent),
    Close(Close),
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let errors = prop_oneof![Just(0), Just(-1), Just(-2), Just(libc::ECONNREFUSED)];
    (0..4_u8, 1..5_u64, 0..3_u32, 0..3000 * MS, errors).prop_map(
        |(what, cookie, flow, at_ns, error)| match what {
            0 => Step::Attempt(attempt(cookie, flow, at_ns)),
            1 => Step::Outcome(outcome(cookie, flow + 1, at_ns, error)),
            2 => Step::Close(close(cookie, flow, at_ns)),
            _ => Step::Tick(at_ns),
        },
    )
}

proptest! {
    /// Whatever comes in whatever order: each flow is opened once, closed at
    /// most once and after it was opened, and forgotten once.
    #[test]
    fn each_flow_is_told_once(steps in prop::collection::vec(step(), 0..120)) {
        let mut connections = Connections::with_capacity(3, 6);
        let mut told: HashMap<Key, (u32, u32)> = HashMap::new();
        let mut attempts = 0;
        let mut forgotten = 0;
        for step in steps {
            match step {
                Step::Attempt(event) => {
                    if let Some(key) = connections.attempt(&event) {
                        attempts += 1;
                        // A flow that was forgotten may be told of again.
                        told.insert(key, (0, 0));
                    }
                }
                Step::Outcome(event) => connections.outcome(&event),
                Step::Close(event) => connections.close(&event, &mut Ledger::default()),
                Step::Tick(now_ns) => connections.tick(now_ns),
            }
            while let Some(news) = connections.next_news() {
                match news {
                    News::Opened(key) => {
                        let told = told.get_mut(&key).expect("an attempt came first");
                        prop_assert_eq!(*told, (0, 0));
                        told.0 = 1;
                    }
                    News::Denied(_) => prop_assert!(false, "nothing was denied"),
                    News::Closed(key) => {
                        let told = told.get_mut(&key).expect("an attempt came first");
                        prop_assert_eq!(*told, (1, 0));
                        told.1 = 1;
                    }
                    News::Forgotten(_) => forgotten += 1,
                    News::Used(..) => unreachable!("no step uses a socket"),
                }
            }
            prop_assert!(connections.len() <= 6);
            let open = connections.iter().filter(|(_, c)| c.ended_ns.is_none()).count();
            prop_assert_eq!(connections.open(), open);
        }
        prop_assert_eq!(connections.len() + forgotten, attempts);
        connections.give_up_waiting();
        for (_, connection) in connections.iter() {
            prop_assert_ne!(connection.outcome, Outcome::Pending);
        }
    }
}

#[test]
fn what_was_denied_on_an_accepted_connection_comes_from_its_peer() {
    let accepted = Attempt {
        flags: flags::ACCEPTED | flags::SEND,
        generation: 3,
        verdict: verdict::DENY,
        ..attempt(9, 1, 0)
    };
    let mut connections = Connections::default();
    connections.denied(&accepted);
    let told = connections.get(&KEY).unwrap();
    assert_eq!(told.role(), Role::Acceptor);
    assert_eq!(told.source, accepted.destination);
    assert_eq!(told.destination, accepted.source);
}

#[test]
fn what_was_denied_is_told_once_and_has_no_end() {
    let denied = |cookie, flow| Attempt {
        generation: 3,
        verdict: verdict::DENY,
        ..attempt(cookie, flow, 0)
    };
    let mut connections = Connections::default();
    assert_eq!(connections.denied(&denied(9, 1)), Denied::Flow(KEY));
    assert_eq!(news(&mut connections), ["opened 9.1"]);
    let told = connections.get(&KEY).unwrap();
    assert_eq!(told.outcome, Outcome::Denied);
    assert_eq!(told.judged.as_deref().unwrap().generation, 3);
    let end = Close {
        flow: 0,
        ..close(9, 1, 5)
    };
    connections.close(&end, &mut Ledger::default());
    connections.tick(UNDECIDED_MAX_NS * 2);
    assert!(news(&mut connections).is_empty());
    // A send that is denied on a flow that goes on.
    connections.attempt(&attempt(9, 2, 0));
    connections.outcome(&outcome(9, 2, 1, 0));
    let second = Key { cookie: 9, flow: 2 };
    assert_eq!(connections.denied(&denied(9, 2)), Denied::Use(second));
    assert_eq!(news(&mut connections), ["opened 9.2", "denied 9.2"]);
    let connection = connections.get(&second).unwrap();
    assert_eq!(connection.ended_ns, None);
    // It is kept as a use, once for each image and rule.
    assert_eq!(connections.denied(&denied(9, 2)), Denied::Told);
    let other_rule = Attempt {
        rule: 7,
        ..denied(9, 2)
    };
    assert_eq!(connections.denied(&other_rule), Denied::Use(second));
    assert_eq!(news(&mut connections), ["denied 9.2", "denied 9.2"]);
    let connection = connections.get(&second).unwrap();
    let speakers = connection.speakers.as_deref().unwrap();
    let rules: Vec<_> = speakers
        .iter()
        .map(|one| one.denied.as_ref().unwrap().judged.as_ref().unwrap().rule)
        .collect();
    assert_eq!(rules, [0, 7]);
}

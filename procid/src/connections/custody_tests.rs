//! Who else uses a flow, who accepted it, and what was counted on it.

use procid_common::socket::{Attempt, DestinationState, flags};

use super::{
    fixtures::{Ledger, MS, attempt, close, datagram, image, ipv4, outcome, row},
    *,
};

fn by(mut event: Attempt, tgid: u32, bits: u32) -> Attempt {
    event.image = image(tgid);
    event.flags |= bits;
    event
}

fn opened() -> Connections {
    let mut connections = Connections::default();
    connections.attempt(&attempt(9, 1, 1)).unwrap();
    connections.outcome(&outcome(9, 1, 2, 0));
    while connections.next_news().is_some() {}
    connections
}

const KEY: Key = Key { cookie: 9, flow: 1 };

#[test]
fn another_image_is_told_once() {
    let mut connections = opened();
    let other = by(attempt(9, 1, 5), 77, 0);
    assert_eq!(connections.used(&other), Some(KEY));
    assert!(matches!(
        connections.next_news(),
        Some(News::Used(key, speaker)) if key == KEY && speaker.image == image(77)
    ));
    assert_eq!(connections.used(&other), None);
    assert_eq!(connections.used(&by(attempt(9, 1, 6), 10, 0)), None);
    assert!(connections.next_news().is_none());
    let images: Vec<_> = connections.get(&KEY).unwrap().images().collect();
    assert!(images.contains(&image(77)) && images.contains(&image(10)));
}

#[test]
fn holders_of_a_socket_found_open_are_no_news() {
    let mut connections = Connections::default();
    connections.found(&row(9, 10, 1), &[image(10), image(11)]);
    while connections.next_news().is_some() {}
    assert_eq!(connections.used(&by(attempt(9, 0, 5), 11, 0)), None);
    let found = Key { cookie: 9, flow: 0 };
    assert_eq!(connections.used(&by(attempt(9, 0, 5), 12, 0)), Some(found));
}

#[test]
fn an_accepted_connection_comes_from_its_peer() {
    let mut connections = Connections::default();
    let mut event = by(attempt(9, 1, 1), 10, flags::ACCEPTED);
    event.source = ipv4(5);
    event.source_port = 80;
    assert_eq!(connections.accept(&event), Some(KEY));
    assert_eq!(connections.accept(&event), None);
    let connection = connections.get(&KEY).unwrap();
    assert_eq!(connection.role(), Role::Acceptor);
    assert_eq!(connection.source, ipv4(7));
    assert_eq!(connection.destination_port(), Some(80));
}

#[test]
fn a_send_on_what_was_never_seen_says_so() {
    let mut connections = Connections::default();
    let event = by(attempt(9, 1, 1), 10, flags::ACCEPTED);
    assert_eq!(connections.used(&event), Some(KEY));
    let connection = connections.get(&KEY).unwrap();
    assert_eq!(connection.role(), Role::SpeakerOfUnknown);
}

#[test]
fn the_first_flow_is_counted_by_its_socket_and_the_others_apart() {
    let mut connections = Connections::default();
    for flow in 1..=3 {
        let mut event = datagram(9, flow, 1);
        event.destination_port = flow;
        connections.attempt(&event).unwrap();
    }
    let mut ledger = Ledger::default();
    let second = Key { cookie: 9, flow: 2 };
    let at = connections.get(&second).unwrap().account(9);
    let state = DestinationState {
        sent: 7,
        received: 8,
        flow: 2,
        pending: 0,
    };
    ledger.0.insert(at, state);
    let mut end = close(9, 0, 2);
    end.counts.flow = 1;
    connections.close(&end, &mut ledger);
    let counted = |flow| {
        let connection = connections.get(&Key { cookie: 9, flow }).unwrap();
        (connection.sent, connection.received)
    };
    assert_eq!(counted(1), (Some(100), Some(200)));
    assert_eq!(counted(2), (Some(7), Some(8)));
    // Its account was forgotten for want of room: unknown, never 0.
    assert_eq!(counted(3), (None, None));
    assert!(ledger.0.is_empty(), "an account outlives its flow");
}

#[test]
fn what_is_not_known_is_not_counted() {
    let mut connections = opened();
    let mut end = close(9, 1, 2);
    end.counts.flags = flags::RECEIVED_UNKNOWN;
    connections.close(&end, &mut Ledger::default());
    let connection = connections.get(&KEY).unwrap();
    assert_eq!((connection.sent, connection.received), (Some(100), None));
}

#[test]
fn a_socket_with_too_many_flows_crowds_out_its_own() {
    let mut connections = Connections::default();
    for flow in 1..=SOCKET_MAX + 1 {
        let event = datagram(9, flow, 1);
        assert_eq!(connections.crowded_out(&event), None, "{flow}");
        connections.attempt(&event);
    }
    // The first is the socket's own account, and stays.
    let next = datagram(9, SOCKET_MAX + 2, 1);
    let second = Key { cookie: 9, flow: 2 };
    assert_eq!(connections.crowded_out(&next), Some(second));
    assert_eq!(
        connections.crowded_out(&datagram(8, SOCKET_MAX + 2, 1)),
        None
    );
}

#[test]
fn a_packet_socket_that_is_gone_has_ended() {
    let mut connections = Connections::default();
    for cookie in [8, 9] {
        let mut event = datagram(cookie, 1, MS);
        event.socket.family = u16::try_from(libc::AF_PACKET).unwrap();
        connections.attempt(&event).unwrap();
    }
    assert!(connections.has_packets());
    let mut ledger = Ledger::default();
    connections.end_gone(|cookie| cookie == 8, 2 * MS, &mut ledger);
    assert!(connections.get(&KEY).unwrap().ended_ns.is_some());
    assert_eq!(connections.open(), 1);
    // Made after it was looked.
    connections.end_gone(|_| false, MS, &mut ledger);
    assert_eq!(connections.open(), 1);
    connections.end_gone(|_| false, 3 * MS, &mut ledger);
    assert!(!connections.has_packets());
}

#[test]
fn the_owner_of_a_subflow_is_that_of_the_connection() {
    let mut connections = opened();
    let subflow = by(attempt(9, 2, 5), 2, SUBFLOW);
    let key = connections.attempt(&subflow).unwrap();
    assert_eq!(connections.get(&key).unwrap().image, image(10));
}

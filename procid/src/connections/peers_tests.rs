//! Which flow is the other end of which, held to a kernel that knows.

use std::collections::{HashMap, VecDeque};

use procid_common::socket::{Attempt, Outcome as OutcomeEvent, flags::ENDED};
use proptest::prelude::*;

use super::{
    fixtures::{Ledger, close, ipv4, local_accept, local_attempt, local_outcome, loopback, row},
    *,
};

const CLIENT: Key = Key { cookie: 1, flow: 1 };
const SERVER: Key = Key { cookie: 2, flow: 1 };

fn opened(connections: &mut Connections, cookie: u64, port: u16, at_ns: u64) {
    connections.attempt(&local_attempt(cookie, port, at_ns));
    connections.outcome(&local_outcome(cookie, port, at_ns + 1, 0));
}

fn accepted() -> Connections {
    let mut connections = Connections::default();
    opened(&mut connections, 1, 5000, 10);
    connections.accept(&local_accept(2, 5000, 20));
    connections
}

#[test]
fn both_ends_name_each_other_once_it_is_accepted() {
    let mut connections = Connections::default();
    opened(&mut connections, 1, 5000, 10);
    assert_eq!(connections.peer(&CLIENT), Err(NoPeer::NotSeen));
    connections.accept(&local_accept(2, 5000, 20));
    for _ in 0..2 {
        assert_eq!(connections.peer(&CLIENT), Ok(SERVER));
        assert_eq!(connections.peer(&SERVER), Ok(CLIENT));
        // Its end takes nothing away.
        connections.close(&close(1, 1, 30), &mut Ledger::default());
        connections.close(&close(2, 1, 40), &mut Ledger::default());
    }
}

#[test]
fn the_source_may_become_known_with_the_outcome() {
    let mut connections = Connections::default();
    let unbound = Attempt {
        source: [0; 16],
        source_port: 0,
        ..local_attempt(1, 5000, 10)
    };
    connections.attempt(&unbound);
    assert_eq!(connections.peer(&CLIENT), Err(NoPeer::Elsewhere));
    connections.outcome(&local_outcome(1, 5000, 11, 0));
    connections.accept(&local_accept(2, 5000, 20));
    assert_eq!(connections.peer(&CLIENT), Ok(SERVER));
}

#[test]
fn a_connect_to_any_address_leads_here() {
    let mut connections = Connections::default();
    let mut any = local_attempt(1, 5000, 10);
    any.destination = ipv4(0);
    any.destination[12..].fill(0);
    connections.attempt(&any);
    connections.wire(&OutcomeEvent {
        source: loopback(1),
        ..local_outcome(1, 5000, 11, 0)
    });
    connections.outcome(&local_outcome(1, 5000, 11, 0));
    connections.accept(&local_accept(2, 5000, 20));
    assert_eq!(connections.peer(&CLIENT), Ok(SERVER));
}

#[test]
fn an_address_of_another_network_namespace_is_another_one() {
    let mut connections = Connections::default();
    opened(&mut connections, 1, 5000, 10);
    let mut elsewhere = local_accept(2, 5000, 20);
    elsewhere.netns += 1;
    connections.accept(&elsewhere);
    assert_eq!(connections.peer(&CLIENT), Err(NoPeer::NotSeen));
    assert_eq!(connections.peer(&SERVER), Err(NoPeer::NotSeen));
}

#[test]
fn what_leads_out_of_the_host_has_no_peer_to_look_for() {
    let mut connections = Connections::default();
    connections.attempt(&fixtures::attempt(1, 1, 10));
    connections.outcome(&fixtures::outcome(1, 1, 11, 0));
    assert_eq!(connections.peer(&CLIENT), Err(NoPeer::Elsewhere));
}

#[test]
fn one_that_was_reset_before_it_was_accepted_is_not_the_new_ones() {
    let mut connections = Connections::default();
    opened(&mut connections, 1, 5000, 10);
    connections.close(&close(1, 1, 15), &mut Ledger::default());
    // The port is used again, and only then is the first one accepted.
    opened(&mut connections, 3, 5000, 20);
    let mut ended = local_accept(2, 5000, 30);
    ended.flags |= ENDED;
    connections.accept(&ended);
    let new = Key { cookie: 3, flow: 1 };
    assert_eq!(connections.peer(&SERVER), Err(NoPeer::Ended));
    assert_eq!(connections.peer(&new), Err(NoPeer::NotSeen));
    connections.accept(&local_accept(4, 5000, 40));
    assert_eq!(connections.peer(&new), Ok(Key { cookie: 4, flow: 1 }));
}

#[test]
fn where_an_end_was_lost_none_is_named() {
    let mut connections = accepted();
    // The ends of the first pair were not seen.
    opened(&mut connections, 3, 5000, 50);
    connections.accept(&local_accept(4, 5000, 60));
    for cookie in 1..=4 {
        let key = Key { cookie, flow: 1 };
        assert_eq!(connections.peer(&key), Err(NoPeer::Several), "{key}");
    }
}

#[test]
fn both_ends_found_open_are_one_connection() {
    let mut connections = Connections::default();
    let mut own = row(1, 10, 5);
    own.destination = own.source;
    let mut other = row(2, 20, 6);
    other.source = own.destination;
    other.destination = own.source;
    (other.source_port, other.destination_port) = (own.destination_port, own.source_port);
    connections.found(&own, &[]);
    connections.found(&other, &[]);
    let [own, other] = [1, 2].map(|cookie| Key { cookie, flow: 0 });
    assert_eq!(connections.peer(&own), Ok(other));
    assert_eq!(connections.peer(&other), Ok(own));
}

#[test]
fn what_is_forgotten_is_no_peer() {
    let mut connections = Connections::with_capacity(2, 100);
    opened(&mut connections, 1, 5000, 10);
    connections.accept(&local_accept(2, 5000, 20));
    connections.close(&close(1, 1, 30), &mut Ledger::default());
    opened(&mut connections, 3, 5001, 40);
    assert_eq!(connections.get(&CLIENT).map(|it| it.started_ns), None);
    assert_eq!(connections.peer(&SERVER), Err(NoPeer::NotSeen));
}

/// A few network namespaces, each with a listener and clients of few ports.
#[derive(Debug, Default)]
struct Kernel {
    cookies: u64,
    now_ns: u64,
    /// Clients that have not closed, by namespace and port.
    clients: HashMap<(u32, u16), Client>,
    /// Accepted or not, by the same.
    backlog: HashMap<u32, VecDeque<Child>>,
    held: Vec<Child>,
    /// The truth: client and child, both told of, and both alive at the accept.
    pairs: HashMap<u64, u64>,
}

#[derive(Clone, Debug)]
struct Client {
    cookie: u64,
    is_told: bool,
}

#[derive(Clone, Debug)]
struct Child {
    cookie: u64,
    netns: u32,
    port: u16,
    client: Client,
    is_dead: bool,
}

#[derive(Clone, Copy, Debug)]
enum Do {
    Connect {
        is_told: bool,
    },
    /// Without a wait for the other end.
    Finish,
    Reset,
    Accept {
        is_told: bool,
    },
    CloseChild,
}

fn act() -> impl Strategy<Value = (Do, u32, u16)> {
    let what = prop_oneof![
        3 => any::<bool>().prop_map(|half| Do::Connect { is_told: half }),
        3 => Just(Do::Connect { is_told: true }),
        2 => Just(Do::Finish),
        2 => Just(Do::Reset),
        4 => any::<bool>().prop_map(|half| Do::Accept { is_told: half }),
        4 => Just(Do::Accept { is_told: true }),
        2 => Just(Do::CloseChild),
    ];
    (what, 100..102_u32, 5000..5003_u16)
}

impl Kernel {
    fn cookie(&mut self) -> u64 {
        self.cookies += 1;
        self.cookies
    }

    fn children(&mut self) -> impl Iterator<Item = &mut Child> {
        self.backlog.values_mut().flatten().chain(&mut self.held)
    }

    /// Does it, and tells what the hooks would.
    fn act(&mut self, (what, netns, port): (Do, u32, u16), told: &mut Connections) {
        self.now_ns += 10;
        let at_ns = self.now_ns;
        let at = (netns, port);
        match what {
            Do::Connect { is_told } => self.connect(is_told, at, told),
            Do::Finish => {
                if let Some(client) = self.clients.remove(&at) {
                    told.close(&close(client.cookie, 1, at_ns), &mut Ledger::default());
                }
            }
            Do::Reset => {
                let Some(client) = self.clients.remove(&at) else {
                    return;
                };
                told.close(&close(client.cookie, 1, at_ns), &mut Ledger::default());
                let cookie = client.cookie;
                if let Some(child) = self.children().find(|it| it.client.cookie == cookie) {
                    child.is_dead = true;
                    told.close(&close(child.cookie, 1, at_ns), &mut Ledger::default());
                }
                self.held.retain(|child| !child.is_dead);
            }
            Do::Accept { is_told } => self.accept(is_told, netns, told),
            Do::CloseChild => {
                if let Some(child) = self.held.pop() {
                    told.close(&close(child.cookie, 1, at_ns), &mut Ledger::default());
                }
            }
        }
    }

    fn connect(&mut self, is_told: bool, at: (u32, u16), told: &mut Connections) {
        let (netns, port) = at;
        let cookie = self.cookie();
        let is_there = |child: &Child| !child.is_dead && (child.netns, child.port) == at;
        let is_taken =
            self.clients.contains_key(&at) || self.children().any(|child| is_there(child));
        if is_told {
            let attempt = Attempt {
                netns,
                ..local_attempt(cookie, port, self.now_ns)
            };
            told.attempt(&attempt);
            let error = if is_taken { libc::EADDRNOTAVAIL } else { 0 };
            told.outcome(&local_outcome(cookie, port, self.now_ns + 1, error));
        }
        if is_taken {
            return;
        }
        let client = Client { cookie, is_told };
        self.clients.insert(at, client.clone());
        let child = Child {
            cookie: self.cookie(),
            netns,
            port,
            client,
            is_dead: false,
        };
        self.backlog.entry(netns).or_default().push_back(child);
    }

    fn accept(&mut self, is_told: bool, netns: u32, told: &mut Connections) {
        let Some(child) = self.backlog.entry(netns).or_default().pop_front() else {
            return;
        };
        if is_told {
            let mut accept = local_accept(child.cookie, child.port, self.now_ns);
            accept.netns = netns;
            if child.is_dead {
                accept.flags |= ENDED;
            }
            told.accept(&accept);
            let client = self.clients.get(&(netns, child.port));
            if child.client.is_told && client.is_some_and(|it| it.cookie == child.client.cookie) {
                self.pairs.insert(child.client.cookie, child.cookie);
            }
        }
        if !child.is_dead {
            self.held.push(child);
        }
    }
}

proptest! {
    /// Named are all pairs of which both ends were seen open at one time, and no
    /// others, whatever is reset, reused or not seen.
    #[test]
    fn the_kernels_pairs_and_no_others(acts in prop::collection::vec(act(), 0..60)) {
        let mut kernel = Kernel::default();
        let mut told = Connections::default();
        for one in acts {
            kernel.act(one, &mut told);
            for cookie in 1..=kernel.cookies {
                let named = told.peer(&Key { cookie, flow: 1 }).ok().map(|key| key.cookie);
                let true_peer = kernel.pairs.iter().find_map(|(client, child)| match cookie {
                    _ if cookie == *client => Some(*child),
                    _ if cookie == *child => Some(*client),
                    _ => None,
                });
                prop_assert_eq!(named, true_peer, "{}", cookie);
            }
        }
    }
}

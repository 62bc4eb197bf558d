//! Who is behind an address that a firewall's log shows: connections that this
//! host translates, in network namespaces of the test's own.
//!
//! ```text
//! container 10.77.0.2 ── 10.77.0.1 host 192.0.2.1 ── 192.0.2.2 outside
//! ```
//!
//! The agent runs on that host. A service's address leads outside, and what goes
//! there leaves with another address than it has.

use std::net::SocketAddr;

use procid_tests::{
    listener,
    network::Namespace,
    program::Program,
    records::{Records, text},
    stage::Stage,
    truth::Act,
};
use serde_json::Value;

/// An address that nobody has.
const SERVICE: &str = "203.0.113.80:443";
/// Where it leads.
const BACKEND: &str = "192.0.2.2:8443";
/// Where nothing is translated.
const PLAIN: &str = "192.0.2.2:8080";
const DATAGRAMS: &str = "192.0.2.2:5353";
/// Where this host's server is found from outside.
const PUBLISHED: &str = "192.0.2.1:9443";
const SERVER: &str = "192.0.2.1:9000";

const RULES: &str = "
table ip nat {
  chain pre {
    type nat hook prerouting priority -100
    ip daddr 203.0.113.80 tcp dport 443 dnat to 192.0.2.2:8443
    iif out tcp dport 9443 dnat to 192.0.2.1:9000
  }
  chain out {
    type nat hook output priority -100
    ip daddr 203.0.113.80 tcp dport 443 dnat to 192.0.2.2:8443
  }
  chain post {
    type nat hook postrouting priority 100
    ip daddr 192.0.2.2 tcp dport 8443 snat to 192.0.2.9:61000-61999
    ip daddr 192.0.2.2 udp dport 5353 snat to 192.0.2.9:62000-62999
  }
}";

struct Lab {
    host: Namespace,
    outside: Namespace,
    container: Namespace,
    stage: Stage,
}

impl Lab {
    fn new() -> Self {
        let [host, outside, container] = [(); 3].map(|()| Namespace::new());
        host.wire(("out", "192.0.2.1/24"), &outside, ("eth0", "192.0.2.2/24"));
        host.wire(("in", "10.77.0.1/24"), &container, ("eth0", "10.77.0.2/24"));
        host.ip("addr add 192.0.2.9/24 dev out");
        host.ip("route add default via 192.0.2.2");
        container.ip("route add default via 10.77.0.1");
        host.forward();
        host.nft(RULES);
        let stage = host.within(Stage::new);
        Self {
            host,
            outside,
            container,
            stage,
        }
    }

    fn start(&self, from: &Namespace, arguments: &[&str]) -> Program {
        from.within(|| self.stage.start(arguments))
    }

    /// Connects and keeps the connection, once its record is written.
    fn connect(&mut self, from: Place, to: &str) -> (Program, Act) {
        let from = match from {
            Place::Host => &self.host,
            Place::Container => &self.container,
        };
        let mut program = self.start(from, &["connect", "--hold", "--to", to]);
        let act = program.act();
        assert_eq!(act.error, None, "{act:?}");
        let told = |records: &Records| records.of_act(&act).len() == 1;
        assert!(self.stage.agent.until(told), "{act:?}");
        (program, act)
    }

    fn listen(&self, address: &str) -> listener::Tcp {
        self.outside.within(|| listener::Tcp::on(address))
    }

    fn who(&self, question: &[&str]) -> Vec<Value> {
        let output = self
            .stage
            .agent
            .ask(&[&["who", "--json"], question].concat());
        let said = String::from_utf8(output.stdout).unwrap();
        let records = said.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut records: Vec<Value> = records.collect();
        records.pop();
        records
    }
}

#[derive(Clone, Copy)]
enum Place {
    Host,
    Container,
}

/// An end on the other side of the translation.
fn nat(record: &Value, end: &str) -> Option<SocketAddr> {
    let nat = record.pointer(&format!("/{end}/nat"))?;
    let ip = text(nat, "/ip").parse().unwrap();
    let port = text(nat, "/port").parse().unwrap();
    Some(SocketAddr::new(ip, port))
}

fn assert_translated(record: &Value, source: SocketAddr, grade: &str) {
    assert_eq!(nat(record, "source"), Some(source), "{record}");
    let backend = BACKEND.parse().unwrap();
    assert_eq!(nat(record, "destination"), Some(backend), "{record}");
    assert_eq!(text(record, "/procid/nat/grade"), grade, "{record}");
}

fn assert_plain(record: &Value) {
    for end in ["source", "destination"] {
        assert_eq!(nat(record, end), None, "{record}");
    }
    assert!(record.pointer("/procid/nat").is_none(), "{record}");
}

/// By what the other side has seen, and by what the program itself has.
#[test]
fn a_connection_of_this_host_is_found_by_its_translated_ends() {
    let mut lab = Lab::new();
    let backend = lab.listen(BACKEND);
    let (program, act) = lab.connect(Place::Host, SERVICE);
    let seen = backend.peers(1)[0];
    assert_eq!(seen.ip().to_string(), "192.0.2.9");
    assert_ne!(Some(seen), act.source);
    assert_translated(lab.stage.agent.records().of_act(&act)[0], seen, "exact");

    let pid = act.actor.pid.to_string();
    let (seen_text, port) = (seen.to_string(), format!(":{}", seen.port()));
    let own = act.source.unwrap().to_string();
    let questions: [&[&str]; 6] = [
        &[&seen_text],
        &[&port],
        &[&seen_text, BACKEND],
        &["--dst", BACKEND],
        &["--src", "192.0.2.9"],
        &[&own, SERVICE],
    ];
    for question in questions {
        let found = lab.who(question);
        assert_eq!(found.len(), 1, "{question:?}");
        assert_eq!(text(&found[0], "/process/pid"), pid, "{question:?}");
        assert_translated(&found[0], seen, "exact");
    }
    assert!(lab.who(&["--dst", "192.0.2.9"]).is_empty());

    let written = lab.stage.agent.ask(&["who", &port]);
    let written = String::from_utf8(written.stdout).unwrap();
    let line = format!("nat        source {seen}, destination {BACKEND} (exact)\n");
    assert!(written.contains(&line), "{written}");

    program.finish();
    let records = lab.stage.end(std::slice::from_ref(&act));
    let flow = text(records.of_act(&act)[0], "/procid/flow_id");
    assert_translated(records.closes(&flow)[0], seen, "exact");
}

#[test]
fn what_is_tracked_and_not_translated_has_no_such_ends() {
    let mut lab = Lab::new();
    let _listener = lab.listen(PLAIN);
    let (program, act) = lab.connect(Place::Host, PLAIN);
    program.finish();
    let records = lab.stage.end(std::slice::from_ref(&act));
    let record = records.of_act(&act)[0];
    assert_plain(record);
    let flow = text(record, "/procid/flow_id");
    assert_plain(records.closes(&flow)[0]);
}

/// The host translates what a container's socket sends.
#[test]
fn a_connection_of_a_container_is_found_and_said_to_be_inferred() {
    let mut lab = Lab::new();
    let backend = lab.listen(BACKEND);
    let (program, act) = lab.connect(Place::Container, SERVICE);
    let seen = backend.peers(1)[0];
    assert_eq!(seen.ip().to_string(), "192.0.2.9");
    assert_translated(lab.stage.agent.records().of_act(&act)[0], seen, "inferred");
    let found = lab.who(&[&seen.to_string()]);
    assert_eq!(found.len(), 1);
    assert_eq!(text(&found[0], "/process/pid"), act.actor.pid.to_string());
    program.finish();
    let _records = lab.stage.end(&[act]);
}

/// Who connects a datagram socket sends nothing yet: there is nothing to look up.
#[test]
fn datagrams_are_found_too() {
    let mut lab = Lab::new();
    let listener = lab.outside.within(|| listener::Udp::on(DATAGRAMS));
    let arguments = ["udp", "--connected", "--hold", "--to", DATAGRAMS];
    let mut program = lab.start(&lab.host, &arguments);
    let act = program.act();
    let told = |records: &Records| records.of_act(&act).len() == 1;
    assert!(lab.stage.agent.until(told));
    let senders = lab.outside.within(|| listener.senders());
    assert_eq!(senders.len(), 1);
    assert_eq!(senders[0].ip().to_string(), "192.0.2.9");
    program.finish();
    let records = lab.stage.end(std::slice::from_ref(&act));
    let flow = text(records.of_act(&act)[0], "/procid/flow_id");
    let close = records.closes(&flow)[0];
    assert_eq!(nat(close, "source"), Some(senders[0]), "{close}");
    assert_eq!(nat(close, "destination"), None, "{close}");
}

/// A server behind a published port: who asks from outside knows only that.
#[test]
fn an_accepted_connection_is_found_by_what_its_peer_asked_for() {
    let mut lab = Lab::new();
    let mut server = lab.start(&lab.host, &["shell", "--listen", SERVER]);
    let pid = server.pid().to_string();
    assert_eq!(server.listens().to_string(), SERVER);
    let client = lab.outside.within(|| {
        let address: SocketAddr = PUBLISHED.parse().unwrap();
        std::net::TcpStream::connect(address).unwrap()
    });
    let from = client.local_addr().unwrap().to_string();
    let accepted = |records: &Records| records.of_action("accept").next().is_some();
    assert!(lab.stage.agent.until(accepted));
    let found = lab.who(&["--src", &from, "--dst", PUBLISHED, "--pid", &pid]);
    assert_eq!(found.len(), 1);
    assert_eq!(text(&found[0], "/procid/role"), "acceptor");
    let published = PUBLISHED.parse().ok();
    assert_eq!(nat(&found[0], "destination"), published, "{}", found[0]);
    assert_eq!(nat(&found[0], "source"), None, "{}", found[0]);
    drop(client);
    server.finish();
    let _records = lab.stage.end(&[]);
}

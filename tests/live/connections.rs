//! One record an attempt or new destination, whoever acts and however.

use std::net::{SocketAddr, TcpListener};

use procid_tests::{
    attribution::{Expected, assert_attributed},
    listener,
    stage::Stage,
    truth::{Act, canonical},
};
use rustix::net::{AddressFamily, SocketType, bind, socket};

/// Connects to a listener on `listen` as `arguments` say, `times` times.
fn connects(listen: &str, times: usize, arguments: &[&str]) {
    connects_to(listen, times, arguments, |address| address.to_string());
}

fn connects_to(
    listen: &str,
    times: usize,
    arguments: &[&str],
    name: impl Fn(SocketAddr) -> String,
) {
    let listener = listener::Tcp::on(listen);
    let stage = Stage::new();
    let app = stage.app.clone();
    let to = name(listener.address());
    let acts = stage.run([&["connect", "--to", &to], arguments].concat());
    let mut sources: Vec<_> = acts.iter().filter_map(source).collect();
    let mut peers = listener.peers(times);
    sources.sort();
    peers.sort();
    assert_eq!(sources, peers, "what connected is not what was accepted");
    assert_eq!(acts.len(), times);
    let records = stage.end(&acts);
    for act in &acts {
        assert_attributed(&records, act, &Expected::connect(&app));
    }
    assert_eq!(records.lost(), 0);
}

fn source(act: &Act) -> Option<SocketAddr> {
    act.source.map(canonical)
}

#[test]
fn tcp_over_ipv4() {
    connects("127.0.0.1:0", 1, &[]);
}

#[test]
fn tcp_over_ipv6() {
    connects("[::1]:0", 1, &[]);
}

#[test]
fn tcp_over_ipv4_from_an_ipv6_socket() {
    connects_to("127.0.0.1:0", 1, &[], |address| {
        format!("[::ffff:127.0.0.1]:{}", address.port())
    });
}

#[test]
fn tcp_without_blocking() {
    connects("127.0.0.1:0", 1, &["--nonblocking"]);
}

#[test]
fn tcp_from_an_address_of_its_choice() {
    connects("127.0.0.1:0", 1, &["--from", "127.0.0.9:0"]);
}

#[test]
fn tcp_many_times() {
    connects("127.0.0.1:0", 20, &["--count", "20"]);
}

#[test]
fn tcp_from_a_thread() {
    connects("127.0.0.1:0", 1, &["--by", "thread"]);
}

#[test]
fn tcp_from_a_thread_whose_leader_has_ended() {
    connects("127.0.0.1:0", 1, &["--by", "orphan"]);
}

#[test]
fn tcp_from_a_forked_child() {
    connects("127.0.0.1:0", 1, &["--by", "fork"]);
}

#[test]
fn tcp_from_a_vforked_child() {
    connects("127.0.0.1:0", 1, &["--by", "vfork"]);
}

/// Connects to a port where nobody listens and nobody else can.
fn refused(arguments: &[&str]) {
    let reserved = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    bind(&reserved, &any).unwrap();
    let to: SocketAddr = rustix::net::getsockname(&reserved)
        .unwrap()
        .try_into()
        .unwrap();
    let stage = Stage::new();
    let app = stage.app.clone();
    let to = to.to_string();
    let acts = stage.run([&["connect", "--to", &to], arguments].concat());
    assert_eq!(acts[0].error, Some(libc::ECONNREFUSED));
    let records = stage.end(&acts);
    assert_attributed(&records, &acts[0], &Expected::connect(&app));
}

#[test]
fn tcp_refused() {
    refused(&[]);
}

#[test]
fn tcp_refused_from_a_known_port() {
    refused(&["--from", "127.0.0.1:0"]);
}

#[test]
fn tcp_refused_without_blocking() {
    refused(&["--nonblocking"]);
}

/// A destination that no route leads to: no state of the socket changes.
#[test]
fn tcp_to_nowhere() {
    let stage = Stage::new();
    let app = stage.app.clone();
    let path = app.path.to_str().unwrap();
    let acts = stage.run([
        "enter",
        "--net-ns",
        "--",
        path,
        "connect",
        "--to",
        "192.0.2.1:9",
    ]);
    assert_eq!(acts[0].error, Some(libc::ENETUNREACH));
    let records = stage.end(&acts);
    assert_attributed(&records, &acts[0], &Expected::connect(&app));
}

/// Sends to sockets on `listen`, and expects one record for each of them.
fn sends(listen: &[&str], arguments: &[&str], name: impl Fn(SocketAddr) -> String) {
    let receivers: Vec<_> = listen.iter().map(|on| listener::Udp::on(on)).collect();
    let stage = Stage::new();
    let app = stage.app.clone();
    let mut command = vec!["udp".to_owned()];
    for receiver in &receivers {
        command.extend(["--to".to_owned(), name(receiver.address())]);
    }
    command.extend(arguments.iter().map(ToString::to_string));
    let acts = stage.run(command);
    assert_eq!(acts.len(), receivers.len());
    let records = stage.end(&acts);
    for (act, receiver) in acts.iter().zip(&receivers) {
        let senders = receiver.senders();
        let expected = if arguments.contains(&"--connected") {
            Expected::connect(&app)
        } else {
            Expected::send(&app)
        };
        let record = assert_attributed(&records, act, &expected);
        // The receiver knows the address that the kernel chose.
        let source = Act {
            source: senders.first().copied(),
            ..act.clone()
        };
        assert!(source.source.is_some(), "nothing was received");
        assert_eq!(records.of_act(&source), [record]);
        assert_eq!(
            record["source"]["ip"],
            source.source.unwrap().ip().to_string()
        );
    }
    assert_eq!(records.lost(), 0);
}

#[test]
fn udp_connected() {
    sends(&["127.0.0.1:0"], &["--connected", "--count", "3"], |to| {
        to.to_string()
    });
}

#[test]
fn udp_unconnected() {
    sends(&["127.0.0.1:0"], &["--count", "3"], |to| to.to_string());
}

#[test]
fn udp_over_ipv6() {
    sends(&["[::1]:0"], &["--count", "2"], |to| to.to_string());
}

#[test]
fn udp_over_ipv4_from_an_ipv6_socket() {
    sends(&["127.0.0.1:0"], &[], |to| {
        format!("[::ffff:127.0.0.1]:{}", to.port())
    });
}

#[test]
fn udp_to_two_from_one_socket() {
    let both = ["127.0.0.1:0", "127.0.0.2:0"];
    sends(&both, &["--count", "2"], |to| to.to_string());
}

#[test]
fn udp_from_a_thread_whose_leader_has_ended() {
    sends(&["127.0.0.1:0"], &["--by", "orphan"], |to| to.to_string());
}

/// What happens outside the cgroup that the agent watches is not recorded:
/// the tests rely on it.
#[test]
fn other_cgroups_are_not_watched() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stage = Stage::new();
    let acts = stage.run([
        "connect",
        "--to",
        &listener.local_addr().unwrap().to_string(),
    ]);
    let own = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let port = own.local_addr().unwrap().port();
    drop(own);
    let records = stage.end(&acts);
    let seen = |record: &&serde_json::Value| record["source"]["port"] == port;
    assert_eq!(records.of_action("connect").find(seen), None);
    assert_eq!(records.of_act(&acts[0]).len(), 1);
}

//! Against the kernel: real sockets of this process and of a child.

use std::{
    io::Read,
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256 as Hasher256};

use super::*;
use crate::{
    flow::End,
    identity::{
        containers::{Part, Place},
        context::Context,
    },
    records::schema,
    snapshot::{take, who},
};

/// Connections of this process. (Other tests start children, which hold this
/// process's descriptors for a moment.)
fn own(number: u16) -> Query {
    Query {
        pid: Some(std::process::id()),
        ..port(number)
    }
}

fn port(number: u16) -> Query {
    Query {
        either: Some(End {
            address: None,
            port: Some(number),
        }),
        ..Query::default()
    }
}

/// The rows of an answer, each checked against the table of fields.
fn ask(query: &Query) -> Vec<Record> {
    let mut records = who(query).expect("the socket table can be read");
    for record in &records {
        let json = serde_json::to_value(record).expect("a record is JSON");
        assert_eq!(schema::check(&json), Vec::<String>::new(), "{json:#}");
    }
    let last = records.pop().and_then(|last| last.procid);
    assert!(last.and_then(|procid| procid.coverage).is_some());
    records
}

fn own_hash() -> String {
    let exe = fs::read("/proc/self/exe").expect("readable");
    let digest = Hasher256::digest(exe);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_tcp_connection_is_ours_from_both_ends_with_the_hash_of_this_program() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let server = listener.local_addr().expect("bound");
    let client = TcpStream::connect(server).expect("connected");
    let (accepted, peer) = listener.accept().expect("accepted");
    let rows = ask(&own(server.port()));
    assert_eq!(rows.len(), 2, "both ends, the listener not");
    let from_client = rows
        .iter()
        .find(|row| row.source.as_ref().and_then(|end| end.port) == Some(peer.port()))
        .expect("the connecting end");
    let destination = from_client.destination.as_ref().expect("connected");
    assert_eq!(destination.ip, Some(server.ip()));
    assert_eq!(destination.port, Some(server.port()));
    for row in &rows {
        let process = row.process.as_ref().expect("held by us");
        assert_eq!(process.pid, Some(std::process::id()));
        assert_eq!(process.entity_id, None);
        let hash = process.hash.as_ref().expect("this program can be read");
        assert_eq!(hash.sha256, own_hash());
        let procid = row.procid.as_ref().expect("there");
        assert_eq!(procid.provenance.as_deref(), Some("snapshot"));
        let socket = procid.socket.as_ref().expect("there");
        assert_eq!(socket.state.as_deref(), Some("ESTABLISHED"));
    }
    drop((client, accepted));
}

#[test]
fn a_v4_mapped_connection_is_ipv4() {
    let Ok(listener) = TcpListener::bind("[::]:0") else {
        eprintln!("skipped: this host has no IPv6");
        return;
    };
    let server = listener.local_addr().expect("bound");
    let _client = TcpStream::connect(("127.0.0.1", server.port())).expect("connected");
    let (_accepted, _) = listener.accept().expect("accepted");
    let rows = ask(&own(server.port()));
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(matches!(
            row.destination.and_then(|end| end.ip),
            Some(IpAddr::V4(_))
        ));
    }
}

#[test]
fn a_connected_datagram_socket_is_listed_and_an_unconnected_one_is_not() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let number = server.local_addr().expect("bound").port();
    assert_eq!(ask(&port(number)), []);
    let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
    client.connect(("127.0.0.1", number)).expect("connected");
    let rows = ask(&own(number));
    assert_eq!(rows.len(), 1);
    let network = rows[0].network.as_ref().expect("there");
    assert_eq!(network.transport.as_deref(), Some("udp"));
    let socket = rows[0].procid.as_ref().and_then(|p| p.socket.as_ref());
    assert_eq!(socket.and_then(|s| s.socket_type.as_deref()), Some("dgram"));
}

#[test]
fn each_holder_of_a_shared_socket_has_a_row_and_filters_choose() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let server = listener.local_addr().expect("bound");
    let client = TcpStream::connect(server).expect("connected");
    let peer = client.local_addr().expect("bound").port();
    rustix::io::fcntl_setfd(&client, rustix::io::FdFlags::empty()).expect("inheritable");
    let mut child = Command::new("sh")
        .args(["-c", "echo; exec sleep 1000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh(1)");
    let mut line = [0; 1];
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut line).expect("it runs");
    assert!(client.as_raw_fd() > 2);

    let query = Query {
        source: Some(End {
            address: None,
            port: Some(peer),
        }),
        ..Query::default()
    };
    let mut pids: Vec<_> = ask(&query)
        .iter()
        .filter_map(|row| row.process.as_ref()?.pid)
        .collect();
    pids.sort_unstable();
    let mut expected = [std::process::id(), child.id()];
    expected.sort_unstable();
    // Other tests fork too: their children hold it for a moment.
    assert!(expected.iter().all(|pid| pids.contains(pid)), "{pids:?}");

    let ours = Query {
        sha256: Some(own_hash()),
        pid: Some(std::process::id()),
        ..query.clone()
    };
    assert_eq!(ask(&ours).len(), 1);
    let theirs = Query {
        sha256: Some(own_hash()),
        pid: Some(child.id()),
        ..query.clone()
    };
    assert_eq!(ask(&theirs).len(), 0);
    let yesterday = Query {
        at: Some(1_000_000_000),
        ..query
    };
    assert_eq!(ask(&yesterday).len(), 0);
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

#[test]
fn a_connection_that_no_process_holds_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let server = listener.local_addr().expect("bound");
    let client = TcpStream::connect(server).expect("connected");
    let (accepted, _) = listener.accept().expect("accepted");
    // Who closes first is left with a TIME_WAIT.
    drop(client);
    drop(accepted);
    let deadline = Instant::now() + Duration::from_secs(5);
    let row = loop {
        let rows = ask(&port(server.port()));
        match rows.into_iter().find(|row| row.process.is_none()) {
            Some(row) => break row,
            None => assert!(Instant::now() < deadline, "it is held on to"),
        }
    };
    let unknown = &row.procid.as_ref().expect("there").unknown;
    assert_eq!(unknown.get("process").map(String::as_str), Some(LEFT_OVER));
}

#[test]
fn a_holder_is_found_by_its_container() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let server = listener.local_addr().expect("bound");
    let _client = TcpStream::connect(server).expect("connected");
    let mut snapshot = take().expect("the socket table can be read");
    snapshot
        .rows
        .retain(|row| row.socket.destination.1 == server.port());
    let id = "0123456789abcdef".repeat(4);
    let scope = Part {
        name: format!("docker-{id}.scope").into_bytes(),
        is_roots: true,
    };
    let context = Context::of(&Place(vec![scope]));
    let holders = snapshot.rows.iter_mut().flat_map(|row| &mut row.holders);
    for holder in holders {
        holder.context = Some(context.clone());
    }
    let of = |container: &str| {
        let query = Query {
            container: Some(container.to_owned()),
            ..own(server.port())
        };
        let mut records = answer(&query, &snapshot);
        records.pop();
        records
    };
    let found = of(&id[..12]);
    assert_eq!(found.len(), 1);
    let container = found[0].container.as_ref().expect("there");
    assert_eq!(container.runtime.as_deref(), Some("docker"));
    assert_eq!(of("fedcba987654"), []);
}

#[test]
fn another_network_namespace_is_entered() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: entering a network namespace takes root");
        return;
    }
    // A datagram socket of bash, connected inside a namespace of its own.
    let script = "ip link set lo up && exec 5<>/dev/udp/127.0.0.1/4711 && echo && exec sleep 1000";
    let mut child = Command::new("unshare")
        .args(["--net", "bash", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare(1)");
    let mut line = [0; 1];
    let mut stdout = child.stdout.take().expect("piped");
    let runs = stdout.read_exact(&mut line).is_ok();
    let netns = rustix::fs::stat(format!("/proc/{}/ns/net", child.id())).map(|stat| stat.st_ino);
    let snapshot = take().expect("the socket table can be read");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert!(runs, "ip(8) and bash(1) are there");
    let row = snapshot
        .rows
        .iter()
        .find(|row| Ok(u64::from(row.socket.netns)) == netns)
        .expect("its socket");
    assert_eq!(row.socket.destination.1, 4711);
    let pids: Vec<_> = row.holders.iter().map(|holder| holder.pid).collect();
    assert_eq!(pids, [child.id()]);
}

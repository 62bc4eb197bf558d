//! `procid cut` ends the connections that were named, and no other.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Command, Output},
};

use procid_tests::{
    records::text,
    scratch::{Scratch, procid},
};
use serde_json::Value;

fn cut(flow: &[&str]) -> Output {
    let mut command = Command::new(procid());
    command.args(["cut", "--json"]).args(flow);
    command.output().unwrap()
}

/// The connections that were closed.
fn closed(output: &Output) -> Vec<Value> {
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    let records = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    records
        .filter(|record| record.pointer("/procid/coverage").is_none())
        .collect()
}

/// A connection, its other end, and its ends as `ss` prints them.
fn connect() -> (TcpStream, TcpStream, [String; 2]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    let ends = [client.local_addr(), client.peer_addr()].map(|end| end.unwrap().to_string());
    (client, server, ends)
}

#[test]
fn the_connection_that_was_named() {
    let (mut client, mut server, [from, to]) = connect();
    let (other, _server, _) = connect();
    let dry = cut(&["--dry-run", &from, &to]);
    assert_eq!(closed(&dry).len(), 1);
    assert!(client.take_error().unwrap().is_none());

    let output = cut(&[&from, &to]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = closed(&output);
    assert_eq!(told.len(), 1, "{told:?}");
    let pid = std::process::id().to_string();
    assert_eq!(text(&told[0], "/process/pid"), pid);
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionAborted
    );
    assert_eq!(
        server.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert!(other.take_error().unwrap().is_none());

    let again = cut(&[&from, &to]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
}

#[test]
fn who_may_not_cut_is_told_so() {
    let (client, _server, [from, to]) = connect();
    let scratch = Scratch::new();
    // Where every user may run it.
    let binary = scratch.path().join("procid");
    fs::copy(procid(), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&binary);
    command.args(["cut", &from, &to]).uid(65534).gid(65534);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    assert!(client.take_error().unwrap().is_none());
}

#[test]
fn what_is_no_flow_cuts_nothing() {
    for flow in [&[][..], &["x"], &[":1", ":2", ":3"]] {
        let output = cut(flow);
        assert_eq!(output.status.code(), Some(2), "{flow:?}: {output:?}");
    }
}

//! `default = "deny"` by the cgroup hooks: see [`procid_tests::lockout`].

use std::fs;

use procid_tests::{
    lockout::{
        answers_over_udp_are_allowed_by_their_own_port,
        established_says_what_becomes_of_open_connections, the_session_that_applies_it_lives,
    },
    stage::Stage,
};

const DENY: &str = "mode = \"enforce\"\ndefault = \"deny\"\n";

#[test]
fn the_session_that_denies_everything_lives() {
    the_session_that_applies_it_lives(&Stage::new());
}

#[test]
fn open_connections_are_kept() {
    established_says_what_becomes_of_open_connections(&mut Stage::new(), false);
}

#[test]
fn a_udp_server_is_allowed_by_its_own_port() {
    answers_over_udp_are_allowed_by_their_own_port(&Stage::new());
}

/// Where the agent is governed by its own policy it still answers, and takes
/// the next one: it speaks over no network.
#[test]
fn the_agent_may_be_denied_everything_too() {
    let stage = Stage::new();
    let procs = stage.cgroup.path().join("cgroup.procs");
    fs::write(&procs, stage.agent.pid().to_string()).unwrap();
    stage.apply(DENY, &[]);
    let connect = ["connect", "--to", "127.0.0.1:9"];
    assert_eq!(stage.run(connect)[0].error, Some(libc::EPERM));
    assert!(stage.agent.ask(&["status"]).status.success());
    stage.apply("mode = \"enforce\"\ndefault = \"allow\"\n", &[]);
    assert_eq!(stage.run(connect)[0].error, Some(libc::ECONNREFUSED));
}

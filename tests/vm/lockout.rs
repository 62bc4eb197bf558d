//! `default = "deny"` on either backend: see [`procid_tests::lockout`].

use procid_tests::{
    lockout::{
        answers_over_udp_are_allowed_by_their_own_port,
        established_says_what_becomes_of_open_connections, the_session_that_applies_it_lives,
    },
    stage::Stage,
};

/// The backends, and which judges open connections.
const BACKENDS: [(&str, bool); 2] = [("lsm", true), ("cgroup", false)];

fn on_either(test: impl Fn(&mut Stage, bool)) {
    for (backend, is_lsm) in BACKENDS {
        println!("{backend}");
        test(&mut Stage::with(&["--backend", backend]), is_lsm);
    }
}

#[test]
fn the_session_that_denies_everything_lives() {
    on_either(|stage, _| the_session_that_applies_it_lives(stage));
}

#[test]
fn open_connections_are_kept_or_judged() {
    on_either(established_says_what_becomes_of_open_connections);
}

#[test]
fn a_udp_server_is_allowed_by_its_own_port() {
    on_either(|stage, _| answers_over_udp_are_allowed_by_their_own_port(stage));
}

//! Each backend attributes TCP and UDP; LSM adds the kernel's own hash.

use procid_tests::{
    attribution::{Expected, assert_attributed},
    listener,
    records::{Records, text},
    stage::Stage,
    truth::Act,
};

/// What one agent told of a TCP connect, a UDP connect and a datagram.
fn watch(backend: &str) -> (Records, Vec<Act>) {
    let tcp = listener::Tcp::on("127.0.0.1:0");
    let udp = listener::Udp::on("127.0.0.1:0");
    let stage = Stage::with(&["--backend", backend]);
    let app = stage.app.clone();
    let (tcp_to, udp_to) = (tcp.address().to_string(), udp.address().to_string());
    let mut acts = stage.run(["connect", "--to", &tcp_to]);
    acts.extend(stage.run(["udp", "--connected", "--to", &udp_to]));
    acts.extend(stage.run(["udp", "--to", &udp_to]));
    acts.extend(stage.run(["connect", "--to", &tcp_to, "--by", "orphan"]));
    let records = stage.end(&acts);
    assert_eq!(tcp.peers(2).len(), 2);
    assert_eq!(udp.senders().len(), 2);
    let (connect, send) = (Expected::connect(&app), Expected::send(&app));
    for (act, expected) in acts.iter().zip([connect, connect, send, connect]) {
        assert_attributed(&records, act, &expected);
    }
    assert_eq!(records.lost(), 0);
    (records, acts)
}

fn backend_of(records: &Records) -> String {
    text(records.ready().unwrap(), "/procid/backend").into_owned()
}

fn has_hook(records: &Records, prefix: &str) -> bool {
    let hooks = records.ready().unwrap().pointer("/procid/hooks").unwrap();
    let mut hooks = hooks.as_array().unwrap().iter();
    hooks.any(|hook| hook.as_str().unwrap().starts_with(prefix))
}

/// Asserts that IMA measured the files that ran, as [`assert_attributed`] has
/// found them to be.
fn assert_measured(records: &Records, acts: &[Act]) {
    for act in acts {
        let told = records.of_act(act);
        let record = told[0];
        let hash = records.hash(&text(record, "/process/entity_id"));
        assert_eq!(hash.grade, "kernel", "{hash:?}");
    }
}

/// The kernels under test all have BPF LSM on and IMA in: a skip would hide a
/// failure.
#[test]
fn auto_takes_all_there_is() {
    let (records, acts) = watch("auto");
    assert_eq!(backend_of(&records), "lsm+cgroup");
    assert!(has_hook(&records, "lsm.s/bprm_committed_creds"));
    assert!(has_hook(&records, "cgroup/"));
    assert_measured(&records, &acts);
}

#[test]
fn cgroup_alone() {
    let (records, _) = watch("cgroup");
    assert_eq!(backend_of(&records), "cgroup");
    assert!(!has_hook(&records, "lsm"));
}

#[test]
fn lsm_alone() {
    let (records, acts) = watch("lsm");
    assert_eq!(backend_of(&records), "lsm");
    assert!(has_hook(&records, "lsm/"));
    assert!(!has_hook(&records, "cgroup/"));
    assert_measured(&records, &acts);
}

//! The test programs do what they say: what all the other tests rest on.

use std::{collections::HashSet, fs};

use procid_tests::{
    cgroup::TestCgroup, listener, program::Program, scratch::Scratch, truth::canonical,
};

#[test]
fn a_load_reports_each_connection_and_no_two_are_alike() {
    const COUNT: usize = 20_000;
    let listener = listener::Tcp::on("0.0.0.0:0");
    let (cgroup, scratch) = (TestCgroup::new(), Scratch::new());
    let app = scratch.program("app");
    let (port, count) = (listener.address().port().to_string(), COUNT.to_string());
    let report = Program::run(
        &cgroup,
        &app.path,
        ["load", "--port", &port, "--count", &count, "--alive", "20"],
    );
    let summary = report.summary.unwrap();
    assert_eq!((summary.attempts, summary.failures), (COUNT as u64, 0));
    let ends: HashSet<_> = report
        .lived
        .iter()
        .map(|lived| (lived.source, lived.destination))
        .collect();
    assert_eq!(ends.len(), COUNT);
    let mut sources: Vec<_> = report.lived.iter().map(|lived| lived.source).collect();
    let mut peers = listener.peers(COUNT);
    sources.sort();
    peers.sort();
    assert_eq!(sources, peers);
    for lived in &report.lived {
        assert!(lived.began < lived.connected && lived.connected <= lived.closing);
        assert!(lived.closing < lived.closed);
    }
}

#[test]
fn a_storm_runs_each_file_in_processes_of_their_own() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let (cgroup, scratch) = (TestCgroup::new(), Scratch::new());
    let files = [scratch.program("first"), scratch.program("second")];
    assert_ne!(files[0].sha256, files[1].sha256);
    let to = listener.address().to_string();
    let mut arguments = vec![
        "storm",
        "--processes",
        "100",
        "--parallel",
        "10",
        "--to",
        &to,
    ];
    for file in &files {
        arguments.extend(["--exe", file.path.to_str().unwrap()]);
    }
    let acts = Program::run(&cgroup, &files[0].path, arguments).acts;
    let pids: HashSet<_> = acts.iter().map(|act| act.actor.pid).collect();
    assert_eq!((acts.len(), pids.len()), (100, 100));
    for file in &files {
        let runs = acts.iter().filter(|act| act.actor.exe == file.file);
        assert_eq!(runs.count(), 50);
    }
    let mut sources: Vec<_> = acts
        .iter()
        .filter_map(|act| act.source)
        .map(canonical)
        .collect();
    let mut peers = listener.peers(100);
    sources.sort();
    peers.sort();
    assert_eq!(sources, peers);
}

#[test]
fn programs_start_in_the_cgroup_and_end_with_it() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let (cgroup, scratch) = (TestCgroup::new(), Scratch::new());
    let app = scratch.program("app");
    let to = listener.address().to_string();
    let mut program = Program::start(&cgroup, &app.path, ["connect", "--hold", "--to", &to]);
    let pid = program.act().actor.pid;
    assert_eq!(pid, program.pid());
    let procs = fs::read_to_string(cgroup.path().join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), pid.to_string());
    let path = cgroup.path().to_owned();
    drop(cgroup);
    assert!(!path.exists());
}

//! Rules on hashes of programs that nobody has seen before: by IMA inside exec,
//! and by the exec gate before it.

use std::fs;

use procid_tests::{
    names::{Name, change_nothing},
    scratch::Scratch,
    stage::Stage,
    unseen::judged_at_the_first_connect,
};

/// The kernel of which every run is asked for: a run takes a fifth of a second
/// on an emulated processor.
const IN_FULL: &str = "6.12.";
const RUNS: usize = 1_000;
const RUNS_ELSEWHERE: usize = 100;

#[test]
fn the_kernels_hash_judges_the_first_connect_of_a_new_file() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let runs = match release.starts_with(IN_FULL) {
        true => RUNS,
        false => RUNS_ELSEWHERE,
    };
    let stage = Stage::with(&["--backend", "lsm"]);
    let place = Scratch::new();
    judged_at_the_first_connect(stage, place.path(), runs, "kernel");
}

/// Before every file system of the machine; in full where nothing is emulated.
#[test]
fn the_gates_hash_judges_the_first_connect_of_a_new_file() {
    let stage = Stage::with(&["--backend", "cgroup", "--exec-gate", "auto"]);
    let place = Scratch::new();
    judged_at_the_first_connect(stage, place.path(), RUNS_ELSEWHERE, "gated");
}

#[test]
fn another_name_changes_nothing_for_the_kernel() {
    let place = Scratch::new();
    let names = [
        Name::Renamed,
        Name::HardLink,
        Name::BindMount,
        Name::Overlay,
        Name::Memfd,
    ];
    change_nothing(&Stage::with(&["--backend", "lsm"]), place.path(), &names);
}

#[test]
fn another_name_changes_nothing_for_the_gate() {
    let place = Scratch::new();
    let names = [
        Name::Renamed,
        Name::HardLink,
        Name::BindMount,
        Name::Overlay,
    ];
    let stage = Stage::with(&["--backend", "cgroup", "--exec-gate", "auto"]);
    change_nothing(&stage, place.path(), &names);
}

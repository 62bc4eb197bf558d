//! Rules on hashes of programs that nobody has seen before: by IMA inside exec,
//! and by the exec gate before it.

use procid_tests::{scratch::Scratch, stage::Stage, unseen::judged_at_the_first_connect};

/// What the kernel itself hashes is known at every first connect.
const BY_THE_KERNEL: usize = 1_000;
/// On emulated processors a gated execution takes a tenth of a second.
const GATED: usize = 100;

#[test]
fn the_kernels_hash_judges_the_first_connect_of_a_new_file() {
    let stage = Stage::with(&["--backend", "lsm"]);
    let place = Scratch::new();
    judged_at_the_first_connect(stage, place.path(), BY_THE_KERNEL, "kernel");
}

/// Before every file system of the machine.
#[test]
fn the_gates_hash_judges_the_first_connect_of_a_new_file() {
    let stage = Stage::with(&["--backend", "cgroup", "--exec-gate", "auto"]);
    let place = Scratch::new();
    judged_at_the_first_connect(stage, place.path(), GATED, "gated");
}

//! Containers, on either backend: see [`procid_tests::containers`] and
//! [`procid_tests::rooted`].

use procid_tests::{
    containers::a_container_is_a_cgroup_that_root_named_so as named_by_root,
    rooted::{a_container_has_executables_of_its_own as its_own, it_has_them_before_an_agent_runs},
    stage::Stage,
};

const BACKENDS: [[&str; 2]; 2] = [["--backend", "lsm"], ["--backend", "cgroup"]];

#[test]
fn a_container_is_a_cgroup_that_root_named_so() {
    for backend in BACKENDS {
        println!("{backend:?}");
        named_by_root(Stage::with(&backend));
    }
}

#[test]
fn a_container_has_executables_of_its_own() {
    for backend in BACKENDS {
        println!("{backend:?}");
        its_own(&backend);
        it_has_them_before_an_agent_runs(&backend);
    }
}

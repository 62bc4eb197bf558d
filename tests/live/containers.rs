//! Containers: see [`procid_tests::containers`] and [`procid_tests::rooted`].

use procid_tests::{
    containers::a_container_is_a_cgroup_that_root_named_so as named_by_root,
    rooted::{a_container_has_executables_of_its_own as its_own, it_has_them_before_an_agent_runs},
    stage::Stage,
};

#[test]
fn a_container_is_a_cgroup_that_root_named_so() {
    named_by_root(Stage::new());
}

#[test]
fn a_container_has_executables_of_its_own() {
    its_own(&[]);
}

#[test]
fn a_container_has_them_before_an_agent_runs() {
    it_has_them_before_an_agent_runs(&[]);
}

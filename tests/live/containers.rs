//! Containers: see [`procid_tests::containers`].

use procid_tests::{
    containers::a_container_is_a_cgroup_that_root_named_so as named_by_root, stage::Stage,
};

#[test]
fn a_container_is_a_cgroup_that_root_named_so() {
    named_by_root(Stage::new());
}

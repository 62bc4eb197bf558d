//! Ids of containers in the names of cgroups.

use procid_common::policy::container::id_in;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn runtimes_name_cgroups_by_ids() {
    for before in [
        "",
        "docker-",
        "cri-containerd-",
        "crio-",
        "libpod-",
        "nerdctl-",
        "kubepods-burstable-pod1234.slice:cri-containerd:",
    ] {
        for after in ["", ".scope"] {
            let name = format!("{before}{ID}{after}");
            assert_eq!(id_in(name.as_bytes()), Some(ID), "{name}");
        }
    }
}

#[test]
fn other_names_hold_no_id() {
    let upper = ID.to_uppercase();
    let short = &ID[1..];
    for name in [
        "",
        ".scope",
        "docker",
        "init.scope",
        short,
        &upper,
        &format!("docker-{short}.scope"),
        &format!("docker-{ID}.service"),
        &format!("docker-{ID}.scope.scope"),
        &format!("docker{ID}.scope"),
        &format!("a{ID}"),
        &format!("{ID}-"),
        &format!("libpod-conmon-{ID}.scope"),
        &format!("crio-conmon-{ID}.scope"),
        &format!("docker-{short}g.scope"),
    ] {
        assert_eq!(id_in(name.as_bytes()), None, "{name}");
    }
}

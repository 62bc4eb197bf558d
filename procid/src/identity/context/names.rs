//! What runtimes, the kubelet and systemd write into the names of cgroups.

use std::str;

use procid_common::policy::container::{ID_LEN, SCOPE};

use crate::records::escape::escape;

/// The runtime of a container by the name of its cgroup, which holds an id, and
/// of the cgroup above.
///
/// | name | runtime |
/// | --- | --- |
/// | `docker-ID.scope`, `docker/ID` | Docker |
/// | `cri-containerd-ID.scope`, `…:cri-containerd:ID`, `nerdctl-ID.scope` | containerd |
/// | `crio-ID.scope` | CRI-O |
/// | `libpod-ID.scope` | Podman |
///
/// A bare id (containerd under the kubelet's cgroupfs driver) names none.
pub fn runtime(name: &[u8], above: Option<&[u8]>) -> Option<&'static str> {
    let name = name.strip_suffix(SCOPE).unwrap_or(name);
    let before = &name[..name.len().checked_sub(ID_LEN)?];
    match before {
        b"docker-" => Some("docker"),
        b"" if above == Some(b"docker") => Some("docker"),
        b"cri-containerd-" | b"nerdctl-" => Some("containerd"),
        b"crio-" => Some("cri-o"),
        b"libpod-" => Some("podman"),
        _ if before.ends_with(b":cri-containerd:") => Some("containerd"),
        _ => None,
    }
}

/// The runtime of that name, of those that [`runtime`] tells.
pub fn runtime_named(name: &str) -> Option<&'static str> {
    ["docker", "containerd", "cri-o", "podman"]
        .into_iter()
        .find(|known| *known == name)
}

/// Whether cgroups of pods are below one of this name, with the kubelet's
/// cgroupfs driver.
pub fn is_pods_root(name: &[u8]) -> bool {
    name == b"kubepods"
}

/// The uid of the pod that a cgroup of this name is for: `podUID` below
/// `kubepods`, or systemd's `kubepods-burstable-podUID.slice`, in whose UID each
/// `-` is a `_`, for there a `-` parts the names of slices
/// (<https://github.com/kubernetes/kubernetes/blob/v1.31.0/pkg/kubelet/cm/cgroup_manager_linux.go>).
pub fn pod_in(name: &[u8], in_pods: bool) -> Option<String> {
    if in_pods && let Some(uid) = name.strip_prefix(b"pod") {
        return uid_of(uid);
    }
    let text = str::from_utf8(name).ok()?;
    // containerd puts the slice before the name where the drivers differ.
    let slice = text.split(':').next()?.strip_suffix(".slice")?;
    let (before, uid) = slice.rsplit_once("-pod")?;
    let is_kubelets = before.split('-').any(|part| part == "kubepods");
    uid_of(uid.replace('_', "-").as_bytes()).filter(|_| is_kubelets)
}

/// A UUID, or the 32 digits that name a pod of the kubelet's own files.
fn uid_of(uid: &[u8]) -> Option<String> {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_uid = match uid.len() {
        32 => uid.iter().all(is_hex),
        36 => uid.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => is_hex(byte),
        }),
        _ => false,
    };
    is_uid.then(|| String::from_utf8_lossy(uid).into_owned())
}

/// The unit of systemd that a cgroup of this name is, slices left out. systemd
/// puts a `_` before a name that the kernel would take for a file of its own
/// (<https://github.com/systemd/systemd/blob/v257/src/basic/cgroup-util.c>).
pub fn unit_in(name: &[u8]) -> Option<String> {
    const SUFFIXES: [&[u8]; 5] = [b".service", b".scope", b".socket", b".mount", b".swap"];
    let name = name.strip_prefix(b"_").unwrap_or(name);
    let has_stem = |suffix: &&[u8]| name.len() > suffix.len() && name.ends_with(suffix);
    SUFFIXES
        .iter()
        .any(has_stem)
        .then(|| escape(name).into_owned())
}

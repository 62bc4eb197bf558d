use std::{
    io,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use rstest::rstest;

use super::{super::containers::Part, *};
use crate::records::escape::is_printable;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "8d7f1b2c-1111-2222-3333-444455556666";
const STATIC_POD: &str = "0123456789abcdef0123456789abcdef";

/// `ID`, `POD` (with `-`), `POD_` (with `_`) and `STATIC` stand for the above; a
/// name that begins with `~` is an ordinary user's directory.
fn place(path: &str) -> Place {
    let path = path
        .replace("ID", ID)
        .replace("POD_", &POD.replace('-', "_"))
        .replace("POD", POD)
        .replace("STATIC", STATIC_POD);
    let part = |name: &str| Part {
        name: name.trim_start_matches('~').as_bytes().to_vec(),
        is_roots: !name.starts_with('~'),
    };
    Place(path.split('/').skip(1).map(part).collect())
}

#[rstest]
// Docker, by either driver, and what runs inside.
#[case(
    "/system.slice/docker-ID.scope",
    Some("docker"),
    None,
    Some("docker-ID.scope")
)]
#[case(
    "/system.slice/docker-ID.scope/init.scope",
    Some("docker"),
    None,
    Some("docker-ID.scope")
)]
#[case("/docker/ID", Some("docker"), None, None)]
#[case("/docker/ID/system.slice/sshd.service", Some("docker"), None, None)]
// Podman; its monitor is outside.
#[case(
    "/machine.slice/libpod-ID.scope/container",
    Some("podman"),
    None,
    Some("libpod-ID.scope")
)]
#[case(
    "/machine.slice/libpod-conmon-ID.scope",
    None,
    None,
    Some("libpod-conmon-ID.scope")
)]
// The kubelet with systemd's driver, with and without a quality of service.
#[case(
    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
    Some("containerd"),
    Some(POD),
    Some("cri-containerd-ID.scope")
)]
#[case(
    "/kubepods.slice/kubepods-podPOD_.slice/crio-ID.scope",
    Some("cri-o"),
    Some(POD),
    Some("crio-ID.scope")
)]
#[case(
    "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podPOD_.slice/cri-containerd-ID.scope",
    Some("containerd"),
    Some(POD),
    Some("cri-containerd-ID.scope")
)]
#[case(
    "/kubepods.slice/kubepods-podSTATIC.slice/crio-ID.scope",
    Some("cri-o"),
    Some(STATIC_POD),
    Some("crio-ID.scope")
)]
// With the cgroupfs driver, and where kubelet and containerd differ.
#[case("/kubepods/burstable/podPOD/ID", None, Some(POD), None)]
#[case("/kubepods/podSTATIC/ID", None, Some(STATIC_POD), None)]
#[case(
    "/system.slice/containerd.service/kubepods-burstable-podPOD_.slice:cri-containerd:ID",
    Some("containerd"),
    Some(POD),
    Some("containerd.service")
)]
// What is not the kubelet's.
#[case("/podPOD/ID", None, None, None)]
#[case("/kubepods/pod123/ID", None, None, None)]
#[case(
    "/user-podPOD_.slice/crio-ID.scope",
    Some("cri-o"),
    None,
    Some("crio-ID.scope")
)]
// A pod in a container names what that container's superuser likes.
#[case("/docker/ID/kubepods/podPOD", Some("docker"), None, None)]
fn containers_and_pods(
    #[case] path: &str,
    #[case] runtime: Option<&str>,
    #[case] pod: Option<&str>,
    #[case] unit: Option<&str>,
) {
    let context = Context::of(&place(path));
    let is_container = path.contains("ID") && !path.contains("conmon");
    assert_eq!(context.container.is_some(), is_container);
    if let Some(container) = &context.container {
        assert_eq!(container.id, ID);
        assert_eq!(container.runtime, runtime);
    }
    assert_eq!(context.pod.as_deref(), pod);
    assert_eq!(context.unit, unit.map(|unit| unit.replace("ID", ID)));
}

#[rstest]
#[case("/system.slice/ssh.service", Some("ssh.service"))]
#[case(
    "/system.slice/system-getty.slice/getty@tty1.service",
    Some("getty@tty1.service")
)]
#[case("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope"))]
#[case(
    "/user.slice/user-1000.slice/~user@1000.service/~app.slice/~x.service",
    Some("user@1000.service")
)]
#[case("/init.scope", Some("init.scope"))]
#[case("/system.slice/_cgroup.service", Some("cgroup.service"))]
#[case("/system.slice/a.service/b.service", Some("a.service"))]
#[case("/system.slice", None)]
#[case("/.service", None)]
// An ordinary user's own, where he was given a directory.
#[case("/~mine/~sshd.service", None)]
fn units(#[case] path: &str, #[case] unit: Option<&str>) {
    assert_eq!(Context::of(&place(path)).unit.as_deref(), unit);
}

#[test]
fn directories_of_others_are_no_containers_and_no_pods() {
    for path in ["/~docker-ID.scope", "/kubepods/~podPOD/~ID"] {
        let context = Context::of(&place(path));
        assert_eq!((context.container, context.pod), (None, None), "{path}");
    }
    let context = Context::of(&place("/~docker-ID.scope/crio-ID.scope"));
    assert_eq!(context.container.unwrap().runtime, Some("cri-o"));
}

/// Cgroup 1 is a pod's container, 2 is in none, others cannot be looked at.
#[derive(Debug, Default)]
struct Asked(Arc<Mutex<Vec<u64>>>);

impl Cgroups for Asked {
    fn place(&self, cgroup: u64) -> io::Result<Place> {
        self.0.lock().unwrap().push(cgroup);
        match cgroup {
            1 => Ok(place("/kubepods/podPOD/ID")),
            2 => Ok(place("/plain")),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }
}

#[test]
fn a_cgroup_is_looked_at_once() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let cgroups = Box::new(Asked(Arc::clone(&asked)));
    let mut contexts = Contexts::new(cgroups, Pods::at("/nowhere".into()));
    assert_eq!(contexts.get(1), None);
    for _ in 0..2 {
        for cgroup in 0..=3 {
            contexts.learn(cgroup);
        }
    }
    assert_eq!(contexts.get(1).unwrap().pod.as_deref(), Some(POD));
    assert_eq!(contexts.get(2).unwrap().path.as_deref(), Some("/plain"));
    assert_eq!((contexts.get(0), contexts.get(3)), (None, None));
    assert_eq!(*asked.lock().unwrap(), [1, 2, 3]);
}

#[test]
fn a_record_says_what_is_known_and_why_the_rest_is_not() {
    let mut context = Context::of(&place("/kubepods/podPOD/ID"));
    let record = |context: &Context| {
        let mut record = Record {
            procid: Some(Box::new(records::Procid {
                cgroup: Some(records::Cgroup {
                    id: "7".to_owned(),
                    path: None,
                }),
                ..records::Procid::default()
            })),
            ..Record::default()
        };
        context.put(&mut record);
        serde_json::to_value(record).unwrap()
    };
    let told = record(&context);
    let orchestrator = serde_json::json!({
        "type": "kubernetes", "resource": {"type": "pod", "id": POD}
    });
    assert_eq!(told["orchestrator"], orchestrator);
    assert_eq!(told["container"], serde_json::json!({"id": ID}));
    assert_eq!(told["procid"]["unknown"]["orchestrator.namespace"], NO_LOGS);
    assert_eq!(
        told["procid"]["cgroup"]["path"],
        context.path.clone().unwrap()
    );

    context.pod_names = Some(Arc::new(Pod {
        namespace: "shop".to_owned(),
        name: "web-0".to_owned(),
    }));
    let told = record(&context);
    assert_eq!(told["orchestrator"]["namespace"], "shop");
    assert_eq!(told["orchestrator"]["resource"]["name"], "web-0");
    assert_eq!(told["procid"].get("unknown"), None);
}

proptest! {
    /// Whatever directories are called: no panic, nothing that does not print,
    /// and only the superuser's name containers and pods.
    #[test]
    fn any_names(parts in prop::collection::vec((prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "(kubepods|docker|pod|-|_|[.]slice|[.]scope|:cri-containerd:|[0-9a-f]{64}|[0-9a-f]{32}){1,6}"
            .prop_map(String::into_bytes),
    ], any::<bool>()), 0..6)) {
        let parts: Vec<_> = parts.into_iter().map(|(name, is_roots)| Part { name, is_roots }).collect();
        let none_is_roots = parts.iter().all(|part| !part.is_roots);
        let context = Context::of(&Place(parts));
        let printable = |text: &str| text.chars().all(is_printable);
        prop_assert!(context.path.as_deref().is_some_and(printable));
        prop_assert!(context.unit.as_deref().is_none_or(printable));
        prop_assert!(!none_is_roots || (context.container.is_none() && context.pod.is_none()));
    }
}

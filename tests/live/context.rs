//! What records say of the cgroup of a process: container, pod, unit, path; and
//! the name of its user.

use std::{fs, os::unix::process::CommandExt as _, path::Path, process::Command};

use procid_tests::{
    gate::on_own_file_system, listener, program::Program, records::text, stage::Stage,
};
use rustix::mount::mount_bind;
use serde_json::{Value, json};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "8d7f1b2c-1111-2222-3333-444455556666";
const NOBODY: u32 = 65_534;

/// Connects in a cgroup below the stage's, and returns the record's object.
fn told(stage: &mut Stage, cgroup: &str, uid: u32) -> Value {
    let path = stage.cgroup.path().join(cgroup);
    fs::create_dir_all(&path).unwrap();
    let to = listener::Tcp::on("127.0.0.1:0");
    let mut command = Command::new(&stage.app.path);
    command
        .args(["connect", "--to", &to.address().to_string()])
        .uid(uid);
    let acts = Program::spawn_in(&path, command).finish().acts;
    stage.agent.settle(&acts);
    let records = stage.agent.records();
    let record = records.of_act(&acts[0])[0].clone();
    let told = text(&record, "/procid/cgroup/path").into_owned();
    assert!(told.ends_with(&format!("/{cgroup}")), "{told}");
    record
}

/// In a mount namespace of the test's own, where the kubelet's logs are its to
/// make.
#[test]
fn a_cgroup_tells_container_pod_unit_and_path() {
    on_own_file_system(|place: &Path| {
        fs::create_dir_all(place.join(format!("pods/shop_web-0_{POD}"))).unwrap();
        mount_bind(place, "/var/log").unwrap();
        let mut stage = Stage::new();
        let pod = told(&mut stage, &format!("kubepods/burstable/pod{POD}/{ID}"), 0);
        let orchestrator = json!({
            "type": "kubernetes", "namespace": "shop",
            "resource": {"type": "pod", "id": POD, "name": "web-0"}
        });
        assert_eq!(pod["orchestrator"], orchestrator);
        assert_eq!(pod["container"], json!({"id": ID}));
        assert_eq!(pod["user"], json!({"id": "0", "name": "root"}));
        assert_eq!(pod["process"]["user"], pod["user"]);

        let other = POD.replace('8', "9");
        let slice = format!("kubepods-pod{}.slice", other.replace('-', "_"));
        let unnamed = told(&mut stage, &format!("{slice}/crio-{ID}.scope"), NOBODY);
        assert_eq!(unnamed["container"]["runtime"], "cri-o");
        assert_eq!(text(&unnamed, "/orchestrator/resource/id"), other);
        assert_eq!(unnamed["orchestrator"].get("namespace"), None);
        let unknown = &unnamed["procid"]["unknown"];
        assert!(unknown["orchestrator.resource.name"].is_string());
        assert_eq!(text(&unnamed, "/user/id"), NOBODY.to_string());

        let service = told(&mut stage, "web.service", 0);
        assert_eq!(text(&service, "/procid/unit"), "web.service");
        assert_eq!(service.get("container"), None);
        assert_eq!(service.get("orchestrator"), None);

        let pid = text(&pod, "/process/pid").into_owned();
        let who = stage.agent.ask(&["who", "--pid", &pid]);
        let said = String::from_utf8_lossy(&who.stdout).into_owned();
        for line in [
            format!("pod        shop/web-0 ({POD})"),
            format!("container  {ID}"),
            "user       0 (root)".to_owned(),
        ] {
            assert!(said.contains(&line), "{line} is not in {said}");
        }
        let records = stage.agent.stop();
        assert_eq!(records.lost(), 0);
    });
}

//! `procid save`: what runs, put aside.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Output},
};

use procid_tests::{
    listener,
    records::{Records, text},
    scratch::Image,
    stage::Stage,
};
use serde_json::Value;

fn save(stage: &Stage, entity: &str, to: &Path) -> Output {
    stage
        .agent
        .ask(&["save", entity, "-o", to.to_str().unwrap()])
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The entity id of the image that runs in that process now.
fn entity(stage: &mut Stage, pid: u32) -> String {
    assert!(stage.agent.until(|records| !records.execs(pid).is_empty()));
    let execs = stage.agent.records().execs(pid);
    text(execs.last().unwrap(), "/process/entity_id").into_owned()
}

#[test]
fn a_deleted_program_is_saved_with_all_that_is_known_of_it() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let app = stage.app.clone();
    let to = listener.address().to_string();
    let mut program = stage.start(["connect", "--hold", "--to", &to]);
    let act = program.act();
    let pid = act.actor.pid;
    let told = |records: &Records| records.of_act(&act).len() == 1;
    assert!(stage.agent.until(told));
    stage.wait_for_hash(pid, &app.file);
    let entity = entity(&mut stage, pid);
    let bytes = fs::read(&app.path).unwrap();
    fs::remove_file(&app.path).unwrap();

    let case = stage.scratch.path().join("case");
    let output = save(&stage, &entity, &case);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("as recorded (verified)"), "{said}");
    assert!(said.contains("its environment is not saved"), "{said}");
    assert!(said.contains("(deleted)"), "{said}");
    assert!(fs::read(case.join("exe")).unwrap() == bytes);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&case), 0o700);
    let mut names = Vec::new();
    for file in fs::read_dir(&case).unwrap() {
        let file = file.unwrap();
        assert_eq!(mode(&file.path()), 0o600, "{file:?}");
        names.push(file.file_name().into_string().unwrap());
    }
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "cmdline",
            "connections.ndjson",
            "exe",
            "manifest.json",
            "maps",
            "process.json"
        ]
    );
    let manifest = json(&case.join("manifest.json"));
    assert_eq!(manifest["differs"], serde_json::json!([]), "{manifest}");
    assert_eq!(manifest["connections"], 1, "{manifest}");
    assert_eq!(manifest["recorded"]["sha256"], app.sha256.as_str());
    for file in manifest["files"].as_array().unwrap() {
        let path = case.join(file["name"].as_str().unwrap());
        assert_eq!(file["sha256"], Image::of(&path).sha256.as_str(), "{file}");
    }
    let process = json(&case.join("process.json"));
    assert_eq!(text(&process, "/process/entity_id"), entity);
    let connections = fs::read_to_string(case.join("connections.ndjson")).unwrap();
    let connections: Vec<Value> = connections
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(connections.len(), 2, "{connections:?}");
    assert_eq!(text(&connections[0], "/process/entity_id"), entity);
    let maps = fs::read_to_string(case.join("maps")).unwrap();
    assert!(maps.contains("[stack]"), "{maps}");
    let cmdline = fs::read(case.join("cmdline")).unwrap();
    assert!(cmdline.ends_with(format!("--to\0{to}\0").as_bytes()));

    // Nothing is overwritten.
    let again = save(&stage, &entity, &case);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing is overwritten"));
    assert_eq!(json(&case.join("manifest.json")), manifest);

    // Once it has ended there is nothing to copy, and nothing is made.
    program.finish();
    stage.agent.settle(&[act]);
    let exited = |records: &Records| {
        records
            .of_action("exit")
            .any(|it| text(it, "/process/entity_id") == entity)
    };
    assert!(stage.agent.until(exited));
    let late = stage.scratch.path().join("late");
    let output = save(&stage, &entity, &late);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("it ended at"));
    assert!(!late.exists());
    let nobody = save(&stage, &"0".repeat(32), &late);
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    assert!(!late.exists());
    let _records = stage.agent.stop();
}

/// A program that never was a file.
#[test]
fn a_memfd_is_saved() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let app = stage.app.clone();
    let to = listener.address().to_string();
    let copy = ["memfd", "--", "copy", "connect", "--hold", "--to", &to];
    let mut program = stage.start(copy);
    let act = program.act();
    let told = |records: &Records| records.of_act(&act).len() == 1;
    assert!(stage.agent.until(told));
    let record = stage.agent.records().of_act(&act)[0];
    let entity = text(record, "/process/entity_id").into_owned();
    let case = stage.scratch.path().join("case");
    let output = save(&stage, &entity, &case);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(Image::of(&case.join("exe")).sha256, app.sha256);
    let manifest = json(&case.join("manifest.json"));
    assert!(text(&manifest, "/link").contains("memfd:"), "{manifest}");
    drop(program);
    let _records = stage.agent.stop();
}

/// Another user may neither ask nor read.
#[test]
fn it_is_not_for_everyone() {
    let stage = Stage::new();
    let scratch = stage.scratch.path();
    let binary = scratch.join("procid");
    fs::copy(procid_tests::scratch::procid(), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&binary)
        .args(["save", "0123", "-o"])
        .arg(scratch.join("case"))
        .arg("--socket")
        .arg(stage.agent.socket())
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(!scratch.join("case").exists());
    let _records = stage.end(&[]);
}

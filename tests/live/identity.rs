//! Images: their names, their parents, their births and ends.

use std::{fs, path::Path, thread, time::Duration};

use procid_tests::{
    agent::Agent,
    attribution::{Expected, assert_attributed, assert_executable},
    cgroup::TestCgroup,
    listener,
    program::Program,
    records::{Records, text},
    scratch::Scratch,
    stage::Stage,
};
use serde_json::Value;

const ENTITY: &str = "/process/entity_id";
const PARENT: &str = "/process/parent/entity_id";

/// The one birth by exec of a process that calls exec once.
fn only_exec(records: &Records, pid: u32) -> &Value {
    let execs = records.execs(pid);
    assert_eq!(execs.len(), 1, "{execs:#?}");
    execs[0]
}

#[test]
fn an_image_of_each_exec() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let second = stage.scratch.program("second");
    let first = stage.app.clone();
    let to = listener.address().to_string();
    let path = second.path.to_str().unwrap();
    let acts = stage.run(["enter", "--", path, "connect", "--to", &to]);
    let records = stage.end(&acts);
    let record = assert_attributed(&records, &acts[0], &Expected::connect(&second));
    assert_executable(record, &second.path);
    let [before, after] = records.execs(acts[0].actor.pid)[..] else {
        panic!("not two execs");
    };
    assert_executable(before, &first.path);
    assert_ne!(text(before, ENTITY), text(after, ENTITY));
    assert_eq!(text(record, ENTITY), text(after, ENTITY));
    let previous = text(after, "/process/previous/entity_id");
    assert_eq!(previous, text(before, ENTITY));
    // Both were forked by this test, and have the same start.
    for image in [before, after] {
        let parent = std::process::id().to_string();
        assert_eq!(text(image, "/process/parent/pid"), parent);
    }
    let start = "/process/start";
    assert_eq!(text(before, start), text(after, start));
    let before = records.hash(&text(before, ENTITY));
    assert_eq!(before.sha256, Some(first.sha256));
}

#[test]
fn an_image_of_each_fork() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    for by in ["fork", "vfork"] {
        let stage = Stage::new();
        let app = stage.app.clone();
        let to = listener.address().to_string();
        let program = stage.start(["connect", "--by", by, "--to", &to]);
        let parent = program.pid();
        let acts = program.finish().acts;
        assert_ne!(acts[0].actor.pid, parent);
        let records = stage.end(&acts);
        let record = assert_attributed(&records, &acts[0], &Expected::connect(&app));
        let parent = only_exec(&records, parent);
        assert_ne!(text(record, ENTITY), text(parent, ENTITY));
        assert_eq!(text(record, PARENT), text(parent, ENTITY));
        assert_eq!(
            record.pointer("/procid/ancestry/0").unwrap(),
            parent.pointer(ENTITY).unwrap()
        );
    }
}

/// A child whose parent has ended: the one that forked it remains its parent.
#[test]
fn a_parent_that_has_ended_is_not_its_reaper() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let app = stage.app.clone();
    let script = format!(
        "exec 3<&0; '{}' connect --wait --to {} <&3 &",
        app.path.display(),
        listener.address()
    );
    let mut program = stage.start_file(Path::new("/bin/sh"), ["-c", &script]);
    let shell = program.pid();
    let has_ended = (0..2000).any(|_| {
        thread::sleep(Duration::from_millis(5));
        let stat = fs::read_to_string(format!("/proc/{shell}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().starts_with(" Z")
    });
    assert!(has_ended);
    program.go();
    let acts = program.finish().acts;
    let records = stage.end(&acts);
    let record = assert_attributed(&records, &acts[0], &Expected::connect(&app));
    assert_eq!(text(record, "/process/parent/pid"), shell.to_string());
    let shell = only_exec(&records, shell);
    assert_eq!(text(record, PARENT), text(shell, ENTITY));
}

#[test]
fn an_end_with_its_exit_code() {
    let stage = Stage::new();
    let mut shell = stage.start_file(Path::new("/bin/sh"), ["-c", "read _; exit 7"]);
    let pid = shell.pid();
    shell.go();
    let mut agent = stage.agent;
    let told = agent.until(|records| {
        records.of_action("exit").any(|record| {
            text(record, "/process/pid") == pid.to_string()
                && text(record, "/process/exit_code") == "7"
        })
    });
    drop(shell);
    let records = agent.stop();
    assert!(told, "no exit of {pid} with code 7");
    let exec = only_exec(&records, pid);
    let exits: Vec<_> = records
        .of_action("exit")
        .filter(|record| text(record, ENTITY) == text(exec, ENTITY))
        .collect();
    assert_eq!(exits.len(), 1, "{exits:#?}");
}

/// Agents that never met give one process one name.
#[test]
fn a_name_that_outlives_the_agent() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let cgroup = TestCgroup::new();
    let scratch = Scratch::new();
    let app = scratch.program("app");
    let mut first = Agent::start(&cgroup);
    let to = listener.address().to_string();
    let mut program = Program::start(&cgroup, &app.path, ["connect", "--wait", "--to", &to]);
    let pid = program.pid();
    assert!(first.until(|records| !records.execs(pid).is_empty()));
    let records = first.stop();
    let before = text(only_exec(&records, pid), ENTITY).into_owned();
    let mut second = Agent::start(&cgroup);
    program.go();
    let act = program.act();
    program.finish();
    second.settle(std::slice::from_ref(&act));
    let records = second.stop();
    let told = records.of_act(&act);
    assert_eq!(told.len(), 1);
    assert_eq!(text(told[0], ENTITY), before);
    let hash = records.hash(&before);
    assert_eq!(hash.sha256, Some(app.sha256), "{hash:?}");
}

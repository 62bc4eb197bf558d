//! The script behind an interpreter.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use procid_tests::{
    agent::Agent,
    cgroup::TestCgroup,
    listener,
    program::Program,
    records::{Records, text},
    scratch::{Image, Scratch},
    stage::Stage,
};
use serde_json::Value;

/// Longer than any clock tick: what is run then was not changed in the same.
const SETTLING: Duration = Duration::from_millis(50);
const SHELL: &str = "/bin/bash";

/// A script that can be run, left alone for long enough.
fn script(path: &Path, content: &str) -> Image {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    thread::sleep(SETTLING);
    Image::of(path)
}

/// One that waits for a line, then connects.
fn connector(scratch: &Scratch, to: &listener::Tcp) -> Image {
    let (ip, port) = (to.address().ip(), to.address().port());
    let content = format!("#!{SHELL}\nread\nexec 3<>/dev/tcp/{ip}/{port}\n");
    script(&scratch.path().join("x.sh"), &content)
}

/// Lets the program connect and end; every record of its agent.
fn end(mut stage: Stage, mut program: Program) -> (Records, u32) {
    let pid = program.pid();
    program.go();
    program.finish();
    assert!(stage.agent.until(|records| {
        let mut exits = records.of_action("exit");
        exits.any(|exit| text(exit, "/process/pid") == pid.to_string())
    }));
    (stage.agent.stop(), pid)
}

/// Waits until the script of that process is told of.
fn wait_for_script(agent: &mut Agent, pid: u32) {
    let is_told = agent.until(|records| records.script(pid).is_some());
    assert!(is_told, "no script of process {pid}");
}

fn assert_named(record: &Value, path: &str, file: &Image) {
    assert_eq!(text(record, "/procid/script/path"), path);
    assert_eq!(text(record, "/procid/script/exe/dev"), file.file.dev);
    assert_eq!(text(record, "/procid/script/exe/inode"), file.file.inode);
    assert_eq!(text(record, "/procid/script/hash/grade"), "named");
    assert_eq!(text(record, "/procid/script/hash/sha256"), file.sha256);
}

/// Runs `command`, which connects once told to, and asserts that birth and
/// connection name the script.
fn assert_names(stage: Stage, command: Command, path: &str, file: &Image) {
    let mut stage = stage;
    let program = Program::spawn(&stage.cgroup, command);
    wait_for_script(&mut stage.agent, program.pid());
    let (records, pid) = end(stage, program);
    assert_named(records.script(pid).unwrap(), path, file);
    let mut connects = records.of_action("connect");
    let of_process = |record: &&Value| text(record, "/process/pid") == pid.to_string();
    let connect = connects.find(of_process).unwrap();
    assert_named(connect, path, file);
    // The interpreter stays what the process is.
    let interpreter = fs::canonicalize(SHELL).unwrap();
    let interpreter = interpreter.to_str().unwrap();
    assert_eq!(text(connect, "/process/executable"), interpreter);
    let related = connect.pointer("/related/hash").unwrap();
    let related = related.as_array().unwrap();
    assert!(related.contains(&file.sha256.clone().into()));
}

#[test]
fn a_script_run_by_its_first_line() {
    let to = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let file = connector(&stage.scratch, &to);
    let path = file.path.to_str().unwrap().to_owned();
    assert_names(stage, Command::new(&path), &path, &file);
}

/// Whoever watches the tracepoint first may have the kernel call an agent's
/// second program before its first one.
#[test]
fn a_process_is_told_once_beside_an_older_agent() {
    let to = listener::Tcp::on("127.0.0.1:0");
    let _older = Stage::new();
    let mut stage = Stage::with(&["--args", "none"]);
    let file = connector(&stage.scratch, &to);
    let program = Program::spawn(&stage.cgroup, Command::new(&file.path));
    wait_for_script(&mut stage.agent, program.pid());
    let (records, pid) = end(stage, program);
    assert_named(
        records.script(pid).unwrap(),
        file.path.to_str().unwrap(),
        &file,
    );
    let execs = records.execs(pid);
    assert_eq!(execs.len(), 1, "{execs:#?}");
    assert_eq!(
        text(execs[0], "/process/parent/pid"),
        std::process::id().to_string()
    );
}

/// The kernel tells it: the arguments are not needed, nor are they kept.
#[test]
fn a_script_run_by_its_first_line_without_arguments() {
    let to = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::with(&["--args", "none"]);
    let file = connector(&stage.scratch, &to);
    let path = file.path.to_str().unwrap().to_owned();
    assert_names(stage, Command::new(&path), &path, &file);
}

#[test]
fn a_script_given_to_its_interpreter() {
    let to = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let file = connector(&stage.scratch, &to);
    let path = file.path.to_str().unwrap().to_owned();
    let mut command = Command::new(SHELL);
    command.args(["-eo", "pipefail", "--", &path, "-c"]);
    assert_names(stage, command, &path, &file);
}

#[test]
fn relative_names_start_where_the_process_does() {
    for path in ["x.sh", "inner/../x.sh", "inner/link"] {
        let to = listener::Tcp::on("127.0.0.1:0");
        let stage = Stage::new();
        let file = connector(&stage.scratch, &to);
        let inner = stage.scratch.directory("inner");
        symlink(&file.path, inner.join("link")).unwrap();
        let mut command = Command::new(SHELL);
        command.arg(path).current_dir(stage.scratch.path());
        assert_names(stage, command, path, &file);
    }
}

/// The name is a process's own: what a chroot calls `/x.sh` is not the host's.
#[test]
fn names_stay_inside_the_root_of_the_process() {
    let stage = Stage::new();
    let file = script(&stage.scratch.path().join("x.sh"), "read\n");
    symlink("/x.sh", stage.scratch.path().join("link")).unwrap();
    for mount in ["bin", "lib", "lib64", "usr"] {
        stage.scratch.directory(mount);
    }
    // In a mount namespace of its own: nothing is left behind.
    let inside = format!(
        "mount --make-rprivate / && cd '{}' && for d in bin lib lib64 usr; do \
         mount --bind -o ro /$d $d; done && exec chroot . {SHELL} /link",
        stage.scratch.path().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", SHELL, "-c", &inside]);
    let mut stage = stage;
    let program = Program::spawn(&stage.cgroup, command);
    wait_for_script(&mut stage.agent, program.pid());
    let (records, pid) = end(stage, program);
    assert_named(records.script(pid).unwrap(), "/link", &file);
}

/// The script is what was asked for; the interpreter of its interpreter runs.
#[test]
fn a_script_whose_interpreter_is_a_script() {
    let to = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let inner = connector(&stage.scratch, &to);
    let content = format!("#!{}\n", inner.path.display());
    let outer = script(&stage.scratch.path().join("outer"), &content);
    let path = outer.path.to_str().unwrap().to_owned();
    assert_names(stage, Command::new(&path), &path, &outer);
}

#[test]
fn a_script_replaced_while_it_runs_stays_what_it_was() {
    let to = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let old = connector(&stage.scratch, &to);
    let new = script(&stage.scratch.path().join("new.sh"), "exit\n");
    let program = Program::spawn(&stage.cgroup, Command::new(&old.path));
    wait_for_script(&mut stage.agent, program.pid());
    fs::rename(&new.path, &old.path).unwrap();
    let (records, pid) = end(stage, program);
    let mut connects = records.of_action("connect");
    let connect = connects.find(|record| text(record, "/process/pid") == pid.to_string());
    assert_named(connect.unwrap(), old.path.to_str().unwrap(), &old);
}

/// Nobody saw what the interpreter read: it was replaced since.
#[test]
fn a_script_replaced_before_the_agent_looked_is_not_claimed() {
    let to = listener::Tcp::on("127.0.0.1:0");
    let scratch = Scratch::new();
    let cgroup = TestCgroup::new();
    let old = connector(&scratch, &to);
    let program = Program::spawn(&cgroup, Command::new(&old.path));
    thread::sleep(SETTLING);
    let new = script(&scratch.path().join("new.sh"), "exit\n");
    fs::rename(&new.path, &old.path).unwrap();
    let mut agent = Agent::start(&cgroup);
    wait_for_script(&mut agent, program.pid());
    let pid = program.pid().to_string();
    drop(program);
    let records = agent.stop();
    let of_process = |record: &&Value| {
        text(record, "/process/pid") == pid && record.pointer("/procid/script").is_some()
    };
    for record in records.all().iter().filter(of_process) {
        assert!(record.pointer("/procid/script/hash/sha256").is_none());
        let reason = text(record, "/procid/script/hash/reason");
        assert!(["changed", "pending"].contains(&&*reason), "{reason}");
    }
}

/// The hash that a record gives is right, or the reason for none is true.
#[test]
fn a_script_that_deletes_itself() {
    let mut stage = Stage::new();
    let mut files = Vec::new();
    for number in 0..5 {
        let path = stage.scratch.path().join(format!("{number}.sh"));
        let file = script(&path, &format!("#!{SHELL}\nrm \"$0\"\n"));
        let program = Program::spawn(&stage.cgroup, Command::new(&file.path));
        let pid = program.pid();
        program.finish();
        wait_for_script(&mut stage.agent, pid);
        files.push((pid, file));
    }
    let records = stage.agent.stop();
    for (pid, file) in files {
        let told = records.script(pid).unwrap();
        assert_eq!(
            text(told, "/procid/script/path"),
            file.path.to_str().unwrap()
        );
        match &*text(told, "/procid/script/hash/grade") {
            "named" => assert_named(told, file.path.to_str().unwrap(), &file),
            _ => {
                let reason = text(told, "/procid/script/hash/reason");
                assert!(["gone", "changed"].contains(&&*reason), "{reason}");
            }
        }
    }
}

#[test]
fn what_is_no_script_names_none() {
    let mut stage = Stage::new();
    let file = script(&stage.scratch.path().join("x.sh"), "exit\n");
    let path = file.path.to_str().unwrap().to_owned();
    let mut pids = Vec::new();
    for arguments in [["-c", ":", &path], ["-s", "--", &path]] {
        let mut command = Command::new(SHELL);
        command.args(arguments);
        let program = Program::spawn(&stage.cgroup, command);
        pids.push(program.pid());
        program.finish();
    }
    let pid = *pids.last().unwrap();
    assert!(stage.agent.until(|records| {
        let mut exits = records.of_action("exit");
        exits.any(|exit| text(exit, "/process/pid") == pid.to_string())
    }));
    let records = stage.agent.stop();
    for pid in pids {
        let birth = *records.execs(pid).last().unwrap();
        assert_eq!(birth.pointer("/procid/script"), None, "{birth}");
        assert!(Path::new(&*text(birth, "/process/executable")).is_absolute());
    }
}

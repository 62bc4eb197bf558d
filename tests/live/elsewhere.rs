//! Actors in other user, pid, network and mount namespaces, and other users.

use procid_tests::{
    attribution::{Expected, assert_attributed, assert_executable},
    listener,
    program::Program,
    records::text,
    scratch::Image,
    stage::Stage,
    truth::Act,
};

/// Connects from where `place` leads, and checks all but what is `place`'s own.
fn from(place: &[&str], uid: u32) {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let app = stage.app.clone();
    let to = listener.address().to_string();
    let path = app.path.to_str().unwrap();
    let program = ["--", path, "connect", "--to", &to];
    let acts = stage.run([&["enter"], place, &program].concat());
    let records = stage.end(&acts);
    let expected = Expected {
        uid,
        ..Expected::connect(&app)
    };
    assert_attributed(&records, &acts[0], &expected);
    assert_eq!(listener.peers(1).len(), 1);
}

#[test]
fn another_user() {
    from(&["--uid", "65534"], 65534);
}

/// Its root is nobody outside.
#[test]
fn a_user_namespace() {
    from(&["--uid", "65534", "--user-ns"], 65534);
}

#[test]
fn a_mount_namespace() {
    from(&["--mount-ns"], 0);
}

#[test]
fn a_pid_namespace() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let app = stage.app.clone();
    let to = listener.address().to_string();
    let path = app.path.to_str().unwrap();
    let acts = stage.run(["enter", "--pid-ns", "--", path, "connect", "--to", &to]);
    assert_eq!(acts[0].actor.vpid, 1);
    assert_ne!(acts[0].actor.pid, 1);
    let records = stage.end(&acts);
    assert_attributed(&records, &acts[0], &Expected::connect(&app));
}

#[test]
fn a_network_namespace() {
    let stage = Stage::new();
    let app = stage.app.clone();
    let path = app.path.to_str().unwrap();
    let place = ["enter", "--net-ns", "--loopback", "--", path];
    let connect = ["connect", "--to", "127.0.0.1:0", "--listen"];
    let acts = stage.run([&place[..], &connect].concat());
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let theirs = acts[0].actor.netns;
    assert_ne!(own.to_str().unwrap(), format!("net:[{theirs}]"));
    let records = stage.end(&acts);
    assert_attributed(&records, &acts[0], &Expected::connect(&app));
}

/// Lets a program that holds its connection go once its file has been read:
/// with its mount namespace, the way to the file would be gone.
fn hashed(stage: &mut Stage, mut program: Program) -> Act {
    let act = program.act();
    stage.wait_for_hash(act.actor.pid, &act.actor.exe);
    program.finish();
    act
}

/// The same path names one file on the host and another one inside.
#[test]
fn another_root_with_another_file_at_the_same_path() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let outside = stage.scratch.directory("shared");
    let inside = stage.scratch.directory("inside");
    let root = stage.scratch.directory("root");
    let decoy = Image::copy_to(&outside.join("app"));
    let real = Image::copy_to(&inside.join("app"));
    assert_ne!(decoy.sha256, real.sha256);
    let bind = format!("{}:{}", inside.display(), outside.display());
    let to = listener.address().to_string();
    let program = stage.start([
        "enter",
        "--root",
        root.to_str().unwrap(),
        "--bind",
        &bind,
        "--",
        decoy.path.to_str().unwrap(),
        "connect",
        "--hold",
        "--to",
        &to,
    ]);
    let acts = [hashed(&mut stage, program)];
    let records = stage.end(&acts);
    let record = assert_attributed(&records, &acts[0], &Expected::connect(&real));
    // As it is called where it ran.
    assert_executable(record, &decoy.path);
}

#[test]
fn a_file_mounted_over_another() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let decoy = stage.scratch.program("decoy");
    let real = stage.scratch.program("real");
    let bind = format!("{}:{}", real.path.display(), decoy.path.display());
    let to = listener.address().to_string();
    let path = decoy.path.to_str().unwrap();
    let place = ["enter", "--bind", &bind, "--", path];
    let program = stage.start([&place[..], &["connect", "--hold", "--to", &to]].concat());
    let acts = [hashed(&mut stage, program)];
    let records = stage.end(&acts);
    let record = assert_attributed(&records, &acts[0], &Expected::connect(&real));
    assert_eq!(text(record, "/process/executable"), path);
}

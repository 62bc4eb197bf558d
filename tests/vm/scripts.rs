//! The LSM hook sees the inode of a script, so that its hash is proven.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use procid_tests::{records::text, scratch::Image, stage::Stage};

#[test]
fn a_script_that_the_kernel_saw_is_verified() {
    let mut stage = Stage::new();
    let path = stage.scratch.path().join("x.sh");
    // The test program makes nothing of it, which is no matter here.
    fs::write(&path, format!("#!{}\n", stage.app.path.display())).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    thread::sleep(Duration::from_millis(50));
    let file = Image::of(&path);
    let mut child = Command::new(&path).stderr(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    assert!(stage.agent.until(|records| {
        let mut exits = records.of_action("exit");
        let is_over = exits.any(|exit| text(exit, "/process/pid") == pid.to_string());
        is_over && records.script(pid).is_some()
    }));
    let records = stage.agent.stop();
    let told = records.script(pid).unwrap();
    assert_eq!(
        text(told, "/procid/script/path"),
        file.path.to_str().unwrap()
    );
    assert_eq!(text(told, "/procid/script/exe/inode"), file.file.inode);
    assert_eq!(text(told, "/procid/script/hash/grade"), "verified");
    assert_eq!(text(told, "/procid/script/hash/sha256"), file.sha256);
    assert_eq!(
        text(told, "/process/executable"),
        stage.app.path.to_str().unwrap()
    );
}

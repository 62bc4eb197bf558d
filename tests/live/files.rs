//! The file that ran, whatever its path says by now.

use std::{
    ffi::OsString,
    fs::{self, File, FileTimes},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::Duration,
};

use procid_tests::{
    attribution::{Expected, assert_attributed, assert_told_once},
    listener,
    records::{Records, text},
    scratch::Image,
    stage::Stage,
    truth::{Act, FileId},
};

/// Longer than any clock tick: a file left alone for so long cannot have been
/// rewritten unseen.
const SETTLING: Duration = Duration::from_millis(50);

#[test]
fn a_program_whose_file_was_deleted() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let app = stage.app.clone();
    let to = listener.address().to_string();
    let mut program = stage.start(["connect", "--wait", "--to", &to]);
    stage.wait_for_hash(program.pid(), &app.file);
    fs::remove_file(&app.path).unwrap();
    program.go();
    let acts = program.finish().acts;
    let records = stage.end(&acts);
    assert_attributed(&records, &acts[0], &Expected::connect(&app));
}

#[test]
fn a_program_whose_file_was_renamed_over() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let old = stage.app.clone();
    let new = stage.scratch.program("new");
    let to = listener.address().to_string();
    let mut program = stage.start(["connect", "--wait", "--to", &to]);
    stage.wait_for_hash(program.pid(), &old.file);
    fs::rename(&new.path, &old.path).unwrap();
    thread::sleep(SETTLING);
    program.go();
    let mut acts = program.finish().acts;
    acts.extend(stage.run(["connect", "--to", &to]));
    let records = stage.end(&acts);
    assert_attributed(&records, &acts[0], &Expected::connect(&old));
    assert_attributed(&records, &acts[1], &Expected::connect(&new));
}

/// Size, inode and mtime stay: only the ctime tells.
#[test]
fn a_file_rewritten_in_place_with_its_mtime_restored() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let old = stage.app.clone();
    thread::sleep(SETTLING);
    let to = listener.address().to_string();
    let mut acts = stage.run(["connect", "--to", &to]);
    stage.agent.settle(&acts);
    let before = fs::metadata(&old.path).unwrap();
    let file = File::options().write(true).open(&old.path).unwrap();
    file.write_all_at(b"rewritten", before.len() - 9).unwrap();
    file.set_times(FileTimes::new().set_modified(before.modified().unwrap()))
        .unwrap();
    drop(file);
    thread::sleep(SETTLING);
    let new = Image::of(&old.path);
    let after = fs::metadata(&old.path).unwrap();
    assert_eq!(new.file, old.file);
    assert_eq!(
        (after.len(), after.modified().unwrap()),
        (before.len(), before.modified().unwrap())
    );
    assert_ne!(new.sha256, old.sha256);
    acts.extend(stage.run(["connect", "--to", &to]));
    let records = stage.end(&acts);
    assert_attributed(&records, &acts[0], &Expected::connect(&old));
    assert_attributed(&records, &acts[1], &Expected::connect(&new));
}

#[test]
fn a_program_without_a_name_in_any_file_system() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let to = listener.address().to_string();
    let copy = ["memfd", "--", "copy", "connect", "--hold", "--to", &to];
    let mut program = stage.start(copy);
    let act = program.act();
    let exe = format!("/proc/{}/exe", act.actor.pid);
    let image = Image {
        file: FileId::of(Path::new(&exe)).unwrap(),
        ..stage.app.clone()
    };
    stage.wait_for_hash(act.actor.pid, &image.file);
    program.finish();
    let records = stage.end(std::slice::from_ref(&act));
    let record = assert_attributed(&records, &act, &Expected::connect(&image));
    let flags = record.pointer("/procid/flags").unwrap();
    assert!(
        flags.as_array().unwrap().contains(&"memfd".into()),
        "{flags}"
    );
}

/// What the kernel runs is the loader; the program is its argument.
#[test]
fn a_program_given_to_the_dynamic_loader() {
    const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let loader = LOADERS.iter().map(Path::new).find(|path| path.exists());
    let loader = Image::of(loader.expect("a loader of an architecture that procid knows"));
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let to = listener.address().to_string();
    let program = stage.app.path.to_str().unwrap().to_owned();
    let arguments = [&program, "connect", "--to", &to];
    let acts = stage.start_file(&loader.path, arguments).finish().acts;
    let records = stage.end(&acts);
    let record = assert_attributed(&records, &acts[0], &Expected::connect(&loader));
    assert_eq!(record.pointer("/process/args/1").unwrap(), &*program);
}

/// A process of a few milliseconds has ended before its file can be read.
#[test]
fn a_short_life_on_a_file_never_seen_before() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let app = stage.app.clone();
    thread::sleep(SETTLING);
    let to = listener.address().to_string();
    let mut acts = Vec::new();
    for _ in 0..2 {
        acts.extend(stage.run(["connect", "--to", &to]));
    }
    let records = stage.end(&acts);
    for act in &acts {
        assert_attributed(&records, act, &Expected::connect(&app));
    }
}

/// The file is gone before anything can be read of it: the hash that a record
/// gives is right, or the reason for giving none is true.
#[test]
fn a_short_life_on_a_file_deleted_at_once() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let to = listener.address().to_string();
    let script = |app: &Path| -> [OsString; 2] {
        let app = app.display();
        let script = format!("('{app}' connect --to {to}; rm '{app}')");
        ["-c".into(), script.into()]
    };
    let mut acts = Vec::new();
    let mut apps = Vec::new();
    for number in 0..10 {
        let app = stage.scratch.program(format!("app-{number}"));
        let report = stage.start_file(Path::new("/bin/sh"), script(&app.path));
        acts.extend(report.finish().acts);
        apps.push(app);
    }
    let records = stage.end(&acts);
    for (act, app) in acts.iter().zip(&apps) {
        assert_told_once(&records, act, &Expected::connect(app));
        assert_hash_or(&records, act, app, &["gone", "changed", "unsettled"]);
    }
}

/// Asserts that the hash told is the file's, or that there is none for one of
/// `reasons`.
fn assert_hash_or(records: &Records, act: &Act, image: &Image, reasons: &[&str]) {
    let record = records.of_act(act)[0];
    let hash = records.hash(&text(record, "/process/entity_id"));
    match &hash.sha256 {
        Some(sha256) => assert_eq!(sha256, &image.sha256, "{hash:?}"),
        None => {
            assert_eq!(hash.grade, "none");
            assert!(reasons.contains(&&*hash.reason), "{hash:?}");
        }
    }
}

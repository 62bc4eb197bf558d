//! The file, found in every state.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use super::*;
use crate::history::{
    Reader,
    fixtures::{Kept, reader, run},
    reader::ReadError,
};
use crate::identity::context::Context;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_new_file_is_its_owners_alone_and_of_this_version() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = Kept::begin(directory.path(), &run("first", 5));
    kept.write([], 10);
    for name in names(directory.path()) {
        let mode = fs::metadata(directory.path().join(&name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let runs = reader(directory.path()).runs().unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].seen_ns, 10);
    assert_eq!(runs[0].run.agent.ephemeral_id.as_deref(), Some("first"));
}

#[test]
fn a_second_writer_is_refused_and_a_later_one_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let kept = Kept::begin(directory.path(), &run("first", 5));
    assert!(matches!(open(directory.path()), Err(FileError::Taken(_))));
    drop(kept);
    drop(Kept::begin(directory.path(), &run("second", 7)));
    let runs = reader(directory.path()).runs().unwrap();
    let names: Vec<_> = runs
        .iter()
        .map(|run| run.run.agent.ephemeral_id.clone().unwrap())
        .collect();
    assert_eq!(names, ["first", "second"]);
}

#[test]
fn a_newer_file_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    drop(Kept::begin(directory.path(), &run("first", 5)));
    let path = directory.path().join(FILE);
    let newer = VERSION + 1;
    Database::open(&path)
        .unwrap()
        .execute_batch(&format!("PRAGMA user_version = {newer}"))
        .unwrap();
    let before = fs::read(&path).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, FileError::Newer { .. }), "{error}");
    assert!(error.to_string().contains("was written by a newer procid"));
    assert!(matches!(
        Reader::open(directory.path()),
        Err(ReadError::Newer { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_damaged_file_is_set_aside_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let mut kept = Kept::begin(directory.path(), &run("first", 5));
    kept.write([], 10);
    drop(kept);
    let mut torn = fs::read(&path).unwrap();
    for byte in &mut torn[4096..] {
        *byte = 0xa5;
    }
    for content in [b"not a database, but long enough to look".to_vec(), torn] {
        fs::write(&path, &content).unwrap();
        let opened = open(directory.path()).unwrap();
        let gap = opened.gap.unwrap();
        assert_eq!((gap.cause.as_str(), gap.from), (DAMAGED, None));
        drop(opened.database);
        drop(opened.lock);
        let aside: Vec<_> = names(directory.path())
            .into_iter()
            .filter(|name| name.contains(".damaged-"))
            .filter(|name| fs::read(directory.path().join(name)).unwrap() == content)
            .collect();
        assert_eq!(aside.len(), 1, "{:?}", names(directory.path()));
        assert_eq!(reader(directory.path()).runs().unwrap().len(), 0);
    }
}

/// Each version that ever was becomes this one, and is then like a new file.
#[test]
fn every_version_becomes_this_one() {
    let schema = |database: &Database| -> Vec<String> {
        database
            .prepare("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    let directory = tempfile::tempdir().unwrap();
    drop(Kept::begin(directory.path(), &run("new", 5)));
    let new = schema(&Database::open(directory.path().join(FILE)).unwrap());
    for version in 0..=VERSION {
        let directory = tempfile::tempdir().unwrap();
        let old = Database::open(directory.path().join(FILE)).unwrap();
        for text in &MIGRATIONS[..version] {
            old.execute_batch(text).unwrap();
        }
        if version == VERSION {
            old.execute_batch(VIEWS).unwrap();
        }
        old.pragma_update(None, "user_version", i64::try_from(version).unwrap())
            .unwrap();
        drop(old);
        let opened = open(directory.path()).unwrap();
        assert_eq!(schema(&opened.database), new, "from version {version}");
        assert!(opened.gap.is_none());
    }
}

/// What the first version wrote, as it was written: it is never edited.
#[test]
fn the_first_version_is_still_read() {
    let directory = tempfile::tempdir().unwrap();
    let old = Database::open(directory.path().join(FILE)).unwrap();
    old.execute_batch(include_str!("version-1.sql")).unwrap();
    drop(old);
    let before = fs::read(directory.path().join(FILE)).unwrap();
    // Without an agent, a copy is read.
    first_version(&reader(directory.path()));
    assert_eq!(fs::read(directory.path().join(FILE)).unwrap(), before);
    drop(open(directory.path()).unwrap());
    first_version(&reader(directory.path()));
}

fn first_version(reader: &Reader) {
    let runs = reader.runs().unwrap();
    let names: Vec<_> = runs
        .iter()
        .map(|run| run.run.agent.ephemeral_id.clone())
        .collect();
    assert_eq!(names, [Some("first".to_owned())]);
    let flow = reader.flow(1).unwrap().unwrap();
    assert_eq!(flow.key.to_string(), "9.1");
    assert_eq!(flow.connection.destination_port(), Some(443));
    assert_eq!(flow.within.context.as_deref(), Some(&Context::default()));
    assert_eq!(flow.within.user, None);
    let image = reader
        .image(flow.images[0])
        .unwrap()
        .unwrap()
        .image
        .unwrap();
    assert_eq!(image.path.as_deref(), Some(&b"/usr/bin/cu\x1brl"[..]));
    assert_eq!(
        image.args.as_deref(),
        Some(&[b"curl".to_vec(), b"a b\n".to_vec()][..])
    );
    assert_eq!(image.parent.map(|parent| parent.tgid), Some(5));
    let text: String = reader
        .database
        .query_row(
            "SELECT source || ' ' || destination || ' ' || executable || ' ' || start \
             FROM connections",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(
        text,
        "10.0.0.5 10.0.0.7 /usr/bin/cu\\x1brl 2023-11-14T22:13:20.000Z"
    );
}

#[test]
fn a_copy_is_read_with_its_log_and_without() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = Kept::begin(directory.path(), &run("first", 5));
    kept.write([], 10);
    // The agent was killed here: the batch is in the log alone.
    let copy = tempfile::tempdir().unwrap();
    for name in [FILE, "history.sqlite3-wal"] {
        fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
    }
    assert_eq!(reader(copy.path()).runs().unwrap()[0].seen_ns, 10);

    drop(kept);
    let copy = tempfile::tempdir().unwrap();
    fs::copy(directory.path().join(FILE), copy.path().join(FILE)).unwrap();
    assert_eq!(reader(copy.path()).runs().unwrap()[0].seen_ns, 10);
    // Reading has left no trace.
    assert_eq!(names(copy.path()), [FILE]);
    assert!(matches!(
        Reader::open(&copy.path().join("nowhere")),
        Err(ReadError::Nothing(_))
    ));
    fs::write(copy.path().join(FILE), "").unwrap();
    assert!(matches!(
        Reader::open(copy.path()),
        Err(ReadError::Foreign(_))
    ));
}

#[test]
fn what_is_old_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = Kept::begin(directory.path(), &run("first", 5));
    kept.write_gap(Gap {
        from: Some(1),
        to: 2,
        count: Some(3),
        cause: "disk-full".to_owned(),
    });
    kept.bound(1 << 30, Duration::from_secs(3600));
    drop(kept);
    let missing = reader(directory.path()).missing().unwrap();
    assert_eq!(missing.removed_until, None);
}

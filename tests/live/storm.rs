//! Many short-lived processes: none lost, none doubled, none given to another.

use std::collections::{HashMap, HashSet};

use procid_tests::{
    listener,
    records::{Records, file_of, text},
    scratch::Image,
    stage::Stage,
    truth::{Act, FileId},
};
use serde_json::Value;

const PROCESSES: usize = 10_000;
const PARALLEL: usize = 200;
/// Files to run and listeners to connect to, in turn; coprime, so that each
/// file meets each listener.
const FILES: usize = 8;
const LISTENERS: usize = 3;

#[test]
fn ten_thousand_processes() {
    let listeners: Vec<_> = (0..LISTENERS)
        .map(|_| listener::Tcp::on("127.0.0.1:0"))
        .collect();
    let stage = Stage::new();
    let files: Vec<_> = (0..FILES)
        .map(|number| stage.scratch.program(format!("app-{number}")))
        .collect();
    let (processes, parallel) = (PROCESSES.to_string(), PARALLEL.to_string());
    let mut arguments = vec!["storm".to_owned()];
    for (flag, value) in [("--processes", &processes), ("--parallel", &parallel)] {
        arguments.extend([flag.to_owned(), value.clone()]);
    }
    for file in &files {
        arguments.extend(["--exe".to_owned(), file.path.display().to_string()]);
    }
    for listener in &listeners {
        arguments.extend(["--to".to_owned(), listener.address().to_string()]);
    }
    let storm = stage.start(arguments);
    let parent = storm.pid();
    let acts = storm.finish().acts;
    assert_eq!(acts.len(), PROCESSES);
    for listener in &listeners {
        let to = |act: &&Act| act.destination == listener.address();
        let mut sources: Vec<_> = acts
            .iter()
            .filter(to)
            .filter_map(|act| act.source)
            .collect();
        let mut peers = listener.peers(sources.len());
        sources.sort();
        peers.sort();
        assert_eq!(sources, peers);
    }

    let last = acts.last().cloned().into_iter().collect::<Vec<_>>();
    let records = stage.end(&last);
    assert_eq!(records.lost(), 0);
    let by_file: HashMap<&FileId, &Image> = files.iter().map(|file| (&file.file, file)).collect();
    let mut told = of_storm(records.of_action("connect"), &by_file);
    let closes = of_storm(records.of_action("close"), &by_file);
    let execs: HashMap<_, _> = records
        .of_action("exec")
        .map(|record| (text(record, "/process/entity_id"), record))
        .collect();
    let mut flows = HashSet::new();
    let mut entities = HashSet::new();
    for act in &acts {
        let key = key_of(act);
        let record = match told.remove(&key).as_deref() {
            Some(&[record]) => record,
            _ => panic!("not one: {}", all_of(&records, act)),
        };
        let ends = closes.get(&key).map_or(0, Vec::len);
        assert_eq!(ends, 1, "{}", all_of(&records, act));
        let image = by_file[&act.actor.exe];
        assert_eq!(file_of(record), act.actor.exe, "{record}");
        let port = act.destination.port().to_string();
        assert_eq!(text(record, "/destination/port"), port);
        assert_eq!(text(record, "/event/outcome"), "success");
        let entity = text(record, "/process/entity_id");
        let hash = records.hash(&entity);
        assert_eq!(
            hash.sha256.as_ref(),
            Some(&image.sha256),
            "{hash:?} {record}"
        );
        // Its own image, born in its own process from its own file, by exec.
        let exec = execs[&entity];
        assert_eq!(text(exec, "/process/pid"), act.actor.pid.to_string());
        assert_eq!(file_of(exec), act.actor.exe);
        assert_eq!(text(exec, "/process/parent/pid"), parent.to_string());
        assert!(flows.insert(text(record, "/procid/flow_id")), "{record}");
        assert!(entities.insert(entity), "two connections of one image");
    }
    assert!(told.is_empty(), "connections that nobody made: {told:#?}");
}

/// All that was told of an act's process or port, to explain a failure.
fn all_of(records: &Records, act: &Act) -> String {
    let mut told = format!("{act:?}");
    let (pid, port) = key_of(act);
    for record in records.all() {
        if text(record, "/process/pid") == pid || text(record, "/source/port") == port {
            told.push('\n');
            told.push_str(&record.to_string());
        }
    }
    told
}

/// The pid and the source port of a connection.
type Key = (String, String);

fn key_of(act: &Act) -> Key {
    let source = act.source.expect("a connection has a source");
    (act.actor.pid.to_string(), source.port().to_string())
}

/// Connections of the storm's files, by their key.
fn of_storm<'a>(
    records: impl Iterator<Item = &'a Value>,
    files: &HashMap<&FileId, &Image>,
) -> HashMap<Key, Vec<&'a Value>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for record in records {
        if files.contains_key(&file_of(record)) {
            let pid = text(record, "/process/pid").into_owned();
            let port = text(record, "/source/port").into_owned();
            found.entry((pid, port)).or_default().push(record);
        }
    }
    found
}

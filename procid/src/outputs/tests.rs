use std::{collections::BTreeMap, os::unix::net::UnixDatagram};

use super::*;
use crate::records::Procid;

fn numbered(sequence: u64) -> Record {
    Record {
        event: Some(crate::records::Event {
            sequence: Some(sequence),
            ..crate::records::Event::default()
        }),
        ..Record::default()
    }
}

fn loss(lost: Vec<(String, u64)>) -> Record {
    Record {
        procid: Some(Box::new(Procid {
            lost: Some(BTreeMap::from_iter(lost)),
            ..Procid::default()
        })),
        ..Record::default()
    }
}

fn specs(texts: &[String]) -> Vec<Spec> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn every_output_gets_every_record() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let socket = UnixDatagram::bind(at("journal")).unwrap();
    let texts = [
        format!("file:{}", at("one").display()),
        format!("journald:{}", at("journal").display()),
        format!("file:{}", at("two").display()),
    ];
    let outputs = open(&specs(&texts)).unwrap().start().unwrap();
    for sequence in 1..=3 {
        outputs.put(&numbered(sequence)).unwrap();
    }
    outputs.wake();
    outputs.finish();
    for name in ["one", "two"] {
        let text = std::fs::read_to_string(at(name)).unwrap();
        let numbers: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<Record>(line).unwrap())
            .map(|record| record.event.unwrap().sequence.unwrap())
            .collect();
        assert_eq!(numbers, [1, 2, 3], "{name}");
    }
    let mut buffer = vec![0; 8192];
    for sequence in 1..=3 {
        let length = socket.recv(&mut buffer).unwrap();
        let entry = String::from_utf8_lossy(&buffer[..length]);
        assert!(
            entry.contains(&format!("\nPROCID_SEQUENCE={sequence}\n")),
            "{entry}"
        );
    }
    let standings = outputs.standings();
    let names: Vec<_> = standings.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["file", "journald", "file2"]);
    assert!(
        standings
            .iter()
            .all(|it| it.fate.written == 3 && it.fate.lost.is_empty())
    );
}

/// One output takes nothing: the other is complete, and what the first has lost
/// is told once it can be read there.
#[test]
fn what_an_output_lost_is_told_in_its_own_stream() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let texts = [
        format!("journald:{}", at("nobody").display()),
        format!("file:{}", at("file").display()),
    ];
    let outputs = open(&specs(&texts)).unwrap().start().unwrap();
    let mut large = numbered(1);
    large.timestamp = "x".repeat(1 << 20);
    let mut put = 0;
    while outputs.losses().is_empty() {
        outputs.put(&large).unwrap();
        outputs.wake();
        put += 1;
        assert!(put < 1000);
        // The file is written meanwhile, however slow this machine is.
        while outputs.standings()[1].fate.written < put {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(outputs.losses(), [("output-journald-full".to_owned(), 1)]);
    let told = loss(outputs.losses());
    outputs.put(&told).unwrap();
    assert!(outputs.losses().is_empty(), "it is told, and not read yet");
    // What another has lost has no room here.
    let mut other = loss(vec![("output-journald2-full".to_owned(), 1)]);
    other.timestamp.clone_from(&large.timestamp);
    let before = outputs.standings()[0].fate.waiting;
    outputs.put(&other).unwrap();
    let standing = &outputs.standings()[0];
    assert_eq!(standing.fate.waiting, before);
    assert_eq!(standing.fate.lost["full"], 2);
    assert!(outputs.0[0].is_told_by(&told) && !outputs.0[1].is_told_by(&told));
    // Whatever waits is given up at the end, at once in this test.
    outputs.0[0].queue.close(Instant::now());
    assert!(
        outputs.0[0]
            .queue
            .wait_for_end(Instant::now() + Duration::from_secs(60))
    );
    outputs.finish();
    assert_eq!(outputs.standings()[0].fate.lost["unsent"], before);
}

#[test]
fn a_file_that_cannot_be_opened_is_said_at_once() {
    let specs = specs(&["file:/proc/none/records".to_owned()]);
    let said = open(&specs).unwrap_err().to_string();
    assert!(
        said.starts_with("cannot open /proc/none/records: "),
        "{said}"
    );
}

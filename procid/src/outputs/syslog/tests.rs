use std::net::UdpSocket;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::records::{self, Process, Record};

fn record(executable: &str, host: &str) -> Record {
    Record {
        timestamp: "2026-11-22T15:04:05.123456789Z".to_owned(),
        event: Some(records::Event {
            action: "connect".to_owned(),
            sequence: Some(4711),
            ..records::Event::default()
        }),
        host: Some(records::Host {
            name: Some(host.to_owned()),
            ..records::Host::default()
        }),
        process: Some(Box::new(Process {
            entity_id: Some("e".to_owned()),
            executable: Some(executable.to_owned()),
            args: Some(vec![executable.to_owned()]),
            ..Process::default()
        })),
        procid: Some(Box::new(records::Procid {
            verdict: Some("deny".to_owned()),
            ..records::Procid::default()
        })),
        ..Record::default()
    }
}

fn line(record: &Record) -> Line {
    let mut line = serde_json::to_vec(record).unwrap();
    line.push(b'\n');
    line.into()
}

/// The parts of a message, read as the RFC's grammar says.
struct Parsed {
    priority: u8,
    time: String,
    host: String,
    id: String,
    data: String,
    json: Value,
}

fn parsed(message: &str) -> Parsed {
    let (priority, rest) = message.strip_prefix('<').unwrap().split_once('>').unwrap();
    let rest = rest.strip_prefix("1 ").unwrap();
    let mut words = rest.splitn(6, ' ');
    let mut word = || words.next().unwrap().to_owned();
    let (time, host, app, own, id) = (word(), word(), word(), word(), word());
    assert_eq!(app, "procid");
    assert_eq!(own, std::process::id().to_string());
    let rest = word();
    let (data, json) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once("] ").unwrap(),
        None => ("", rest.strip_prefix("- ").unwrap()),
    };
    Parsed {
        priority: priority.parse().unwrap(),
        time,
        host,
        id,
        data: data.to_owned(),
        json: serde_json::from_str(json).unwrap(),
    }
}

#[test]
fn a_record_is_a_message() {
    let record = record("/usr/bin/grün", "web-3");
    let (message, is_shortened) = message(&line(&record), 8192).unwrap();
    assert!(!is_shortened);
    let parsed = parsed(&message);
    assert_eq!(parsed.priority, 10 * 8 + 4);
    assert_eq!(parsed.time, "2026-11-22T15:04:05.123456Z");
    assert_eq!((&*parsed.host, &*parsed.id), ("web-3", "connect"));
    assert_eq!(parsed.data, "meta sequenceId=\"4711\"");
    assert_eq!(parsed.json, serde_json::to_value(&record).unwrap());
    assert!(message.contains("gr\\u00fcn"));
}

#[test]
fn numbers_begin_anew_where_the_standard_ends() {
    let number = |sequence| {
        let head = Head {
            event: Event {
                sequence,
                ..Event::default()
            },
            ..Head::default()
        };
        let header = header(&head);
        header
            .split_once('"')
            .map(|(_, rest)| rest.split_once('"').unwrap().0.to_owned())
    };
    assert_eq!(number(Some(SEQUENCE_MAX)).as_deref(), Some("2147483647"));
    assert_eq!(number(Some(SEQUENCE_MAX + 1)).as_deref(), Some("1"));
    assert_eq!(number(None), None);
}

#[test]
fn what_is_no_record_is_lost_and_said_so() {
    assert_eq!(message(b"no record\n", 8192), Err(UNREADABLE));
    assert_eq!(message(b"\xff\n", 8192), Err(UNREADABLE));
    let record = record("/x", "h");
    assert_eq!(message(&line(&record), 100), Err(TOO_LONG));
}

#[test]
fn a_refused_message_is_no_longer_one_that_was_written() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = receiver.local_addr().unwrap();
    let line = line(&record("/x", "h"));
    let mut syslog = Syslog::to(Receiver::Udp(address), 8192);
    let mut tally = Tally::default();
    syslog
        .write(std::slice::from_ref(&line), &mut tally)
        .unwrap();
    let mut buffer = vec![0; 8192];
    let length = receiver.recv(&mut buffer).unwrap();
    parsed(std::str::from_utf8(&buffer[..length]).unwrap());
    drop(receiver);
    let lines = [Line::clone(&line), line];
    let failure = syslog.write(&lines, &mut tally).unwrap_err();
    assert!(
        failure
            .to_string()
            .starts_with(&format!("cannot send to {address}"))
    );
    assert_eq!((tally.written, tally.refused), (2, 1));
}

proptest! {
    /// Whatever a process calls itself: one line, of the length allowed, with
    /// the header's words where they belong.
    #[test]
    fn no_name_leaves_its_place(
        executable in "(.|\n|\\]|\"|<0>1 ){0,400}",
        host in "(.|\n| ){0,300}",
        max in 2048_usize..4096,
    ) {
        let record = record(&executable, &host);
        let whole = serde_json::to_value(&record).unwrap();
        let (message, is_shortened) = message(&line(&record), max).unwrap();
        prop_assert!(message.len() <= max);
        prop_assert!(message.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
        let parsed = parsed(&message);
        prop_assert_eq!(&parsed.id, "connect");
        prop_assert!(!parsed.host.is_empty() && parsed.host.len() <= HOST_MAX);
        prop_assert_eq!(&parsed.data, "meta sequenceId=\"4711\"");
        if is_shortened {
            prop_assert_eq!(&parsed.json["process"]["entity_id"], "e");
            prop_assert!(parsed.json.pointer("/procid/unknown/process.args").is_some());
        } else {
            prop_assert_eq!(parsed.json, whole);
        }
    }
}

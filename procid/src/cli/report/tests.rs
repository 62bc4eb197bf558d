use std::{fs, os::unix::fs::PermissionsExt as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::flow::Query;

const MADE: &str = "2026-11-22T16:00:00.000000000Z";

/// A connect of `curl`, whose parent is `bash` and whose grandparent `init`;
/// `text` stands wherever a process, or who answers, may choose one.
fn record(text: &str) -> Record {
    serde_json::from_value(json!({
        "@timestamp": "2026-11-22T15:04:05.000000000Z",
        "event": {"action": "connect", "outcome": text, "start": "2026-11-22T15:04:05.000000000Z",
            "end": "2026-11-22T15:04:07.000000000Z", "duration": 2_000_000_000_u64,
            "kind": "event", "category": [], "type": [], "module": "procid", "dataset": "d"},
        "host": {"name": text, "id": text},
        "network": {"transport": text},
        "source": {"ip": "10.0.0.5", "port": 40000, "bytes": 7},
        "destination": {"ip": "203.0.113.7", "port": 443, "bytes": 9},
        "rule": {"name": text},
        "error": {"code": text},
        "user": {"id": text, "name": text},
        "container": {"id": text},
        "process": {
            "entity_id": "curl", "pid": 7, "name": text, "executable": text, "args": [text],
            "command_line": text, "start": "2026-11-22T15:04:04.000000000Z",
            "hash": {"sha256": text},
            "parent": {"entity_id": "bash", "pid": 6, "name": text, "executable": text},
        },
        "procid": {
            "role": text, "verdict": "deny", "provenance": text, "flow_id": text,
            "hash": {"grade": text}, "unit": text, "script": {"path": text},
            "ancestry": ["bash", "init"], "loginuid": 1000,
        },
    }))
    .unwrap()
}

fn unknown(reason: &str) -> Record {
    serde_json::from_value(json!({
        "@timestamp": "2026-11-22T15:04:06.000000000Z",
        "source": {"ip": "10.0.0.5", "port": 40001},
        "destination": {"ip": "203.0.113.7", "port": 80},
        "procid": {"unknown": {"process": reason, "event.end": reason}},
    }))
    .unwrap()
}

fn coverage(text: &str) -> Record {
    serde_json::from_value(json!({"procid": {"coverage": {
        "from": text, "to": text, "lost": {text: 3}, "provenance": text,
        "gaps": [{"from": text, "to": text, "cause": text}],
        "uncovered": [{"path": text, "reason": text}],
    }}}))
    .unwrap()
}

fn page_of(text: &str) -> String {
    let query = Query {
        exe: Some(text.to_owned()),
        container: Some(text.to_owned()),
        ..Query::default()
    };
    let records = vec![record(text), unknown(text), coverage(text)];
    page::page(&Case::new(query, records, Vec::new()), MADE).into_string()
}

/// Tags and their attributes in order, the values aside.
fn markup(page: &str) -> Vec<String> {
    let (mut tags, mut rest) = (Vec::new(), page);
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at..=at + end];
        // Every other piece is outside of quotes.
        tags.push(tag.split('"').step_by(2).collect());
        rest = &rest[at + end..];
        for raw in ["script", "style"] {
            if tag
                .strip_prefix('<')
                .is_some_and(|tag| tag.starts_with(raw))
            {
                let close = format!("</{raw}>");
                rest = &rest[rest.find(&close).expect("it is closed")..];
            }
        }
    }
    tags
}

#[test]
fn the_page_says_what_is_known() {
    let page = page_of("plain");
    for text in [
        "1 denial",
        "2 connections",
        "3 process images",
        "10.0.0.5:40000",
        "203.0.113.7:443",
        "records lost: 3 plain",
        "not covered: plain: plain",
        "process not known: plain",
        "named as an ancestor; nothing else is known of it",
        "executable plain, container plain",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
}

#[test]
fn hostile_text_is_text() {
    let plain = markup(&page_of("plain"));
    assert!(
        plain
            .iter()
            .filter(|tag| tag.starts_with("<script"))
            .count()
            == 1
    );
    for text in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "</script></style></title><svg onload=alert(1)>",
        "javascript:alert(1)",
        "&lt;b&gt;",
        "<!--",
        "]]>",
    ] {
        let page = page_of(text);
        assert_eq!(markup(&page), plain, "{text}");
        assert!(
            !page.contains(text) || !text.contains(['<', '"', '&']),
            "{text}"
        );
    }
    let escapes = page_of("\x1b]0;owned\x07\u{202e}");
    assert!(!escapes.contains(['\x1b', '\x07', '\u{202e}']));
}

proptest! {
    #[test]
    fn any_text_is_text(text in any::<String>()) {
        prop_assert_eq!(markup(&page_of(&text)), markup(&page_of("plain")));
    }
}

/// A browser computes these over what stands between the tags.
#[test]
fn only_its_own_script_and_style_count() {
    let page = page_of("plain");
    let between = |tag: &str| {
        let open = format!("<{tag}>");
        let from = page.find(&open).unwrap() + open.len();
        let to = page.find(&format!("</{tag}>")).unwrap();
        STANDARD.encode(Sha256::digest(&page.as_bytes()[from..to]))
    };
    for tag in ["script", "style"] {
        let policy = format!("{tag}-src 'sha256-{}'", between(tag));
        assert!(
            page.contains(&policy.replace('\'', "&#39;")) || page.contains(&policy),
            "{policy}"
        );
    }
}

#[test]
fn ancestors_are_asked_for_and_described() {
    let records = vec![record("plain"), coverage("plain")];
    let named: Vec<String> = case::ancestors(&records).into_iter().collect();
    assert_eq!(named, ["bash", "init"]);
    let init: Record = serde_json::from_value(json!({
        "process": {"entity_id": "init", "pid": 1, "name": "systemd"}, "procid": {},
    }))
    .unwrap();
    let case = Case::new(Query::default(), records, vec![init]);
    assert_eq!(case.tree.roots, ["init"]);
    let child = |of: &str| case.tree.get(of).unwrap().children.clone();
    assert_eq!(child("init"), ["bash"]);
    assert_eq!(child("bash"), ["curl"]);
    assert_eq!(case.tree.get("curl").unwrap().connections, [0]);
    assert_eq!(
        case.tree.get("init").unwrap().process.as_ref().unwrap().pid,
        Some(1)
    );
}

#[test]
fn ancestors_that_go_round_in_circles_are_shown_once() {
    let mut around = record("plain");
    around.procid.as_mut().unwrap().ancestry =
        Some(["bash", "curl", "bash"].map(str::to_owned).to_vec());
    let case = Case::new(Query::default(), vec![around], Vec::new());
    assert_eq!(case.tree.images(), 2);
    let page = page::page(&case, MADE).into_string();
    assert_eq!(page.matches("class=\"image\"").count(), 2);
}

#[test]
fn nothing_found_is_a_page_too() {
    let case = Case::new(Query::default(), vec![coverage("plain")], Vec::new());
    let page = page::page(&case, MADE).into_string();
    for text in [
        "0 connections",
        "There is nothing to show.",
        "records lost: 3 plain",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn a_report_is_its_owners_and_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.html");
    write(&path, b"first").unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let failure = write(&path, b"second").unwrap_err();
    assert_eq!(failure.code, Code::Usage);
    assert!(
        failure.message.contains("is not written over"),
        "{}",
        failure.message
    );
    assert_eq!(fs::read(&path).unwrap(), b"first");
}

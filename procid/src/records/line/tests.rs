use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;

const PLAIN: Style = Style { colour: false };

fn now() -> Zoned {
    "2026-11-22T20:00:00+01:00[+01:00]".parse().unwrap()
}

fn record(value: serde_json::Value) -> Record {
    serde_json::from_value(value).unwrap()
}

/// A connection that was allowed, changed by a JSON merge patch.
fn connection(patch: &serde_json::Value) -> Record {
    fn merge(into: &mut serde_json::Value, patch: &serde_json::Value) {
        match (into, patch) {
            (serde_json::Value::Object(into), serde_json::Value::Object(patch)) => {
                for (key, value) in patch {
                    merge(into.entry(key).or_insert(json!(null)), value);
                }
            }
            (into, patch) => *into = patch.clone(),
        }
    }
    let mut value = json!({
        "@timestamp": "2026-11-22T15:04:05.123456789Z",
        "event": {"kind": "event", "category": ["network"], "action": "connect", "outcome": "success"},
        "network": {"transport": "tcp", "direction": "egress"},
        "source": {"ip": "10.0.0.5", "port": 45384},
        "destination": {"ip": "203.0.113.7", "port": 443},
        "process": {"pid": 5580, "name": "curl", "hash": {"sha256": "9f86d081884c7d659a2feaa0"}},
        "procid": {"verdict": "allow", "socket": {}}
    });
    merge(&mut value, patch);
    record(value)
}

#[test]
fn header_and_lines_share_their_columns() {
    assert_eq!(
        header_at(PLAIN, &now()),
        "TIME +01:00        PID PROGRAM      SHA-256      ACTION   OUTCOME             SPORT DESTINATION"
    );
    assert_eq!(
        line_at(&connection(&json!({})), PLAIN, &now()),
        "16:04:05.123      5580 curl         9f86d081884c connect  allowed             45384 203.0.113.7:443"
    );
    let refused = connection(&json!({
        "event": {"outcome": "failure"},
        "error": {"code": "ECONNREFUSED"},
        "process": {"hash": null, "name": "a-very-long-program"},
        "procid": {"hash": {"grade": "none", "reason": "pending"}}
    }));
    let line = line_at(&refused, PLAIN, &now());
    assert_eq!(
        line,
        "16:04:05.123      5580 a-very-long… (pending)    connect  failed ECONNREFUSED 45384 203.0.113.7:443"
    );
    assert!(line.chars().count() <= LINE_WIDTH);
}

#[rstest]
#[case(json!({"procid": {"verdict": "deny"}, "source": null}), "denied", "    - 203.0.113.7:443")]
#[case(json!({"procid": {"verdict": "audit"}}), "would be denied", "45384 203.0.113.7:443")]
#[case(json!({"event": {"outcome": "unknown"}}), "unknown", "45384 203.0.113.7:443")]
#[case(json!({"event": {"action": "close", "duration": 1_203_999_999_u64}}), "after 1.203 s", "45384 203.0.113.7:443")]
#[case(json!({"event": {"action": "close"}}), "closed", "45384 203.0.113.7:443")]
#[case(json!({"event": {"kind": "state"}, "procid": {"socket": {"state": "ESTABLISHED"}}}), "ESTABLISHED", "45384 203.0.113.7:443")]
#[case(json!({"destination": {"ip": "fe80::1", "port": 546}, "network": {"transport": "udp"}}), "allowed", "45384 [fe80::1]:546/udp")]
#[case(json!({"network": {"direction": "ingress"}}), "allowed", "  443 from 10.0.0.5:45384")]
#[case(json!({"procid": {"opener": {"name": "sshd", "pid": 7}}}), "allowed", "45384 203.0.113.7:443 (opened by sshd 7)")]
fn outcomes_and_ends(#[case] patch: serde_json::Value, #[case] outcome: &str, #[case] rest: &str) {
    let line = line_at(&connection(&patch), PLAIN, &now());
    let start = TIME + PID + PROGRAM + HASH + ACTION + 5;
    let tail: String = line.chars().skip(start).collect();
    assert_eq!(tail, format!("{outcome:<OUTCOME$} {rest}"));
}

#[test]
fn snapshot_rows_are_marked() {
    let row = connection(&json!({"event": {"kind": "state"}}));
    assert!(line_at(&row, PLAIN, &now()).contains(" snapshot open "));
}

#[rstest]
#[case("2026-11-21T15:04:05.123456789Z", "11-21 16:04:05 ")]
#[case("2025-11-21T15:04:05.123456789Z", "2025-11-21     ")]
#[case("", "-              ")]
fn times_of_another_day_show_the_date(#[case] timestamp: &str, #[case] start: &str) {
    let record = connection(&json!({"@timestamp": timestamp}));
    assert!(line_at(&record, PLAIN, &now()).starts_with(start));
}

#[test]
fn who_is_not_known_is_said() {
    let nobody = connection(&json!({"process": null}));
    assert!(line_at(&nobody, PLAIN, &now()).contains("      - (unknown)    -            connect"));
    let kernel = connection(&json!({"process": null, "procid": {"flags": ["kernel"]}}));
    assert!(line_at(&kernel, PLAIN, &now()).contains("      - (kernel)     -            connect"));
}

#[rstest]
#[case(
    json!({"event": {"action": "ready"}, "procid": {"backend": "cgroup", "hooks": ["a", "b"], "uncovered": []}}),
    "      - procid       -            ready    cgroup backend, 2 hooks, 0 uncovered"
)]
#[case(
    json!({"event": {"action": "loss"}, "procid": {"lost": {"ring-full-process": 12, "images-full": 1}}}),
    "      - procid       -            loss     1 images-full, 12 ring-full-process"
)]
#[case(
    json!({"event": {"action": "exec"}, "process": {"pid": 7, "name": "sh", "executable": "/usr/bin/dash", "args": ["sh", "-c", "echo a"]}}),
    "      7 sh           -            exec     /usr/bin/dash -c 'echo a'"
)]
#[case(
    json!({"event": {"action": "exit"}, "process": {"pid": 7, "name": "sh", "executable": "/usr/bin/dash", "exit_code": 1}}),
    "      7 sh           -            exit     /usr/bin/dash exited with 1"
)]
#[case(
    json!({"event": {"action": "hash"}, "process": {"pid": 7, "name": "sh", "executable": "/usr/bin/dash", "hash": {"sha256": "9f86d081884c7d65"}}}),
    "      7 sh           9f86d081884c hash     /usr/bin/dash"
)]
fn other_actions(#[case] value: serde_json::Value, #[case] rest: &str) {
    let mut value = value;
    value["@timestamp"] = json!("2026-11-22T15:04:05Z");
    let line = line_at(&record(value), PLAIN, &now());
    assert_eq!(line, format!("16:04:05.000   {rest}"));
}

#[test]
fn coverage_is_said_in_words() {
    let coverage = record(json!({"procid": {"coverage": {
        "to": "2026-11-22T15:04:05Z", "lost": {"images-full": 2}, "uncovered": [], "provenance": "snapshot"
    }}}));
    assert_eq!(
        line_at(&coverage, PLAIN, &now()),
        "-- snapshot to 2026-11-22T15:04:05Z; lost: 2 images-full; 0 paths not covered"
    );
}

#[test]
fn colour_changes_no_text() {
    let denied = connection(&json!({"procid": {"verdict": "deny"}}));
    let coloured = line_at(&denied, Style { colour: true }, &now());
    assert!(coloured.contains("\x1b[31mdenied\x1b[0m"));
    let mut plain = coloured;
    for code in ["\x1b[0m", "\x1b[2m", "\x1b[31m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, line_at(&denied, PLAIN, &now()));
}

#[rstest]
#[case(&["curl", "https://example.org/?a=b"], "curl 'https://example.org/?a=b'")]
#[case(&["curl", "https://example.org/a"], "curl https://example.org/a")]
#[case(&["sh", "-c", ""], "sh -c ''")]
#[case(&["echo", "it's", "a b"], "echo 'it'\\''s' 'a b'")]
#[case(&[], "")]
fn command_lines(#[case] args: &[&str], #[case] expected: &str) {
    assert_eq!(command_line(args), expected);
}

/// Splits what [`command_line`] wrote as a POSIX shell would.
fn shell_split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    let mut in_quotes = false;
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                in_quotes = !in_quotes;
                word.get_or_insert_default();
            }
            '\\' if !in_quotes => word.get_or_insert_default().extend(chars.next()),
            ' ' if !in_quotes => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

proptest! {
    #[test]
    fn a_shell_would_read_the_arguments_back(args: Vec<String>) {
        prop_assert_eq!(shell_split(&command_line(&args)), args);
    }

    #[test]
    fn no_field_breaks_the_line(name: String, path: String, action: String, code: String) {
        let mut hostile = connection(&json!({"event": {"outcome": "failure"}}));
        hostile.error = Some(crate::records::ErrorCode { code });
        if let Some(process) = &mut hostile.process {
            process.name = Some(name);
            process.executable = Some(path);
        }
        let one = line_at(&hostile, PLAIN, &now());
        if let Some(event) = &mut hostile.event {
            event.action = action;
            event.category.clear();
        }
        for line in [one, line_at(&hostile, PLAIN, &now())] {
            prop_assert!(line.chars().all(is_printable), "{line:?}");
        }
    }
}

#[rstest]
#[case(json!({}), "curl[5580] connect allowed 203.0.113.7:443")]
#[case(json!({"process": {"pid": null}}), "curl connect allowed 203.0.113.7:443")]
#[case(
    json!({"event": {"category": ["process"], "action": "exit"}, "process": {"executable": "/x", "exit_code": 3}}),
    "curl[5580] exit /x exited with 3"
)]
#[case(
    json!({"event": {"action": "loss"}, "process": null, "procid": {"lost": {"ring-full": 3}}}),
    "procid loss 3 ring-full"
)]
#[case(json!({"process": {"name": "a\nb\u{1b}"}}), "a\u{fffd}b\u{fffd}[5580] connect allowed 203.0.113.7:443")]
fn sentences(#[case] patch: serde_json::Value, #[case] sentence: &str) {
    let mut record = connection(&patch);
    if let Some(event) = &mut record.event
        && event.action == "loss"
    {
        event.category.clear();
    }
    assert_eq!(message(&record), sentence);
}

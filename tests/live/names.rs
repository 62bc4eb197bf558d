//! Bytes that a process chose: they break neither a line nor a terminal.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    process::Command,
};

use procid_tests::{
    attribution::{Expected, assert_attributed},
    listener,
    program::Program,
    records::text,
    scratch::Image,
    stage::Stage,
};

/// A second record, a new window title, a red word, a right-to-left override,
/// a tab, a backslash, bytes that are no UTF-8.
const HOSTILE: &[u8] = b"a\n{\"event\":1}\x1b]0;title\x07\x1b[31m\xe2\x80\xaeexe\t\\\xff\xfe\xc3z";
/// How it prints.
const PRINTED: &str = r#"a\x0a{"event":1}\x1b]0;title\x07\x1b[31m\u{202e}exe\x09\\\xff\xfe\xc3z"#;

#[test]
fn hostile_names_and_arguments() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let directory = stage.scratch.directory(OsStr::from_bytes(HOSTILE));
    let app = Image::copy_to(&directory.join(OsStr::from_bytes(HOSTILE)));
    let hostile = OsStr::from_bytes(HOSTILE);
    let comm = OsStr::from_bytes(b"\x1b[31m\n\xffcomm");
    let to = listener.address();
    let mut command = Command::new(&app.path);
    command.arg0(hostile);
    command.args(["connect", "--to", &to.to_string(), "--comm"]);
    command.arg(comm).arg("--").arg(hostile).arg("");
    let acts = Program::spawn(&stage.cgroup, command).finish().acts;

    // As people read it, on a terminal or in a spreadsheet.
    let mut stage = stage;
    stage.agent.settle(&acts);
    let port = format!(":{}", to.port());
    for format in [None, Some("--csv")] {
        let arguments: Vec<_> = ["who", &port].into_iter().chain(format).collect();
        let answer = stage.agent.ask(&arguments);
        assert!(answer.status.success(), "{answer:?}");
        let printed = String::from_utf8(answer.stdout).unwrap();
        assert!(!printed.is_empty());
        // As RFC 4180 ends a line of a table.
        let printed = printed.replace("\r\n", "\n");
        let is_safe = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
        assert!(printed.chars().all(is_safe), "{printed:?}");
    }

    let parent = stage.scratch.path().display().to_string();
    let records = stage.end(&acts);
    let record = assert_attributed(&records, &acts[0], &Expected::connect(&app));
    let executable = format!("{parent}/{PRINTED}/{PRINTED}");
    assert_eq!(text(record, "/process/executable"), executable);
    assert_eq!(text(record, "/process/name"), PRINTED);
    assert_eq!(
        text(record, "/process/thread/name"),
        r"\x1b[31m\x0a\xffcomm"
    );
    let arguments = record.pointer("/process/args").unwrap();
    let arguments = arguments.as_array().unwrap();
    assert_eq!(arguments[0], PRINTED);
    assert_eq!(arguments[arguments.len() - 2], PRINTED);
    assert_eq!(arguments[arguments.len() - 1], "");
}

/// The arguments are those at exec, not what the process made of them.
#[test]
fn a_name_taken_later_is_the_threads_not_the_programs() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let app = stage.app.clone();
    let to = listener.address().to_string();
    let acts = stage.run(["connect", "--comm", "sshd", "--to", &to]);
    let records = stage.end(&acts);
    let record = assert_attributed(&records, &acts[0], &Expected::connect(&app));
    assert_eq!(text(record, "/process/name"), "app");
    assert_eq!(text(record, "/process/thread/name"), "sshd");
}

/// Command lines hold secrets.
#[test]
fn no_arguments_where_none_are_wanted() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::with(&["--args", "none"]);
    let app = stage.app.clone();
    let to = listener.address().to_string();
    let acts = stage.run(["connect", "--to", &to, "--", "my-secret"]);
    let records = stage.end(&acts);
    assert_attributed(&records, &acts[0], &Expected::connect(&app));
    for record in records.all() {
        assert!(!record.to_string().contains("my-secret"), "{record}");
    }
}

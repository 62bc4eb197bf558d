//! No text breaks it, and every place it names is in the file.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// Reads a text; each problem must be in it and say something.
fn examine(text: &str) -> Result<(), TestCaseError> {
    let found = match read(text) {
        Ok(parsed) => parsed.warnings,
        Err(errors) => {
            prop_assert!(!errors.is_empty(), "refused without a reason");
            errors
        }
    };
    let lines: Vec<_> = text.split('\n').collect();
    for problem in found {
        let line = problem.line.checked_sub(1).and_then(|line| lines.get(line));
        let columns = line.map_or(0, |line| line.chars().count() + 1);
        prop_assert!((1..=columns).contains(&problem.column), "{}", problem);
        prop_assert!(!problem.message.is_empty() && !problem.help.is_empty());
    }
    Ok(())
}

/// A value as any field may be given it.
fn value() -> impl Strategy<Value = String> {
    let one = prop_oneof![
        select(vec![
            "'enforce'",
            "'allow'",
            "'deny'",
            "'audit'",
            "'/bin/a'",
            "'/bin/**'",
            "'tcp'",
            "'icmp'",
            "'raw'",
            "'packet'",
            "'ingress'",
            "'acceptor'",
            "'opener'",
            "'a'",
            "'10.0.0.0/8'",
            "'::/0'",
            "'8:1:2'",
            "'ssh'",
            "'a.service'",
            "'1-2'",
            "2026-11-22",
            "true",
            "0",
            "443",
            "-1",
            "1.5",
            "{}",
            "[]",
        ])
        .prop_map(str::to_owned),
        "'[ -~é]{0,6}'".prop_filter("an end of its own", |text| text.matches('\'').count() == 2),
    ];
    let list = vec(one.clone(), 0..3).prop_map(|list| format!("[{}]", list.join(", ")));
    let keys = select(vec![
        "executable",
        "sha256",
        "inode",
        "cidr",
        "port",
        "uid",
        "x",
    ]);
    let table = (keys, one.clone()).prop_map(|(key, value)| format!("{{ {key} = {value} }}"));
    prop_oneof![4 => one, 1 => list, 1 => table]
}

/// A line of a policy, at its place or not.
fn line() -> impl Strategy<Value = String> {
    let keys = select(vec![
        "mode",
        "default",
        "loopback",
        "name",
        "action",
        "direction",
        "expires",
        "protect",
        "rule",
        "set",
        "process",
        "process.executable",
        "process.sha256",
        "process.uid",
        "process.role",
        "process.kernel",
        "process.parent",
        "process.ancestor",
        "process.cgroup",
        "process.unit",
        "destination.cidr",
        "destination.set",
        "destination.port",
        "destination.transport",
        "destination.socket",
        "source.port",
        "source",
        "nonsense",
    ]);
    prop_oneof![
        6 => (keys, value()).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => Just("[[rule]]".to_owned()),
        1 => Just("[set.a]".to_owned()),
        1 => Just("[rule.process]".to_owned()),
    ]
}

proptest! {
    #[test]
    fn never_panics(text: String) {
        examine(&text)?;
    }

    #[test]
    fn never_panics_on_lines(text in "([a-z.]{1,4} ?= ?|\\[\\[?|\\]|\\{|\\}|'|\"|\\\\|\n|\r|[0-9:é-]{0,4}|\u{feff}){0,24}") {
        examine(&text)?;
    }

    #[test]
    fn never_panics_on_what_looks_like_a_policy(lines in vec(line(), 0..12)) {
        examine(&format!("mode = 'audit'\n{}", lines.join("\n")))?;
    }

    #[test]
    fn never_panics_on_a_rule(fields in vec(line(), 0..6)) {
        examine(&format!("mode = 'audit'\n[[rule]]\nname = 'r'\naction = 'allow'\n{}", fields.join("\n")))?;
    }

    #[test]
    fn every_prefix_of_a_policy_is_examined(end in 0_usize..400) {
        let text = "\u{feff}mode = 'audit'\r\n[set.ü]\r\ncidr = ['10.0.0.0/8', '::/0']\r\n[[rule]]\r\n\
            name = 'ä'\r\naction = 'allow'\r\nprocess = { uid = [0, '1-9'], executable = '/bin/sh' }\r\n\
            destination = { set = 'ü', port = '1-9' }\r\n";
        examine(&text[..text.floor_char_boundary(end)])?;
    }
}

//! What is accepted and remarked on.

use rstest::rstest;

use super::*;

/// Warnings of a text that is a policy, without the file's name.
#[track_caller]
fn warnings(text: &str) -> Vec<String> {
    let parsed = read(text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let warnings = parsed.warnings.iter();
    warnings
        .map(|warning| {
            assert_eq!(warning.severity, Severity::Warning);
            warning.to_string().strip_prefix("p:").unwrap().to_owned()
        })
        .collect()
}

const NONE: [String; 0] = [];

/// A rule of an action; what follows is its third line.
fn rule_of(name: &str, action: &str, lines: &str) -> String {
    format!("[[rule]]\nname = '{name}'\naction = '{action}'\n{lines}\n")
}

fn with_mode(rules: &[String]) -> String {
    format!("mode = 'enforce'\n{}", rules.concat())
}

#[rstest]
#[case::allow_by_path(
    "allow",
    "executable = '/bin/a'",
    "6:14: warning: rule `r` allows by path alone: whoever can replace the file is allowed (remedy: add the file's sha256)"
)]
#[case::allow_by_directory(
    "allow",
    "executable = '/bin/**'",
    "6:14: warning: rule `r` allows by path alone"
)]
#[case::deny_by_path(
    "deny",
    "executable = ['/bin/a']",
    "6:14: warning: rule `r` denies by path: a copy elsewhere escapes it (remedy: deny by what the caller cannot choose"
)]
#[case::deny_by_hash(
    "deny",
    "sha256 = 'HASH'",
    "6:10: warning: rule `r` denies by hash: a copy with one byte more escapes it"
)]
#[case::interpreter(
    "allow",
    "sha256 = 'HASH'\nexecutable = '/usr/bin/python3.13'",
    "6:10: warning: rule `r` allows `/usr/bin/python3.13` by hash, an interpreter: the hash says nothing of the script it runs"
)]
#[case::link_in_a_container(
    "allow",
    "executable = ['/usr/bin/a', '/bin/b']\ncontainer = '0123456789ab'\nsha256 = 'HASH'",
    "6:14: warning: rule `r` names `/bin/b` in a container's root, where links are not followed and that is usually one (remedy: name `/usr/bin/b` too)"
)]
#[case::directory_in_a_container(
    "allow",
    "executable = '/lib64/**'\ncontainer = '0123456789ab'\nsha256 = 'HASH'",
    "6:14: warning: rule `r` names `/lib64` in a container's root, where links are not followed and that is usually one (remedy: name `/usr/lib64` too)"
)]
fn rules_on_files(#[case] action: &str, #[case] process: &str, #[case] expected: &str) {
    let process = format!("[rule.process]\n{}", process.replace("HASH", HASH));
    let found = warnings(&with_mode(&[rule_of("r", action, &process)]));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with(expected), "{found:#?}");
}

#[rstest]
#[case::path_and_hash("allow", "executable = '/bin/a'\nsha256 = 'HASH'")]
#[case::hash("allow", "sha256 = 'HASH'")]
#[case::uid("deny", "uid = 0")]
#[case::ancestor("deny", "ancestor = { executable = '/bin/a' }")]
#[case::no_link_in_a_container(
    "allow",
    "executable = ['/binary', '/opt/bin/a']\ncontainer = '0123456789ab'\nsha256 = 'HASH'"
)]
#[case::both_names_in_a_container(
    "allow",
    "executable = ['/bin/a', '/usr/bin/a']\ncontainer = '0123456789ab'\nsha256 = 'HASH'"
)]
#[case::container_of_a_parent(
    "allow",
    "parent = { executable = '/bin/a' }\ncontainer = '0123456789ab'\nsha256 = 'HASH'"
)]
fn rules_on_files_that_hold(#[case] action: &str, #[case] process: &str) {
    let process = format!("[rule.process]\n{}", process.replace("HASH", HASH));
    assert_eq!(
        warnings(&with_mode(&[rule_of("r", action, &process)])),
        [""; 0]
    );
}

/// The second rule is at line 6.
#[rstest]
#[case::everything("", "process.uid = 0")]
#[case::same("process.uid = 0", "process.uid = 0")]
#[case::more("process.uid = '0-9'", "process.uid = [3, '5-7']")]
#[case::network(
    "destination.cidr = '10.0.0.0/8'",
    "destination = { cidr = '10.1.0.0/16', port = 1 }"
)]
#[case::cgroup("process.cgroup = '/a'", "process.cgroup = '/a/b'")]
#[case::expiring("", "expires = '2030-01-01'")]
#[case::expiring_both("expires = '2030-01-01'", "expires = '2030-01-01'")]
#[case::ingress("direction = 'ingress'", "direction = 'ingress'\nprocess.uid = 0")]
fn a_rule_that_is_never_reached(
    #[case] first: &str,
    #[case] second: &str,
    #[values("allow", "deny", "audit")] action: &str,
) {
    let found = warnings(&with_mode(&[
        rule_of("one", "allow", first),
        rule_of("two", action, second),
        rule_of(
            "three",
            "allow",
            "direction = 'ingress'\ndestination.socket = 'raw'",
        ),
    ]));
    let found: Vec<_> = found
        .iter()
        .filter(|found| found.contains("`two`"))
        .collect();
    assert_eq!(
        found,
        [
            "6:1: warning: rule `two` is never reached: `one` at line 2 matches whatever it matches \
          (remedy: put it before that rule, or remove it)"
        ]
    );
}

#[rstest]
#[case::narrower("process.uid = 0", "")]
#[case::other("process.uid = 0", "process.gid = 0")]
#[case::one_of_two("process.uid = [0, 1]", "process.uid = [1, 2]")]
#[case::straddling("process.uid = '0-9'", "process.uid = '5-10'")]
#[case::narrow_network("destination.cidr = '10.1.0.0/16'", "destination.cidr = '10.0.0.0/8'")]
#[case::other_family("destination.cidr = '::/0'", "destination.cidr = '10.0.0.0/8'")]
#[case::like_a_cgroup("process.cgroup = '/a'", "process.cgroup = '/ab'")]
#[case::ingress("", "direction = 'ingress'")]
#[case::kernel("", "process.kernel = true")]
#[case::in_a_container(
    "process.executable = '/a'",
    "process = { executable = '/a', container = '0123456789ab' }"
)]
#[case::expiring("expires = '2030-01-01'", "")]
#[case::expiring_sooner("expires = '2030-01-01'", "expires = '2030-01-02'")]
#[case::expired("expires = '2020-01-01'", "expires = '2019-01-01'")]
fn a_rule_that_is_reached(#[case] first: &str, #[case] second: &str) {
    let found = warnings(&with_mode(&[
        rule_of("one", "allow", first),
        rule_of("two", "deny", second),
    ]));
    assert!(
        !found.iter().any(|found| found.contains("never reached")),
        "{found:#?}"
    );
}

#[test]
fn an_audit_rule_ends_nothing() {
    let found = warnings(&with_mode(&[
        rule_of("one", "audit", ""),
        rule_of("two", "deny", ""),
    ]));
    assert_eq!(found, [""; 0]);
    let found = warnings(&with_mode(&[
        rule_of("one", "deny", "process.uid = 1"),
        rule_of("two", "audit", ""),
    ]));
    assert_eq!(
        found,
        [
            "6:1: warning: rule `two` is the last one and decides nothing: what it matches gets the \
          default (remedy: put an allow or deny rule after it, or make it one)"
        ]
    );
}

#[test]
fn a_rule_that_has_expired() {
    let at = |time: &str| {
        warnings(&with_mode(&[rule_of(
            "r",
            "deny",
            &format!("expires = {time}"),
        )]))
    };
    assert_eq!(
        at("'2026-11-22T14:04:05Z'"),
        ["5:11: warning: rule `r` has expired (remedy: remove the rule, or give it a later time)"]
    );
    assert_eq!(at("'2026-11-22T14:04:05.000000001Z'"), [""; 0]);
}

#[test]
fn a_default_that_lets_nothing_out() {
    let expected = [
        "2:11: warning: `default` is \"deny\" and no rule allows: nothing can open a \
                     connection (remedy: add an allow rule for what may)",
    ];
    let text = "mode = 'enforce'\ndefault = 'deny'\n";
    assert_eq!(warnings(text), expected);
    let denies = rule_of("r", "deny", "process.uid = 0");
    assert_eq!(warnings(&format!("{text}{denies}")), expected);
    let allows = rule_of("r", "allow", "process.uid = 0");
    assert_eq!(warnings(&format!("{text}{allows}")), [""; 0]);
}

#[test]
fn warnings_are_json_too() {
    let text = "mode = 'enforce'\ndefault = 'deny'\n";
    let warning = read(text).unwrap().warnings.remove(0);
    assert_eq!(
        serde_json::to_value(warning).unwrap(),
        serde_json::json!({
            "file": "p", "line": 2, "column": 11, "severity": "warning",
            "message": "`default` is \"deny\" and no rule allows: nothing can open a connection",
            "help": "add an allow rule for what may",
        })
    );
}

#[test]
fn protecting_an_agent_that_blocks_nothing() {
    let found = warnings("mode = 'audit'\nprotect = true");
    assert_eq!(
        found,
        [
            "2:11: warning: `protect` guards an agent that blocks nothing: `mode` is \"audit\" \
             (remedy: write mode = \"enforce\", or leave `protect` out until it is)"
        ]
    );
    assert_eq!(warnings("mode = 'enforce'\nprotect = true"), NONE);
    assert_eq!(warnings("mode = 'audit'\nprotect = false"), NONE);
}

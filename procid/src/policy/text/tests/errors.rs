//! What is refused, with its place and its remedy.

use rstest::rstest;

use super::*;

/// The only problem of a text, without the file's name.
#[track_caller]
pub(super) fn only_error(text: &str) -> String {
    let errors = read(text).expect_err("it is accepted");
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let [error] = errors.as_slice() else {
        panic!("{errors:#?}");
    };
    error.strip_prefix("p:").unwrap().to_owned()
}

#[rstest]
#[case::no_mode(
    "default = 'deny'",
    "1:1: error: `mode` is missing (remedy: write mode = \"enforce\", or mode = \"audit\" to record and block nothing)"
)]
#[case::nothing("", "1:1: error: `mode` is missing")]
#[case::mode(
    "mode = 'enforced'",
    "1:8: error: `mode`: `enforced` is not \"enforce\" or \"audit\" (remedy: write \"enforce\")"
)]
#[case::mode_kind(
    "mode = true",
    "1:8: error: `mode`: must be a string, not a boolean (remedy: put it in quotation marks)"
)]
#[case::byte_order_mark("\u{feff}mode = true", "1:8: error: `mode`: must be a string")]
#[case::default(
    "mode = 'audit'\ndefault = 'drop'",
    "2:11: error: `default`: `drop` is not \"allow\" or \"deny\" (remedy: write \"allow\" or \"deny\")"
)]
#[case::unknown_hash(
    "mode = 'audit'\nunknown_hash = 'audit'",
    "2:16: error: `unknown_hash`: `audit` is not"
)]
#[case::loopback(
    "mode = 'audit'\nloopback = 'keep'",
    "2:12: error: `loopback`: `keep` is not \"judge\" or \"allow\""
)]
#[case::established(
    "mode = 'audit'\nestablished = 'allow'",
    "2:15: error: `established`: `allow` is not \"judge\" or \"keep\""
)]
#[case::overflow(
    "mode = 'audit'\non_overflow = 1",
    "2:15: error: `on_overflow`: must be a string, not an integer"
)]
#[case::key(
    "mode = 'audit'\n  defualt = 'deny'",
    "2:3: error: `defualt` is not a key of a policy (remedy: write `default`, or remove it)"
)]
#[case::far_key(
    "mode = 'audit'\nzzz = 1",
    "2:1: error: `zzz` is not a key of a policy (remedy: remove it: a policy has mode, default,"
)]
#[case::quoted_key("mode = 'audit'\n'ü' = 1", "2:1: error: `ü` is not a key")]
#[case::protect(
    "mode = 'audit'\nprotect = 'yes'",
    "2:11: error: `protect`: must be true or false, not a string (remedy: write true, or leave it out)"
)]
#[case::a_rule(
    "mode = 'audit'\n[rule]\nname = 'r'",
    "2:1: error: `rule`: must be a list of tables, not a table (remedy: write [[rule]])"
)]
#[case::a_number_for_rules(
    "mode = 'audit'\nrule = 1",
    "2:8: error: `rule`: must be a list of tables, not an integer"
)]
#[case::rules_of_numbers(
    "mode = 'audit'\nrule = [1]",
    "2:9: error: `rule`: must be a table, not an integer"
)]
#[case::empty_rule("mode = 'audit'\n[[rule]]\n", "2:1: error: `rule`: is empty")]
#[case::sets(
    "mode = 'audit'\nset = ['a']",
    "2:7: error: `set`: must be a table of sets, not an array (remedy: write [set.NAME])"
)]
#[case::set_kind(
    "mode = 'audit'\nset.a = '10.0.0.0/8'",
    "2:9: error: `set`: must be a table, not a string"
)]
#[case::empty_set("mode = 'audit'\n[set.a]", "2:1: error: `set`: is empty")]
#[case::empty_cidr(
    "mode = 'audit'\n[set.a]\ncidr = []",
    "3:8: error: `cidr`: is an empty list, which nothing matches"
)]
#[case::set_key(
    "mode = 'audit'\n[set.a]\ncidr = '::/0'\ncidrs = '::/0'",
    "4:1: error: `cidrs` is not a key of set (remedy: write `cidr`"
)]
fn a_policy(#[case] text: &str, #[case] expected: &str) {
    let error = only_error(text);
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn columns_count_characters() {
    let text = "mode = 'audit'\nrule = [{ name = 'üüü', action = 'allow', zz = 1 }]";
    let error = only_error(text);
    assert!(error.starts_with("2:43: error: `zz`"), "{error}");
}

#[rstest]
#[case(
    "action = 'deny'",
    "2:1: error: the rule has no `name` (remedy: write name = \"what it is for\")"
)]
#[case(
    "name = 'r'",
    "2:1: error: the rule has no `action` (remedy: write action = \"deny\")"
)]
#[case(
    "name = ' '\naction = 'deny'",
    "3:8: error: `name`: is empty (remedy: say what the rule is for)"
)]
#[case(
    "name = 1\naction = 'deny'",
    "3:8: error: `name`: must be a string, not an integer"
)]
#[case(
    "name = \"a\\u001b\"\naction = 'deny'",
    "3:8: error: `name`: holds a control character"
)]
#[case(
    "name = 'r'\naction = 'drop'",
    "4:10: error: `action`: `drop` is not \"allow\", \"deny\" or \"audit\""
)]
fn names_and_actions(#[case] lines: &str, #[case] expected: &str) {
    let error = only_error(&format!("mode = 'audit'\n[[rule]]\n{lines}\n"));
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn a_name_is_given_once() {
    let rule = "[[rule]]\nname = 'r'\naction = 'deny'\n";
    let error = only_error(&format!("mode = 'audit'\n{rule}{rule}"));
    assert!(
        error.starts_with("6:8: error: `r` is also the name of the rule at line 3 (remedy:"),
        "{error}"
    );
}

#[test]
fn there_is_room_for_1024_rules_and_no_more() {
    let rules = |count: usize| {
        let rules = (0..count).map(|n| format!("[[rule]]\nname = '{n}'\naction = 'audit'\n"));
        format!("mode = 'audit'\n{}", rules.collect::<String>())
    };
    assert_eq!(policy(&rules(1_024)).rules.len(), 1_024);
    let error = only_error(&rules(1_025));
    assert!(
        error.starts_with("3074:1: error: the policy has 1025 rules, and 1024 is the most"),
        "{error}"
    );
}

#[test]
fn all_problems_are_told_at_once_in_order() {
    let errors = read(
        "mode = 'x'\n[[rule]]\nname = 'a'\naction = 'b'\nprocess = { uid = [-1, 'c'], gid = 'd' }\n\
         [set]\na = 1\nb = {}\n[[rule]]\n",
    )
    .unwrap_err();
    let places: Vec<_> = errors.iter().map(|e| (e.line, e.column)).collect();
    assert_eq!(
        places,
        [
            (1, 8),
            (4, 10),
            (5, 20),
            (5, 24),
            (5, 36),
            (7, 5),
            (8, 5),
            (9, 1)
        ]
    );
    assert!(errors.iter().all(|e| e.severity == Severity::Error));
}

#[rstest]
#[case("mode = ", "1:8: error: TOML: ")]
#[case("mode = 'audit'\nmode = 'audit'", "2:1: error: TOML: duplicate key")]
#[case(
    "mode = 'audit'\n[[rule]\nname = 1",
    "2:8: error: TOML: unclosed array table (remedy: TOML expects `]` here)"
)]
#[case(
    "mode = 'audit'\nexpires = 1979-13-01",
    "2:11: error: TOML: invalid date (remedy: TOML expects month between 01 and 12 here)"
)]
fn text_that_is_not_toml(#[case] text: &str, #[case] expected: &str) {
    let error = only_error(text);
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn mistakes_of_toml_on_several_lines_are_all_told() {
    let errors = read("mode = enforce\n\nx y\n[a").unwrap_err();
    let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [1, 3, 4]);
}

#[test]
fn long_text_is_not_repeated() {
    let text = format!("mode = '{}'", "ü".repeat(1_000));
    assert!(only_error(&text).chars().count() < 300);
}

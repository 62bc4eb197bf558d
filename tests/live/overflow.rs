//! Decisions for which there is no room: they fall on the side that `on_overflow`
//! names, and are counted.

use std::{fs, process::Command};

use procid_tests::{
    listener,
    maps::Values,
    program::Program,
    records::{has_flag, text},
    stage::Stage,
};
use rustix::io::Errno;
use serde_json::Value;

/// Cgroups whose names are followed.
const DEPTH: usize = 16;

/// A policy that says the opposite of what `on_overflow` does.
fn policy(default: &str, on_overflow: &str, process: &str) -> String {
    format!(
        "mode = \"enforce\"\ndefault = \"{default}\"\nunknown_hash = \"{default}\"\n\
         on_overflow = \"{on_overflow}\"\n\n[[rule]]\nname = \"no\"\naction = \"{default}\"\n\
         process = {process}\ndestination = {{ port = 9 }}\n"
    )
}

fn errors(program: Program) -> Vec<Option<Errno>> {
    let acts = program.finish().acts;
    let errors = acts
        .iter()
        .map(|act| act.error.map(Errno::from_raw_os_error));
    errors.collect()
}

/// Ends the agent, and looks for so many acts that were judged for want of room.
fn told(stage: Stage, acts: u64, denied: bool) {
    let (mut overflows, mut flagged, mut denials) = (0, 0, 0);
    stage.agent.stop_and_look(|record| {
        overflows += record
            .pointer("/procid/lost/policy-overflow")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        if matches!(&*text(record, "/event/action"), "connect") {
            let is_flagged = has_flag(record, "table-full");
            let is_denial = text(record, "/procid/verdict") == "deny";
            flagged += u64::from(is_flagged);
            denials += u64::from(is_denial && is_flagged);
        }
    });
    assert!(overflows >= acts, "{overflows}");
    assert_eq!(flagged, acts);
    assert_eq!(denials, if denied { acts } else { 0 });
}

#[test]
fn without_a_place_to_decide_in_on_overflow_does() {
    const ACTS: usize = 3;
    let to = listener::Tcp::on("127.0.0.1:0");
    let address = to.address().to_string();
    for (default, on_overflow) in [("allow", "deny"), ("deny", "allow")] {
        let stage = Stage::new();
        stage.apply(&policy(default, on_overflow, "{ uid = 0 }"), &[]);
        let verdicts = |word| {
            // Those of the agent of this stage alone.
            Values::named("SCRATCHES").put_first_words(word);
            let count = ACTS.to_string();
            let arguments = ["connect", "--to", &address, "--count", &count];
            errors(stage.start(arguments))
        };
        let (full, free) = (verdicts(1), verdicts(0));
        let side = |side: &str| (side == "deny").then_some(Errno::PERM);
        assert_eq!(full, [side(on_overflow); ACTS], "{on_overflow}");
        assert_eq!(free, [side(default); ACTS], "{default}");
        told(stage, ACTS as u64, on_overflow == "deny");
    }
}

/// Kernels and runtimes nest a few; who may make cgroups may nest many more.
#[test]
fn a_cgroup_too_deep_to_be_named_is_on_overflows() {
    let to = listener::Tcp::on("127.0.0.1:0");
    let address = to.address().to_string();
    for (default, on_overflow) in [("allow", "deny"), ("deny", "allow")] {
        let stage = Stage::new();
        stage.apply(&policy(default, on_overflow, "{ cgroup = \"/none\" }"), &[]);
        // The stage's own is the first.
        let mut cgroup = stage.cgroup.path().to_owned();
        for depth in 2..=DEPTH + 1 {
            cgroup.push(format!("d{depth}"));
            fs::create_dir(&cgroup).unwrap();
        }
        let verdict = |cgroup: &std::path::Path| {
            let mut command = Command::new(&stage.app.path);
            command.args(["connect", "--to", &address]);
            errors(Program::spawn_in(cgroup, command))
        };
        let side = |side: &str| (side == "deny").then_some(Errno::PERM);
        assert_eq!(verdict(cgroup.parent().unwrap()), [side(default)]);
        assert_eq!(verdict(&cgroup), [side(on_overflow)]);
        told(stage, 1, on_overflow == "deny");
    }
}

/// Of the longest texts that are read, two in the tables at one time.
#[test]
fn policies_of_very_many_prefixes_have_room() {
    let stage = Stage::new();
    let prefixes = (1..=100_000_u32).map(|number| match (number >> 16, number & 0xffff) {
        (0, low) => format!("\"{low:x}::\""),
        (high, low) => format!("\"{high:x}:{low:x}::\""),
    });
    let prefixes: Vec<_> = prefixes.collect();
    let large = format!(
        "mode = \"enforce\"\ndefault = \"allow\"\n\n[[rule]]\nname = \"no\"\naction = \"deny\"\n\
         destination = {{ set = \"large\" }}\n\n[set.large]\ncidr = [{}]\n",
        prefixes.join(",")
    );
    // The one before stays until the other is confirmed.
    for _ in 0..2 {
        stage.apply(&large, &["--confirm", "10m"]);
        assert!(stage.agent.ask(&["policy", "confirm"]).status.success());
    }
}

/// More names of cgroups than the programs' table holds.
#[test]
fn a_policy_without_room_is_refused_and_changes_nothing() {
    let to = listener::Tcp::on("127.0.0.1:0");
    let (address, port) = (to.address().to_string(), to.address().port());
    let stage = Stage::new();
    let rule = |port: u16, process: &str| {
        format!(
            "mode = \"enforce\"\ndefault = \"allow\"\n\n[[rule]]\nname = \"no\"\n\
             action = \"deny\"\n{process}destination = {{ port = {port} }}\n"
        )
    };
    stage.apply(&rule(port, ""), &[]);
    let names: Vec<_> = (0..70_000).map(|name| format!("\"/{name:x}\"")).collect();
    let process = format!("process = {{ cgroup = [{}] }}\n", names.join(","));
    let file = stage.scratch.path().join("large.toml");
    fs::write(&file, rule(port, &process)).unwrap();
    for _ in 0..2 {
        let output = stage
            .agent
            .ask(&["policy", "apply", file.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        assert!(
            said.contains("is full") && said.lines().count() == 1,
            "{said}"
        );
        let denied = errors(stage.start(["connect", "--to", &address]));
        assert_eq!(denied, [Some(Errno::PERM)]);
    }
    assert_eq!(to.peers(0).len(), 0);
    // There is room as before.
    stage.apply(&rule(port ^ 1, ""), &[]);
    assert_eq!(errors(stage.start(["connect", "--to", &address])), [None]);
}

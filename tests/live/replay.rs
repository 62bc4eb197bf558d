//! `procid policy replay` says of the past what a policy does to the same acts
//! once it is in force.

use std::fs;

use procid_tests::{listener, scratch::Image, stage::Stage, truth::Act};
use serde_json::Value;

const EPERM: i32 = 1;

/// The lines of an answer, and the last one, which is of all.
fn replay(stage: &Stage, policy: &str, further: &[&str]) -> (Vec<Value>, Value) {
    let file = stage.scratch.path().join("replayed.toml");
    fs::write(&file, policy).unwrap();
    let file = file.display().to_string();
    let arguments = ["policy", "replay", "--since", "-10min", "--json", &file];
    let output = stage.agent.ask(&[&arguments, further].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let lines = output.stdout.split(|&byte| byte == b'\n');
    let mut lines: Vec<Value> = lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let all = lines.pop().unwrap();
    (lines, all)
}

/// Each image connects to each port; a shell runs one of them once more.
fn act(stage: &Stage, images: [&Image; 2], ports: &[u16]) -> Vec<Act> {
    let mut acts = Vec::new();
    for image in images {
        let to: Vec<_> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let mut arguments = vec!["connect"];
        for to in &to {
            arguments.extend(["--to", to]);
        }
        acts.extend(stage.start_file(&image.path, arguments).finish().acts);
    }
    acts
}

#[test]
fn what_is_said_of_the_past_is_what_is_done() {
    let mut stage = Stage::new();
    let other = stage.scratch.program("other");
    let app = stage.app.clone();
    let listeners = [(); 3].map(|()| listener::Tcp::on("127.0.0.1:0"));
    let [first, second, third] = listeners.each_ref().map(|it| it.address().port());
    let ports = [first, second, third];
    let before = act(&stage, [&app, &other], &ports);
    assert!(before.iter().all(|act| act.error.is_none()), "{before:?}");
    stage.agent.settle(&before);
    for image in [&app, &other] {
        let act = before.iter().find(|act| act.actor.exe == image.file);
        stage.wait_for_hash(act.unwrap().actor.pid, &image.file);
    }
    let policy = format!(
        "mode = \"enforce\"\ndefault = \"allow\"\nunknown_hash = \"deny\"\n\n\
         [[rule]]\nname = \"app may use the first\"\naction = \"allow\"\n\
         process = {{ executable = \"{}\" }}\ndestination = {{ port = {first} }}\n\n\
         [[rule]]\nname = \"nobody else\"\naction = \"deny\"\ndestination = {{ port = {first} }}\n\n\
         [[rule]]\nname = \"not other's bytes\"\naction = \"deny\"\n\
         process = {{ sha256 = \"{}\" }}\ndestination = {{ port = {second} }}\n\n\
         [[rule]]\nname = \"none of the test's descent\"\naction = \"deny\"\n\
         process = {{ ancestor = {{ executable = \"{}\" }} }}\ndestination = {{ port = {third} }}\n",
        app.path.display(),
        other.sha256,
        other.path.display(),
    );
    let (lines, all) = replay(&stage, &policy, &[]);
    assert_eq!(all["judged"], before.len());
    assert_eq!(all["allowed"], 0);
    assert_eq!(all["coverage"]["provenance"], "live");

    stage.apply(&policy, &[]);
    let after = act(&stage, [&app, &other], &ports);
    let denied: Vec<&Act> = after
        .iter()
        .filter(|act| act.error == Some(EPERM))
        .collect();
    assert_eq!(denied.len(), 2, "{after:?}");
    assert_eq!(all["denied"], denied.len(), "{lines:?}");
    assert_eq!(all["uncertain"], 0, "{lines:?}");
    for line in &lines {
        assert_eq!(line["change"], "denied");
        assert_eq!(line["executable"], other.path.display().to_string());
        let port = line["port"].as_u64().unwrap();
        let rule = if port == u64::from(first) {
            "nobody else"
        } else {
            "not other's bytes"
        };
        assert_eq!(line["rule"], rule, "{line}");
        assert_eq!(line["count"], 1);
    }
    // Its history alone says the same; that question had all of it written.
    stage.agent.settle(&after);
    let (lines, now) = replay(&stage, &policy, &[]);
    let state = stage.agent.socket().with_file_name("state");
    let (of_history, past) = replay(&stage, &policy, &["--state-dir", state.to_str().unwrap()]);
    assert_eq!(of_history, lines);
    assert_eq!(past["judged"], before.len() + after.len());
    for count in ["judged", "denied", "allowed", "uncertain"] {
        assert_eq!(past[count], now[count], "{past}");
    }
    assert_eq!(past["coverage"]["provenance"], "history");
    // What was denied since would pass under one that denies nothing.
    let (_, all) = replay(&stage, "mode = \"enforce\"\ndefault = \"allow\"\n", &[]);
    assert_eq!(all["allowed"], denied.len());
    assert_eq!(all["denied"], 0);
}

#[test]
fn a_policy_that_is_none_and_a_past_without_acts_are_said_so() {
    let stage = Stage::new();
    let file = stage.scratch.path().join("p.toml");
    let path = file.display().to_string();
    fs::write(&file, "mode = \"enforce\"\ndefault = \"perhaps\"\n").unwrap();
    let output = stage
        .agent
        .ask(&["policy", "replay", "--since", "-1min", &path]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("p.toml:2:"), "{said}");

    fs::write(&file, "mode = \"enforce\"\ndefault = \"allow\"\n").unwrap();
    let output = stage
        .agent
        .ask(&["policy", "replay", "--since", "-1min", &path]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("judged      0 acts"), "{said}");
}

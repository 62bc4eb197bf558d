//! `procid who`, `status` and `doctor`, with an agent and without.

use std::process::{Command, Output};

use procid::records::schema;
use procid_tests::{
    attribution::{Expected, assert_attributed},
    listener,
    records::text,
    scratch::procid,
    stage::Stage,
};
use serde_json::Value;

/// The records of an answer, each checked, and the coverage record.
fn answer(output: &Output) -> (Vec<Value>, Value) {
    let stdout = std::str::from_utf8(&output.stdout).unwrap();
    let mut records: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for record in &records {
        assert_eq!(schema::check(record), Vec::<String>::new(), "{record}");
    }
    let last = records.pop().unwrap_or_else(|| panic!("{output:?}"));
    assert!(last.pointer("/procid/coverage").is_some(), "{last}");
    (records, last)
}

#[test]
fn each_way_to_name_a_connection() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let app = stage.app.clone();
    let to = listener.address();
    let mut program = stage.start(["connect", "--hold", "--to", &to.to_string()]);
    let other = stage.run(["connect", "--to", &to.to_string()]);
    let act = program.act();
    stage.agent.settle(&other);
    let told = |records: &procid_tests::records::Records| records.of_act(&act).len() == 1;
    assert!(stage.agent.until(told));
    let source = act.source.unwrap();
    let (from, port) = (source.to_string(), format!(":{}", source.port()));
    let pid = act.actor.pid.to_string();
    let (to_port, to) = (to.port().to_string(), to.to_string());
    let from_port = source.port().to_string();
    let community = {
        let record = stage.agent.records().of_act(&act)[0];
        text(record, "/network/community_id").into_owned()
    };
    let questions: [&[&str]; 8] = [
        &[&port],
        &[&from],
        &[&from, &to],
        &[&community],
        &["--pid", &pid],
        &["--sport", &from_port, "--dport", &to_port],
        &["--src", &from, "--dst", &to],
        &["--sha256", &app.sha256, &port],
    ];
    for question in questions {
        let arguments = [&["who", "--json"], question].concat();
        let output = stage.agent.ask(&arguments);
        assert_eq!(output.status.code(), Some(0), "{question:?}: {output:?}");
        let (records, coverage) = answer(&output);
        assert_eq!(records.len(), 1, "{question:?}");
        assert_eq!(text(&records[0], "/process/pid"), pid, "{question:?}");
        assert_eq!(text(&records[0], "/process/hash/sha256"), app.sha256);
        let provenance = "/procid/coverage/provenance";
        assert_eq!(text(&coverage, provenance), "live");
    }
    let both = stage.agent.ask(&["who", "--json", &to]);
    assert_eq!(answer(&both).0.len(), 2);

    let nothing: [&[&str]; 3] = [
        &[":1"],
        &["--pid", "1", &port],
        &["--sha256", "00000000", &port],
    ];
    for question in nothing {
        let output = stage.agent.ask(&[&["who", "--json"], question].concat());
        assert_eq!(output.status.code(), Some(1), "{question:?}: {output:?}");
        assert!(answer(&output).0.is_empty(), "{question:?}");
    }

    // Now in the past.
    program.finish();
    let acts = [act];
    stage.agent.settle(&acts);
    let past = stage.agent.ask(&["who", "--json", &port]);
    let (past, _) = answer(&past);
    assert_eq!(past.len(), 1);
    assert!(past[0].pointer("/event/duration").is_some(), "{}", past[0]);
    let records = stage.end(&acts);
    assert_attributed(&records, &acts[0], &Expected::connect(&app));
}

#[test]
fn an_agent_that_is_well_says_so() {
    let stage = Stage::new();
    let status = stage.agent.ask(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{status:?}");
    let ready = stage.agent.records().ready().unwrap().clone();
    let printed = String::from_utf8(status.stdout).unwrap();
    for hook in ready.pointer("/procid/hooks").unwrap().as_array().unwrap() {
        assert!(
            printed.contains(hook.as_str().unwrap()),
            "{hook}: {printed}"
        );
    }
    let records = stage.end(&[]);
    assert_eq!(records.lost(), 0);
}

/// With no agent the kernel answers, and the answer says that it is no history.
#[test]
fn without_an_agent() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let app = stage.app.clone();
    let to = listener.address().to_string();
    let mut program = stage.start(["connect", "--hold", "--to", &to]);
    let act = program.act();
    let source = act.source.unwrap().to_string();
    let nobody = stage.scratch.path().join("nobody");
    let ask = |arguments: &[&str]| {
        Command::new(procid())
            .args(arguments)
            .arg("--socket")
            .arg(&nobody)
            .output()
            .unwrap()
    };
    let output = ask(&["who", "--json", &source, &to]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (records, coverage) = answer(&output);
    // The listener's end of it is a socket of this test.
    let [record] = &records[..] else {
        panic!("{records:#?}");
    };
    assert_eq!(text(record, "/process/pid"), act.actor.pid.to_string());
    assert_eq!(text(record, "/process/hash/sha256"), app.sha256);
    assert_eq!(text(record, "/procid/exe/inode"), app.file.inode);
    assert_eq!(text(record, "/procid/provenance"), "snapshot");
    assert_eq!(text(record, "/event/kind"), "state");
    let provenance = "/procid/coverage/provenance";
    assert_eq!(text(&coverage, provenance), "snapshot");
    assert_eq!(ask(&["who", ":1"]).status.code(), Some(1));
    assert_eq!(ask(&["status"]).status.code(), Some(4));
    program.finish();
    let _records = stage.end(&[]);
}

#[test]
fn what_was_open_before_is_told_as_snapshot() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let stage = Stage::new();
    let app = stage.app.clone();
    let to = listener.address().to_string();
    let mut program = stage.start(["connect", "--hold", "--to", &to]);
    let act = program.act();
    let second = procid_tests::agent::Agent::start(&stage.cgroup);
    program.finish();
    let records = second.stop();
    assert_eq!(records.of_act(&act), Vec::<&Value>::new());
    let port = act.source.unwrap().port();
    let rows: Vec<_> = records
        .all()
        .iter()
        .filter(|record| {
            text(record, "/event/kind") == "state"
                && record.pointer("/source/port") == Some(&port.into())
        })
        .collect();
    let [row] = rows[..] else {
        panic!("{rows:#?}");
    };
    assert_eq!(text(row, "/procid/provenance"), "snapshot");
    assert_eq!(text(row, "/process/pid"), act.actor.pid.to_string());
    assert_eq!(text(row, "/procid/exe/inode"), app.file.inode);
    let first = stage.end(std::slice::from_ref(&act));
    let live = first.of_act(&act)[0];
    let entity = "/process/entity_id";
    assert_eq!(text(row, entity), text(live, entity));
}

#[test]
fn doctor_tries_and_tells() {
    let output = Command::new(procid()).arg("doctor").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    for hook in ["cgroup/connect4", "cgroup/sendmsg6", "inet_sock_set_state"] {
        assert!(printed.contains(hook), "{hook}: {printed}");
    }
}

#[test]
fn ps_lists_what_runs_below_who_forked_it() {
    let listener = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let to = listener.address().to_string();
    let mut program = stage.start(["connect", "--hold", "--to", &to]);
    let act = program.act();
    let told = |records: &procid_tests::records::Records| records.of_act(&act).len() == 1;
    assert!(stage.agent.until(told));
    let app = stage.app.clone();
    stage.wait_for_hash(act.actor.pid, &app.file);

    let (records, _) = answer(&stage.agent.ask(&["ps", "--json"]));
    let pid = |record: &Value| record["process"]["pid"].as_u64();
    let of = |wanted: u32| {
        let found = records
            .iter()
            .find(|record| pid(record) == Some(wanted.into()));
        found.unwrap_or_else(|| panic!("process {wanted} is not listed"))
    };
    let image = of(act.actor.pid);
    assert_eq!(text(image, "/process/hash/sha256"), *app.sha256);
    assert_eq!(text(image, "/procid/exe/inode"), app.file.inode);
    assert_eq!(image["procid"]["sockets"], 1);
    assert_eq!(
        of(stage.agent.pid().as_raw_nonzero().get().cast_unsigned())["procid"]["sockets"],
        0
    );

    // This test has forked it.
    let tree = stage.agent.ask(&["ps", "--tree"]);
    assert!(tree.status.success(), "{tree:?}");
    let tree = String::from_utf8(tree.stdout).unwrap();
    let column = |name: &str| {
        let line = tree.lines().find(|line| line.ends_with(name));
        line.unwrap_or_else(|| panic!("{name}: {tree}")).len() - name.len()
    };
    let own = std::env::current_exe().unwrap();
    let own = own.display().to_string();
    let below = app.path.display().to_string();
    assert_eq!(column(&below), column(&own) + 2, "{tree}");
    program.finish();

    let nobody = Command::new(procid())
        .args(["ps", "--socket", "/nonexistent/socket"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(4));
}

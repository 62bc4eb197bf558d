//! The server, with an agent behind it that answers everything in full.

use std::collections::BTreeMap;

use axum::{Extension, Router};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    agent::{
        handle::{Fill, GateStatus, Handle, HookStatus, Memory, Question, Status},
        origin::Origin,
        policy::{
            ask::{Changed, Pending, PolicyStatus, Shown, ShownRule, Unhashed},
            explain::{Explained, Passed, RuleAt},
            open::Denied,
        },
        stream::stream,
    },
    api::{access::Peer, server},
    history,
    records::{Coverage, Gap, Procid, Record, Uncovered},
};

/// The server as a caller with that uid meets it.
pub(super) fn router(uid: u32) -> Router {
    let (questions, receiver) = mpsc::channel(8);
    tokio::spawn(agent(receiver));
    let mut origin = Origin::default();
    origin.agent.agent_type = "procid".to_owned();
    // It ends at once, and so does what is read of it.
    let (tap, stream) = stream(origin);
    drop(tap);
    let handle = Handle::new(questions).with_stream(stream.clone());
    tokio::spawn(async move { stream.pump().await });
    let peer = Peer {
        uid,
        gid: 0,
        pid: Some(42),
    };
    server::router(handle).layer(Extension(peer))
}

async fn agent(mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        match question {
            Question::Who(_, sender) => {
                let _gone = sender.send(Memory {
                    records: vec![image()],
                    coverage: covered(),
                    ..Memory::default()
                });
            }
            Question::Connections(_, sender) | Question::Processes(sender) => {
                let _gone = sender.send(vec![image(), coverage()]);
            }
            Question::Process(id, sender) => {
                let _gone = sender.send((id != "unknown").then(image));
            }
            Question::Status(sender) => {
                let _gone = sender.send(status());
            }
            Question::Policy(sender) => {
                let _gone = sender.send(Ok(shown()));
            }
            Question::Change(_, _, sender) => {
                let _gone = sender.send(Ok(changed()));
            }
            Question::Explain(_, sender) => {
                let _gone = sender.send(Ok(explained()));
            }
        }
    }
}

fn image() -> Record {
    serde_json::from_value(json!({
        "@timestamp": "2026-11-22T15:04:05.123456789Z",
        "event": {"kind": "event", "action": "exec", "module": "procid", "dataset": "x"},
        "agent": {"type": "procid", "version": "0.1.0"},
        "process": {"entity_id": "e", "pid": 1, "parent": {"entity_id": "p", "pid": 2}},
    }))
    .unwrap()
}

fn covered() -> Coverage {
    Coverage {
        to: "2026-11-22T15:04:05.123456789Z".to_owned(),
        provenance: "live".to_owned(),
        gaps: vec![Gap {
            from: some(),
            count: Some(1),
            ..Gap::default()
        }],
        ..Coverage::default()
    }
}

fn coverage() -> Record {
    Record {
        procid: Some(Box::new(Procid {
            coverage: Some(covered()),
            ..Procid::default()
        })),
        ..Record::default()
    }
}

pub(super) fn some() -> Option<String> {
    Some("x".to_owned())
}

fn policy_status() -> PolicyStatus {
    PolicyStatus {
        sha256: some(),
        file: some(),
        mode: "audit".to_owned(),
        default: "deny".to_owned(),
        unprotected: some(),
        pending: Some(Pending {
            falls_back_to: some(),
            ..Pending::default()
        }),
        ..PolicyStatus::default()
    }
}

fn status() -> Status {
    Status {
        hooks: vec![HookStatus {
            reason: some(),
            ..HookStatus::default()
        }],
        uncovered: vec![Uncovered::default()],
        actions: BTreeMap::from([("exec".to_owned(), 1)]),
        lost: BTreeMap::from([("x".to_owned(), 1)]),
        fill: BTreeMap::from([("x".to_owned(), Fill::default())]),
        policy: Some(policy_status()),
        exec_gate: Some(GateStatus::default()),
        history: Some(history::State {
            file: some(),
            trouble: some(),
            ..history::State::default()
        }),
        ..Status::default()
    }
}

fn shown() -> Shown {
    Shown {
        status: policy_status(),
        rules: vec![ShownRule {
            action: "deny".to_owned(),
            line: Some(1),
            expires: some(),
            target: some(),
            to: some(),
            reason: some(),
            ..ShownRule::default()
        }],
        text: some(),
        ..Shown::default()
    }
}

fn changed() -> Changed {
    Changed {
        sha256: some(),
        confirm_by: some(),
        block: some(),
        expires: some(),
        denied: vec![Denied {
            transport: some(),
            executable: some(),
            rule: some(),
            ..Denied::default()
        }],
        undecided: Some(1),
        unhashed: vec![Unhashed {
            executable: some(),
            ..Unhashed::default()
        }],
        ..Changed::default()
    }
}

fn explained() -> Explained {
    let rule = RuleAt {
        action: "audit".to_owned(),
        line: Some(1),
        ..RuleAt::default()
    };
    let mut explained = Explained {
        rule: Some(rule.clone()),
        passed: vec![Passed {
            rule: rule.clone(),
            ..Passed::default()
        }],
        audit: vec![rule],
        ..Explained::default()
    };
    let process = &mut explained.process;
    for field in [
        &mut process.entity_id,
        &mut process.executable,
        &mut process.inode,
        &mut process.sha256,
        &mut process.cgroup,
    ] {
        *field = some();
    }
    explained
}

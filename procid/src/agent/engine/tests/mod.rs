//! The engine, driven event by event.

use std::{io, net::IpAddr};

use procid_common::{
    event::kind,
    image::{Directory, FileState, ImageId, ImageRecord, flags as image_flags},
    process::{Exec, Exit, Fork},
    socket::{Outcome, flags},
};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    agent::handle::HookStatus,
    connections::fixtures::{
        Ledger, MS, actor, attempt, close, datagram, header, image, ipv4, outcome, row,
    },
    flow::Query,
    identity::{
        containers::{Part, Place},
        hash::{Grade, settle::Offset},
    },
    records::{Id, schema},
};

mod any;
mod bounds;
mod hash;
mod hops;
mod life;
mod login;
mod nat;
mod past;
mod policy;
mod start;
mod who;

const NOW: u64 = 1_000_000 * MS;
const HASH: FileHash = FileHash::Known {
    sha256: [0xab; 32],
    grade: Grade::Verified,
};

/// The id of cgroup 4242's container; no other is in one, and 99 is gone.
const CONTAINER: &str = "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffee0000";

#[derive(Debug)]
struct OneContainer;

impl Cgroups for OneContainer {
    fn place(&self, cgroup: u64) -> io::Result<Place> {
        let name = match cgroup {
            99 => return Err(io::Error::from(io::ErrorKind::NotFound)),
            4242 => format!("docker-{CONTAINER}.scope"),
            _ => "x.service".to_owned(),
        };
        Ok(Place(vec![Part {
            name: name.into_bytes(),
            is_roots: true,
        }]))
    }
}

fn engine() -> Engine {
    let mut origin = Origin::default();
    origin.ecs.version = crate::records::ECS_VERSION.to_owned();
    origin.host.boot = Some(Id {
        id: "01010101-0101-0101-0101-010101010101".to_owned(),
    });
    origin.agent.agent_type = "procid".to_owned();
    origin.agent.version = "0.1.0".to_owned();
    origin.agent.ephemeral_id = Some("run".to_owned());
    Engine::new(Setup {
        boot_id: [1; 16],
        origin,
        args: Args::Full,
        clock: Clock::fixed(Offset(1_700_000_000_000_000_000)),
        now_ns: NOW,
        update_every: Duration::from_secs(300),
        accounts: Box::new(Ledger::default()),
        cgroups: Box::new(OneContainer),
        keeps_history: true,
        pods: Pods::at("/nowhere".into()),
        users: Users::of("/etc/passwd".into()),
        netns: 100,
    })
}

fn exec(id: ImageId, at_ns: u64) -> ExecFacts {
    ExecFacts {
        event: Exec {
            header: header::<Exec>(kind::EXEC, at_ns),
            image: ImageRecord {
                id,
                parent: image(5),
                previous: ImageId::UNKNOWN,
                exe: FileState {
                    ino: 77,
                    dev: 254 << 20 | 1,
                    ..FileState::default()
                },
                fs_magic: 0xef53,
                flags: 0,
                mntns: 0,
                reserved: 0,
            },
            actor: actor(id.tgid),
            sha256: [0; 32],
            hashed: 0,
            path_len: 0,
            args_len: 0,
            script_len: 0,
            root: Directory::default(),
            cwd: Directory::default(),
            script: FileState::default(),
            script_fs_magic: 0,
            script_flags: 0,
        },
        path: Some(b"/usr/bin/cu\x1brl".to_vec()),
        args: Some(vec![b"curl".to_vec(), b"a b\n".to_vec()]),
        script: None,
    }
}

/// An image that forked itself off `parent`.
fn fork(id: ImageId, parent: ImageId, at_ns: u64) -> Event {
    Event::Fork(Fork {
        header: header::<Fork>(kind::FORK, at_ns),
        image: ImageRecord {
            parent,
            ..exec(id, at_ns).event.image
        },
        actor: actor(id.tgid),
    })
}

fn exit(id: ImageId, at_ns: u64, status: u32) -> Event {
    Event::Exit(Exit {
        header: header::<Exit>(kind::EXIT, at_ns),
        id,
        status,
        reserved: 0,
    })
}

/// Hashes every file at once.
fn hash_all(engine: &mut Engine, hash: FileHash) {
    while let Some(work) = engine.next_work() {
        if let Work::Hash(request) = work {
            engine.hash(Answer {
                id: request.id,
                hash,
            });
        }
    }
}

/// All records that are ready, as JSON, each checked against the schema.
fn records(engine: &mut Engine) -> Vec<Value> {
    std::iter::from_fn(|| engine.next_record())
        .map(|record| checked(&record))
        .collect()
}

fn checked(record: &Record) -> Value {
    let value = serde_json::to_value(record).unwrap();
    assert_eq!(schema::check(&value), [""; 0], "{value:#}");
    value
}

fn actions(records: &[Value]) -> Vec<&str> {
    records
        .iter()
        .map(|record| record["event"]["action"].as_str().unwrap())
        .collect()
}

/// An engine that knows the image of process 10, hash and all.
fn engine_with_curl() -> Engine {
    let mut engine = engine();
    engine.event(Event::Exec(exec(image(10), NOW)));
    hash_all(&mut engine, HASH);
    assert_eq!(actions(&records(&mut engine)), ["exec"]);
    engine
}

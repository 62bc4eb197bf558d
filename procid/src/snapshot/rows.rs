//! Sockets and their holders as records.
//!
//! Rows are of event kind `state`: what is, not what happened. A socket that
//! several processes hold makes a row for each of them; one that none is seen
//! to hold makes one without a process.

use std::{collections::BTreeMap, fs};

use rustix::system::uname;

use super::{
    Row, Snapshot,
    hashes::{Executable, Hasher, start_ns},
    holders::Holder,
    sockets::SocketFacts,
};
use crate::{
    flow::{Query, community_id::community_id, matches::Facts},
    identity::{
        context::users::{self, Users},
        entity::BOOT_ID_PATH,
        hash::{FileHash, settle::Offset},
    },
    records::{
        Agent, Coverage, ECS_VERSION, Ecs, Endpoint, Event, Exe, HashState, Host, Id, Network,
        Process, Procid, Record, Related, Sha256, Socket, Thread, User, escape::escape, words,
    },
    time::rfc3339_ns,
};

const NO_ENTITY: &str =
    "/proc rounds the start time and does not show which exec this is: no image can be named";
const NO_OPENER: &str = "who holds a socket now need not be who opened it";
const LEFT_OVER: &str = "no process holds it any more: the kernel finishes the connection";
const NOBODY_SEEN: &str = "no process that this user may look at holds it";
const NOBODY: &str = "no process holds a descriptor of it: it is the kernel's own, or in flight";

/// The records that answer a question, the last one being the coverage record.
pub fn answer(query: &Query, snapshot: &Snapshot) -> Vec<Record> {
    let covered = Record {
        procid: Some(Box::new(Procid {
            coverage: Some(coverage(snapshot)),
            ..Procid::default()
        })),
        ..Record::default()
    };
    let matching = matching(query, snapshot).into_iter();
    matching
        .map(|(_, record)| record)
        .chain([covered])
        .collect()
}

/// Each row and holder that match, and the record of both.
pub fn matching<'a>(query: &Query, snapshot: &'a Snapshot) -> Vec<(&'a Row, Record)> {
    let now_ns = now_ns();
    let writer = Writer::new(now_ns, snapshot);
    // Hashing takes long: not before everything else matches.
    let unhashed = Query {
        sha256: None,
        ..query.clone()
    };
    let mut hasher = Hasher::new();
    let mut matching = Vec::new();
    for row in &snapshot.rows {
        for holder in holders(row) {
            let mut record = writer.record(&row.socket, holder);
            if !matches(&unhashed, &record, now_ns) {
                continue;
            }
            if let Some(holder) = holder {
                put_executable(&mut record, hasher.executable(holder));
            }
            if matches(query, &record, now_ns) {
                matching.push((row, record));
            }
        }
    }
    matching
}

fn now_ns() -> i64 {
    Offset::now().to_real(crate::identity::hash::settle::boot_now_ns())
}

/// Every row as records, hashes included.
pub fn records(snapshot: &Snapshot) -> Vec<Record> {
    let mut records = answer(&Query::default(), snapshot);
    records.pop();
    records
}

/// Each holder, or once nobody.
fn holders(row: &Row) -> impl Iterator<Item = Option<&Holder>> {
    let nobody = row.holders.is_empty().then_some(None);
    row.holders.iter().map(Some).chain(nobody)
}

fn matches(query: &Query, record: &Record, now_ns: i64) -> bool {
    let process = record.process.as_deref();
    let source = record.source.as_ref();
    let destination = record.destination.as_ref();
    query.matches(&Facts {
        source_ip: source.and_then(|end| end.ip),
        source_port: source.and_then(|end| end.port),
        destination_ip: destination.and_then(|end| end.ip),
        destination_port: destination.and_then(|end| end.port),
        source_nat: None,
        destination_nat: None,
        community_id: record
            .network
            .as_ref()
            .and_then(|network| network.community_id.as_deref()),
        pid: process.and_then(|process| process.pid),
        executable: process.and_then(|process| process.executable.as_deref()),
        name: process.and_then(|process| process.name.as_deref()),
        sha256: process
            .and_then(|process| process.hash.as_ref())
            .map(|hash| hash.sha256.as_str()),
        uid: process
            .and_then(|process| process.user.as_ref())
            .and_then(|user| user.id.parse().ok()),
        container: record
            .container
            .as_ref()
            .map(|container| container.id.as_str()),
        domain: None,
        verdict: None,
        start: Some(now_ns),
        end: None,
    })
}

/// What was looked at, and what could not be.
pub fn coverage(snapshot: &Snapshot) -> Coverage {
    Coverage {
        from: None,
        to: rfc3339_ns(now_ns()),
        lost: BTreeMap::new(),
        gaps: Vec::new(),
        uncovered: snapshot.unseen.clone(),
        provenance: "snapshot".to_owned(),
    }
}

/// What all rows of a snapshot have in common.
struct Writer {
    timestamp: String,
    now: Offset,
    host: Host,
    users: Users,
    /// Why a socket with a descriptor has no holder.
    nobody: &'static str,
}

impl Writer {
    fn new(now_ns: i64, snapshot: &Snapshot) -> Self {
        let boot_id = fs::read_to_string(BOOT_ID_PATH).ok();
        let all_seen = !snapshot
            .unseen
            .iter()
            .any(|unseen| unseen.path.starts_with("the descriptors"));
        Self {
            timestamp: rfc3339_ns(now_ns),
            now: Offset::now(),
            host: Host {
                name: Some(escape(uname().nodename().to_bytes()).into_owned()),
                id: None,
                boot: boot_id.map(|id| Id {
                    id: id.trim_end().to_owned(),
                }),
            },
            users: Users::of(users::PASSWD.into()),
            nobody: if all_seen { NOBODY } else { NOBODY_SEEN },
        }
    }

    fn record(&self, socket: &SocketFacts, holder: Option<&Holder>) -> Record {
        let (source, destination) = (socket.source, socket.destination);
        let number = words::iana_number(socket.protocol);
        let mut unknown = BTreeMap::from([("procid.role".to_owned(), NO_OPENER.to_owned())]);
        match holder {
            Some(_) => unknown.insert("process.entity_id".to_owned(), NO_ENTITY.to_owned()),
            None => {
                let reason = if socket.inode == 0 {
                    LEFT_OVER
                } else {
                    self.nobody
                };
                unknown.insert("process".to_owned(), reason.to_owned())
            }
        };
        let mut ips = vec![source.0];
        if destination.0 != source.0 {
            ips.push(destination.0);
        }
        let mut record = Record {
            timestamp: self.timestamp.clone(),
            ecs: Some(Ecs {
                version: ECS_VERSION.to_owned(),
            }),
            event: Some(Event {
                kind: "state".to_owned(),
                category: vec!["network".to_owned()],
                types: vec!["info".to_owned()],
                action: "connect".to_owned(),
                module: "procid".to_owned(),
                dataset: "procid.connection".to_owned(),
                ..Event::default()
            }),
            host: Some(self.host.clone()),
            agent: Some(Agent {
                agent_type: "procid".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Agent::default()
            }),
            network: Some(Network {
                transport: words::transport(socket.protocol).map(str::to_owned),
                network_type: Some(words::network_type(destination.0).to_owned()),
                iana_number: number.map(|number| number.to_string()),
                community_id: number.and_then(|number| {
                    community_id(
                        number,
                        (source.0, Some(source.1)),
                        (destination.0, Some(destination.1)),
                    )
                }),
                ..Network::default()
            }),
            source: Some(endpoint(source)),
            destination: Some(endpoint(destination)),
            process: holder.map(|holder| Box::new(self.process(holder))),
            user: holder.map(|holder| self.user(holder.euid)),
            related: Some(Related {
                ip: ips,
                hash: Vec::new(),
            }),
            procid: Some(Box::new(Procid {
                provenance: Some("snapshot".to_owned()),
                socket: Some(Socket {
                    cookie: Some(socket.cookie.to_string()),
                    socket_type: words::socket_type(socket_type(socket.protocol))
                        .map(str::to_owned),
                    netns: Some(socket.netns.to_string()),
                    state: words::tcp_state(socket.state).map(str::to_owned),
                }),
                unknown,
                ..Procid::default()
            })),
            ..Record::default()
        };
        if let Some(context) = holder.and_then(|holder| holder.context.as_ref()) {
            context.put(&mut record);
        }
        record
    }

    fn user(&self, uid: u32) -> User {
        User {
            id: uid.to_string(),
            name: self.users.name(uid).map(|name| name.to_string()),
        }
    }

    fn process(&self, holder: &Holder) -> Process {
        let id = |id: u32| Some(Id { id: id.to_string() });
        let args: Option<Vec<String>> = holder
            .args
            .as_ref()
            .map(|args| args.iter().map(|arg| escape(arg).into_owned()).collect());
        let base_name = holder
            .exe
            .as_deref()
            .and_then(|path| path.rsplit(|&b| b == b'/').next());
        Process {
            pid: Some(holder.pid),
            vpid: Some(holder.vpid),
            name: base_name.map(|name| escape(name).into_owned()),
            executable: holder.exe.as_deref().map(|exe| escape(exe).into_owned()),
            command_line: args.as_ref().map(|args| args.join(" ")),
            args,
            start: Some(rfc3339_ns(self.now.to_real(start_ns(holder)))),
            thread: Some(Thread {
                id: Some(holder.pid),
                name: Some(escape(&holder.comm).into_owned()),
            }),
            user: Some(self.user(holder.euid)),
            group: id(holder.egid),
            real_user: id(holder.uid),
            real_group: id(holder.gid),
            ..Process::default()
        }
    }
}

fn endpoint((ip, port): (std::net::IpAddr, u16)) -> Endpoint {
    Endpoint {
        ip: Some(ip),
        port: Some(port),
        ..Endpoint::default()
    }
}

fn socket_type(protocol: u16) -> u16 {
    const STREAM: u16 = libc::SOCK_STREAM as u16;
    const DGRAM: u16 = libc::SOCK_DGRAM as u16;
    if i32::from(protocol) == libc::IPPROTO_UDP {
        DGRAM
    } else {
        STREAM
    }
}

fn put_executable(record: &mut Record, executable: Executable) {
    let Some(procid) = record.procid.as_deref_mut() else {
        return;
    };
    procid.exe = executable.file.map(|file| Exe {
        dev: format!("{}:{}", file.major(), file.minor()),
        inode: file.ino.to_string(),
    });
    if executable.file.is_none() {
        procid.unknown.insert(
            "procid.exe".to_owned(),
            "its file cannot be looked at".to_owned(),
        );
    }
    procid.hash = Some(match executable.hash {
        FileHash::Known { sha256, grade } => {
            let text: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            if let Some(related) = &mut record.related {
                related.hash.push(text.clone());
            }
            if let Some(process) = record.process.as_deref_mut() {
                process.hash = Some(Sha256 { sha256: text });
            }
            HashState {
                grade: grade.name().to_owned(),
                reason: None,
            }
        }
        FileHash::None(missing) => HashState {
            grade: "none".to_owned(),
            reason: Some(missing.name().to_owned()),
        },
    });
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;

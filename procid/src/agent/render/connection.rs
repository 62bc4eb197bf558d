//! Records of connections.

use procid_common::{
    image::ImageId,
    socket::{Hook, flags},
};

use super::{
    Head, Renderer, absent,
    process::{provenance, put_actor},
};
use crate::{
    connections::{Connection, Key, Outcome, Role},
    flow::community_id::community_id,
    identity::image::Provenance,
    records::{
        Endpoint, ErrorCode, Event, Network, Process, Procid, Record, Related, Socket, words,
    },
};

/// What a record tells of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Telling {
    /// The act and its outcome.
    Opened,
    Closed,
    /// Both, to who asks.
    Answer,
}

impl Renderer<'_> {
    pub(in crate::agent) fn connection(
        &self,
        key: Key,
        connection: &Connection,
        telling: Telling,
    ) -> Record {
        let is_closed = telling == Telling::Closed;
        let ended_ns = connection.ended_ns.map(std::num::NonZero::get);
        let mut record = self.record(&Head {
            action: match telling {
                Telling::Closed => "close",
                _ if connection.is_send() => "send",
                _ => "connect",
            },
            dataset: "procid.connection",
            category: Some("network"),
            types: types(connection, telling),
            is_state: !is_closed && connection.provenance == Provenance::Snapshot,
            at_ns: match ended_ns {
                Some(ended_ns) if is_closed => ended_ns,
                _ => connection.started_ns,
            },
        });
        let mut procid = Box::new(self.procid(key, connection));
        self.put_ends(&mut record, connection);
        self.put_owner(&mut record, &mut procid, connection);
        put_outcome(&mut record, &mut procid, connection, is_closed);
        if let Some(event) = &mut record.event
            && telling != Telling::Opened
            && let Some(ended_ns) = ended_ns
        {
            self.put_times(event, &mut procid, connection, ended_ns);
            if connection.released_ns == connection.ended_ns {
                let reason = "its last state change was not seen: this is when its last descriptor was closed";
                absent(&mut procid, "event.end", reason);
            }
        }
        if let Some(event) = &mut record.event
            && telling == Telling::Answer
        {
            event.sequence = connection.sequence.map(std::num::NonZero::get);
        }
        record.procid = Some(procid);
        record
    }

    fn procid(&self, key: Key, connection: &Connection) -> Procid {
        let is_live = connection.provenance == Provenance::Live;
        let hook = Hook::ALL
            .into_iter()
            .find(|hook| *hook as u32 == connection.hook);
        let mut procid = Procid {
            verdict: is_live.then(|| "allow".to_owned()),
            hook: hook.map(|hook| hook.name().to_owned()),
            provenance: Some(provenance(connection.provenance).to_owned()),
            socket: Some(Socket {
                cookie: (key.cookie != 0).then(|| key.cookie.to_string()),
                socket_type: words::socket_type(connection.sock_type).map(str::to_owned),
                netns: (connection.netns != 0).then(|| connection.netns.to_string()),
                state: match connection.protocol {
                    6 => words::tcp_state(u32::from(connection.state)).map(str::to_owned),
                    _ => None,
                },
            }),
            ..Procid::default()
        };
        if key.cookie == 0 {
            let reason = "the kernel has given this socket no cookie";
            absent(&mut procid, "procid.flow_id", reason);
            absent(&mut procid, "procid.socket.cookie", reason);
        } else {
            procid.flow_id = Some(key.to_string());
        }
        let holders = connection.holders();
        if !holders.is_empty() {
            procid.holders = Some(holders.iter().map(|id| self.entity(id)).collect());
        }
        procid
    }

    fn put_ends(&self, record: &mut Record, connection: &Connection) {
        let source_ip = connection.source_ip();
        let source_port = connection.source_port();
        let destination_ip = connection.destination_ip();
        let destination_port = connection.destination_port();
        let number = words::iana_number(connection.protocol);
        record.network = Some(Network {
            transport: words::transport(connection.protocol).map(str::to_owned),
            network_type: Some(words::network_type(destination_ip).to_owned()),
            iana_number: number.map(|number| number.to_string()),
            direction: match connection.provenance {
                Provenance::Live => Some("egress".to_owned()),
                Provenance::Snapshot => None,
            },
            community_id: community_id_of(connection),
            bytes: None,
        });
        record.source = (source_ip.is_some() || source_port.is_some()).then_some(Endpoint {
            ip: source_ip,
            port: source_port,
            bytes: None,
        });
        record.destination = Some(Endpoint {
            ip: Some(destination_ip),
            port: destination_port,
            bytes: None,
        });
        let mut ips: Vec<_> = source_ip.into_iter().collect();
        if !ips.contains(&destination_ip) {
            ips.push(destination_ip);
        }
        record.related = Some(Related {
            ip: ips,
            hash: Vec::new(),
        });
    }

    /// The process behind it, its role, and who opened the socket.
    fn put_owner(&self, record: &mut Record, procid: &mut Procid, connection: &Connection) {
        if connection.is_kernels() {
            record.process = Some(Box::new(Process {
                pid: Some(0),
                name: Some("kernel".to_owned()),
                ..Process::default()
            }));
            procid.flags.push("kernel".to_owned());
            procid.role = Some("opener".to_owned());
            return;
        }
        if connection.image.is_known() {
            self.put_image(record, procid, &connection.image);
        } else {
            absent(procid, "process", "the kernel side could not read it");
        }
        if connection.flags & flags::IO_WORKER != 0 {
            procid.flags.push("io-worker".to_owned());
        }
        match connection.role() {
            Role::Opener => procid.role = Some("opener".to_owned()),
            Role::Speaker(creator) => {
                procid.role = Some("speaker".to_owned());
                procid.opener = Some(Box::new(self.process_of(&creator)));
            }
            Role::NotSeen => absent(procid, "procid.role", "the socket is older than procid"),
        }
        match connection.provenance {
            Provenance::Live => {
                let actor = &connection.actor;
                put_actor(record, procid, actor);
                if actor.netns != 0 && actor.netns != connection.netns {
                    procid.netns = Some(actor.netns.to_string());
                }
            }
            Provenance::Snapshot => {
                let reason = "the socket was opened before procid was attached";
                absent(procid, "process.user", reason);
                absent(procid, "process.thread", reason);
                absent(procid, "network.direction", reason);
            }
        }
    }

    fn put_times(
        &self,
        event: &mut Event,
        procid: &mut Procid,
        connection: &Connection,
        ended_ns: u64,
    ) {
        event.end = Some(self.time(ended_ns));
        if connection.provenance == Provenance::Live {
            event.start = Some(self.time(connection.started_ns));
            event.duration = Some(ended_ns.saturating_sub(connection.started_ns));
        } else {
            let reason = "the socket was opened before procid was attached";
            absent(procid, "event.start", reason);
            absent(procid, "event.duration", reason);
        }
    }
}

/// The Community ID, once both ends are known.
pub(in crate::agent) fn community_id_of(connection: &Connection) -> Option<String> {
    community_id(
        words::iana_number(connection.protocol)?,
        (connection.source_ip()?, connection.source_port()),
        (connection.destination_ip(), connection.destination_port()),
    )
}

/// Effective uid at the act; `None` where the act was not seen.
pub(in crate::agent) fn uid(connection: &Connection) -> Option<u32> {
    let seen = connection.provenance == Provenance::Live && !connection.is_kernels();
    seen.then_some(connection.actor.creds.euid)
}

/// `process.pid` of a connection's records.
pub(in crate::agent) fn pid(connection: &Connection) -> Option<u32> {
    match connection.image {
        _ if connection.is_kernels() => Some(0),
        ImageId::UNKNOWN => None,
        image => Some(image.tgid),
    }
}

fn types(connection: &Connection, telling: Telling) -> &'static [&'static str] {
    match (telling, connection.provenance) {
        (Telling::Closed, _) => &["connection", "end"],
        (_, Provenance::Snapshot) => &["info"],
        _ if matches!(connection.role(), Role::Speaker(_)) => &["connection", "info", "allowed"],
        _ => &["connection", "start", "allowed"],
    }
}

fn put_outcome(record: &mut Record, procid: &mut Procid, connection: &Connection, is_closed: bool) {
    let word = match connection.outcome {
        Outcome::Success => Some("success"),
        Outcome::Failure(_) | Outcome::Abandoned => Some("failure"),
        Outcome::Unknown | Outcome::Pending => Some("unknown"),
        Outcome::Found => None,
    };
    match connection.outcome {
        Outcome::Failure(errno) => {
            record.error = Some(ErrorCode {
                code: words::errno(errno).into_owned(),
            });
        }
        Outcome::Abandoned => absent(
            procid,
            "error.code",
            "the attempt ended where its error cannot be seen",
        ),
        _ => {}
    }
    if let Some(event) = &mut record.event
        && !is_closed
    {
        event.outcome = word.map(str::to_owned);
    }
}

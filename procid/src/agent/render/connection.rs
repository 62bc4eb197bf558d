//! Records of connections.

use procid_common::{
    image::ImageId,
    policy::{self, NO_RULE, unknown},
    socket::{Hook, flags},
};

use super::{
    Head, Renderer, absent,
    process::{provenance, put_actor},
};
use crate::{
    connections::{Connection, Judged, Key, Nat, Outcome, Role, Speaker},
    conntrack::End,
    flow::community_id::community_id,
    identity::image::Provenance,
    records::{
        self, Audit, Endpoint, ErrorCode, Event, NatState, Network, Process, Procid, Record,
        Related, Rule, Socket, TranslatedEnd, Wire, words,
    },
};

const DATASET: &str = "procid.connection";
const SPEAKER_TYPES: &[&str] = &["connection", "info", "allowed"];

/// What a record tells of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Telling {
    /// The act and its outcome.
    Opened,
    /// What lives on, at this time (nanoseconds since boot).
    Update(u64),
    Closed,
    /// All of it, to who asks.
    Answer,
    /// The same, with what has been counted so far.
    Counted,
}

impl Renderer<'_> {
    pub(in crate::agent) fn connection(
        &self,
        key: Key,
        connection: &Connection,
        telling: Telling,
    ) -> Record {
        let ended_ns = connection.ended_ns.map(std::num::NonZero::get);
        let is_act = !matches!(telling, Telling::Update(_) | Telling::Closed);
        let mut record = self.record(&Head {
            action: match telling {
                Telling::Closed => "close",
                Telling::Update(_) => "update",
                _ => act(connection),
            },
            dataset: DATASET,
            category: Some("network"),
            types: types(connection, telling),
            is_state: is_act && connection.provenance == Provenance::Snapshot,
            at_ns: match (telling, ended_ns) {
                (Telling::Closed, Some(ended_ns)) => ended_ns,
                (Telling::Update(at_ns), _) => at_ns,
                _ => connection.started_ns,
            },
        });
        let mut procid = Box::new(self.procid(key, connection));
        self.put_ends(&mut record, connection);
        self.put_domain(&mut record, &mut procid, connection, &connection.image);
        self.put_owner(&mut record, &mut procid, connection);
        put_outcome(&mut record, &mut procid, connection, is_act);
        if is_act && let Some(judged) = connection.judged.as_deref() {
            self.put_judged(&mut record, &mut procid, judged);
        }
        let tells_bytes = match telling {
            Telling::Opened => false,
            Telling::Answer => ended_ns.is_some(),
            Telling::Counted => connection.sent.is_some() || connection.received.is_some(),
            Telling::Update(_) | Telling::Closed => true,
        };
        if tells_bytes {
            put_bytes(&mut record, &mut procid, connection);
        }
        if let Some(event) = &mut record.event
            && telling != Telling::Opened
        {
            self.put_times(event, &mut procid, connection);
        }
        if let Some(event) = &mut record.event
            && matches!(telling, Telling::Answer | Telling::Counted)
        {
            event.sequence = connection.sequence.map(std::num::NonZero::get);
        }
        record.procid = Some(procid);
        record
    }

    /// A use of a connection by another image than its opener, or one that was
    /// denied.
    pub(in crate::agent) fn used(
        &self,
        key: Key,
        connection: &Connection,
        speaker: &Speaker,
    ) -> Record {
        let Some(denied) = speaker.denied.as_deref() else {
            return self.speaker(key, connection, speaker);
        };
        self.denied_use(key, denied)
    }

    /// An act that was denied on a connection that goes on: the record that told
    /// of it.
    pub(in crate::agent) fn denied_use(&self, key: Key, denied: &Connection) -> Record {
        let mut record = self.connection(key, denied, Telling::Opened);
        if let Some(event) = &mut record.event {
            event.sequence = denied.sequence.map(std::num::NonZero::get);
        }
        record
    }

    /// The first send of an image on a connection that another one opened.
    pub(in crate::agent) fn speaker(
        &self,
        key: Key,
        connection: &Connection,
        speaker: &Speaker,
    ) -> Record {
        let mut record = self.record(&Head {
            action: "send",
            dataset: DATASET,
            category: Some("network"),
            types: SPEAKER_TYPES,
            is_state: false,
            at_ns: speaker.at_ns,
        });
        let mut procid = Box::new(self.procid(key, connection));
        procid.verdict = Some("allow".to_owned());
        procid.hook = hook(speaker.hook);
        procid.provenance = Some(provenance(Provenance::Live).to_owned());
        procid.holders = None;
        self.put_ends(&mut record, connection);
        self.put_domain(&mut record, &mut procid, connection, &speaker.image);
        self.put_image(&mut record, &mut procid, &speaker.image);
        put_actor(&mut record, &mut procid, &speaker.actor);
        if speaker.flags & flags::IO_WORKER != 0 {
            procid.flags.push("io-worker".to_owned());
        }
        procid.role = Some("speaker".to_owned());
        self.put_opener(&mut procid, connection);
        if let Some(event) = &mut record.event {
            event.outcome = Some("success".to_owned());
            event.sequence = speaker.sequence.map(std::num::NonZero::get);
        }
        record.procid = Some(procid);
        record
    }

    /// What the policy said, and which rule.
    fn put_judged(&self, record: &mut Record, procid: &mut Procid, judged: &Judged) {
        let rules = &self.frame.rules;
        procid.verdict = Some(verdict(judged.verdict).to_owned());
        procid.generation = Some(judged.generation);
        match judged.unknown {
            unknown::NOTHING => {}
            unknown::ROOM => procid.flags.push("table-full".to_owned()),
            _ => procid.flags.push("hash-unknown".to_owned()),
        }
        if judged.audit != NO_RULE
            && let Some(rule) = rules.rule(judged.generation, judged.audit)
        {
            procid.audit = Some(Audit {
                rule: rule.name.iter().map(ToString::to_string).collect(),
            });
        }
        let Some(rule) = rules.rule(judged.generation, judged.rule) else {
            absent(procid, "rule", "the policy was another agent's");
            return;
        };
        record.rule = Some(Rule {
            name: rule.name.map(|name| name.to_string()),
            version: Some(rule.version.to_string()),
        });
        if judged.rule == NO_RULE {
            absent(procid, "rule.name", "no rule matched: the default decided");
        }
    }

    fn put_opener(&self, procid: &mut Procid, connection: &Connection) {
        let opener = match (connection.provenance, connection.role()) {
            (Provenance::Snapshot, _) | (_, Role::SpeakerOfUnknown | Role::NotSeen) => None,
            (_, Role::Speaker(creator)) => Some(creator),
            (_, Role::Opener | Role::Acceptor) => Some(connection.image),
        };
        match opener.filter(ImageId::is_known) {
            Some(opener) => procid.opener = Some(Box::new(self.process_of(&opener))),
            None => absent(procid, "procid.opener", not_seen(connection)),
        }
    }

    fn procid(&self, key: Key, connection: &Connection) -> Procid {
        let is_live = connection.provenance == Provenance::Live;
        let mut procid = Procid {
            verdict: is_live.then(|| "allow".to_owned()),
            hook: hook(connection.hook),
            wire: connection.wire.as_deref().map(|wire| Wire {
                destination: Some(words::address(*wire)),
            }),
            provenance: Some(provenance(connection.provenance).to_owned()),
            socket: Some(Socket {
                cookie: (key.cookie != 0).then(|| key.cookie.to_string()),
                socket_type: if connection.is_packet() {
                    Some("packet".to_owned())
                } else {
                    words::socket_type(connection.sock_type).map(str::to_owned)
                },
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
        match connection.nat.as_deref() {
            Some(Nat::Ambiguous) => absent(
                &mut procid,
                "procid.nat",
                "sockets of several network namespaces have these ends",
            ),
            Some(nat) if connection.translated() != (None, None) => {
                let grade = match nat {
                    Nat::Exact(_) => "exact",
                    _ => "inferred",
                };
                procid.nat = Some(NatState {
                    grade: grade.to_owned(),
                });
            }
            _ => {}
        }
        let holders = connection.holders();
        if !holders.is_empty() {
            procid.holders = Some(holders.iter().map(|id| self.entity(id)).collect());
        }
        procid
    }

    fn put_ends(&self, record: &mut Record, connection: &Connection) {
        let direction = match connection.provenance {
            Provenance::Live if connection.is_accepted() => Some("ingress"),
            Provenance::Live => Some("egress"),
            Provenance::Snapshot => None,
        };
        // A connect that was denied has been given no source.
        let is_sourceless = connection.outcome == Outcome::Denied && act(connection) == "connect";
        let source_ip = connection.source_ip().filter(|_| !is_sourceless);
        let source_port = connection.source_port().filter(|_| !is_sourceless);
        let Some(destination_ip) = connection.destination_ip() else {
            record.network = direction.map(|direction| Network {
                direction: Some(direction.to_owned()),
                ..Network::default()
            });
            return;
        };
        let (source_nat, destination_nat) = connection.translated();
        let number = words::iana_number(connection.protocol);
        record.network = Some(Network {
            transport: words::transport(connection.protocol).map(str::to_owned),
            network_type: Some(words::network_type(destination_ip).to_owned()),
            iana_number: number.map(|number| number.to_string()),
            direction: direction.map(str::to_owned),
            community_id: community_id_of(connection),
            bytes: None,
        });
        record.source = (source_ip.is_some() || source_port.is_some()).then_some(Endpoint {
            ip: source_ip,
            port: source_port,
            nat: source_nat.map(translated),
            ..Endpoint::default()
        });
        record.destination = Some(Endpoint {
            ip: Some(destination_ip),
            port: connection.destination_port(),
            nat: destination_nat.map(translated),
            ..Endpoint::default()
        });
        let mut ips: Vec<_> = source_ip.into_iter().collect();
        let nat = source_nat.into_iter().chain(destination_nat);
        for ip in std::iter::once(destination_ip).chain(nat.map(|(ip, _)| ip)) {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        record.related = Some(Related {
            ip: ips,
            hash: Vec::new(),
        });
    }

    /// What the destination was called, and how that is known; `image` is that of
    /// the record.
    fn put_domain(
        &self,
        record: &mut Record,
        procid: &mut Procid,
        connection: &Connection,
        image: &ImageId,
    ) {
        let (Some(domain), Some(destination)) =
            (connection.domain.as_deref(), &mut record.destination)
        else {
            return;
        };
        destination.domain = Some(domain.name.to_string());
        let (relation, asked_by) = if domain.is_asked_by(image) {
            ("image", Some(self.entity(image)))
        } else if domain.asked_by.is_known() {
            ("namespace", Some(self.entity(&domain.asked_by)))
        } else {
            let reason = "its socket was older than procid";
            absent(procid, "procid.domain.asked_by", reason);
            ("namespace", None)
        };
        procid.domain = Some(records::Domain {
            grade: "observed".to_owned(),
            relation: relation.to_owned(),
            asked_by,
            at: self.time(domain.at_ns),
            others: domain.others.iter().map(ToString::to_string).collect(),
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
        if connection.flags & flags::SUBFLOW != 0 {
            procid.flags.push("mptcp-subflow".to_owned());
        }
        match connection.role() {
            Role::Opener => procid.role = Some("opener".to_owned()),
            Role::Acceptor => procid.role = Some("acceptor".to_owned()),
            Role::Speaker(_) | Role::SpeakerOfUnknown => {
                procid.role = Some("speaker".to_owned());
                self.put_opener(procid, connection);
            }
            Role::NotSeen => absent(procid, "procid.role", not_seen(connection)),
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

    fn put_times(&self, event: &mut Event, procid: &mut Procid, connection: &Connection) {
        let ended_ns = connection.ended_ns.map(std::num::NonZero::get);
        if let Some(ended_ns) = ended_ns {
            event.end = Some(self.time(ended_ns));
            if connection.released_ns == connection.ended_ns {
                let reason = "its last state change was not seen: this is when its last descriptor was closed";
                absent(procid, "event.end", reason);
            } else if connection.is_packet() {
                let reason = "no hook sees the end of a packet socket: it was gone at this time";
                absent(procid, "event.end", reason);
            }
        }
        if connection.provenance == Provenance::Live && !connection.is_use {
            event.start = Some(self.time(connection.started_ns));
            event.duration = ended_ns.map(|end_ns| end_ns.saturating_sub(connection.started_ns));
        } else if ended_ns.is_some() {
            absent(procid, "event.start", not_seen(connection));
            absent(procid, "event.duration", not_seen(connection));
        }
    }
}

const fn translated((ip, port): End) -> TranslatedEnd {
    TranslatedEnd { ip, port }
}

/// Payload: of an accepted connection, the source is the peer.
fn put_bytes(record: &mut Record, procid: &mut Procid, connection: &Connection) {
    let (sent, received) = (connection.sent, connection.received);
    let (source, destination) = if connection.is_accepted() {
        (received, sent)
    } else {
        (sent, received)
    };
    // A record of a packet socket has no destination: beside what was sent, the
    // sum is all that it can say.
    let received = if connection.is_packet() {
        "network.bytes"
    } else {
        "destination.bytes"
    };
    for (field, bytes) in [("source.bytes", source), (received, destination)] {
        if bytes.is_none() {
            absent(procid, field, not_counted(connection));
        }
    }
    if source.is_some() {
        record.source.get_or_insert_default().bytes = source;
    }
    if destination.is_some() && !connection.is_packet() {
        record.destination.get_or_insert_default().bytes = destination;
    }
    if let (Some(source), Some(destination)) = (source, destination)
        && let Some(network) = &mut record.network
    {
        network.bytes = Some(source.saturating_add(destination));
    }
}

fn not_counted(connection: &Connection) -> &'static str {
    if connection.is_stream() && connection.released_ns == connection.ended_ns {
        "its last state change was not seen"
    } else if connection.provenance == Provenance::Snapshot
        || connection.flags & flags::CREATOR_UNSEEN != 0
    {
        "the socket is older than procid"
    } else {
        "not told apart from that of other peers, or not counted on this kernel"
    }
}

/// Why the beginning of a connection is not known.
fn not_seen(connection: &Connection) -> &'static str {
    if connection.provenance == Provenance::Snapshot {
        "the socket was opened before procid was attached"
    } else if connection.is_accepted() {
        "who accepted it was not seen"
    } else if connection.is_packet() {
        "who made the packet socket was not seen"
    } else {
        "the socket is older than procid"
    }
}

fn hook(number: u32) -> Option<String> {
    Hook::ALL
        .into_iter()
        .find(|hook| *hook as u32 == number)
        .map(|hook| hook.name().to_owned())
}

fn act(connection: &Connection) -> &'static str {
    if connection.is_use || connection.is_send() {
        "send"
    } else if connection.is_accepted() {
        "accept"
    } else {
        "connect"
    }
}

/// The Community ID, once both ends are known.
pub(in crate::agent) fn community_id_of(connection: &Connection) -> Option<String> {
    community_id(
        words::iana_number(connection.protocol)?,
        (connection.source_ip()?, connection.source_port()),
        (connection.destination_ip()?, connection.destination_port()),
    )
}

/// Effective uid at the act; `None` where the act was not seen.
pub(in crate::agent) fn uid(connection: &Connection) -> Option<u32> {
    let seen = connection.provenance == Provenance::Live && !connection.is_kernels();
    seen.then_some(connection.actor.creds.euid)
}

/// `procid.verdict`, by number of [`policy::verdict`].
pub(in crate::agent) const fn verdict(number: u32) -> &'static str {
    match number {
        policy::verdict::DENY => "deny",
        policy::verdict::AUDIT => "audit",
        _ => "allow",
    }
}

/// `procid.cgroup` of a connection's records.
pub(in crate::agent) fn cgroup(connection: &Connection) -> Option<u64> {
    let seen = connection.provenance == Provenance::Live && !connection.is_kernels();
    seen.then_some(connection.actor.cgroup)
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
        (Telling::Update(_), _) => &["connection", "info"],
        (_, Provenance::Snapshot) => &["info"],
        _ if connection.outcome == Outcome::Denied => {
            if matches!(connection.role(), Role::Speaker(_) | Role::SpeakerOfUnknown) {
                &["connection", "info", "denied"]
            } else {
                &["connection", "denied"]
            }
        }
        _ if matches!(connection.role(), Role::Speaker(_) | Role::SpeakerOfUnknown) => {
            SPEAKER_TYPES
        }
        _ => &["connection", "start", "allowed"],
    }
}

fn put_outcome(record: &mut Record, procid: &mut Procid, connection: &Connection, is_act: bool) {
    let word = match connection.outcome {
        // That is what the policy wanted.
        Outcome::Success | Outcome::Denied => Some("success"),
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
    if is_act && let Some(event) = &mut record.event {
        event.outcome = word.map(str::to_owned);
    }
}

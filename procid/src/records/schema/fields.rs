//! The table of fields: names and types of the Elastic Common Schema
//! (<https://www.elastic.co/docs/reference/ecs/ecs-field-reference>), and
//! procid's own.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

use crate::flow::community_id::is_community_id;

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string that is not empty.
    Keyword,
    /// A string that may be empty: an argument.
    Text,
    /// RFC 3339 in UTC, nine digits of fraction, `Z`.
    Date,
    /// An address; IPv4 never in its v4-mapped form.
    Ip,
    /// A whole number that is not negative.
    Long,
    /// A whole number up to 65535.
    Port,
    /// A whole number up to 2³² - 1.
    Id32,
    /// A 64-bit identifier: a decimal string.
    Decimal,
    /// A decimal string up to 255.
    IanaNumber,
    /// 64 lower-case hexadecimal digits.
    Sha256,
    /// `1:` and 28 characters of base64.
    CommunityId,
    /// An errno's name, or its number where it has no name.
    Errno,
    /// `COOKIE.COUNT`.
    FlowId,
    /// `major:minor`.
    Device,
    /// An array of keywords that is not empty.
    Keywords,
    /// An array of keywords.
    KeywordsOrNone,
    /// An array of [`Kind::Text`].
    Texts,
    /// An array of addresses that is not empty.
    Ips,
    /// An array of `{path, reason}`.
    Uncovered,
    /// An array of `{from, to, count, cause}`.
    Gaps,
    /// An array of [`super::super::Hop`] that is not empty.
    Hops,
    /// An object of keywords under names of their own.
    KeywordMap,
    /// An object of counts under names of their own.
    LongMap,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Dotted name.
    pub name: &'static str,
    pub kind: Kind,
    /// The values allowed; empty: any of the kind.
    pub values: &'static [&'static str],
}

/// The field of that dotted name. Fields of a process object are found under
/// each of [`PROCESS_OBJECTS`].
pub fn field(name: &str) -> Option<&'static Field> {
    if let Some(field) = FIELDS.iter().find(|field| field.name == name) {
        return Some(field);
    }
    PROCESS_OBJECTS
        .iter()
        .filter_map(|object| name.strip_prefix(object)?.strip_prefix('.'))
        .find_map(|inner| PROCESS_FIELDS.iter().find(|field| field.name == inner))
}

/// Whether fields exist below this name.
pub fn is_object(name: &str) -> bool {
    fn is_below(full: &str, name: &str) -> bool {
        full.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('.'))
    }
    let in_process = |&object: &&str| {
        let inner = name
            .strip_prefix(object)
            .and_then(|inner| inner.strip_prefix('.'));
        object == name
            || is_below(object, name)
            || inner.is_some_and(|inner| PROCESS_FIELDS.iter().any(|f| is_below(f.name, inner)))
    };
    FIELDS.iter().any(|field| is_below(field.name, name)) || PROCESS_OBJECTS.iter().any(in_process)
}

impl Kind {
    /// Whether a JSON value that is neither array nor object is of this kind.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Long => value.is_u64(),
            Self::Port => value
                .as_u64()
                .is_some_and(|port| u16::try_from(port).is_ok()),
            Self::Id32 => value.as_u64().is_some_and(|id| u32::try_from(id).is_ok()),
            _ => value.as_str().is_some_and(|text| self.accepts_text(text)),
        }
    }

    fn accepts_text(self, text: &str) -> bool {
        let all =
            |text: &str, is: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|b| is(&b));
        let decimal = |text: &str| {
            all(text, u8::is_ascii_digit)
                && (text == "0" || !text.starts_with('0'))
                && text.parse::<u64>().is_ok()
        };
        match self {
            Self::Keyword => !text.is_empty(),
            Self::Text => true,
            Self::Date => {
                const FORM: &str = "2026-11-22T15:04:05.123456789Z";
                text.len() == FORM.len()
                    && text.ends_with('Z')
                    && text.as_bytes().get(10) == Some(&b'T')
                    && text.parse::<Timestamp>().is_ok()
            }
            Self::Ip => text
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip == ip.to_canonical() && ip.to_string() == text),
            Self::Decimal => decimal(text),
            Self::IanaNumber => decimal(text) && text.parse::<u8>().is_ok(),
            Self::Sha256 => {
                text.len() == 64 && all(text, |b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            }
            Self::CommunityId => is_community_id(text),
            Self::Errno => {
                all(text, u8::is_ascii_digit)
                    || (text.starts_with('E')
                        && all(text, |b| b.is_ascii_uppercase() || b.is_ascii_digit()))
            }
            Self::FlowId | Self::Device => {
                let separator = if self == Self::FlowId { '.' } else { ':' };
                text.split_once(separator)
                    .is_some_and(|(first, second)| decimal(first) && decimal(second))
            }
            _ => false,
        }
    }

    /// The kind in words, for "not a port number".
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyword | Self::Text => "a string",
            Self::Date => "a time as 2026-11-22T15:04:05.123456789Z",
            Self::Ip => "an address in its shortest form",
            Self::Long => "a whole number",
            Self::Port => "a port number",
            Self::Id32 => "a 32-bit number",
            Self::Decimal => "a 64-bit number as a decimal string",
            Self::IanaNumber => "a number up to 255 as a decimal string",
            Self::Sha256 => "64 lower-case hexadecimal digits",
            Self::CommunityId => "a Community ID",
            Self::Errno => "an errno",
            Self::FlowId => "COOKIE.COUNT",
            Self::Device => "major:minor",
            Self::Keywords
            | Self::KeywordsOrNone
            | Self::Texts
            | Self::Ips
            | Self::Uncovered
            | Self::Gaps
            | Self::Hops => "an array",
            Self::KeywordMap | Self::LongMap => "an object",
        }
    }
}

const fn any(name: &'static str, kind: Kind) -> Field {
    one_of(name, kind, &[])
}

const fn one_of(name: &'static str, kind: Kind, values: &'static [&'static str]) -> Field {
    Field { name, kind, values }
}

/// Where process objects stand.
pub const PROCESS_OBJECTS: &[&str] = &[
    "process",
    "process.parent",
    "process.previous",
    "procid.opener",
    "procid.opener.parent",
    "procid.peer.process",
    "procid.peer.speaker",
];

/// Fields of a process object, named from within it.
pub const PROCESS_FIELDS: &[Field] = &[
    any("entity_id", Kind::Keyword),
    any("pid", Kind::Id32),
    any("vpid", Kind::Id32),
    any("name", Kind::Keyword),
    any("executable", Kind::Keyword),
    any("args", Kind::Texts),
    any("command_line", Kind::Keyword),
    any("start", Kind::Date),
    any("end", Kind::Date),
    any("exit_code", Kind::Long),
    any("thread.id", Kind::Id32),
    any("thread.name", Kind::Keyword),
    any("user.id", Kind::Decimal),
    any("user.name", Kind::Keyword),
    any("group.id", Kind::Decimal),
    any("real_user.id", Kind::Decimal),
    any("real_group.id", Kind::Decimal),
    any("hash.sha256", Kind::Sha256),
];

const GRADES: &[&str] = &["kernel", "gated", "verified", "none"];

/// Reasons for a hash that is not known: the contract's, `unsettled` (modified
/// within a clock tick of the exec) and `no-file` (a kernel thread, or an exec
/// that was not seen).
const REASONS: &[&str] = &[
    "gone",
    "changed",
    "too-large",
    "unreadable",
    "pending",
    "untrusted-fs",
    "unsettled",
    "no-file",
];

const ROLES: &[&str] = &["opener", "speaker", "acceptor"];

const PROVENANCES: &[&str] = &["live", "snapshot"];

/// Every field outside process objects.
pub const FIELDS: &[Field] = &[
    any("@timestamp", Kind::Date),
    one_of("ecs.version", Kind::Keyword, &[crate::records::ECS_VERSION]),
    one_of("event.kind", Kind::Keyword, &["event", "state"]),
    one_of(
        "event.category",
        Kind::Keywords,
        &["network", "process", "configuration"],
    ),
    one_of(
        "event.type",
        Kind::Keywords,
        &[
            "connection",
            "start",
            "end",
            "info",
            "change",
            "allowed",
            "denied",
        ],
    ),
    any("event.action", Kind::Keyword),
    one_of(
        "event.outcome",
        Kind::Keyword,
        &["success", "failure", "unknown"],
    ),
    any("event.reason", Kind::Keyword),
    one_of("event.module", Kind::Keyword, &["procid"]),
    any("event.dataset", Kind::Keyword),
    any("event.sequence", Kind::Long),
    any("event.duration", Kind::Long),
    any("event.start", Kind::Date),
    any("event.end", Kind::Date),
    any("host.name", Kind::Keyword),
    any("host.id", Kind::Keyword),
    any("host.boot.id", Kind::Keyword),
    one_of("agent.type", Kind::Keyword, &["procid"]),
    any("agent.version", Kind::Keyword),
    any("agent.id", Kind::Keyword),
    any("agent.ephemeral_id", Kind::Keyword),
    one_of(
        "network.transport",
        Kind::Keyword,
        &["tcp", "udp", "udplite", "icmp", "ipv6-icmp", "sctp", "dccp"],
    ),
    one_of("network.type", Kind::Keyword, &["ipv4", "ipv6"]),
    any("network.iana_number", Kind::IanaNumber),
    one_of("network.direction", Kind::Keyword, &["ingress", "egress"]),
    any("network.community_id", Kind::CommunityId),
    any("network.bytes", Kind::Long),
    any("source.ip", Kind::Ip),
    any("source.port", Kind::Port),
    any("source.bytes", Kind::Long),
    any("source.nat.ip", Kind::Ip),
    any("source.nat.port", Kind::Port),
    any("destination.ip", Kind::Ip),
    any("destination.port", Kind::Port),
    any("destination.domain", Kind::Keyword),
    any("destination.bytes", Kind::Long),
    any("destination.nat.ip", Kind::Ip),
    any("destination.nat.port", Kind::Port),
    any("user.id", Kind::Decimal),
    any("user.name", Kind::Keyword),
    any("container.id", Kind::Keyword),
    one_of(
        "container.runtime",
        Kind::Keyword,
        &["docker", "containerd", "cri-o", "podman"],
    ),
    one_of("orchestrator.type", Kind::Keyword, &["kubernetes"]),
    any("orchestrator.namespace", Kind::Keyword),
    one_of("orchestrator.resource.type", Kind::Keyword, &["pod"]),
    any("orchestrator.resource.id", Kind::Keyword),
    any("orchestrator.resource.name", Kind::Keyword),
    any("error.code", Kind::Errno),
    any("rule.name", Kind::Keyword),
    any("rule.version", Kind::Sha256),
    any("related.ip", Kind::Ips),
    any("related.hash", Kind::Keywords),
    one_of("procid.role", Kind::Keyword, ROLES),
    one_of("procid.verdict", Kind::Keyword, &["allow", "deny", "audit"]),
    any("procid.audit.rule", Kind::Keywords),
    any("procid.hook", Kind::Keyword),
    one_of("procid.provenance", Kind::Keyword, PROVENANCES),
    any("procid.flow_id", Kind::FlowId),
    any("procid.socket.cookie", Kind::Decimal),
    one_of(
        "procid.socket.type",
        Kind::Keyword,
        &["stream", "dgram", "raw", "packet", "seqpacket", "dccp"],
    ),
    any("procid.socket.netns", Kind::Decimal),
    any("procid.socket.state", Kind::Keyword),
    any("procid.exe.dev", Kind::Device),
    any("procid.exe.inode", Kind::Decimal),
    one_of("procid.hash.grade", Kind::Keyword, GRADES),
    one_of("procid.hash.reason", Kind::Keyword, REASONS),
    any("procid.script.path", Kind::Keyword),
    any("procid.script.exe.dev", Kind::Device),
    any("procid.script.exe.inode", Kind::Decimal),
    any("procid.script.hash.sha256", Kind::Sha256),
    one_of(
        "procid.script.hash.grade",
        Kind::Keyword,
        &["verified", "named", "none"],
    ),
    one_of("procid.script.hash.reason", Kind::Keyword, REASONS),
    one_of("procid.parent.hash.grade", Kind::Keyword, GRADES),
    one_of("procid.parent.hash.reason", Kind::Keyword, REASONS),
    any("procid.ancestry", Kind::Keywords),
    any("procid.holders", Kind::Keywords),
    any("procid.peer.flow_id", Kind::FlowId),
    one_of("procid.peer.role", Kind::Keyword, ROLES),
    one_of("procid.peer.hash.grade", Kind::Keyword, GRADES),
    one_of("procid.peer.hash.reason", Kind::Keyword, REASONS),
    any("procid.chain", Kind::Hops),
    any("procid.wire.destination", Kind::Ip),
    one_of("procid.nat.grade", Kind::Keyword, &["exact", "inferred"]),
    one_of("procid.domain.grade", Kind::Keyword, &["observed"]),
    one_of(
        "procid.domain.relation",
        Kind::Keyword,
        &["image", "namespace"],
    ),
    any("procid.domain.asked_by", Kind::Keyword),
    any("procid.domain.at", Kind::Date),
    any("procid.domain.others", Kind::Keywords),
    any("procid.loginuid", Kind::Id32),
    any("procid.sessionid", Kind::Id32),
    any("procid.login.from.ip", Kind::Ip),
    any("procid.login.from.port", Kind::Port),
    any("procid.login.entity_id", Kind::Keyword),
    one_of("procid.login.grade", Kind::Keyword, &["inferred"]),
    any("procid.cgroup.id", Kind::Decimal),
    any("procid.cgroup.path", Kind::Keyword),
    any("procid.unit", Kind::Keyword),
    any("procid.sockets", Kind::Long),
    any("procid.netns", Kind::Decimal),
    any("procid.flags", Kind::Keywords),
    any("procid.unknown", Kind::KeywordMap),
    any("procid.generation", Kind::Long),
    one_of(
        "procid.policy.change",
        Kind::Keyword,
        &[
            "apply", "reload", "confirm", "revert", "block", "unblock", "expire", "unload",
        ],
    ),
    any("procid.policy.confirm_by", Kind::Date),
    one_of(
        "procid.backend",
        Kind::Keyword,
        &["cgroup", "lsm", "lsm+cgroup"],
    ),
    any("procid.hooks", Kind::KeywordsOrNone),
    any("procid.uncovered", Kind::Uncovered),
    any("procid.lost", Kind::LongMap),
    any("procid.missed.from", Kind::Long),
    any("procid.missed.to", Kind::Long),
    any("procid.coverage.from", Kind::Date),
    any("procid.coverage.to", Kind::Date),
    any("procid.coverage.lost", Kind::LongMap),
    any("procid.coverage.gaps", Kind::Gaps),
    any("procid.coverage.uncovered", Kind::Uncovered),
    one_of(
        "procid.coverage.provenance",
        Kind::Keyword,
        &["live", "history", "snapshot"],
    ),
];

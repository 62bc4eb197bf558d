//! Records as users see them: one JSON object a line, in the names of the
//! Elastic Common Schema 9.4 (<https://www.elastic.co/docs/reference/ecs>).
//!
//! [`Record`] mirrors the JSON and nothing else; who fills it in is
//! [`crate::agent`]. An absent field is unknown, never 0 or "". 64-bit
//! identifiers are decimal strings.
//!
//! | module | holds |
//! | --- | --- |
//! | [`escape`] | bytes of a process, made safe to print |
//! | [`words`] | the kernel's numbers in the words of records |
//! | [`hops`] | the other end of a connection, and steps from one to the next |
//! | [`line`](mod@line) | a record as a table line |
//! | [`schema`] | the table of fields and actions that records are checked against |

use serde::{Deserialize, Serialize};

pub mod escape;
pub mod hops;
pub mod line;
pub mod schema;
pub mod words;

pub use hops::{Hop, Peer};

/// Version of the Elastic Common Schema the names are taken from.
pub const ECS_VERSION: &str = "9.4.0";

/// One record. Field order is the order in the output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The kernel's time, RFC 3339 with nine digits and `Z`.
    #[serde(rename = "@timestamp", skip_serializing_if = "String::is_empty")]
    pub timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecs: Option<Ecs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Box<Process>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orchestrator: Option<Orchestrator>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Related>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub procid: Option<Box<Procid>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ecs {
    pub version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    pub kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub category: Vec<String>,
    #[serde(rename = "type", skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Why, as procid or the caller says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub module: String,
    pub dataset: String,
    /// Consecutive within one `agent.ephemeral_id`; absent in answers of
    /// `who` that no agent gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<Id>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agent {
    #[serde(rename = "type")]
    pub agent_type: String,
    pub version: String,
    /// One installation: kept in the state directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// One run of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_id: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub network_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iana_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What it was called, as a DNS answer said: see [`Domain`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The end on the other side of network address translation, where that
    /// changes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat: Option<TranslatedEnd>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TranslatedEnd {
    pub ip: std::net::IpAddr,
    pub port: u16,
}

/// An object whose only field is an id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Id {
    pub id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub id: String,
    /// What the host's /etc/passwd calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Container {
    pub id: String,
    /// `docker`, `containerd`, `cri-o` or `podman`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
}

/// Who runs the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Orchestrator {
    /// `kubernetes`.
    #[serde(rename = "type")]
    pub orchestrator_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub resource: Resource,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// `pod`.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// The pod's uid.
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Cgroup v2 id, decimal.
    pub id: String,
    /// From the hierarchy's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorCode {
    /// The errno's name, `ECONNREFUSED`.
    pub code: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<Thread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_user: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_group: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Sha256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<Process>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Box<Process>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thread {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sha256 {
    /// Lower-case hexadecimal.
    pub sha256: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Related {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip: Vec<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hash: Vec<String>,
}

/// What ECS has no name for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Procid {
    /// `opener`, `speaker` or `acceptor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// `allow`, `deny` or `audit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// `live` or `snapshot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<String>,
    /// `COOKIE.COUNT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<Socket>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<Exe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashState>,
    /// The script that the image interprets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ancestry: Option<Vec<String>>,
    /// Entity ids of all images that hold a socket found open, oldest first,
    /// where there are several: `process` is the first, and may not be the
    /// opener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holders: Option<Vec<String>>,
    /// The image that opened the socket, where another one is speaking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opener: Option<Box<Process>>,
    /// The other end, where it is a socket of this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Box<Peer>>,
    /// Answers of `who`: where the request may have come from and gone on, in
    /// the order of a walk through a tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<Vec<Hop>>,
    /// What the packets are addressed to, where that is not what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire: Option<Wire>,
    /// How sure `source.nat` and `destination.nat` are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatState>,
    /// How `destination.domain` is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loginuid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessionid: Option<u32>,
    /// Answers of the agent: where the session's login came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// Of systemd: the outermost on the cgroup's path that is no slice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Answers about images: open connections that it has opened, accepted or
    /// used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u64>,
    /// Network namespace of the process, where it is not its socket's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Image flags in words: `memfd`, `deleted`, `kernel`, `forked`, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Why a field one would expect is absent: field name → reason.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub unknown: std::collections::BTreeMap<String, String>,
    /// Of the policy in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// `policy`: what became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyChange>,
    /// `ready`: the backend in use, `cgroup`, `lsm` or `lsm+cgroup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// `ready`: the hooks that are attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Vec<String>>,
    /// `ready`: what is not covered, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncovered: Option<Vec<Uncovered>>,
    /// `loss`: records lost since the last one, by cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<std::collections::BTreeMap<String, u64>>,
    /// `loss` of one reader of the event stream: the records it missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// Last record of a `who` answer: what the answer could have missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
}

/// Audit rules passed on the way to the verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Audit {
    pub rule: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Socket {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// `stream`, `dgram`, `raw`, `packet`, `seqpacket`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub socket_type: Option<String>,
    /// Inode of the network namespace, decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Snapshot rows: the kernel's name of the TCP state, `ESTABLISHED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wire {
    /// The first hop of a source route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<std::net::IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Login {
    pub from: LoginFrom,
    /// The image that used the connection from there: an ancestor, or itself.
    pub entity_id: String,
    /// `inferred`: the kernel does not say so.
    pub grade: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoginFrom {
    pub ip: std::net::IpAddr,
    pub port: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NatState {
    /// `exact`: it is translated in the socket's own network namespace;
    /// `inferred`: in the agent's, where a connection with the same ends is.
    pub grade: String,
}

/// How a name of the destination is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Domain {
    /// `observed`: a DNS answer that reached this host said so.
    pub grade: String,
    /// `image`: the image of the record asked for it; `namespace`: another one of
    /// its network namespace.
    pub relation: String,
    /// Entity id of the image that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    /// When the answer came.
    pub at: String,
    /// Other names that were told for the address, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exe {
    /// `major:minor`.
    pub dev: String,
    pub inode: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HashState {
    /// `kernel`, `gated`, `verified` or `none`.
    pub grade: String,
    /// Why there is no hash, where `grade` is `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Script {
    /// As it was given: to execve(2), or to the interpreter.
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<Exe>,
    pub hash: ScriptHash,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScriptHash {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// `verified`, `named` or `none`.
    pub grade: String,
    /// Why there is no hash, where `grade` is `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParentState {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashState>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyChange {
    /// `apply`, `reload`, `confirm`, `revert`, `block`, `unblock`, `expire`.
    pub change: String,
    /// It is reverted then, unless it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Uncovered {
    pub path: String,
    pub reason: String,
}

/// Sequences, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Missed {
    pub from: u64,
    pub to: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Coverage {
    /// RFC 3339; absent: nothing before now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub to: String,
    /// Records lost in that time, by cause.
    pub lost: std::collections::BTreeMap<String, u64>,
    /// Times of which something is missing, or all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    pub uncovered: Vec<Uncovered>,
    /// `live`, `history` or `snapshot`.
    pub provenance: String,
}

/// A time of which something is missing from history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gap {
    /// RFC 3339; absent: since a time that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub to: String,
    /// How many records; absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    pub cause: String,
}

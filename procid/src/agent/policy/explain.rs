//! Which rule decides, and why: `procid policy explain`.
//!
//! The programs decide, as they would for the act itself, and say what the
//! process's image satisfies; the reasons are read off that.

use std::net::IpAddr;

use procid_common::{
    image::ImageId,
    policy::{
        Bits, NO_RULE,
        asked::{Asked, AskedRow, answer, given},
        role, unknown, verdict,
    },
    socket::SocketKind,
};
use serde::{Deserialize, Serialize};

use super::{Manager, Now, ask::Refusal, kernel, show};
use crate::policy::{Action, Mode, Policy, Role, Rule, Transport};

/// `POST /v1/policy/explain`: a process, and a new socket of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    pub pid: u32,
    pub to: IpAddr,
    /// 0: none.
    #[serde(default)]
    pub port: u16,
    /// A word of the policy language.
    pub transport: String,
    /// `opener` or `speaker`.
    pub role: String,
    /// Instead of the process's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// What the socket is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// A policy that is not in force; absent: the one that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What messages call it.
    #[serde(default)]
    pub file: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explained {
    /// 0: the policy is not in force.
    pub generation: u64,
    pub sha256: String,
    /// `allow`, `deny`, `audit` (a deny in audit mode), or `unknown`: the
    /// programs could not read what they need, and `on_overflow` would decide.
    pub verdict: String,
    /// Absent: no rule decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleAt>,
    pub why: String,
    pub process: Explainee,
    /// Rules that were passed on the way, in order.
    pub passed: Vec<Passed>,
    /// Audit rules that match.
    pub audit: Vec<RuleAt>,
    /// What else the caller should know, a sentence each.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleAt {
    pub name: String,
    /// `allow`, `deny` or `audit`.
    pub action: String,
    /// Of the file; absent: a temporary rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// A rule that did not decide, and the first of its fields that kept it from
/// that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passed {
    #[serde(flatten)]
    pub rule: RuleAt,
    pub field: String,
    pub reason: String,
    /// The field does not match; else it is not known whether it does.
    pub certain: bool,
}

/// The process, as the kernel has it; its names as they were told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explainee {
    pub pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// `major:minor:inode`; absent: it runs no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// As `procid.hash.grade`, or why there is none.
    pub hash: String,
    pub uid: u32,
    pub gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

/// What is asked, in the language's terms.
struct Question<'a> {
    request: &'a Explain,
    transport: Transport,
    role: Role,
    /// Nanoseconds since the Unix epoch.
    now: i128,
}

/// Whether a field of a rule matches, and what was compared.
enum Field {
    Yes,
    No(String),
    Perhaps(String),
}

impl Manager {
    /// Says which rule decides for a process and a destination; `about` adds
    /// what else is known of its image.
    ///
    /// # Errors
    ///
    /// There is no such process or policy, the policy is no good, or the kernel
    /// does not tell.
    pub(in crate::agent) fn explain(
        &mut self,
        request: &Explain,
        now: Now,
        about: impl FnOnce(&ImageId) -> Explainee,
    ) -> Result<Explained, Refusal> {
        let question = Question {
            request,
            transport: Transport::of_word(&request.transport).ok_or_else(|| {
                Refusal::Input(format!(
                    "\"{}\" is no transport; give tcp, udp, udplite, icmp, ipv6-icmp, sctp or dccp",
                    request.transport
                ))
            })?,
            role: match request.role.as_str() {
                "opener" => Role::Opener,
                "speaker" => Role::Speaker,
                other => {
                    return Err(Refusal::Input(format!(
                        "\"{other}\" is no role that can be asked about; give opener or speaker"
                    )));
                }
            },
            now: now.clock.to_real(now.boot_ns).into(),
        };
        let asked = question.asked();
        let (policy, generation, rows) = if let Some(text) = &request.text {
            let (source, _) = self.read(text, &request.file)?;
            let built = self
                .build(Some(&source), &self.blocks, now)?
                .ok_or_else(none_in_force)?;
            let rows = self
                .enforcer
                .ask(Some((&built.tables, &self.family)), asked);
            (built.policy.into(), 0, rows)
        } else {
            let in_force = self.in_force.as_ref().ok_or_else(none_in_force)?;
            let (policy, generation) = (in_force.policy.clone(), in_force.generation);
            (policy, generation, self.enforcer.ask(None, asked))
        };
        let rows = rows.map_err(|error| kernel(&error))?;
        let pid = request.pid;
        let row = rows
            .iter()
            .find(|row| row.tid == pid)
            .or(rows.first())
            .ok_or_else(|| {
                Refusal::State(format!(
                    "no process {pid} runs; 'ps -e' lists those that do"
                ))
            })?;
        let explainee = Explainee {
            pid,
            inode: (row.exe_ino != 0).then(|| {
                let (major, minor) = (row.exe_dev >> 20, row.exe_dev & ((1 << 20) - 1));
                format!("{major}:{minor}:{}", row.exe_ino)
            }),
            uid: row.uid,
            gid: row.gid,
            ..about(&row.image)
        };
        let mut explained = explained(&policy, &question, row, explainee);
        explained.generation = generation;
        if rows.iter().any(|other| other.answer != row.answer) {
            explained.notes.push(
                "other threads of the process are told otherwise: their user, group or cgroup is \
                 another"
                    .to_owned(),
            );
        }
        Ok(explained)
    }
}

fn none_in_force() -> Refusal {
    Refusal::State(
        "no policy is in force; 'procid policy apply FILE' puts one in, 'procid policy explain \
         --file FILE' explains one that is not"
            .to_owned(),
    )
}

impl Question<'_> {
    /// As the programs are asked.
    fn asked(&self) -> Asked {
        let request = self.request;
        let is_v4 = request.to.is_ipv4();
        let (sock_type, protocol) = match self.transport {
            Transport::Tcp => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
            Transport::Udp => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            Transport::UdpLite => (libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
            Transport::Icmp => (libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
            Transport::Ipv6Icmp => (libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
            Transport::Sctp => (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
            Transport::Dccp => (libc::SOCK_DCCP, libc::IPPROTO_DCCP),
        };
        let family = if is_v4 { libc::AF_INET } else { libc::AF_INET6 };
        let small = |number: i32| u16::try_from(number).unwrap_or(0);
        let mut bits = 0;
        for (is_given, bit) in [
            (request.uid.is_some(), given::UID),
            (request.gid.is_some(), given::GID),
            (request.source_port.is_some(), given::SOURCE_PORT),
        ] {
            if is_given {
                bits |= bit;
            }
        }
        Asked {
            slot: 0,
            tgid: request.pid,
            destination: match request.to {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            },
            port: request.port.into(),
            source_port: request.source_port.unwrap_or(0).into(),
            socket: SocketKind {
                family: small(family),
                sock_type: small(sock_type),
                protocol: small(protocol),
                reserved: 0,
            },
            role: match self.role {
                Role::Speaker => role::SPEAKER as u32,
                Role::Opener | Role::Acceptor => role::OPENER as u32,
            },
            given: bits,
            uid: request.uid.unwrap_or(0),
            gid: request.gid.unwrap_or(0),
        }
    }
}

fn explained(
    policy: &Policy,
    question: &Question<'_>,
    row: &AskedRow,
    process: Explainee,
) -> Explained {
    let given = &row.answer;
    let decided = usize::try_from(given.rule).ok();
    let decided = decided.filter(|_| given.rule != NO_RULE);
    let rule = decided.and_then(|index| policy.rules.get(index));
    let mut passed = Vec::new();
    let mut audit = Vec::new();
    let mut notes = Vec::new();
    let mut turns_on = None;
    // Where a verdict turns on what is not known, a later rule matches for
    // certain; what lies between says nothing.
    let until = decided.unwrap_or(policy.rules.len());
    if given.answer != answer::LEFT_ALONE {
        for (index, rule) in policy.rules.iter().enumerate().take(until + 1) {
            let unmet = unmet(rule, index, question, row, &process);
            if Some(index) == decided {
                turns_on = unmet;
                break;
            }
            match unmet {
                None if rule.action == Action::Audit => audit.push(at(rule)),
                None => notes.push(format!(
                    "rule \"{}\" seems to match, and the kernel says it does not",
                    rule.name
                )),
                Some((field, reason, certain)) => passed.push(Passed {
                    rule: at(rule),
                    field: field.to_owned(),
                    reason,
                    certain,
                }),
            }
        }
    }
    Explained {
        generation: 0,
        sha256: super::hex(&policy.sha256),
        verdict: match (given.answer, given.verdict) {
            (answer::NONE, _) => "unknown",
            (_, verdict::DENY) => "deny",
            (_, verdict::AUDIT) => "audit",
            _ => "allow",
        }
        .to_owned(),
        why: why(policy, question, row, rule, turns_on),
        rule: rule.map(at),
        process,
        passed,
        audit,
        notes,
    }
}

fn at(rule: &Rule) -> RuleAt {
    RuleAt {
        name: rule.name.to_string(),
        action: show::action(rule.action).to_owned(),
        line: (rule.line != 0).then_some(rule.line),
    }
}

fn why(
    policy: &Policy,
    question: &Question<'_>,
    row: &AskedRow,
    rule: Option<&Rule>,
    turns_on: Option<(&'static str, String, bool)>,
) -> String {
    let mut why = match (row.answer.answer, rule) {
        (answer::NONE, _) => format!(
            "the programs cannot read what the decision needs; on_overflow = \"{}\" would decide",
            show::verdict(policy.on_overflow)
        ),
        (answer::LEFT_ALONE, _) => {
            format!("loopback = \"allow\" leaves {} alone", question.request.to)
        }
        (_, Some(rule)) if row.answer.unknown != 0 => {
            let turns_on = turns_on.map_or_else(String::new, |(field, reason, _)| {
                format!(" ({field}: {reason})")
            });
            let decides = if row.answer.unknown == unknown::ROOM {
                format!(
                    "a table was full, and on_overflow = \"{}\"",
                    show::verdict(policy.on_overflow)
                )
            } else {
                format!("unknown_hash = \"{}\"", show::verdict(policy.unknown_hash))
            };
            format!(
                "rule \"{}\" turns on what is not known{turns_on}, and decides otherwise than what \
                 follows: {decides}",
                rule.name,
            )
        }
        (_, Some(rule)) => format!(
            "rule \"{}\" is the first to match, and its action is {}",
            rule.name,
            show::action(rule.action)
        ),
        (_, None) => format!(
            "no rule matches: default = \"{}\"",
            show::verdict(policy.default)
        ),
    };
    if policy.mode == Mode::Audit && row.answer.verdict == verdict::AUDIT {
        why.push_str("; mode = \"audit\" blocks nothing");
    }
    why
}

/// The first field of a rule that does not match, else one of which that is not
/// known: its name, what it was compared with, and whether that is certain.
fn unmet(
    rule: &Rule,
    index: usize,
    question: &Question<'_>,
    row: &AskedRow,
    process: &Explainee,
) -> Option<(&'static str, String, bool)> {
    let mut perhaps = None;
    let of_process = process_fields(rule, index, question, row, process);
    for (name, field) in of_process.into_iter().chain(socket_fields(rule, question)) {
        match field {
            Field::Yes => {}
            Field::No(reason) => return Some((name, reason, true)),
            Field::Perhaps(reason) => {
                perhaps.get_or_insert((name, format!("not known yet: {reason}"), false));
            }
        }
    }
    perhaps
}

fn process_fields(
    rule: &Rule,
    index: usize,
    question: &Question<'_>,
    row: &AskedRow,
    process: &Explainee,
) -> [(&'static str, Field); 9] {
    let asks = &rule.process;
    let bit = |bits: &Bits| has(bits, index);
    let or = |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.to_owned());
    let in_root = asks.is_in_root();
    let name_known = if in_root {
        row.root_known
    } else {
        row.path_known
    };
    let runs = || {
        let file = or(&process.executable, "a file without a name");
        match (in_root, name_known != 0) {
            (false, _) => format!("it runs {file}"),
            (true, true) => {
                format!("it runs {file}, which no container's root has under that name")
            }
            (true, false) => {
                format!("it runs {file}, in a root that an ordinary user may have arranged")
            }
        }
    };
    let hash = || match &process.sha256 {
        Some(sha256) => format!("its file's is {sha256} ({})", process.hash),
        None => format!("its file's hash ({})", process.hash),
    };
    let descent = match (asks.parents.is_empty(), asks.ancestors.is_empty()) {
        (false, true) => "process.parent",
        (true, _) => "process.ancestor",
        (false, false) => "process.parent, process.ancestor",
    };
    let place = match (
        asks.cgroups.is_empty(),
        asks.units.is_empty(),
        asks.containers.is_empty(),
    ) {
        (_, true, true) => "process.cgroup",
        (true, false, true) => "process.unit",
        (true, true, false) => "process.container",
        _ => "process.cgroup, process.unit, process.container",
    };
    [
        (
            "process.executable",
            field(
                bit(&row.path),
                name_known != 0 || asks.executables.is_empty(),
                runs,
            ),
        ),
        (
            "process.sha256",
            field(
                bit(&row.hash),
                row.hash_known != 0 || asks.sha256.is_empty(),
                hash,
            ),
        ),
        (
            "process.inode",
            field(bit(&row.inode), true, || {
                or(&process.inode, "it runs no file")
            }),
        ),
        (
            "process.uid",
            field(within(&asks.uids, &row.uid), true, || row.uid.to_string()),
        ),
        (
            "process.gid",
            field(within(&asks.gids, &row.gid), true, || row.gid.to_string()),
        ),
        (
            place,
            field(bit(&row.cgroup), true, || {
                format!("it is in {}", or(&process.cgroup, "another cgroup"))
            }),
        ),
        (
            descent,
            field(bit(&row.descent), !bit(&row.maybe_descent), || {
                "the images before it".to_owned()
            }),
        ),
        (
            "process.role",
            field(
                asks.roles.is_empty() || asks.roles.contains(&question.role),
                true,
                || question.request.role.clone(),
            ),
        ),
        (
            "process.kernel",
            field(!asks.kernel, true, || {
                "a process is not the kernel".to_owned()
            }),
        ),
    ]
}

fn socket_fields(rule: &Rule, question: &Question<'_>) -> [(&'static str, Field); 7] {
    let Question {
        request, transport, ..
    } = question;
    let asks = &rule.destination;
    let to = request.to.to_canonical();
    let source_port = request.source_port.unwrap_or(0);
    let networks = &asks.networks;
    [
        (
            "destination.cidr",
            field(
                networks.is_empty() || networks.iter().any(|network| network.contains(&to)),
                true,
                || to.to_string(),
            ),
        ),
        (
            "destination.port",
            field(within(&asks.ports, &request.port), true, || {
                request.port.to_string()
            }),
        ),
        (
            "destination.transport",
            field(
                asks.transports.is_empty() || asks.transports.contains(transport),
                true,
                || request.transport.clone(),
            ),
        ),
        (
            "destination.socket",
            field(asks.sockets.is_empty(), true, || {
                "it is neither raw nor packet".to_owned()
            }),
        ),
        (
            "source.port",
            field(
                within(&rule.source_ports, &source_port),
                true,
                || match source_port {
                    0 => "the socket is not bound".to_owned(),
                    port => port.to_string(),
                },
            ),
        ),
        (
            "direction",
            field(!rule.ingress, true, || "it is not accepted".to_owned()),
        ),
        (
            "expires",
            field(
                rule.expires.is_none_or(|expires| expires > question.now),
                true,
                || "the rule has expired".to_owned(),
            ),
        ),
    ]
}

fn field(is_met: bool, is_known: bool, compared: impl FnOnce() -> String) -> Field {
    match (is_met, is_known) {
        (true, _) => Field::Yes,
        (false, true) => Field::No(compared()),
        (false, false) => Field::Perhaps(compared()),
    }
}

/// A field without values does not ask.
fn within<T: PartialOrd>(ranges: &[std::ops::RangeInclusive<T>], value: &T) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| range.contains(value))
}

fn has(bits: &Bits, index: usize) -> bool {
    bits.get(index / 64)
        .is_some_and(|word| word >> (index % 64) & 1 != 0)
}

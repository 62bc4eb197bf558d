//! A connection as people read it: one block, one fact a line.

use std::{
    borrow::Cow,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
};

use super::{ancestors::Ancestors, hops};
use crate::{
    cli::output::{duration, local, printable},
    records::{Domain, Endpoint, HashState, Login, Orchestrator, Process, Record, line::bytes},
};

/// # Errors
///
/// Of writing.
pub fn block(record: &Record, ancestors: &Ancestors, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", headline(record))?;
    let procid = record.procid.as_deref();
    let mut line = |name: &str, value: &str| writeln!(out, "    {name:<10} {value}");

    match record.process.as_deref() {
        Some(process) => {
            line("process", &image(process))?;
            if let Some(command_line) = &process.command_line {
                line("arguments", &printable(command_line))?;
            }
        }
        None => line("process", &not_known(record, "process"))?,
    }
    line(
        "sha256",
        &hash(
            record.process.as_deref(),
            procid.and_then(|procid| procid.hash.as_ref()),
        ),
    )?;
    if let Some(exe) = procid.and_then(|procid| procid.exe.as_ref()) {
        let flags = procid
            .map(|procid| procid.flags.as_slice())
            .unwrap_or_default();
        let mut file = format!(
            "device {}, inode {}",
            printable(&exe.dev),
            printable(&exe.inode)
        );
        for flag in flags {
            file.push_str(", ");
            file.push_str(&printable(flag));
        }
        line("file", &file)?;
    }
    if let Some(user) = &record.user {
        line("user", &with(&user.id, user.name.as_deref()))?;
    }
    if let Some(uid) = procid.and_then(|procid| procid.loginuid) {
        let session = procid.and_then(|procid| procid.sessionid);
        let session = session.map_or_else(String::new, |id| format!(", session {id}"));
        let from = procid.and_then(|procid| procid.login.as_ref());
        let from = from.map_or_else(String::new, |login| login_from(login, record, ancestors));
        line("login", &format!("{uid}{session}{from}"))?;
    }
    if let Some(container) = &record.container {
        line(
            "container",
            &with(&container.id, container.runtime.as_deref()),
        )?;
    }
    if let Some(pod) = &record.orchestrator {
        line("pod", &self::pod(pod))?;
    }
    if let Some(unit) = procid.and_then(|procid| procid.unit.as_deref()) {
        line("unit", &printable(unit))?;
    }
    if let Some(path) = procid.and_then(|procid| procid.cgroup.as_ref()?.path.as_deref()) {
        line("cgroup", &printable(path))?;
    }
    match record.process.as_deref().and_then(|p| p.parent.as_deref()) {
        Some(parent) => {
            let state = procid
                .and_then(|procid| procid.parent.as_ref())
                .and_then(|parent| parent.hash.as_ref());
            line(
                "parent",
                &format!("{}, sha256 {}", image(parent), hash(Some(parent), state)),
            )?;
        }
        None => line("parent", &not_known(record, "process.parent"))?,
    }
    for (depth, (entity, process)) in ancestors.of(record).into_iter().enumerate() {
        let name = if depth == 0 { "ancestry" } else { "" };
        let what = match process {
            Some(process) => ancestor(process),
            None => format!("entity {}, not described here", printable(entity)),
        };
        line(name, &format!("{}{what}", indent(depth)))?;
    }
    if let Some(script) = procid.and_then(|procid| procid.script.as_ref()) {
        let sha256 = script.hash.sha256.as_deref().unwrap_or("none");
        let why = script.hash.reason.as_deref().unwrap_or(&script.hash.grade);
        let (path, sha256, why) = (printable(&script.path), printable(sha256), printable(why));
        line("script", &format!("{path}, sha256 {sha256} ({why})"))?;
    }
    if let Some(role) = procid.and_then(|procid| procid.role.as_ref()) {
        line("role", &printable(role))?;
    }
    if let Some(opener) = procid.and_then(|procid| procid.opener.as_deref()) {
        line("opener", &image(opener))?;
    }
    for (name, what) in hops::lines(record) {
        line(name, &what)?;
    }
    if let Some(verdict) = procid.and_then(|procid| procid.verdict.as_ref()) {
        line("verdict", &printable(verdict))?;
    }
    if let Some(domain) = record
        .destination
        .as_ref()
        .and_then(|it| it.domain.as_ref())
    {
        line(
            "domain",
            &name(domain, procid.and_then(|it| it.domain.as_ref())),
        )?;
    }
    if let Some(wire) = procid.and_then(|procid| procid.wire.as_ref()?.destination) {
        line("on the wire", &wire.to_string())?;
    }
    if let Some(nat) = nat(record) {
        line("nat", &nat)?;
    }
    if let Some((sent, received)) = bytes(record) {
        let known = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let (sent, received) = (known(sent), known(received));
        line("bytes", &format!("{sent} sent, {received} received"))?;
    }
    line("time", &times(record))?;
    line("known", &provenance(record))?;
    if let Some(unknown) = procid.map(|procid| &procid.unknown) {
        for (field, reason) in unknown {
            line(
                "not known",
                &format!("{}: {}", printable(field), printable(reason)),
            )?;
        }
    }
    writeln!(out)
}

/// `, from 192.0.2.9:50022 (inferred, by sshd-session, pid 5100, entity 1a2b…)`
fn login_from(login: &Login, record: &Record, ancestors: &Ancestors) -> String {
    let ancestors = ancestors.of(record);
    let of_ancestors = ancestors
        .iter()
        .find_map(|(entity, process)| process.filter(|_| *entity == login.entity_id));
    let own = record.process.as_deref();
    let own = own.filter(|process| process.entity_id.as_deref() == Some(&login.entity_id));
    let by = match of_ancestors.or(own) {
        Some(process) => image(process),
        None => format!("entity {}", printable(&login.entity_id)),
    };
    let from = SocketAddr::new(login.from.ip, login.from.port);
    format!(", from {from} ({}, by {by})", printable(&login.grade))
}

/// `www.example.org (observed, asked for by this image), also: example.org`
fn name(name: &str, how: Option<&Domain>) -> String {
    let mut text = printable(name).into_owned();
    let Some(how) = how else {
        return text;
    };
    let who = match (how.relation.as_str(), how.asked_by.as_deref()) {
        ("image", _) => "this image".to_owned(),
        (_, Some(id)) => format!("entity {}", printable(id)),
        (_, None) => "an image that is not known".to_owned(),
    };
    let grade = printable(&how.grade);
    text.push_str(&format!(" ({grade}, asked for by {who})"));
    for (at, other) in how.others.iter().enumerate() {
        text.push_str(if at == 0 { ", also: " } else { ", " });
        text.push_str(&printable(other));
    }
    text
}

/// `1000 (alice)`
fn with(id: &str, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{} ({})", printable(id), printable(name)),
        None => printable(id).into_owned(),
    }
}

/// `shop/web-0 (8d7f1b2c-…)`, or the uid alone.
fn pod(orchestrator: &Orchestrator) -> String {
    let uid = printable(&orchestrator.resource.id);
    let name = orchestrator.resource.name.as_deref();
    match (orchestrator.namespace.as_deref(), name) {
        (Some(namespace), Some(name)) => {
            format!("{}/{} ({uid})", printable(namespace), printable(name))
        }
        _ => uid.into_owned(),
    }
}

/// `tcp 10.0.0.5:45384 -> 203.0.113.7:443, egress, connect success`
fn headline(record: &Record) -> String {
    let network = record.network.as_ref();
    let transport = network
        .and_then(|network| network.transport.as_deref())
        .or_else(|| {
            record
                .procid
                .as_ref()?
                .socket
                .as_ref()?
                .socket_type
                .as_deref()
        })
        .unwrap_or("?");
    let mut line = format!(
        "{} {} -> {}",
        printable(transport),
        endpoint(record.source.as_ref()),
        endpoint(record.destination.as_ref())
    );
    if let Some(direction) = network.and_then(|network| network.direction.as_deref()) {
        line.push_str(", ");
        line.push_str(&printable(direction));
    }
    if let Some(event) = &record.event {
        // What was found open was not seen being opened.
        if event.kind != "state" && !event.action.is_empty() {
            line.push_str(", ");
            line.push_str(&printable(&event.action));
        }
        if let Some(outcome) = &event.outcome {
            line.push(' ');
            line.push_str(&printable(outcome));
        }
    }
    if let Some(error) = &record.error {
        line.push_str(&format!(" ({})", printable(&error.code)));
    }
    if let Some(state) = record
        .procid
        .as_ref()
        .and_then(|procid| procid.socket.as_ref()?.state.as_deref())
    {
        line.push_str(", ");
        line.push_str(&printable(state));
    }
    line
}

/// `source 192.0.2.1:61000, destination 192.0.2.7:6443 (exact)`
fn nat(record: &Record) -> Option<String> {
    let ends = [
        ("source", record.source.as_ref()),
        ("destination", record.destination.as_ref()),
    ];
    let ends: Vec<String> = ends
        .into_iter()
        .filter_map(|(name, end)| {
            let nat = end?.nat.as_ref()?;
            Some(format!("{name} {}", SocketAddr::new(nat.ip, nat.port)))
        })
        .collect();
    if ends.is_empty() {
        return None;
    }
    let grade = record.procid.as_ref().and_then(|p| p.nat.as_ref());
    let grade = grade.map_or("not graded".into(), |nat| printable(&nat.grade));
    Some(format!("{} ({grade})", ends.join(", ")))
}

pub(in crate::cli) fn endpoint(end: Option<&Endpoint>) -> String {
    let ip = end.and_then(|end| end.ip);
    let port = end.and_then(|end| end.port);
    match (ip, port) {
        (Some(IpAddr::V6(ip)), Some(port)) => format!("[{ip}]:{port}"),
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        (Some(ip), None) => ip.to_string(),
        (None, Some(port)) => format!("?:{port}"),
        (None, None) => "?".to_owned(),
    }
}

/// Before the name of an image that was made by the one a line above.
pub(super) fn indent(depth: usize) -> String {
    match depth {
        0 => String::new(),
        depth => format!("{}└ ", "  ".repeat(depth - 1)),
    }
}

/// `curl, pid 5580, /usr/bin/curl, entity 1a2b…`
pub(super) fn image(process: &Process) -> String {
    let parts: Vec<Cow<'_, str>> = [
        process.name.as_deref().map(printable),
        process.pid.map(|pid| format!("pid {pid}").into()),
        process.executable.as_deref().map(printable),
        process
            .entity_id
            .as_deref()
            .map(|id| format!("entity {}", printable(id)).into()),
    ]
    .into_iter()
    .flatten()
    .collect();
    parts.join(", ")
}

/// Characters of an ancestor's command line that are shown.
const ARGS_SHOWN: usize = 100;

/// The same, with the beginning of its command line: of an interpreter, that is
/// what it was.
fn ancestor(process: &Process) -> String {
    let Some(command_line) = process.command_line.as_deref() else {
        return image(process);
    };
    let mut shown: String = printable(command_line).chars().take(ARGS_SHOWN).collect();
    if shown.len() < printable(command_line).len() {
        shown.push('…');
    }
    format!("{}: {shown}", image(process))
}

/// The hash with the grade it has earned, or why there is none.
pub(in crate::cli) fn hash(process: Option<&Process>, state: Option<&HashState>) -> String {
    let sha256 = process.and_then(|process| process.hash.as_ref());
    match (sha256, state) {
        (Some(hash), Some(state)) => {
            format!("{} ({})", printable(&hash.sha256), printable(&state.grade))
        }
        (Some(hash), None) => printable(&hash.sha256).into_owned(),
        (None, state) => {
            let reason = state.and_then(|state| state.reason.as_deref());
            format!("none ({})", printable(reason.unwrap_or("no reason given")))
        }
    }
}

fn times(record: &Record) -> String {
    let event = record.event.as_ref();
    let start = event
        .and_then(|event| event.start.as_deref())
        .unwrap_or(&record.timestamp);
    let mut text = local(start);
    if let Some(end) = event.and_then(|event| event.end.as_deref()) {
        text.push_str(" to ");
        text.push_str(&local(end));
    }
    if let Some(ns) = event.and_then(|event| event.duration) {
        text.push_str(&format!(" ({})", duration(ns)));
    }
    text
}

/// How it is known: live or from a snapshot, by which hook, under which ids.
fn provenance(record: &Record) -> String {
    let procid = record.procid.as_deref();
    let mut parts = Vec::new();
    if let Some(provenance) = procid.and_then(|procid| procid.provenance.as_deref()) {
        parts.push(printable(provenance).into_owned());
    }
    if let Some(hook) = procid.and_then(|procid| procid.hook.as_deref()) {
        parts.push(printable(hook).into_owned());
    }
    if let Some(flow_id) = procid.and_then(|procid| procid.flow_id.as_deref()) {
        parts.push(format!("flow {}", printable(flow_id)));
    }
    let community_id = record
        .network
        .as_ref()
        .and_then(|network| network.community_id.as_deref());
    if let Some(community_id) = community_id {
        parts.push(format!("community id {}", printable(community_id)));
    }
    parts.join(", ")
}

fn not_known(record: &Record, field: &str) -> String {
    let reason = record
        .procid
        .as_ref()
        .and_then(|procid| procid.unknown.get(field));
    match reason {
        Some(reason) => format!("not known: {}", printable(reason)),
        None => "not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{
        Cgroup, Container, Event, LoginFrom, NatState, Procid, Resource, Sha256, TranslatedEnd,
        User,
    };

    #[test]
    fn one_fact_a_line_and_what_is_not_known_is_said() {
        let record = Record {
            timestamp: "2026-11-22T15:04:05.000000000Z".to_owned(),
            event: Some(Event {
                action: "connect".to_owned(),
                outcome: Some("success".to_owned()),
                duration: Some(1_000_000_000),
                ..Event::default()
            }),
            destination: Some(Endpoint {
                ip: "2001:db8::7".parse().ok(),
                port: Some(443),
                ..Endpoint::default()
            }),
            process: Some(Box::new(Process {
                name: Some("cu\nrl".to_owned()),
                pid: Some(5580),
                hash: Some(Sha256 {
                    sha256: "9f86".to_owned(),
                }),
                ..Process::default()
            })),
            procid: Some(Box::new(Procid {
                hash: Some(HashState {
                    grade: "verified".to_owned(),
                    reason: None,
                }),
                unknown: [("process.parent".to_owned(), "it had exited".to_owned())].into(),
                ..Procid::default()
            })),
            ..Record::default()
        };
        let mut out = Vec::new();
        block(&record, &Ancestors::default(), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        for line in [
            "? ? -> [2001:db8::7]:443, connect success\n",
            "    process    cu\\u{a}rl, pid 5580\n",
            "    sha256     9f86 (verified)\n",
            "    parent     not known: it had exited\n",
            " (1.000s)\n",
        ] {
            assert!(out.contains(line), "{line:?} is not in:\n{out}");
        }
    }

    #[test]
    fn ancestors_are_a_tree() {
        let of = |name: &str, parent: Option<Box<Process>>| Process {
            name: Some(name.to_owned()),
            entity_id: Some(format!("{name}-id")),
            parent,
            ..Process::default()
        };
        let record = Record {
            process: Some(Box::new(of("curl", Some(Box::new(of("bash", None)))))),
            procid: Some(Box::new(Procid {
                ancestry: Some(
                    ["bash-id", "gone-id", "init-id"]
                        .map(str::to_owned)
                        .to_vec(),
                ),
                ..Procid::default()
            })),
            ..Record::default()
        };
        let mut ancestors = Ancestors::default();
        assert_eq!(ancestors.wanted(&record), ["bash-id", "gone-id", "init-id"]);
        ancestors.learn("bash-id".to_owned(), None);
        ancestors.learn("gone-id".to_owned(), None);
        ancestors.learn_all([Record {
            process: Some(Box::new(of("in\x1bit", None))),
            ..Record::default()
        }]);
        ancestors.learn(
            "init-id".to_owned(),
            Some(Record {
                process: Some(Box::new(Process {
                    command_line: Some(format!("in\x1bit {}", "x".repeat(200))),
                    ..of("in\x1bit", None)
                })),
                ..Record::default()
            }),
        );
        assert_eq!(ancestors.wanted(&record), Vec::<String>::new());
        let mut out = Vec::new();
        block(&record, &ancestors, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let tree = format!(
            "    ancestry   in\\u{{1b}}it, entity in\\u{{1b}}it-id: in\\u{{1b}}it {}…
               └ entity gone-id, not described here
                 └ bash, entity bash-id\n",
            "x".repeat(ARGS_SHOWN - 11)
        );
        assert!(out.contains(&tree), "{out}");
    }

    #[test]
    fn what_its_cgroup_says_of_a_process_is_told() {
        let owned = |text: &str| Some(text.to_owned());
        let record = Record {
            source: Some(Endpoint {
                nat: Some(TranslatedEnd {
                    ip: "2001:db8::1".parse().unwrap(),
                    port: 61_000,
                }),
                ..Endpoint::default()
            }),
            user: Some(User {
                id: "1000".to_owned(),
                name: owned("al\x1bice"),
            }),
            container: Some(Container {
                id: "c0ffee".to_owned(),
                runtime: owned("docker"),
            }),
            orchestrator: Some(Orchestrator {
                namespace: owned("shop"),
                resource: Resource {
                    id: "8d7f".to_owned(),
                    name: owned("web-0"),
                    ..Resource::default()
                },
                ..Orchestrator::default()
            }),
            procid: Some(Box::new(Procid {
                loginuid: Some(1001),
                sessionid: Some(3),
                login: Some(Login {
                    from: LoginFrom {
                        ip: [192, 0, 2, 9].into(),
                        port: 50_022,
                    },
                    entity_id: "sshd-id".to_owned(),
                    grade: "inferred".to_owned(),
                }),
                nat: Some(NatState {
                    grade: "exact".to_owned(),
                }),
                unit: owned("docker.service"),
                cgroup: Some(Cgroup {
                    id: "7".to_owned(),
                    path: owned("/x"),
                }),
                ..Procid::default()
            })),
            ..Record::default()
        };
        let mut out = Vec::new();
        block(&record, &Ancestors::default(), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        for line in [
            "    user       1000 (al\\u{1b}ice)\n",
            "    login      1001, session 3, from 192.0.2.9:50022 (inferred, by entity sshd-id)\n",
            "    nat        source [2001:db8::1]:61000 (exact)\n",
            "    container  c0ffee (docker)\n",
            "    pod        shop/web-0 (8d7f)\n",
            "    unit       docker.service\n",
            "    cgroup     /x\n",
        ] {
            assert!(out.contains(line), "{line:?} is not in:\n{out}");
        }
    }

    #[test]
    fn no_hash_has_a_reason() {
        let state = HashState {
            grade: "none".to_owned(),
            reason: Some("gone".to_owned()),
        };
        assert_eq!(hash(None, Some(&state)), "none (gone)");
    }
}

//! One rule.

use jiff::Zoned;
use toml::de::DeValue;

use super::{
    Names, Sets,
    diagnostic::{Report, Wrong},
    files, numbers,
    table::{Table, Value},
    words::{flag, name, nearest, quoted, text, word},
};
use crate::policy::{Action, Destination, Matcher, Process, Role, Rule, Socket, Transport};

/// What rules refer to.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) sets: &'a Sets<'a>,
    pub(super) names: &'a dyn Names,
    pub(super) now: &'a Zoned,
}

/// Offsets of what the lint points to; the rule's own for what is not there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spots {
    pub(super) rule: usize,
    pub(super) executable: usize,
    pub(super) sha256: usize,
    pub(super) expires: usize,
}

const ACTIONS: &[(&str, Action)] = &[
    ("allow", Action::Allow),
    ("deny", Action::Deny),
    ("audit", Action::Audit),
];
const ROLES: &[(&str, Role)] = &[
    ("opener", Role::Opener),
    ("speaker", Role::Speaker),
    ("acceptor", Role::Acceptor),
];
impl Transport {
    /// The one that a policy calls so.
    pub fn of_word(word: &str) -> Option<Self> {
        let found = TRANSPORTS.iter().find(|(name, _)| *name == word);
        found.map(|(_, transport)| *transport)
    }
}

const TRANSPORTS: &[(&str, Transport)] = &[
    ("tcp", Transport::Tcp),
    ("udp", Transport::Udp),
    ("udplite", Transport::UdpLite),
    ("icmp", Transport::Icmp),
    ("ipv6-icmp", Transport::Ipv6Icmp),
    ("sctp", Transport::Sctp),
    ("dccp", Transport::Dccp),
];
const SOCKETS: &[(&str, Socket)] = &[("raw", Socket::Raw), ("packet", Socket::Packet)];

/// Fields of an image, which the kernel's own traffic has none of.
const IMAGE: [&str; 11] = [
    "executable",
    "sha256",
    "inode",
    "uid",
    "gid",
    "cgroup",
    "unit",
    "container",
    "parent",
    "ancestor",
    "role",
];

/// Reads a rule. What is wrong goes to `report`; `None`: it lacks what has no
/// default.
pub(super) fn read(
    rule: &Table<'_>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Option<(Rule, Spots)> {
    rule.known(
        &[
            "name",
            "action",
            "process",
            "destination",
            "source",
            "direction",
            "expires",
        ],
        report,
    );
    let name = needed(rule, "name", "name = \"what it is for\"", report, |value| {
        name(value)
    });
    let action = needed(rule, "action", "action = \"deny\"", report, |value| {
        word(value, ACTIONS)
    });
    let process = rule.inner("process", report);
    let destination = rule.inner("destination", report);
    let source = rule.inner("source", report);
    let ingress = rule.one("direction", report, direction).is_some();
    let expires = rule.one("expires", report, |value| {
        numbers::moment(value, context.now)
    });
    let source_ports = source.map_or_else(Vec::new, |source| {
        source.known(&["port"], report);
        source.many("port", report, numbers::port)
    });
    let read = Rule {
        name: name.unwrap_or_default().into(),
        action: action.unwrap_or(Action::Audit),
        process: process.map_or_else(Process::default, |process| {
            read_process(&process, context, report)
        }),
        destination: destination.map_or_else(Destination::default, |destination| {
            read_destination(&destination, context.sets, report)
        }),
        source_ports,
        ingress,
        expires,
        line: report.line(rule.at),
    };
    check_direction(&read, rule, process.as_ref(), report);
    check_sockets(&read, destination.as_ref(), source.as_ref(), report);
    let spots = Spots {
        rule: rule.at,
        executable: process.map_or(rule.at, |process| process.spot("executable")),
        sha256: process.map_or(rule.at, |process| process.spot("sha256")),
        expires: rule.spot("expires"),
    };
    (name.is_some() && action.is_some()).then_some((read, spots))
}

/// A value that must be there.
fn needed<'t, T>(
    rule: &Table<'t>,
    key: &str,
    example: &str,
    report: &mut Report<'_>,
    read: impl FnOnce(&'t DeValue<'t>) -> Result<T, Wrong>,
) -> Option<T> {
    if !rule.has(key) {
        let wrong = format!("the rule has no `{key}`");
        report.error(rule.at, Wrong::new(wrong, format!("write {example}")));
    }
    rule.one(key, report, read)
}

fn direction(value: &DeValue<'_>) -> Result<(), Wrong> {
    match text(value)? {
        "ingress" => Ok(()),
        other => Err(Wrong::new(
            format!("{} is not \"ingress\"", quoted(other)),
            "write \"ingress\" for accepted sockets, or leave it out for all others",
        )),
    }
}

fn read_process(table: &Table<'_>, context: &Context<'_>, report: &mut Report<'_>) -> Process {
    let known: Vec<_> = IMAGE.into_iter().chain(["kernel"]).collect();
    table.known(&known, report);
    let names = context.names;
    let process = Process {
        executables: table.many("executable", report, files::files),
        sha256: table.many("sha256", report, files::sha256),
        inodes: table.many("inode", report, files::inode),
        uids: table.many("uid", report, |value| {
            numbers::id(value, "user", |name| names.uid(name))
        }),
        gids: table.many("gid", report, |value| {
            numbers::id(value, "group", |name| names.gid(name))
        }),
        cgroups: table.many("cgroup", report, files::cgroup),
        units: table.many("unit", report, files::unit),
        containers: table.many("container", report, files::container),
        parents: matchers(table, "parent", report),
        ancestors: matchers(table, "ancestor", report),
        roles: table.many("role", report, |value| word(value, ROLES)),
        kernel: table.one("kernel", report, flag).unwrap_or(false),
    };
    if let Some(field) = IMAGE.iter().find(|field| table.has(field))
        && process.kernel
    {
        report.error(
            table.spot("kernel"),
            Wrong::new(
                format!("`kernel` and `{field}` never match together: the kernel's own traffic has no process"),
                "make two rules of it",
            ),
        );
    }
    process
}

/// `parent` and `ancestor`: each table asks for one thing.
fn matchers(table: &Table<'_>, key: &'static str, report: &mut Report<'_>) -> Vec<Matcher> {
    let mut matchers = Vec::new();
    for value in table.values(key, report) {
        let Some(image) = Table::of(key, value, report) else {
            continue;
        };
        let fields = ["executable", "sha256", "inode"];
        image.known(&fields, report);
        let executables = image.many("executable", report, files::files);
        let hashes = image.many("sha256", report, files::sha256);
        let inodes = image.many("inode", report, files::inode);
        matchers.extend(executables.into_iter().map(Matcher::Executable));
        matchers.extend(hashes.into_iter().map(Matcher::Sha256));
        matchers.extend(inodes.into_iter().map(Matcher::Inode));
        if fields.iter().filter(|field| image.has(field)).count() != 1 {
            let wrong = "must have exactly one of executable, sha256 and inode";
            let help = "write one of them, and a list of tables for any of several images";
            report.error(image.at, Wrong::new(wrong, help).of(key));
        }
    }
    matchers
}

fn read_destination(table: &Table<'_>, sets: &Sets<'_>, report: &mut Report<'_>) -> Destination {
    table.known(&["cidr", "set", "port", "transport", "socket"], report);
    let mut networks = table.many("cidr", report, numbers::network);
    for set in table.many("set", report, |value| find_set(value, sets)) {
        networks.extend(set);
    }
    Destination {
        networks,
        ports: table.many("port", report, numbers::port),
        transports: table.many("transport", report, |value| word(value, TRANSPORTS)),
        sockets: table.many("socket", report, |value| word(value, SOCKETS)),
    }
}

fn find_set<'s>(value: &DeValue<'_>, sets: &'s Sets<'_>) -> Result<&'s [ipnet::IpNet], Wrong> {
    let name = text(value)?;
    sets.get(name).map(Vec::as_slice).ok_or_else(|| {
        let help = match nearest(name, sets.keys().copied()) {
            Some(near) => format!("write \"{near}\""),
            None => "write its networks under [set.NAME]".to_owned(),
        };
        Wrong::new(format!("there is no set {}", quoted(name)), help)
    })
}

/// Accepted sockets have the role of acceptor and no other.
fn check_direction(
    rule: &Rule,
    table: &Table<'_>,
    process: Option<&Table<'_>>,
    report: &mut Report<'_>,
) {
    let Some(process) = process else {
        return;
    };
    let roles = &rule.process.roles;
    if roles.contains(&Role::Acceptor) && !rule.ingress {
        report.error(
            process.spot("role"),
            Wrong::new(
                "`role`: \"acceptor\" matches only accepted sockets, and the rule is for all others",
                "add direction = \"ingress\" to the rule",
            ),
        );
    }
    if rule.ingress && roles.iter().any(|role| *role != Role::Acceptor) {
        report.error(
            process.spot("role"),
            Wrong::new(
                "`role`: accepted sockets have the role \"acceptor\" and no other",
                "write role = \"acceptor\", or leave it out",
            ),
        );
    }
    if rule.ingress && rule.process.kernel {
        report.error(
            table.spot("direction"),
            Wrong::new(
                "`direction` and `kernel` never match together: the kernel's own traffic has no accepted socket",
                "leave one of them out",
            ),
        );
    }
}

/// Ports and addresses are asked only of what has them.
fn check_sockets(
    rule: &Rule,
    destination: Option<&Table<'_>>,
    source: Option<&Table<'_>>,
    report: &mut Report<'_>,
) {
    let Some(destination) = destination else {
        return;
    };
    let asks_port = destination.has("port") || source.is_some();
    for value in destination.value("transport").map(each).unwrap_or_default() {
        let portless = ["icmp", "ipv6-icmp"];
        if let Some(transport) = value.get_ref().as_str()
            && portless.contains(&transport)
            && asks_port
        {
            report.error(
                value.span().start,
                Wrong::new(
                    format!("`transport`: \"{transport}\" has no ports, and the rule asks for one"),
                    "leave out the port, or make a rule of its own of it",
                ),
            );
        }
    }
    let field = ["cidr", "set", "port", "transport"]
        .into_iter()
        .find(|field| destination.has(field))
        .or(source.map(|_| "source"));
    if let Some(field) = field
        && rule.destination.sockets.contains(&Socket::Packet)
    {
        report.error(
            destination.spot("socket"),
            Wrong::new(
                format!("`socket`: a \"packet\" socket has neither address, port nor transport, and the rule has `{field}`"),
                format!("leave out `{field}`, or make a rule of its own of it"),
            ),
        );
    }
}

/// The value, or the values of a list.
fn each<'t>(value: &'t Value<'t>) -> Vec<&'t Value<'t>> {
    match value.get_ref() {
        DeValue::Array(array) => array.iter().collect(),
        _ => vec![value],
    }
}

//! Random policies and facts, drawn from few values so that they meet.

use std::{fmt::Debug, net::IpAddr, ops::RangeInclusive, path::PathBuf};

use ipnet::IpNet;
use procid_common::policy::RULES_MAX;
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::policy::{
    Action, Destination, ExeFacts, Facts, Files, ImageFacts, InRoot, Inode, Matcher, Mode, Policy,
    Process, Role, Rule, Socket, Transport, Verdict,
};

const NETWORKS: [&str; 16] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "10.1.2.128/25",
    "192.168.0.0/16",
    "128.0.0.0/1",
    "::/0",
    "::/1",
    "::/64",
    "fd00::/8",
    "fd00::/64",
    "fd00::3/128",
    "::1/128",
    "2001:db8::/33",
];

const ADDRESSES: [&str; 14] = [
    "0.0.0.0",
    "10.0.0.1",
    "10.1.0.1",
    "10.1.2.3",
    "10.1.2.200",
    "192.168.1.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:10.1.2.3",
    "fd00::3",
    "fd00:0:0:1::3",
    "2001:db8:8000::1",
    "ffff::1",
];

const LONG: &str = "/opt/0123456789012345678901234567890123456789012345678901234567890123";

/// Files; those of the host and rules' own.
fn files() -> Vec<PathBuf> {
    let long = [
        LONG.to_owned(),
        format!("{LONG}x"),
        format!("{LONG}{}", &LONG[5..]),
    ];
    let below = long.iter().map(|path| format!("{path}/tool"));
    [
        "/init",
        "/usr/bin/a",
        "/usr/bin/b",
        "/usr/bin",
        "/usr/local/bin/a",
        "/usr/local/x",
        "/opt/x/y/z",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(below)
    .chain(long.iter().cloned())
    .map(PathBuf::from)
    .collect()
}

const DIRECTORIES: [&str; 9] = [
    "/",
    "/usr",
    "/usr/bin",
    "/usr/local",
    "/usr/local/bin",
    "/opt",
    "/opt/x",
    "/opt/x/y",
    LONG,
];

const CGROUPS: [&str; 10] = [
    "/",
    "/system.slice",
    "/system.slice/a.service",
    "/system.slice/b.service/init",
    "/system.slice/b.service",
    "/user.slice/a.service",
    "/system.slice/a.service/b.service",
    "/system.slice/docker-0123456789ab0123456789ab0123456789ab0123456789ab0123456789ab0123.scope",
    "/system.slice/a.service/0123456789abcfffffffffffffffffffffffffffffffffffffffffffffffffff/init",
    "/libpod-0123456789abcfffffffffffffffffffffffffffffffffffffffffffffffffff.scope/0123456789ab0123456789ab0123456789ab0123456789ab0123456789ab0123",
];

/// Beginnings of their containers' ids, and of others.
const CONTAINERS: [&str; 6] = [
    "0123456789ab",
    "0123456789abc",
    "0123456789ab0",
    "0123456789ab0123456789ab0123456789ab0123456789ab0123456789ab0123",
    "0123456789abcfffffffffffffffffffffffffffffffffffffffffffffffffff",
    "ffffffffffff",
];

const PORTS: [u16; 9] = [1, 22, 53, 80, 443, 1_024, 8_080, 32_768, u16::MAX];
const IDS: [u32; 8] = [0, 1, 33, 999, 1_000, 1_500, 65_534, u32::MAX];

const TRANSPORTS: [Transport; 7] = [
    Transport::Tcp,
    Transport::Udp,
    Transport::UdpLite,
    Transport::Icmp,
    Transport::Ipv6Icmp,
    Transport::Sctp,
    Transport::Dccp,
];

fn hash() -> impl Strategy<Value = [u8; 32]> {
    (0_u8..4).prop_map(|byte| [byte; 32])
}

fn inode() -> impl Strategy<Value = Inode> {
    (0_u32..2, 1_u64..4).prop_map(|(minor, ino)| Inode {
        major: 8,
        minor,
        ino,
    })
}

fn path() -> impl Strategy<Value = PathBuf> {
    select(files())
}

fn executable() -> impl Strategy<Value = Files> {
    prop_oneof![
        path().prop_map(Files::Exact),
        select(&DIRECTORIES).prop_map(|dir| Files::Below(dir.into())),
    ]
}

fn matcher() -> impl Strategy<Value = Matcher> {
    prop_oneof![
        executable().prop_map(Matcher::Executable),
        hash().prop_map(Matcher::Sha256),
        inode().prop_map(Matcher::Inode),
    ]
}

fn between<T: Copy + Ord + Debug + 'static>(
    ends: &'static [T],
) -> impl Strategy<Value = RangeInclusive<T>> {
    (select(ends), select(ends)).prop_map(|(one, other)| one.min(other)..=one.max(other))
}

/// How often a field asks. Where most do, a rule rarely matches.
#[derive(Clone, Copy)]
struct Asks(f64);

impl Asks {
    fn field<T: Clone + Debug>(
        self,
        value: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Vec<T>> {
        option::weighted(self.0, vec(value, 1..3)).prop_map(Option::unwrap_or_default)
    }
}

fn verdict() -> impl Strategy<Value = Verdict> {
    select(&[Verdict::Allow, Verdict::Deny])
}

fn process(asks: Asks) -> impl Strategy<Value = Process> {
    let image = (
        asks.field(executable()),
        asks.field(hash()),
        asks.field(inode()),
        asks.field(matcher()),
        asks.field(matcher()),
    );
    let live = (
        asks.field(between(&IDS)),
        asks.field(between(&IDS)),
        asks.field(select(&CGROUPS)),
        asks.field(select(&["a.service", "b.service", "init"])),
        asks.field(select(&[Role::Opener, Role::Speaker])),
        asks.field(select(&CONTAINERS)),
    );
    (image, live).prop_map(|(image, live)| Process {
        executables: image.0,
        sha256: image.1,
        inodes: image.2,
        parents: image.3,
        ancestors: image.4,
        uids: live.0,
        gids: live.1,
        cgroups: live.2.into_iter().map(PathBuf::from).collect(),
        units: live.3.into_iter().map(str::to_owned).collect(),
        roles: live.4,
        containers: live.5.into_iter().map(str::to_owned).collect(),
        ..Process::default()
    })
}

fn destination(asks: Asks) -> impl Strategy<Value = Destination> {
    (
        asks.field(select(&NETWORKS).prop_map(|text| text.parse::<IpNet>().unwrap())),
        asks.field(between(&PORTS)),
        asks.field(select(&TRANSPORTS)),
        asks.field(select(&[Socket::Raw, Socket::Packet])),
    )
        .prop_map(|(networks, ports, transports, sockets)| Destination {
            networks,
            ports,
            transports,
            sockets,
        })
}

/// Mostly of what a process does itself; the language has `kernel` without the
/// image's fields, and `ingress` with no role but that one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Process,
    Accepted,
    Acceptor,
    Kernel,
}

fn rule(asks: Asks) -> impl Strategy<Value = Rule> {
    let of = prop_oneof![
        12 => Just(Of::Process),
        1 => Just(Of::Accepted),
        1 => Just(Of::Acceptor),
        1 => Just(Of::Kernel),
    ];
    (
        select(&[Action::Allow, Action::Deny, Action::Audit]),
        process(asks),
        destination(asks),
        asks.field(between(&PORTS)),
        of,
        option::weighted(0.2, 1_i128..8),
    )
        .prop_map(
            |(action, mut process, destination, source_ports, of, expires)| {
                match of {
                    Of::Process => {}
                    Of::Accepted => process.roles.clear(),
                    Of::Acceptor => process.roles = vec![Role::Acceptor],
                    Of::Kernel => {
                        process = Process {
                            kernel: true,
                            ..Process::default()
                        }
                    }
                }
                Rule {
                    name: "a rule".into(),
                    action,
                    process,
                    destination,
                    source_ports,
                    ingress: matches!(of, Of::Accepted | Of::Acceptor),
                    expires: expires.map(|nth| nth * 10_000),
                    line: 1,
                }
            },
        )
}

pub(super) fn policy() -> impl Strategy<Value = Policy> {
    // Few rules make the default decide; many fill more than a word.
    let rule = || rule(Asks(0.2));
    policy_of(prop_oneof![6 => vec(rule(), 0..40), 1 => vec(rule(), 64..70)])
}

/// As many rules as a policy can have, of which the last ones decide too.
pub(super) fn full_policy() -> impl Strategy<Value = Policy> {
    policy_of(vec(rule(Asks(0.5)), RULES_MAX))
}

fn policy_of(rules: impl Strategy<Value = Vec<Rule>>) -> impl Strategy<Value = Policy> {
    (verdict(), verdict(), any::<bool>(), rules).prop_map(
        |(default, unknown_hash, protect, rules)| Policy {
            mode: Mode::Enforce,
            default,
            unknown_hash,
            loopback_allow: false,
            established_keep: false,
            on_overflow: Verdict::Deny,
            protect,
            rules,
            sha256: [0; 32],
        },
    )
}

fn exe() -> impl Strategy<Value = ExeFacts> {
    (
        option::weighted(0.9, path()),
        option::weighted(0.67, hash()),
        option::weighted(0.9, inode()),
    )
        .prop_map(|(path, sha256, inode)| ExeFacts {
            path,
            sha256,
            inode,
        })
}

pub(super) fn facts() -> impl Strategy<Value = Facts> {
    let in_root = prop_oneof![
        2 => path().prop_map(InRoot::At),
        1 => Just(InRoot::No),
        1 => Just(InRoot::Unknown),
    ];
    let parent = option::weighted(0.9, exe());
    let image = (exe(), in_root, parent, vec(exe(), 0..4));
    let address = prop_oneof![
        9 => select(&ADDRESSES).prop_map(|text| text.parse().unwrap()),
        1 => any::<IpAddr>(),
    ];
    let port = || prop_oneof![4 => select(&PORTS), 1 => any::<u16>()];
    let id = || prop_oneof![4 => select(&IDS), 1 => any::<u32>()];
    let role = prop_oneof![
        4 => Just(Some(Role::Opener)),
        2 => Just(Some(Role::Speaker)),
        1 => Just(Some(Role::Acceptor)),
        1 => Just(None),
    ];
    let socket = (
        option::weighted(0.95, address),
        port(),
        port(),
        option::weighted(0.9, select(&TRANSPORTS)),
        option::weighted(0.2, select(&[Socket::Raw, Socket::Packet])),
        role,
    );
    (image, socket, id(), id(), select(&CGROUPS), 0_i128..90_000).prop_map(
        |(image, socket, euid, egid, cgroup, now)| Facts {
            process: ImageFacts {
                exe: image.0,
                in_root: image.1,
                parent: image.2,
                ancestors: image.3,
            },
            destination: socket.0,
            port: socket.1,
            source_port: socket.2,
            transport: socket.3,
            socket: socket.4,
            role: socket.5,
            euid,
            egid,
            cgroup: cgroup.into(),
            now,
        },
    )
}

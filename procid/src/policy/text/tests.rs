//! The language, as users meet it.

use std::{ops::RangeInclusive, path::PathBuf};

use super::*;
use crate::policy::{Action, Destination, Files, Inode, Matcher, Process, Role, Socket, Transport};

mod errors;
mod random;
mod rules;
mod warnings;

struct Host;

impl Names for Host {
    fn uid(&self, name: &str) -> Option<u32> {
        (name == "systemd-network").then_some(998)
    }

    fn gid(&self, name: &str) -> Option<u32> {
        (name == "ssh").then_some(101)
    }
}

const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// 2026-11-22 15:04:05 in a zone one hour east of UTC.
fn now() -> Zoned {
    "2026-11-22T15:04:05+01:00[+01:00]".parse().unwrap()
}

fn read(text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    parse_at(text, "p", &Host, &now())
}

#[track_caller]
fn policy(text: &str) -> Policy {
    let parsed = read(text);
    let errors = parsed.as_ref().err().into_iter().flatten();
    let errors: Vec<_> = errors.map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    parsed.unwrap().policy
}

/// A policy of one rule with these lines.
fn rule(lines: &str) -> Rule {
    let text = format!("mode = 'enforce'\n[[rule]]\nname = 'r'\naction = 'deny'\n{lines}\n");
    policy(&text).rules.remove(0)
}

fn process(lines: &str) -> Process {
    rule(&format!("[rule.process]\n{lines}")).process
}

fn destination(lines: &str) -> Destination {
    rule(&format!("[rule.destination]\n{lines}")).destination
}

fn one<T>(value: T) -> Vec<RangeInclusive<T>>
where
    T: Copy,
{
    vec![value..=value]
}

/// The digits that stand for themselves, so that this needs no decoder.
fn hash() -> [u8; 32] {
    Sha256::digest(b"test").into()
}

#[test]
fn the_example_says_what_it_says() {
    let text = format!(
        r#"mode = "enforce"          # or "audit"
default = "allow"
unknown_hash = "deny"
loopback = "judge"
established = "judge"
on_overflow = "deny"

[set.secrets]
cidr = ["10.1.2.3/32", "fd00::3/128"]

[[rule]]
name = "only the token broker reaches the secrets service"
action = "allow"          # allow | deny | audit
process = {{ executable = "/usr/bin/token-broker", sha256 = "{HASH}" }}
destination = {{ set = "secrets", port = 443, transport = "tcp" }}

[[rule]]
name = "nothing else does"
action = "deny"
destination = {{ set = "secrets" }}
"#
    );
    let parsed = read(&text).unwrap();
    assert_eq!(parsed.warnings, []);
    let secrets: Vec<IpNet> = vec![
        "10.1.2.3/32".parse().unwrap(),
        "fd00::3/128".parse().unwrap(),
    ];
    let rule = |name: &str, action, process, destination, line| Rule {
        name: name.into(),
        action,
        process,
        destination,
        source_ports: Vec::new(),
        ingress: false,
        expires: None,
        line,
    };
    let expected = Policy {
        mode: Mode::Enforce,
        default: Verdict::Allow,
        unknown_hash: Verdict::Deny,
        loopback_allow: false,
        established_keep: false,
        on_overflow: Verdict::Deny,
        protect: false,
        rules: vec![
            rule(
                "only the token broker reaches the secrets service",
                Action::Allow,
                Process {
                    executables: vec![Files::Exact("/usr/bin/token-broker".into())],
                    sha256: vec![hash()],
                    ..Process::default()
                },
                Destination {
                    networks: secrets.clone(),
                    ports: one(443),
                    transports: vec![Transport::Tcp],
                    sockets: Vec::new(),
                },
                11,
            ),
            rule(
                "nothing else does",
                Action::Deny,
                Process::default(),
                Destination {
                    networks: secrets,
                    ..Destination::default()
                },
                17,
            ),
        ],
        sha256: Sha256::digest(&text).into(),
    };
    assert_eq!(parsed.policy, expected);
}

#[test]
fn only_the_mode_must_be_there_and_the_rest_is_strict() {
    let least = policy("mode = 'audit'");
    assert_eq!(least.mode, Mode::Audit);
    assert_eq!(least.default, Verdict::Allow);
    assert_eq!(least.unknown_hash, Verdict::Deny);
    assert_eq!(least.on_overflow, Verdict::Deny);
    assert!(!least.loopback_allow && !least.established_keep && !least.protect);
    assert_eq!(least.rules, []);
    let loose = policy(
        "mode = 'enforce'\ndefault = 'deny'\nunknown_hash = 'allow'\non_overflow = 'allow'\n\
         loopback = 'allow'\nestablished = 'keep'\nprotect = true",
    );
    assert_eq!(loose.mode, Mode::Enforce);
    assert_eq!(loose.default, Verdict::Deny);
    assert_eq!(loose.unknown_hash, Verdict::Allow);
    assert_eq!(loose.on_overflow, Verdict::Allow);
    assert!(loose.loopback_allow && loose.established_keep && loose.protect);
    assert!(!policy("mode = 'enforce'\nprotect = false").protect);
}

#[test]
fn a_field_is_one_value_or_a_list() {
    let files = process("executable = ['/bin/a', '/opt/b/**', '/**']").executables;
    assert_eq!(
        files,
        [
            Files::Exact("/bin/a".into()),
            Files::Below("/opt/b".into()),
            Files::Below("/".into()),
        ]
    );
    assert_eq!(
        process("uid = [0, '7', '1000-1999', 'systemd-network', 0x10]").uids,
        [0..=0, 7..=7, 1000..=1999, 998..=998, 16..=16]
    );
    assert_eq!(process("gid = 'ssh'").gids, one(101));
    assert_eq!(process("uid = 4294967294").uids, one(4_294_967_294));
    assert_eq!(
        destination("port = [443, '8000-8999', '53']").ports,
        [443..=443, 8000..=8999, 53..=53]
    );
    assert_eq!(rule("source = { port = 53 }").source_ports, one(53));
    assert_eq!(
        destination("socket = ['raw', 'packet']").sockets,
        [Socket::Raw, Socket::Packet]
    );
    assert_eq!(
        destination("transport = ['tcp', 'udp', 'udplite', 'icmp', 'ipv6-icmp', 'sctp', 'dccp']")
            .transports,
        [
            Transport::Tcp,
            Transport::Udp,
            Transport::UdpLite,
            Transport::Icmp,
            Transport::Ipv6Icmp,
            Transport::Sctp,
            Transport::Dccp,
        ]
    );
}

#[test]
fn an_image_is_known_by_many_things() {
    assert_eq!(process(&format!("sha256 = '{HASH}'")).sha256, [hash()]);
    let upper = HASH.to_ascii_uppercase();
    assert_eq!(process(&format!("sha256 = '{upper}'")).sha256, [hash()]);
    let inode = Inode {
        major: 254,
        minor: 1_048_575,
        ino: 18_446_744_073_709_551_614,
    };
    assert_eq!(
        process("inode = '254:1048575:18446744073709551614'").inodes,
        [inode]
    );
    assert_eq!(
        process("cgroup = ['/', '/system.slice/a b']").cgroups,
        [PathBuf::from("/"), "/system.slice/a b".into()]
    );
    assert_eq!(
        process(r"unit = ['sshd.service', 'user@1000.service', 'dev-\x2d.swap']").units,
        ["sshd.service", "user@1000.service", r"dev-\x2d.swap"]
    );
    assert_eq!(
        process("container = '0123456789AB'").containers,
        ["0123456789ab"]
    );
    assert_eq!(
        process("role = ['opener', 'speaker']").roles,
        [Role::Opener, Role::Speaker]
    );
    assert!(process("kernel = true").kernel);
    assert!(!process("kernel = false\nuid = 0").kernel);
}

#[test]
fn parents_and_ancestors_are_tables_or_lists_of_them() {
    let found = process(&format!(
        "parent = {{ executable = ['/a', '/b/**'] }}\n\
         ancestor = [{{ sha256 = '{HASH}' }}, {{ inode = '8:1:2' }}]"
    ));
    assert_eq!(
        found.parents,
        [
            Matcher::Executable(Files::Exact("/a".into())),
            Matcher::Executable(Files::Below("/b".into())),
        ]
    );
    let inode = Inode {
        major: 8,
        minor: 1,
        ino: 2,
    };
    assert_eq!(
        found.ancestors,
        [Matcher::Sha256(hash()), Matcher::Inode(inode)]
    );
}

#[test]
fn networks_are_addresses_too_and_mapped_ones_are_ipv4() {
    let networks = destination(
        "cidr = ['10.1.2.3', 'fd00::1', '::ffff:10.0.0.0/104', '::ffff:0:0/96', '::ffff:10.1.2.3', '::/0']",
    )
    .networks;
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    let expected = [
        "10.1.2.3/32",
        "fd00::1/128",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "10.1.2.3/32",
        "::/0",
    ];
    assert_eq!(networks, expected);
}

#[test]
fn sets_and_networks_of_a_rule_are_joined() {
    let policy = policy(
        "mode = 'enforce'\n[set.a]\ncidr = '10.0.0.0/8'\n[set.b]\ncidr = ['fd00::/8']\n\
         [[rule]]\nname = 'r'\naction = 'deny'\n\
         destination = { set = ['b', 'a'], cidr = '192.0.2.1/32' }\n",
    );
    let networks = policy.rules[0].destination.networks.iter();
    let networks: Vec<_> = networks.map(ToString::to_string).collect();
    assert_eq!(networks, ["192.0.2.1/32", "fd00::/8", "10.0.0.0/8"]);
}

#[test]
fn a_time_is_text_or_a_toml_date() {
    let expected = 1_795_359_845_000_000_000;
    for time in [
        "'2026-11-22T15:04:05Z'",
        "'2026-11-22 16:04:05'",
        "'2026-11-22 15:04:05 UTC'",
        "'@1795359845'",
        "2026-11-22T15:04:05Z",
        "2026-11-22 15:04:05+00:00",
        "2026-11-22T16:04:05",
    ] {
        assert_eq!(
            rule(&format!("expires = {time}")).expires,
            Some(expected),
            "{time}"
        );
    }
    let midnight = 1_795_302_000_000_000_000;
    assert_eq!(rule("expires = 2026-11-22").expires, Some(midnight));
}

#[test]
fn ingress_rules_are_of_accepted_sockets() {
    let ingress = rule("direction = 'ingress'\nprocess = { role = 'acceptor' }");
    assert!(ingress.ingress);
    assert_eq!(ingress.process.roles, [Role::Acceptor]);
    assert!(!rule("").ingress);
}

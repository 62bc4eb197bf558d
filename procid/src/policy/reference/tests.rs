use std::{net::Ipv4Addr, ops::RangeInclusive};

use rstest::rstest;

use super::*;
use crate::policy::{ImageFacts, Inode, Mode, Socket, Transport};

const HASH: [u8; 32] = [1; 32];
const OTHER_HASH: [u8; 32] = [2; 32];

fn rule(action: Action) -> Rule {
    Rule {
        name: "r".into(),
        action,
        process: Process::default(),
        destination: Destination::default(),
        source_ports: Vec::new(),
        ingress: false,
        expires: None,
        line: 0,
    }
}

fn of_process(action: Action, process: Process) -> Rule {
    Rule {
        process,
        ..rule(action)
    }
}

/// A rule on the caller's hash.
fn of_hash(action: Action) -> Rule {
    let process = Process {
        sha256: vec![HASH],
        ..Process::default()
    };
    of_process(action, process)
}

fn ingress(rule: Rule) -> Rule {
    Rule {
        ingress: true,
        ..rule
    }
}

fn policy(default: Verdict, rules: Vec<Rule>) -> Policy {
    Policy {
        mode: Mode::Enforce,
        default,
        unknown_hash: Verdict::Deny,
        loopback_allow: false,
        established_keep: false,
        on_overflow: Verdict::Deny,
        protect: false,
        rules,
        sha256: [0; 32],
    }
}

fn exe(path: &str) -> ExeFacts {
    ExeFacts {
        path: Some(path.into()),
        sha256: Some(OTHER_HASH),
        inode: Some(Inode {
            major: 8,
            minor: 1,
            ino: 7,
        }),
    }
}

/// `/bin/a`, forked by `/bin/sh`, which systemd forked, to 10.1.2.3:443.
fn facts() -> Facts {
    Facts {
        process: ImageFacts {
            exe: exe("/bin/a"),
            in_root: InRoot::No,
            parent: Some(exe("/bin/sh")),
            ancestors: vec![exe("/bin/sh"), exe("/usr/lib/systemd")],
        },
        destination: Some(Ipv4Addr::new(10, 1, 2, 3).into()),
        port: 443,
        source_port: 5000,
        transport: Some(Transport::Tcp),
        socket: None,
        role: Some(Role::Opener),
        euid: 1000,
        egid: 100,
        cgroup: "/system.slice/a.service/inner".into(),
        now: 1_000,
    }
}

fn unknown_hash() -> Facts {
    let mut facts = facts();
    facts.process.exe.sha256 = None;
    facts
}

fn with_role(role: Option<Role>) -> Facts {
    Facts { role, ..facts() }
}

/// The verdict of a policy, and the index of the rule that decides.
fn decided(policy: &Policy, facts: &Facts) -> (bool, Option<u32>) {
    let decision = evaluate(policy, facts);
    assert!(!decision.unknown);
    let rule = (decision.rule != NO_RULE).then_some(decision.rule);
    (decision.deny, rule)
}

/// Whether a rule alone matches.
fn hits(rule: Rule, facts: &Facts) -> bool {
    decided(&policy(Verdict::Allow, vec![rule]), facts) == (true, Some(0))
}

fn process_hits(process: Process) -> bool {
    hits(of_process(Action::Deny, process), &facts())
}

fn destination_hits(destination: Destination, facts: &Facts) -> bool {
    let rule = Rule {
        destination,
        ..rule(Action::Deny)
    };
    hits(rule, facts)
}

fn only(number: u16) -> Vec<RangeInclusive<u16>> {
    vec![number..=number]
}

#[test]
fn the_first_that_matches_decides_else_the_default() {
    let nobody = Process {
        uids: vec![65534..=65534],
        ..Process::default()
    };
    let rules = vec![
        of_process(Action::Deny, nobody),
        rule(Action::Allow),
        rule(Action::Deny),
    ];
    assert_eq!(
        decided(&policy(Verdict::Deny, rules), &facts()),
        (false, Some(1))
    );
    for (default, deny) in [(Verdict::Allow, false), (Verdict::Deny, true)] {
        assert_eq!(
            decided(&policy(default, Vec::new()), &facts()),
            (deny, None)
        );
    }
}

#[test]
fn every_field_must_match_and_any_value_of_it_will_do() {
    let ids = |uids: &[u32], gid: u32| Process {
        uids: uids.iter().map(|uid| *uid..=*uid).collect(),
        gids: vec![gid..=gid],
        ..Process::default()
    };
    assert!(process_hits(ids(&[0, 1000], 100)));
    assert!(!process_hits(ids(&[0, 1], 100)));
    assert!(!process_hits(ids(&[1000], 0)));
}

#[rstest]
#[case(Files::Exact("/bin/a".into()), true)]
#[case(Files::Exact("/bin".into()), false)]
#[case(Files::Below("/bin".into()), true)]
#[case(Files::Below("/".into()), true)]
#[case(Files::Below("/bi".into()), false)]
#[case(Files::Below("/bin/a".into()), false)]
fn paths(#[case] files: Files, #[case] expected: bool) {
    let process = Process {
        executables: vec![files],
        ..Process::default()
    };
    assert_eq!(process_hits(process.clone()), expected);
    let mut nameless = facts();
    nameless.process.exe.path = None;
    assert!(!hits(of_process(Action::Deny, process), &nameless));
}

#[rstest]
#[case("/", true)]
#[case("/system.slice", true)]
#[case("/system.slice/a.service/inner", true)]
#[case("/system.slice/a", false)]
#[case("/system.slice/a.service/inner/more", false)]
fn cgroups_are_whole_components(#[case] cgroup: &str, #[case] expected: bool) {
    let process = Process {
        cgroups: vec![cgroup.into()],
        ..Process::default()
    };
    assert_eq!(process_hits(process), expected);
}

#[test]
fn units_are_cgroups_at_any_depth() {
    let unit = |unit: &str| Process {
        units: vec![unit.to_owned()],
        ..Process::default()
    };
    assert!(process_hits(unit("a.service")));
    assert!(process_hits(unit("system.slice")));
    assert!(!process_hits(unit("a.serv")));
    assert!(!process_hits(unit("b.service")));
}

#[test]
fn containers_are_cgroups_named_by_ids() {
    let (outer, inner) = ("0123456789ab".repeat(6), "ba9876543210".repeat(6));
    let (outer, inner) = (&outer[..64], &inner[..64]);
    let hits = |cgroup: String, prefix: &str| {
        let process = Process {
            containers: vec![prefix.to_owned()],
            ..Process::default()
        };
        let facts = Facts {
            cgroup: cgroup.into(),
            ..facts()
        };
        hits(of_process(Action::Deny, process), &facts)
    };
    let cgroup = format!("/system.slice/docker-{outer}.scope/init.scope/{inner}");
    for len in [12, 13, 64] {
        assert!(hits(cgroup.clone(), &outer[..len]), "{len}");
        assert!(!hits(cgroup.clone(), &inner[..len]), "{len}");
    }
    assert!(!hits("/system.slice".to_owned(), &outer[..12]));
}

/// With `container`, the host's name counts for nothing; without, the other.
#[test]
fn executables_of_a_container_are_named_in_its_root() {
    let id = "0123456789ab".repeat(6);
    let inside = |in_root| {
        let mut facts = facts();
        facts.cgroup = format!("/docker-{}.scope", &id[..64]).into();
        facts.process.in_root = in_root;
        facts
    };
    let by = |files: Files, is_in_root: bool| Process {
        executables: vec![files],
        containers: is_in_root
            .then(|| id[..12].to_owned())
            .into_iter()
            .collect(),
        ..Process::default()
    };
    let matched = |process: Process, facts: &Facts| {
        let policy = policy(Verdict::Allow, vec![of_process(Action::Deny, process)]);
        let decision = evaluate(&policy, facts);
        (decision.deny, decision.unknown)
    };
    let (yes, no, perhaps) = ((true, false), (false, false), (true, true));
    let exact = |path: &str| Files::Exact(path.into());
    for (in_root, named, expected) in [
        (InRoot::At("/usr/x".into()), exact("/usr/x"), yes),
        (
            InRoot::At("/usr/x".into()),
            Files::Below("/usr".into()),
            yes,
        ),
        (InRoot::At("/usr/x".into()), exact("/x"), no),
        // Which is the host's name for it.
        (InRoot::At("/usr/x".into()), exact("/bin/a"), no),
        (InRoot::No, exact("/bin/a"), no),
        (InRoot::Unknown, exact("/x"), perhaps),
    ] {
        let facts = inside(in_root);
        assert_eq!(matched(by(named, true), &facts), expected, "{facts:?}");
    }
    let facts = inside(InRoot::At("/usr/x".into()));
    assert_eq!(matched(by(exact("/usr/x"), false), &facts), no);
    assert_eq!(matched(by(exact("/bin/a"), false), &facts), yes);
    // In no container at all.
    let outside = Facts {
        cgroup: "/".into(),
        ..inside(InRoot::Unknown)
    };
    assert_eq!(matched(by(exact("/x"), true), &outside), no);
}

#[test]
fn parents_and_ancestors_are_other_images() {
    let of = |path: &str| vec![Matcher::Executable(Files::Exact(path.into()))];
    let parent = |path| Process {
        parents: of(path),
        ..Process::default()
    };
    let ancestor = |path| Process {
        ancestors: of(path),
        ..Process::default()
    };
    assert!(process_hits(parent("/bin/sh")));
    assert!(!process_hits(parent("/usr/lib/systemd")));
    assert!(process_hits(ancestor("/usr/lib/systemd")));
    assert!(!process_hits(ancestor("/bin/a")));
    let mut orphan = facts();
    orphan.process.parent = None;
    orphan.process.ancestors.clear();
    assert!(!hits(of_process(Action::Deny, parent("/bin/sh")), &orphan));
    assert!(!hits(
        of_process(Action::Deny, ancestor("/bin/sh")),
        &orphan
    ));
    let inode = Inode {
        major: 8,
        minor: 1,
        ino: 7,
    };
    assert!(process_hits(Process {
        inodes: vec![inode],
        parents: vec![Matcher::Inode(inode)],
        ancestors: vec![Matcher::Sha256(OTHER_HASH)],
        ..Process::default()
    }));
}

#[test]
fn destinations() {
    let to = |network: &str| Destination {
        networks: vec![network.parse().unwrap()],
        ..Destination::default()
    };
    let mapped = Facts {
        destination: Some(Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped().into()),
        ..facts()
    };
    for facts in [facts(), mapped] {
        assert!(destination_hits(to("10.0.0.0/8"), &facts));
        assert!(!destination_hits(to("11.0.0.0/8"), &facts));
        assert!(!destination_hits(to("::/0"), &facts));
    }
    let packet = Facts {
        destination: None,
        port: 0,
        transport: None,
        socket: Some(Socket::Packet),
        ..facts()
    };
    assert!(!destination_hits(to("0.0.0.0/0"), &packet));
    let sockets = |socket| Destination {
        sockets: vec![socket],
        ..Destination::default()
    };
    assert!(destination_hits(sockets(Socket::Packet), &packet));
    assert!(!destination_hits(sockets(Socket::Raw), &packet));
    assert!(!destination_hits(sockets(Socket::Raw), &facts()));
    let transports = |transport| Destination {
        transports: vec![transport],
        ..Destination::default()
    };
    assert!(destination_hits(transports(Transport::Tcp), &facts()));
    assert!(!destination_hits(transports(Transport::Udp), &facts()));
    assert!(!destination_hits(transports(Transport::Tcp), &packet));
    let ports = |port| Destination {
        ports: only(port),
        ..Destination::default()
    };
    assert!(destination_hits(ports(443), &facts()));
    assert!(!destination_hits(ports(5000), &facts()));
    let from = |port| Rule {
        source_ports: only(port),
        ..rule(Action::Deny)
    };
    assert!(hits(from(5000), &facts()));
    assert!(!hits(from(443), &facts()));
}

#[test]
fn a_rule_ends_at_its_time() {
    let until = |expires| Rule {
        expires: Some(expires),
        ..rule(Action::Deny)
    };
    assert!(hits(until(1_001), &facts()));
    assert!(!hits(until(1_000), &facts()));
}

#[test]
fn accepted_sockets_are_judged_by_ingress_rules_only() {
    let accepted = with_role(Some(Role::Acceptor));
    assert!(hits(ingress(rule(Action::Deny)), &accepted));
    assert!(!hits(rule(Action::Deny), &accepted));
    assert!(!hits(ingress(rule(Action::Deny)), &facts()));
    assert_eq!(
        decided(&policy(Verdict::Deny, Vec::new()), &accepted),
        (false, None)
    );
}

#[test]
fn the_kernel_is_judged_by_its_rules_only() {
    let kernel = || Process {
        kernel: true,
        ..Process::default()
    };
    let of_kernel = with_role(None);
    assert!(hits(of_process(Action::Deny, kernel()), &of_kernel));
    assert!(!hits(rule(Action::Deny), &of_kernel));
    assert!(!hits(of_process(Action::Deny, kernel()), &facts()));
    assert_eq!(
        decided(&policy(Verdict::Deny, Vec::new()), &of_kernel),
        (false, None)
    );
}

#[test]
fn a_role_is_the_callers() {
    let speakers = Process {
        roles: vec![Role::Speaker],
        ..Process::default()
    };
    let rule = of_process(Action::Deny, speakers);
    assert!(hits(rule.clone(), &with_role(Some(Role::Speaker))));
    assert!(!hits(rule, &facts()));
}

#[test]
fn the_first_audit_rule_on_the_way_is_noted() {
    let rules = vec![
        of_hash(Action::Audit),
        rule(Action::Audit),
        rule(Action::Audit),
        rule(Action::Deny),
    ];
    let decision = evaluate(&policy(Verdict::Allow, rules), &facts());
    assert_eq!((decision.rule, decision.audit), (3, 1));
    let after = vec![rule(Action::Allow), rule(Action::Audit)];
    let decision = evaluate(&policy(Verdict::Allow, after), &facts());
    assert_eq!((decision.rule, decision.audit), (0, NO_RULE));
}

#[test]
fn a_known_hash_is_that_of_the_rule_or_is_not() {
    let mut known = facts();
    known.process.exe.sha256 = Some(HASH);
    assert!(hits(of_hash(Action::Deny), &known));
    assert!(!hits(of_hash(Action::Deny), &facts()));
}

/// With the hash unknown: which rules there are, what decides, and whether it
/// is `unknown_hash`.
#[rstest]
#[case::it_would_deny(Verdict::Allow, vec![of_hash(Action::Deny)], 0, true)]
#[case::it_would_allow(Verdict::Deny, vec![of_hash(Action::Allow)], 0, true)]
#[case::it_would_change_nothing(Verdict::Deny, vec![of_hash(Action::Deny)], NO_RULE, false)]
#[case::later_than_what_decides(Verdict::Allow, vec![rule(Action::Allow), of_hash(Action::Deny)], 0, false)]
#[case::like_what_decides(Verdict::Allow, vec![of_hash(Action::Allow), rule(Action::Allow)], 1, false)]
#[case::unlike_what_decides(Verdict::Allow, vec![of_hash(Action::Deny), rule(Action::Allow)], 0, true)]
#[case::the_first_unlike_it(Verdict::Allow, vec![of_hash(Action::Allow), of_hash(Action::Deny), of_hash(Action::Deny)], 1, true)]
#[case::an_audit_rule(Verdict::Allow, vec![of_hash(Action::Audit)], NO_RULE, false)]
fn a_hash_not_known_yet(
    #[case] default: Verdict,
    #[case] rules: Vec<Rule>,
    #[case] rule: u32,
    #[case] unknown: bool,
    #[values(Verdict::Allow, Verdict::Deny)] unknown_hash_is: Verdict,
) {
    let mut policy = policy(default, rules);
    policy.unknown_hash = unknown_hash_is;
    let decision = evaluate(&policy, &unknown_hash());
    assert_eq!((decision.rule, decision.unknown), (rule, unknown));
    if unknown {
        assert_eq!(decision.deny, unknown_hash_is == Verdict::Deny);
    }
}

#[test]
fn a_missing_hash_matters_only_where_all_else_matches() {
    let mut root = of_hash(Action::Deny);
    root.process.uids = vec![0..=0];
    let decided_by = decided(&policy(Verdict::Allow, vec![root]), &unknown_hash());
    assert_eq!(decided_by, (false, None));
}

#[test]
fn one_ancestor_that_matches_is_enough_whatever_the_others() {
    let of_ancestor = |hash| {
        let process = Process {
            ancestors: vec![Matcher::Sha256(hash)],
            ..Process::default()
        };
        policy(Verdict::Allow, vec![of_process(Action::Deny, process)])
    };
    let mut facts = facts();
    facts.process.ancestors[0].sha256 = None;
    assert_eq!(decided(&of_ancestor(OTHER_HASH), &facts), (true, Some(0)));
    assert!(evaluate(&of_ancestor(HASH), &facts).unknown);
    facts.process.ancestors[0].sha256 = Some(OTHER_HASH);
    assert_eq!(decided(&of_ancestor(HASH), &facts), (false, None));
}

/// The default does not judge an accepted socket, a rule that perhaps matches
/// does.
#[test]
fn an_accepted_socket_of_an_unknown_hash() {
    let mut accepted = unknown_hash();
    accepted.role = Some(Role::Acceptor);
    let deny = policy(Verdict::Deny, vec![ingress(of_hash(Action::Deny))]);
    assert!(evaluate(&deny, &accepted).unknown);
    let allow = policy(Verdict::Deny, vec![ingress(of_hash(Action::Allow))]);
    assert_eq!(decided(&allow, &accepted), (false, None));
}

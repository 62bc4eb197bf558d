//! What tables hold, and what they decide.

use std::{
    io,
    path::{Path, PathBuf},
};

use procid_common::policy::{CGROUPS, FILES, FIRST_NODE, NAME_PIECE, NO_RULE};

use super::{error::EXPIRIES, *};
use crate::policy::{Destination, Facts, Process, lookup::Lookup, places::Place};

mod property;
mod random;

/// A host with a second file system at `/usr/local`.
struct Fake;

const MOUNT: &str = "/usr/local";

impl Places for Fake {
    fn place(&self, path: &Path) -> io::Result<Place> {
        let (dev, rest) = match path.strip_prefix(MOUNT) {
            Ok(rest) => (2, rest),
            Err(_) => (1, path.strip_prefix("/").map_err(io::Error::other)?),
        };
        let names = rest.iter().map(ToOwned::to_owned).collect();
        Ok(Place { dev, names })
    }

    fn namespace(&self) -> io::Result<u32> {
        Ok(7)
    }

    fn mounts_below(&self, dir: &Path) -> io::Result<Vec<Place>> {
        let mount = Path::new(MOUNT);
        if mount.starts_with(dir) && mount != dir {
            Ok(vec![self.place(mount)?])
        } else {
            Ok(Vec::new())
        }
    }
}

/// The same, where the initial mount namespace may not be looked at.
struct Confined;

impl Places for Confined {
    fn place(&self, path: &Path) -> io::Result<Place> {
        Fake.place(path)
    }

    fn mounts_below(&self, dir: &Path) -> io::Result<Vec<Place>> {
        Fake.mounts_below(dir)
    }

    fn namespace(&self) -> io::Result<u32> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

const CLOCK: Offset = Offset(1_000);

/// A rule that asks for nothing.
fn rule(action: Action) -> Rule {
    Rule {
        name: "a rule".into(),
        action,
        process: Process::default(),
        destination: Destination::default(),
        source_ports: Vec::new(),
        ingress: false,
        expires: None,
        line: 7,
    }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy {
        mode: Mode::Enforce,
        default: Verdict::Allow,
        unknown_hash: Verdict::Allow,
        loopback_allow: false,
        established_keep: false,
        on_overflow: Verdict::Allow,
        protect: false,
        rules,
        sha256: [0; 32],
    }
}

fn asking(process: Process) -> Policy {
    policy(vec![Rule {
        process,
        ..rule(Action::Deny)
    }])
}

fn tables(policy: &Policy) -> Tables {
    compile(policy, &Fake, CLOCK).unwrap()
}

/// What is asked of a decision that is about nothing in particular.
fn facts() -> Facts {
    Facts {
        process: Default::default(),
        destination: Some([192, 0, 2, 1].into()),
        port: 443,
        source_port: 40_000,
        transport: Some(Transport::Tcp),
        socket: None,
        role: Some(Role::Opener),
        euid: 0,
        egid: 0,
        cgroup: PathBuf::from("/"),
        now: 5_000,
    }
}

fn decision(lookup: &Lookup<'_>, facts: &Facts) -> (bool, u32) {
    let decision = lookup.decide(facts, &Fake).unwrap();
    (decision.deny, decision.rule)
}

#[test]
fn no_rules_leave_it_to_the_default() {
    for (default, deny) in [(Verdict::Allow, false), (Verdict::Deny, true)] {
        let policy = Policy {
            default,
            ..policy(Vec::new())
        };
        let tables = tables(&policy);
        assert_eq!(tables.head.words, 1);
        assert_eq!(tables.epochs.len(), 1);
        assert_eq!(tables.epochs[0].until_ns, u64::MAX);
        assert!(tables.facts.is_empty() && tables.names.is_empty());
        assert_eq!(decision(&tables.lookup(CLOCK), &facts()), (deny, NO_RULE));
    }
}

/// Neither is the kernel's traffic, nor what was accepted, denied by default;
/// a missing hash is weighed against that.
#[test]
fn only_rules_judge_the_accepted_and_the_kernel() {
    let by_hash = |action| Rule {
        process: Process {
            sha256: vec![[1; 32]],
            ..Process::default()
        },
        ingress: true,
        ..rule(action)
    };
    let accepted = Facts {
        role: Some(Role::Acceptor),
        ..facts()
    };
    let kernel = Facts {
        role: None,
        ..facts()
    };
    let policy = |rules| Policy {
        default: Verdict::Deny,
        unknown_hash: Verdict::Deny,
        ..policy(rules)
    };
    let allows = tables(&policy(vec![by_hash(Action::Allow)]));
    assert_eq!(decision(&allows.lookup(CLOCK), &accepted), (false, NO_RULE));
    assert_eq!(decision(&allows.lookup(CLOCK), &kernel), (false, NO_RULE));
    assert_eq!(decision(&allows.lookup(CLOCK), &facts()), (true, NO_RULE));
    let denies = tables(&policy(vec![by_hash(Action::Deny)]));
    assert_eq!(decision(&denies.lookup(CLOCK), &accepted), (true, 0));
}

#[test]
fn a_cgroup_and_a_unit_must_both_match() {
    let policy = asking(Process {
        cgroups: vec!["/user.slice".into()],
        units: vec!["a.service".into()],
        ..Process::default()
    });
    let tables = tables(&policy);
    assert_ne!(tables.head.flags & flags::ASKS_CGROUP, 0);
    let lookup = tables.lookup(CLOCK);
    for (cgroup, deny) in [
        ("/user.slice/a.service", true),
        ("/user.slice/x/a.service/y", true),
        ("/user.slice/b.service", false),
        ("/system.slice/a.service", false),
        ("/user.slicer/a.service", false),
        ("/", false),
    ] {
        let facts = Facts {
            cgroup: cgroup.into(),
            ..facts()
        };
        assert_eq!(decision(&lookup, &facts).0, deny, "{cgroup}");
    }
}

#[test]
fn the_root_cgroup_is_every_one() {
    let tables = tables(&asking(Process {
        cgroups: vec!["/".into()],
        ..Process::default()
    }));
    assert_eq!(tables.head.flags, 0);
    assert!(tables.names.is_empty());
    assert_eq!(decision(&tables.lookup(CLOCK), &facts()), (true, 0));
}

#[test]
fn names_have_the_form_that_the_programs_look_up() {
    let tables = tables(&asking(Process {
        executables: vec![Files::Exact("/usr/local/tool".into())],
        cgroups: vec!["/a".into()],
        ..Process::default()
    }));
    let piece = |bytes: &[u8]| {
        let mut piece = [0; NAME_PIECE];
        piece[..bytes.len()].copy_from_slice(bytes);
        piece
    };
    let mut one = NO_RULES;
    insert(&mut one, 0);
    let seen: Vec<_> = tables
        .names
        .iter()
        .map(|(name, node)| {
            (
                name.parent,
                name.piece,
                node.id,
                node.exact.own == one,
                node.below.own == one,
            )
        })
        .collect();
    let expected = [
        (CGROUPS, piece(b"a"), FIRST_NODE, false, true),
        (
            FILES,
            piece(&2_u32.to_ne_bytes()),
            FIRST_NODE + 1,
            false,
            false,
        ),
        (FIRST_NODE + 1, piece(b"tool"), FIRST_NODE + 2, true, false),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn values_have_the_form_that_the_programs_look_up() {
    let inode = Inode {
        major: 8,
        minor: 1,
        ino: 99,
    };
    let mut policy = asking(Process {
        uids: vec![1_000..=1_000],
        gids: vec![0x0102_0304..=0x0102_0305],
        inodes: vec![inode],
        sha256: vec![[7; 32]],
        ..Process::default()
    });
    let rule = &mut policy.rules[0];
    rule.destination.networks = vec!["10.1.2.0/24".parse().unwrap()];
    rule.destination.ports = vec![443..=443];
    rule.source_ports = vec![0x8000..=0xffff];
    let tables = tables(&policy);
    let seen: Vec<_> = tables
        .facts
        .iter()
        .map(|(len, fact, _)| (fact.slot, fact.dimension, *len, fact.value))
        .collect();
    let value = |bytes: &[u8]| {
        let mut value = [0; 16];
        value[..bytes.len()].copy_from_slice(bytes);
        value
    };
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2];
    let expected = [
        (0, Dimension::Destination as u8, 120, value(&mapped)),
        (0, Dimension::Port as u8, 16, value(&[1, 0xbb])),
        (0, Dimension::SourcePort as u8, 1, value(&[0x80])),
        (0, Dimension::Uid as u8, 32, value(&[0, 0, 3, 0xe8])),
        (0, Dimension::Gid as u8, 31, value(&[1, 2, 3, 4])),
    ];
    assert_eq!(seen, expected);
    let (key, _) = tables.inodes[0];
    assert_eq!((key.slot, key.dev, key.ino), (0, 0x80_0001, 99));
    let (key, _) = tables.hashes[0];
    assert_eq!((key.slot, key.sha256), (0, [7; 32]));
}

#[test]
fn what_is_asked_is_flagged() {
    let exe = || Files::Exact("/init".into());
    let inode = Inode {
        major: 8,
        minor: 1,
        ino: 2,
    };
    let own = |process: Process| tables(&asking(process)).head.flags;
    let base = Process::default;
    assert_eq!(own(base()), 0);
    assert_eq!(
        own(Process {
            executables: vec![exe()],
            ..base()
        }),
        flags::ASKS_PATH
    );
    assert_eq!(
        own(Process {
            sha256: vec![[1; 32]],
            ..base()
        }),
        flags::ASKS_HASH
    );
    assert_eq!(
        own(Process {
            inodes: vec![inode],
            ..base()
        }),
        flags::ASKS_INODE
    );
    assert_eq!(
        own(Process {
            units: vec!["a.service".into()],
            ..base()
        }),
        flags::ASKS_CGROUP
    );
    assert_eq!(
        own(Process {
            uids: vec![0..=0],
            ..base()
        }),
        flags::ASKS_DIMENSION << Dimension::Uid as u32
    );
    assert_eq!(
        own(Process {
            ancestors: vec![Matcher::Sha256([1; 32])],
            ..base()
        }),
        flags::ASKS_ANCESTOR | flags::ASKS_HASH
    );
    assert_eq!(
        own(Process {
            parents: vec![Matcher::Executable(exe())],
            ..base()
        }),
        flags::ASKS_PARENT | flags::ASKS_PATH
    );
    let ingress = Rule {
        ingress: true,
        ..rule(Action::Deny)
    };
    assert_eq!(
        tables(&policy(vec![ingress])).head.flags,
        flags::ASKS_INGRESS
    );
    let all = Policy {
        mode: Mode::Audit,
        default: Verdict::Deny,
        unknown_hash: Verdict::Deny,
        loopback_allow: true,
        established_keep: true,
        on_overflow: Verdict::Deny,
        protect: false,
        ..policy(Vec::new())
    };
    let expected = flags::DEFAULT_DENY
        | flags::AUDIT
        | flags::UNKNOWN_DENY
        | flags::LOOPBACK_ALLOW
        | flags::ESTABLISHED_KEEP
        | flags::OVERFLOW_DENY;
    assert_eq!(tables(&all).head.flags, expected);
}

#[test]
fn rules_expire_at_their_time() {
    let expiring = |expires| Rule {
        expires,
        ..rule(Action::Deny)
    };
    let never = i128::from(i64::MAX) + 1;
    let policy = policy(
        [
            Some(3_000),
            Some(2_000),
            Some(0),
            Some(3_000),
            None,
            Some(never),
        ]
        .map(expiring)
        .into(),
    );
    let tables = tables(&policy);
    let untils: Vec<_> = tables.epochs.iter().map(|epoch| epoch.until_ns).collect();
    assert_eq!(untils, [0, 1_000, 2_000, u64::MAX]);
    let live: Vec<_> = tables.epochs.iter().map(|epoch| epoch.live[0]).collect();
    assert_eq!(live, [0b11_1111, 0b11_1011, 0b11_1001, 0b11_0000]);
    let lookup = tables.lookup(CLOCK);
    for (now, rule) in [(1_999, 0), (2_000, 0), (2_999, 0), (3_000, 4), (9_000, 4)] {
        assert_eq!(decision(&lookup, &Facts { now, ..facts() }), (true, rule));
    }
}

#[test]
fn too_much_is_refused() {
    let many = |count: usize| (0..count).map(|_| rule(Action::Deny));
    let error = |policy: Policy| compile(&policy, &Fake, CLOCK).unwrap_err().to_string();
    assert!(error(policy(many(RULES_MAX + 1).collect())).contains("1025 rules"));
    assert_eq!(tables(&policy(many(RULES_MAX).collect())).head.words, 16);
    assert_eq!(tables(&policy(many(65).collect())).head.words, 2);

    let expiring = |count: usize| {
        let rules = many(count).enumerate().map(|(nth, rule)| Rule {
            expires: Some(5_000 + nth as i128),
            ..rule
        });
        policy(rules.chain([rule(Action::Deny)]).collect())
    };
    assert_eq!(tables(&expiring(EXPIRIES)).epochs.len(), EXPIRIES_MAX);
    assert!(error(expiring(EXPIRIES_MAX)).contains("64 different times"));
}

#[test]
fn what_cannot_be_told_here_names_its_rule() {
    let error = |process| {
        let error = compile(&asking(process), &Fake, CLOCK).unwrap_err();
        error.to_string()
    };
    let base = Process::default;
    let inode = Inode {
        major: 4_096,
        minor: 0,
        ino: 1,
    };
    let device = error(Process {
        parents: vec![Matcher::Inode(inode)],
        ..base()
    });
    assert!(device.contains("4096:0"), "{device}");
    let path = error(Process {
        executables: vec![Files::Exact("usr/bin".into())],
        ..base()
    });
    assert!(path.contains("names usr/bin"), "{path}");
}

#[test]
fn a_containers_root_is_told_from_the_hosts_by_its_namespace() {
    let executables = vec![Files::Exact("/init".into())];
    let on_the_host = asking(Process {
        executables: executables.clone(),
        ..Process::default()
    });
    let in_root = asking(Process {
        executables,
        containers: vec!["0123456789ab".into()],
        ..Process::default()
    });
    assert_eq!(tables(&on_the_host).head.host_mntns, 0);
    assert_eq!(tables(&in_root).head.host_mntns, 7);
    assert!(compile(&on_the_host, &Confined, CLOCK).is_ok());
    let error = compile(&in_root, &Confined, CLOCK).unwrap_err().to_string();
    let expected = "rule \"a rule\" (line 7) asks for an executable in a container's root";
    assert!(error.starts_with(expected), "{error}");
}

/// A thousand rules, each of which asks for much.
#[test]
fn a_thousand_rules_make_tables_of_their_own_size() {
    let number = |nth: usize| nth as u32;
    let rules = (0..1_000).map(|nth| Rule {
        process: Process {
            executables: vec![Files::Exact(format!("/usr/bin/tool-{nth}").into())],
            sha256: vec![[nth as u8; 32]],
            uids: vec![number(nth)..=number(nth) + 10_000],
            cgroups: vec![format!("/system.slice/{nth}.service").into()],
            ..Process::default()
        },
        destination: Destination {
            networks: vec![
                format!("10.{}.{}.0/24", nth / 256, nth % 256)
                    .parse()
                    .unwrap(),
                format!("fd00:{nth:x}::/32").parse().unwrap(),
            ],
            ports: vec![1..=1_000 + nth as u16],
            ..Destination::default()
        },
        ..rule(Action::Deny)
    });
    let policy = policy(rules.collect());
    let tables = tables(&policy);
    let nets = tables
        .facts
        .iter()
        .filter(|(_, fact, _)| fact.dimension == 0);
    assert_eq!(nets.count(), 2_000);
    // Two directories and a file system, a slice; a name of each kind a rule.
    assert_eq!(tables.names.len(), 4 + 2_000);
    assert_eq!(tables.hashes.len(), 256);
}

//! The manager, over a kernel that keeps only the rules' names.

use std::{
    fs,
    sync::{Mutex, MutexGuard},
};

use procid_common::policy::{
    HashKey, Head, Uses,
    asked::{Asked, AskedRow, OpenRow},
};
use rstest::rstest;
use sha2::{Digest as _, Sha256};
use zerocopy::FromZeros as _;

use super::{
    ask::BlockRequest,
    blocks::{Block, ImageFile, Target},
    force::nothing_but_blocks,
    *,
};
use crate::policy::{
    Action, Destination, Mode, Process, Rule,
    lineage::{Family, Named},
};

const SECOND: u64 = 1_000_000_000;
const NOTHING: [String; 0] = [];

/// A language of one word a line: `bad` is wrong, `lost` compiles and is not
/// enforced, `many` does not compile, `audit`, `keep` and `protect` are modes, all
/// else are deny rules.
#[derive(Debug)]
struct Words;

impl Toolchain for Words {
    fn parse(&self, text: &str, file: &str) -> Result<Parsed, Vec<String>> {
        let bad = text.lines().enumerate().filter(|(_, word)| *word == "bad");
        let bad: Vec<_> = bad
            .map(|(at, _)| format!("{file}:{}: bad", at + 1))
            .collect();
        if !bad.is_empty() {
            return Err(bad);
        }
        let has = |word: &str| text.lines().any(|line| line == word);
        let words = text.lines().enumerate();
        let rules = words.filter(|(_, word)| !matches!(*word, "audit" | "keep" | "protect"));
        Ok(Parsed {
            policy: Policy {
                mode: if has("audit") {
                    Mode::Audit
                } else {
                    Mode::Enforce
                },
                established_keep: has("keep"),
                protect: has("protect"),
                rules: rules.map(|(at, word)| rule(word, at + 1)).collect(),
                sha256: Sha256::digest(text).into(),
                ..nothing_but_blocks()
            },
            warnings: Vec::new(),
        })
    }

    fn compile(&self, policy: &Policy, _: Offset) -> Result<Compiled, Vec<String>> {
        let names: Vec<_> = policy.rules.iter().map(|rule| &*rule.name).collect();
        if names.contains(&"many") {
            return Err(vec!["too many rules".to_owned()]);
        }
        let unenforced = names.iter().filter(|name| **name == "lost");
        Ok(Compiled {
            unenforced: unenforced.map(|_| "lost: no hook".to_owned()).collect(),
            tables: Tables {
                named: Named::default(),
                head: Head::new_zeroed(),
                facts: Vec::new(),
                names: Vec::new(),
                hashes: names.iter().map(|name| (key(name), Uses::NONE)).collect(),
                inodes: Vec::new(),
                epochs: Vec::new(),
            },
        })
    }
}

fn rule(name: &str, line: usize) -> Rule {
    Rule {
        name: name.into(),
        action: Action::Deny,
        process: Process::default(),
        destination: Destination::default(),
        source_ports: Vec::new(),
        ingress: false,
        expires: None,
        line,
    }
}

/// A rule's name in the tables.
fn key(name: &str) -> HashKey {
    let mut sha256 = [0; 32];
    sha256[..name.len()].copy_from_slice(name.as_bytes());
    HashKey {
        slot: 0,
        reserved: 0,
        sha256,
    }
}

#[derive(Clone, Debug, Default)]
struct Slot {
    generation: u64,
    rules: Vec<String>,
    until_ns: Option<u64>,
}

/// What the kernel holds: the active policy and the one it falls back to.
#[derive(Debug, Default)]
struct Fake {
    now_ns: u64,
    last: u64,
    active: Slot,
    before: Slot,
    /// So many applies from now on are refused.
    refuses_after: Option<u32>,
}

impl Fake {
    fn settle(&mut self) {
        if self.active.until_ns.is_some_and(|at| self.now_ns >= at) {
            self.active = std::mem::take(&mut self.before);
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Host(Arc<Mutex<Fake>>);

impl Host {
    fn kernel(&self) -> MutexGuard<'_, Fake> {
        let mut kernel = self.0.lock().unwrap();
        kernel.settle();
        kernel
    }

    fn rules(&self) -> Vec<String> {
        self.kernel().active.rules.clone()
    }

    fn at(&self, seconds: u64) -> Now {
        self.0.lock().unwrap().now_ns = seconds * SECOND;
        Now {
            boot_ns: seconds * SECOND,
            clock: Offset(1_700_000_000_000_000_000),
        }
    }
}

impl Enforcer for Host {
    fn settle(&mut self, _: &Family) -> io::Result<()> {
        Ok(())
    }

    fn apply(&mut self, tables: &Tables, revert_at_ns: Option<u64>, _: &Family) -> io::Result<u64> {
        let mut kernel = self.kernel();
        match &mut kernel.refuses_after {
            Some(0) => return Err(io::ErrorKind::OutOfMemory.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        kernel.last += 1;
        let name = |key: &HashKey| {
            let text = String::from_utf8_lossy(&key.sha256).into_owned();
            text.trim_end_matches('\0').to_owned()
        };
        let slot = Slot {
            generation: kernel.last,
            rules: tables.hashes.iter().map(|(key, _)| name(key)).collect(),
            until_ns: revert_at_ns,
        };
        kernel.before = std::mem::replace(&mut kernel.active, slot);
        Ok(kernel.last)
    }

    fn ask(&mut self, _: Option<(&Tables, &Family)>, _: Asked) -> io::Result<Vec<AskedRow>> {
        Ok(Vec::new())
    }

    fn open(
        &mut self,
        _: Option<(&Tables, &Family)>,
        _: Option<&[u32]>,
    ) -> io::Result<Vec<OpenRow>> {
        Ok(Vec::new())
    }

    fn confirm(&mut self) -> io::Result<()> {
        match self.kernel().active.until_ns.take() {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn revert(&mut self) -> io::Result<u64> {
        let mut kernel = self.kernel();
        if kernel.active.until_ns.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        kernel.active = std::mem::take(&mut kernel.before);
        Ok(kernel.active.generation)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.kernel().active = Slot::default();
        Ok(())
    }

    fn generation(&self) -> io::Result<u64> {
        Ok(self.kernel().active.generation)
    }

    fn hits(&self) -> io::Result<Vec<u64>> {
        let rules = self.kernel().active.rules.len() as u64;
        Ok((0..=rules).map(|index| 10 * index).collect())
    }
}

struct Bench {
    host: Host,
    directory: tempfile::TempDir,
    manager: Manager,
}

fn manager(host: &Host, directory: &tempfile::TempDir) -> Manager {
    let store = Store::new(directory.path().to_owned());
    Manager::new(Box::new(Words), Box::new(host.clone()), store)
}

impl Bench {
    fn new() -> Self {
        let host = Host::default();
        let directory = tempfile::tempdir().unwrap();
        let manager = manager(&host, &directory);
        Self {
            host,
            directory,
            manager,
        }
    }

    /// Another agent, of the same state directory, on the same kernel.
    fn restart(&mut self, given: Option<&str>, now: Now) -> Result<Option<Changed>, Refusal> {
        self.manager = manager(&self.host, &self.directory);
        self.manager
            .start(given.map(|text| (text, "given.toml")), now)
    }

    fn kept(&self) -> Option<String> {
        fs::read_to_string(self.directory.path().join("policy.toml")).ok()
    }

    fn apply(&mut self, text: &str, now: Now) -> Changed {
        self.manager.apply(&policy(text), now).unwrap()
    }

    fn apply_for(&mut self, text: &str, seconds: u64, now: Now) -> Changed {
        let request = Apply {
            confirm_seconds: Some(seconds),
            ..policy(text)
        };
        self.manager.apply(&request, now).unwrap()
    }

    fn block(&mut self, seconds: u64, now: Now) -> Result<Changed, Refusal> {
        self.manager.block(block(seconds, now), now)
    }
}

fn policy(text: &str) -> Apply {
    Apply {
        text: text.to_owned(),
        file: "p.toml".to_owned(),
        ..Apply::default()
    }
}

fn block(seconds: u64, now: Now) -> Block {
    let request = BlockRequest {
        exe: Some("/usr/bin/nc".to_owned()),
        for_seconds: seconds,
        reason: "why".to_owned(),
        ..BlockRequest::default()
    };
    Block::new(&request, |_| None::<ImageFile>, now).unwrap()
}

#[test]
fn a_policy_is_applied_kept_and_its_rules_named() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    let changed = bench.apply("a\nb", now);
    assert_eq!((changed.generation, changed.rules), (1, 2));
    assert_eq!(changed.warnings, NOTHING);
    assert_eq!(bench.host.rules(), ["a", "b"]);
    assert_eq!(bench.kept().as_deref(), Some("a\nb"));
    bench.apply("c", now);
    let named = bench.manager.generations().rule(1, 1).unwrap();
    assert_eq!(named.name.as_deref(), Some("b"));
    assert_eq!(Some(&*named.version), changed.sha256.as_deref());
    assert_eq!(
        bench
            .manager
            .generations()
            .rule(2, 0)
            .unwrap()
            .name
            .as_deref(),
        Some("c")
    );
    assert_eq!(bench.manager.generations().rule(3, 0), None);

    let shown = bench.manager.show(now).unwrap();
    assert_eq!(shown.rules.len(), 1);
    assert_eq!((shown.rules[0].hits, shown.default_hits), (0, 10));
    assert_eq!(shown.rules[0].line, Some(1));
    assert_eq!(shown.text.as_deref(), Some("c"));
    assert_eq!(shown.status.mode, "enforce");
}

#[rstest]
#[case::wrong("a\nbad\nbad", false, "p.toml:2: bad\np.toml:3: bad")]
#[case::uncompilable("many", false, "too many rules")]
#[case::unenforced("lost", true, "cannot enforce all of p.toml")]
fn a_bad_file_changes_nothing(#[case] text: &str, #[case] strict: bool, #[case] why: &str) {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    bench.apply("a", now);
    let request = Apply {
        strict,
        ..policy(text)
    };
    let refusal = bench.manager.apply(&request, now).unwrap_err();
    assert!(refusal.to_string().contains(why), "{refusal}");
    assert_eq!(bench.host.rules(), ["a"]);
    assert_eq!(bench.kept().as_deref(), Some("a"));
    assert_eq!(bench.manager.in_force().unwrap().1, 1);
}

#[test]
fn what_is_not_enforced_is_said_and_a_dry_run_changes_nothing() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    let request = Apply {
        dry_run: true,
        ..policy("lost")
    };
    let changed = bench.manager.apply(&request, now).unwrap();
    assert_eq!(changed.warnings, ["lost: no hook"]);
    assert_eq!((changed.generation, changed.rules), (0, 1));
    assert_eq!(bench.host.rules(), NOTHING);
    assert_eq!(bench.kept(), None);
    assert!(bench.manager.show(now).is_err());
}

#[test]
fn a_kernel_that_refuses_leaves_what_was() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    bench.apply("a", now);
    bench.host.kernel().refuses_after = Some(0);
    let refusal = bench.manager.apply(&policy("b"), now).unwrap_err();
    assert!(matches!(refusal, Refusal::Unsupported(_)), "{refusal}");
    assert!(bench.block(9, now).is_err());
    assert_eq!(bench.kept().as_deref(), Some("a"));
    assert_eq!(bench.manager.in_force().unwrap().1, 1);
    assert_eq!(bench.manager.status(now).blocks, 0);
    let left = fs::read_dir(bench.directory.path()).unwrap().count();
    assert_eq!(left, 1, "nothing half written is left");
}

#[test]
fn a_policy_that_cannot_be_kept_is_not_put_in_force() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    fs::create_dir(bench.directory.path().join("policy.toml.new")).unwrap();
    let refusal = bench.manager.apply(&policy("a"), now).unwrap_err();
    assert!(refusal.to_string().contains("policy.toml.new"), "{refusal}");
    assert_eq!(bench.host.rules(), NOTHING);
}

#[test]
fn nobody_confirms_and_the_one_before_is_in_force() {
    let mut bench = Bench::new();
    bench.apply("a", bench.host.at(1));
    let changed = bench.apply_for("b", 60, bench.host.at(2));
    assert_eq!(
        changed.confirm_by.as_deref(),
        Some("2023-11-14T22:14:22.000000000Z")
    );
    assert_eq!(bench.kept().as_deref(), Some("a"));
    let now = bench.host.at(61);
    assert!(bench.manager.tick(now, Family::new).is_empty());
    assert_eq!(bench.host.rules(), ["b"]);
    let status = bench.manager.status(now);
    let before = status.pending.unwrap().falls_back_to;
    assert_eq!(before.as_deref(), Some(&*hex(&Sha256::digest("a"))));
    assert!(matches!(
        bench.manager.apply(&policy("c"), now),
        Err(Refusal::State(_))
    ));

    let now = bench.host.at(62);
    assert_eq!(bench.manager.trouble(now), None);
    let sha256 = hex(&Sha256::digest("b")).into();
    assert_eq!(
        bench.manager.tick(now, Family::new),
        [Lapse::NotConfirmed { sha256 }]
    );
    assert_eq!(bench.host.rules(), ["a"]);
    assert_eq!(bench.manager.in_force().unwrap().1, 1);
    assert_eq!(bench.manager.status(now).pending, None);
    assert_eq!(
        bench
            .manager
            .generations()
            .rule(1, 0)
            .unwrap()
            .name
            .as_deref(),
        Some("a")
    );
    assert!(matches!(bench.manager.confirm(), Err(Refusal::State(_))));
    assert!(bench.manager.tick(now, Family::new).is_empty());
    bench.apply("c", now);
    assert_eq!(bench.host.rules(), ["c"]);
}

#[test]
fn a_confirmed_policy_stays_and_a_reverted_one_goes() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    bench.apply_for("a", 60, now);
    assert_eq!(bench.kept(), None);
    bench.manager.confirm().unwrap();
    assert_eq!(bench.kept().as_deref(), Some("a"));
    let now = bench.host.at(100);
    assert!(bench.manager.tick(now, Family::new).is_empty());
    assert_eq!(bench.host.rules(), ["a"]);

    bench.apply_for("b", 60, now);
    let changed = bench.manager.revert().unwrap();
    assert_eq!(changed.generation, 1);
    assert_eq!(bench.host.rules(), ["a"]);
    assert_eq!(bench.kept().as_deref(), Some("a"));
    assert!(matches!(bench.manager.revert(), Err(Refusal::State(_))));
    let request = Apply {
        confirm_seconds: Some(0),
        ..policy("b")
    };
    assert!(matches!(
        bench.manager.apply(&request, now),
        Err(Refusal::Input(_))
    ));
}

#[test]
fn a_block_stands_before_every_policy_and_expires() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    let changed = bench.block(60, now).unwrap();
    assert_eq!(changed.block.as_deref(), Some("block-1"));
    assert!(changed.expires.is_some());
    assert_eq!(bench.host.rules(), ["block-1"]);
    bench.apply("a", now);
    assert_eq!(bench.host.rules(), ["block-1", "a"]);
    bench.block(30, now).unwrap();
    assert_eq!(bench.host.rules(), ["block-1", "block-2", "a"]);
    let shown = bench.manager.show(now).unwrap();
    assert_eq!(shown.status.blocks, 2);
    assert_eq!(shown.rules[1].reason.as_deref(), Some("why"));
    assert_eq!(shown.rules[1].target.as_deref(), Some("exe:/usr/bin/nc"));

    let now = bench.host.at(31);
    let lapsed = [Lapse::Expired {
        name: "block-2".into(),
        reason: "why".to_owned(),
    }];
    assert_eq!(bench.manager.tick(now, Family::new), lapsed);
    assert_eq!(bench.host.rules(), ["block-1", "a"]);
    let changed = bench.manager.unblock("block-1", now).unwrap();
    assert_eq!(changed.block.as_deref(), Some("block-1"));
    assert_eq!(bench.host.rules(), ["a"]);
    assert!(matches!(
        bench.manager.unblock("a", now),
        Err(Refusal::State(_))
    ));
    assert_eq!(bench.host.rules(), ["a"]);
}

#[test]
fn the_last_block_leaves_no_policy_behind() {
    let mut bench = Bench::new();
    bench.block(60, bench.host.at(1)).unwrap();
    bench.manager.unblock("block-1", bench.host.at(2)).unwrap();
    assert_eq!(bench.host.kernel().active.generation, 0);
    assert_eq!(bench.manager.in_force(), None);
    bench.block(60, bench.host.at(3)).unwrap();
    assert_eq!(bench.manager.tick(bench.host.at(63), Family::new).len(), 1);
    assert_eq!(bench.host.kernel().active.generation, 0);
}

#[test]
fn a_block_holds_whether_a_policy_is_confirmed_or_not() {
    for is_confirmed in [true, false] {
        let mut bench = Bench::new();
        let now = bench.host.at(1);
        bench.apply("a", now);
        bench.apply_for("b", 60, now);
        bench.block(3600, now).unwrap();
        assert_eq!(bench.host.rules(), ["block-1", "b"]);
        assert_eq!(bench.kept().as_deref(), Some("a"));
        if is_confirmed {
            bench.manager.confirm().unwrap();
        }
        let now = bench.host.at(61);
        assert_eq!(
            bench.manager.tick(now, Family::new).len(),
            usize::from(!is_confirmed)
        );
        let below = if is_confirmed { "b" } else { "a" };
        assert_eq!(bench.host.rules(), ["block-1", below]);
        assert_eq!(bench.manager.trouble(now), None);
        let (_, generation) = bench.manager.in_force().unwrap();
        let name = bench
            .manager
            .generations()
            .rule(generation, 1)
            .unwrap()
            .name;
        assert_eq!(name.as_deref(), Some(below));
    }
}

#[test]
fn a_block_that_costs_the_unconfirmed_policy_says_so() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    bench.apply("a", now);
    bench.apply_for("b", 60, now);
    bench.host.kernel().refuses_after = Some(1);
    let refusal = bench.block(3600, now).unwrap_err();
    assert!(refusal.to_string().contains("is reverted"), "{refusal}");
    assert_eq!(bench.host.rules(), ["block-1", "a"]);
    assert_eq!(bench.manager.status(now).blocks, 1);
    assert_eq!(bench.manager.status(now).pending, None);
}

#[test]
fn a_block_expires_while_a_policy_waits() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    bench.block(10, now).unwrap();
    bench.apply_for("a", 60, now);
    let now = bench.host.at(12);
    assert_eq!(bench.manager.tick(now, Family::new).len(), 1);
    // The kernel knows that it has expired; the deadline stays.
    assert_eq!(bench.host.rules(), ["block-1", "a"]);
    assert!(bench.manager.tick(now, Family::new).is_empty());
    bench.manager.confirm().unwrap();
    bench.manager.tick(now, Family::new);
    assert_eq!(bench.host.rules(), ["a"]);
}

#[test]
fn an_agent_takes_up_what_was_confirmed_and_what_is_blocked() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    bench.apply("a", now);
    bench.block(3600, now).unwrap();
    bench.block(10, now).unwrap();
    bench.apply_for("b", 60, now);
    let now = bench.host.at(20);
    let changed = bench.restart(None, now).unwrap().unwrap();
    assert_eq!(bench.host.rules(), ["block-1", "a"]);
    assert_eq!(changed.rules, 2);
    assert_eq!(bench.manager.trouble(now), None);
    let changed = bench.block(10, now).unwrap();
    assert_eq!(changed.block.as_deref(), Some("block-3"));

    bench.restart(Some("c"), now).unwrap().unwrap();
    assert_eq!(bench.host.rules(), ["block-1", "block-3", "c"]);
    assert_eq!(bench.kept().as_deref(), Some("c"));
    let refusal = bench.restart(Some("bad"), now).unwrap_err();
    assert!(matches!(refusal, Refusal::Input(_)), "{refusal}");
    assert_eq!(bench.host.rules(), ["block-1", "block-3", "c"]);

    fs::write(bench.directory.path().join("policy.toml"), "bad").unwrap();
    let refusal = bench.restart(None, now).unwrap_err();
    assert!(refusal.to_string().contains("policy.toml:1"), "{refusal}");
}

#[test]
fn an_agent_without_a_policy_puts_nothing_in_force() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    assert_eq!(bench.restart(None, now).unwrap(), None);
    assert_eq!(bench.host.kernel().last, 0);
    bench.apply_for("b", 60, now);
    let last = bench.host.kernel().last;
    assert_eq!(bench.restart(None, now).unwrap(), None);
    assert_eq!(bench.host.kernel().last, last);
}

#[test]
fn what_a_policy_makes_of_a_block_is_said() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    bench.apply("audit\nkeep\na", now);
    let warnings = bench.block(60, now).unwrap().warnings;
    let said = |words: &str| warnings.iter().any(|warning| warning.contains(words));
    assert!(said("blocks nothing"), "{warnings:?}");
    assert!(said("already go on"), "{warnings:?}");
    assert!(said("copy of the file"), "{warnings:?}");
}

#[test]
fn a_protected_agent_takes_no_policy_that_does_not_protect() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    assert!(!bench.manager.protects());
    bench.apply("protect\na", now);
    assert!(bench.manager.protects());
    // Where the host cannot, it is a policy as any other.
    bench.manager.protection_is(Err("no LSM".to_owned()));
    let status = bench.manager.status(now);
    assert_eq!(status.unprotected.as_deref(), Some("no LSM"));
    bench.apply("b", now);
    assert!(!bench.manager.protects());
    assert_eq!(bench.manager.status(now).unprotected, None);

    bench.apply("protect\na", now);
    bench.manager.protection_is(Ok(()));
    let status = bench.manager.status(now);
    assert!(status.protected && status.unprotected.is_none());
    for dry_run in [false, true] {
        for confirm_seconds in [None, Some(60)] {
            let request = Apply {
                dry_run,
                confirm_seconds,
                ..policy("b")
            };
            let refusal = bench.manager.apply(&request, now).unwrap_err();
            assert!(matches!(refusal, Refusal::State(_)), "{refusal}");
            let way_out = "boot with procid.protect=0 on the kernel command line";
            assert!(refusal.to_string().ends_with(way_out), "{refusal}");
        }
    }
    assert_eq!(bench.host.rules(), ["a"]);
    assert_eq!(bench.kept().as_deref(), Some("protect\na"));

    // Others may be tried, and what they are reverted to is protected.
    bench.apply_for("protect\nc", 60, now);
    bench.manager.revert().unwrap();
    assert_eq!(bench.host.rules(), ["a"]);
    bench.block(3600, now).unwrap();
    bench.manager.unblock("block-1", now).unwrap();
    bench.apply("protect\nd", now);
    assert_eq!(bench.host.rules(), ["d"]);
    assert!(bench.manager.protects());
}

#[test]
fn a_policy_protects_once_it_is_confirmed() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    bench.apply("a", now);
    bench.apply_for("protect\nb", 60, now);
    assert!(!bench.manager.protects());
    let unprotected = bench.manager.status(now).unprotected;
    assert_eq!(
        unprotected.as_deref(),
        Some("the policy waits to be confirmed")
    );
    bench.manager.revert().unwrap();
    assert!(!bench.manager.protects());
    bench.apply_for("protect\nb", 60, now);
    bench.manager.confirm().unwrap();
    assert!(bench.manager.protects());
}

#[test]
fn somebody_else_s_policy_is_noticed() {
    let mut bench = Bench::new();
    let now = bench.host.at(1);
    bench.apply("a", now);
    assert_eq!(bench.manager.trouble(now), None);
    bench.host.kernel().active.generation = 7;
    let trouble = bench.manager.trouble(now).unwrap();
    assert!(trouble.contains("generation 7"), "{trouble}");
}

#[test]
fn a_target_is_read_as_it_is_written() {
    for text in ["exe:/", "sha256:ab", "inode:1:2", "pid:7", "x"] {
        assert!(Target::try_from(text.to_owned()).is_err(), "{text}");
    }
}

//! A plain reading of the rules, one by one.

use std::{ffi::OsStr, net::IpAddr, ops::RangeInclusive};

use procid_common::policy::{NO_RULE, decide::Decision};

use crate::policy::{Action, ExeFacts, Facts, Files, Matcher, Policy, Role, Rule, Verdict};

/// Certainly, and perhaps.
#[derive(Clone, Copy)]
struct Truth(bool, bool);

impl Truth {
    fn or(self, other: Self) -> Self {
        Self(self.0 || other.0, self.1 || other.1)
    }
}

/// Decides by reading each rule.
pub(super) fn evaluate(policy: &Policy, facts: &Facts) -> Decision {
    let default_deny =
        policy.default == Verdict::Deny && !matches!(facts.role, None | Some(Role::Acceptor));
    let truths: Vec<_> = policy
        .rules
        .iter()
        .map(|rule| matches(rule, facts))
        .collect();
    let rules = || policy.rules.iter().zip(&truths).enumerate();
    let number = |index: Option<usize>| index.map_or(NO_RULE, |index| index as u32);
    let certain = rules()
        .find(|(_, (rule, truth))| truth.0 && rule.action != Action::Audit)
        .map(|(index, _)| index);
    let deny = certain.map_or(default_deny, |index| {
        policy.rules[index].action == Action::Deny
    });
    let before = || rules().take(certain.unwrap_or(policy.rules.len()));
    let audit = before()
        .find(|(_, (rule, truth))| truth.0 && rule.action == Action::Audit)
        .map(|(index, _)| index);
    let other = if deny { Action::Allow } else { Action::Deny };
    let missing = before()
        .find(|(_, (rule, truth))| truth.1 && rule.action == other)
        .map(|(index, _)| index);
    Decision {
        deny: missing.map_or(deny, |_| policy.unknown_hash == Verdict::Deny),
        rule: number(missing.or(certain)),
        audit: number(audit),
        unknown: missing.is_some(),
    }
}

fn matches(rule: &Rule, facts: &Facts) -> Truth {
    let process = &rule.process;
    let image = &facts.process;
    let known = |matches| Truth(matches, matches);
    let none = || known(false);
    let own = |asked: Vec<Matcher>| {
        if asked.is_empty() {
            known(true)
        } else {
            any(&asked, &image.exe)
        }
    };
    let hash = own(process
        .sha256
        .iter()
        .copied()
        .map(Matcher::Sha256)
        .collect());
    let path = own(process
        .executables
        .iter()
        .cloned()
        .map(Matcher::Executable)
        .collect());
    let inode = own(process.inodes.iter().copied().map(Matcher::Inode).collect());
    let ancestor = if process.ancestors.is_empty() {
        known(true)
    } else {
        let exes = image.ancestors.iter();
        exes.map(|exe| any(&process.ancestors, exe))
            .fold(none(), Truth::or)
    };
    let parent = if process.parents.is_empty() {
        known(true)
    } else {
        let exe = image.parent.as_ref();
        exe.map_or(none(), |exe| any(&process.parents, exe))
    };
    let in_one = |ranges: &[RangeInclusive<u32>], value| {
        ranges.is_empty() || ranges.iter().any(|range| range.contains(&value))
    };
    let on_one = |ranges: &[RangeInclusive<u16>], value| {
        ranges.is_empty() || ranges.iter().any(|range| range.contains(&value))
    };
    let networks = &rule.destination.networks;
    let address = facts.destination.as_ref().map(IpAddr::to_canonical);
    let transports = &rule.destination.transports;
    let sockets = &rule.destination.sockets;
    let cgroups = &process.cgroups;
    let units = &process.units;
    let known = rule.expires.is_none_or(|expires| facts.now < expires)
        && rule.ingress == (facts.role == Some(Role::Acceptor))
        && process.kernel == facts.role.is_none()
        && (process.roles.is_empty() || facts.role.is_some_and(|it| process.roles.contains(&it)))
        && in_one(&process.uids, facts.euid)
        && in_one(&process.gids, facts.egid)
        && on_one(&rule.destination.ports, facts.port)
        && on_one(&rule.source_ports, facts.source_port)
        && (networks.is_empty()
            || address.is_some_and(|it| networks.iter().any(|network| network.contains(&it))))
        && (transports.is_empty() || facts.transport.is_some_and(|it| transports.contains(&it)))
        && (sockets.is_empty() || facts.socket.is_some_and(|it| sockets.contains(&it)))
        && (cgroups.is_empty() || cgroups.iter().any(|path| facts.cgroup.starts_with(path)))
        && (units.is_empty()
            || facts
                .cgroup
                .iter()
                .any(|name| units.iter().any(|unit| name == OsStr::new(unit))));
    [hash, path, inode, ancestor, parent]
        .into_iter()
        .fold(Truth(known, known), |all, one| {
            Truth(all.0 && one.0, all.1 && one.1)
        })
}

fn any(matchers: &[Matcher], exe: &ExeFacts) -> Truth {
    let one = |matcher: &Matcher| {
        let matches = match matcher {
            Matcher::Sha256(sha256) => match exe.sha256 {
                Some(hash) => hash == *sha256,
                None => return Truth(false, true),
            },
            Matcher::Executable(Files::Exact(path)) => exe.path.as_ref() == Some(path),
            Matcher::Executable(Files::Below(dir)) => {
                let path = exe.path.as_ref();
                path.is_some_and(|path| path.starts_with(dir) && path != dir)
            }
            Matcher::Inode(inode) => exe.inode == Some(*inode),
        };
        Truth(matches, matches)
    };
    matchers
        .iter()
        .map(one)
        .fold(Truth(false, false), Truth::or)
}

//! What a policy decides, said plainly.
//!
//! Written from the language's definition, one rule and one field at a time,
//! to hold the compiled tables against. Modes, `loopback` and `established`
//! are not its business.

use std::{ffi::OsStr, net::IpAddr, os::unix::ffi::OsStrExt, path::Path};

use procid_common::policy::{NO_RULE, container::id_in, decide::Decision};

use super::{
    Action, Destination, ExeFacts, Facts, Files, ImageFacts, InRoot, Matcher, Policy, Process,
    Role, Rule, Verdict,
};

/// Whether something matches, as far as the facts tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    No,
    /// Once a missing hash is known.
    Perhaps,
    Yes,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// Decides.
pub fn evaluate(policy: &Policy, facts: &Facts) -> Decision {
    // Accepted sockets and the kernel's own traffic are judged by rules only.
    let judged_by_default = matches!(facts.role, Some(Role::Opener | Role::Speaker));
    let mut decision = Decision {
        deny: judged_by_default && policy.default == Verdict::Deny,
        rule: NO_RULE,
        audit: NO_RULE,
        unknown: false,
    };
    let mut perhaps = Vec::new();
    for (index, rule) in (0..).zip(&policy.rules) {
        match (matches(rule, facts), rule.action) {
            (Answer::No, _) | (Answer::Perhaps, Action::Audit) => (),
            (Answer::Perhaps, Action::Allow) => perhaps.push((index, false)),
            (Answer::Perhaps, Action::Deny) => perhaps.push((index, true)),
            (Answer::Yes, Action::Audit) => {
                if decision.audit == NO_RULE {
                    decision.audit = index;
                }
            }
            (Answer::Yes, action) => {
                decision.deny = action == Action::Deny;
                decision.rule = index;
                break;
            }
        }
    }
    let otherwise = perhaps.iter().find(|(_, deny)| *deny != decision.deny);
    if let Some((rule, _)) = otherwise {
        decision.deny = policy.unknown_hash == Verdict::Deny;
        decision.rule = *rule;
        decision.unknown = true;
    }
    decision
}

/// The least of the answers to every question.
fn matches(rule: &Rule, facts: &Facts) -> Answer {
    let in_force = rule.expires.is_none_or(|expires| expires > facts.now);
    let direction = rule.ingress == (facts.role == Some(Role::Acceptor));
    let owner = rule.process.kernel == facts.role.is_none();
    let source = asked(&rule.source_ports, |ports| {
        ports.contains(&facts.source_port)
    });
    if !in_force || !direction || !owner {
        return Answer::No;
    }
    source
        .min(process_matches(&rule.process, facts))
        .min(destination_matches(&rule.destination, facts))
}

fn process_matches(process: &Process, facts: &Facts) -> Answer {
    let image = &facts.process;
    let exe = &image.exe;
    let answers = [
        asked(&process.executables, |files| {
            if process.containers.is_empty() {
                path_matches(files, exe).into()
            } else {
                matches_in_root(files, image)
            }
        }),
        asked(&process.sha256, |hash| hash_matches(hash, exe)),
        asked(&process.inodes, |inode| exe.inode == Some(*inode)),
        asked(&process.uids, |uids| uids.contains(&facts.euid)),
        asked(&process.gids, |gids| gids.contains(&facts.egid)),
        asked(&process.cgroups, |cgroup| facts.cgroup.starts_with(cgroup)),
        asked(&process.units, |unit| is_in_unit(&facts.cgroup, unit)),
        asked(&process.containers, |prefix| {
            container_of(&facts.cgroup).is_some_and(|id| id.starts_with(prefix))
        }),
        asked(&process.parents, |matcher| {
            any(image
                .parent
                .iter()
                .map(|parent| image_matches(matcher, parent)))
        }),
        asked(&process.ancestors, |matcher| {
            any(image
                .ancestors
                .iter()
                .map(|exe| image_matches(matcher, exe)))
        }),
        asked(&process.roles, |role| facts.role == Some(*role)),
    ];
    answers.into_iter().min().unwrap_or(Answer::Yes)
}

fn destination_matches(destination: &Destination, facts: &Facts) -> Answer {
    let address = facts.destination.as_ref().map(IpAddr::to_canonical);
    let answers = [
        asked(&destination.networks, |network| {
            address.is_some_and(|address| network.contains(&address))
        }),
        asked(&destination.ports, |ports| ports.contains(&facts.port)),
        asked(&destination.transports, |transport| {
            facts.transport == Some(*transport)
        }),
        asked(&destination.sockets, |socket| facts.socket == Some(*socket)),
    ];
    answers.into_iter().min().unwrap_or(Answer::Yes)
}

/// A field's answer: any of its values will do, and without values it does not
/// ask.
fn asked<T, A: Into<Answer>>(values: &[T], answer: impl Fn(&T) -> A) -> Answer {
    if values.is_empty() {
        return Answer::Yes;
    }
    any(values.iter().map(|value| answer(value).into()))
}

fn any(answers: impl Iterator<Item = Answer>) -> Answer {
    answers.max().unwrap_or(Answer::No)
}

fn image_matches(matcher: &Matcher, exe: &ExeFacts) -> Answer {
    match matcher {
        Matcher::Executable(files) => path_matches(files, exe).into(),
        Matcher::Sha256(hash) => hash_matches(hash, exe),
        Matcher::Inode(inode) => (exe.inode == Some(*inode)).into(),
    }
}

fn path_matches(files: &Files, exe: &ExeFacts) -> bool {
    exe.path.as_ref().is_some_and(|path| is_among(path, files))
}

fn matches_in_root(files: &Files, image: &ImageFacts) -> Answer {
    match &image.in_root {
        InRoot::No => Answer::No,
        InRoot::Unknown => Answer::Perhaps,
        InRoot::At(path) => is_among(path, files).into(),
    }
}

fn is_among(path: &Path, files: &Files) -> bool {
    match files {
        Files::Exact(exact) => path == exact,
        Files::Below(directory) => path != directory && path.starts_with(directory),
    }
}

fn hash_matches(hash: &[u8; 32], exe: &ExeFacts) -> Answer {
    exe.sha256
        .map_or(Answer::Perhaps, |known| (known == *hash).into())
}

/// A unit's name is that of a cgroup, at any depth.
fn is_in_unit(cgroup: &Path, unit: &str) -> bool {
    cgroup.iter().any(|name| name == unit)
}

/// The outermost container is the one.
fn container_of(cgroup: &Path) -> Option<&str> {
    cgroup.iter().map(OsStr::as_bytes).filter_map(id_in).next()
}

#[cfg(test)]
mod tests;

//! What a policy decides, said plainly.
//!
//! Written from the language's definition, one rule and one field at a time: to
//! hold the compiled tables against, and to judge what is past. Modes, `loopback`
//! and `established` are not its business.

use std::{ffi::OsStr, net::IpAddr, ops::RangeInclusive, os::unix::ffi::OsStrExt, path::Path};

use procid_common::policy::{NO_RULE, container::id_in, decide::Decision};

use super::{
    Action, Destination, ExeFacts, Facts, Files, InRoot, Inode, Matcher, Policy, Process, Role,
    Rule, Socket, Transport, Verdict,
};

/// Whether something matches, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    No,
    /// Once what is missing is known.
    Perhaps,
    Yes,
}

/// An act: what a decision is asked about, but for the image that acts.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// `None` of AF_PACKET.
    pub destination: Option<IpAddr>,
    /// 0 where the transport has none.
    pub port: u16,
    pub source_port: u16,
    pub transport: Option<Transport>,
    pub socket: Option<Socket>,
    /// `None`: the kernel's own traffic.
    pub role: Option<Role>,
    /// Nanoseconds since the Unix epoch.
    pub now: i128,
}

/// An act, and what can be said of the image that acts.
pub trait Case {
    fn act(&self) -> Act;
    /// Its file, among the host's.
    fn executable(&self, files: &Files) -> Answer;
    /// Its file, in the root of the container that it is in.
    fn in_root(&self, files: &Files) -> Answer;
    fn sha256(&self, hash: &[u8; 32]) -> Answer;
    fn inode(&self, inode: Inode) -> Answer;
    fn uid(&self, uids: &RangeInclusive<u32>) -> Answer;
    fn gid(&self, gids: &RangeInclusive<u32>) -> Answer;
    fn cgroup(&self, cgroup: &Path) -> Answer;
    fn unit(&self, unit: &str) -> Answer;
    /// `prefix` of a container's id.
    fn container(&self, prefix: &str) -> Answer;
    fn parent(&self, matcher: &Matcher) -> Answer;
    fn ancestor(&self, matcher: &Matcher) -> Answer;
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// Decides.
pub fn evaluate(policy: &Policy, case: &impl Case) -> Decision {
    let act = case.act();
    // Accepted sockets and the kernel's own traffic are judged by rules only.
    let judged_by_default = matches!(act.role, Some(Role::Opener | Role::Speaker));
    let mut decision = Decision {
        deny: judged_by_default && policy.default == Verdict::Deny,
        rule: NO_RULE,
        audit: NO_RULE,
        unknown: false,
    };
    let mut perhaps = Vec::new();
    for (index, rule) in (0..).zip(&policy.rules) {
        match (matches(rule, &act, case), rule.action) {
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
fn matches(rule: &Rule, act: &Act, case: &impl Case) -> Answer {
    let in_force = rule.expires.is_none_or(|expires| expires > act.now);
    let direction = rule.ingress == (act.role == Some(Role::Acceptor));
    let owner = rule.process.kernel == act.role.is_none();
    let source = asked(&rule.source_ports, |ports| ports.contains(&act.source_port));
    if !in_force || !direction || !owner {
        return Answer::No;
    }
    source
        .min(process_matches(&rule.process, act, case))
        .min(destination_matches(&rule.destination, act))
}

fn process_matches(process: &Process, act: &Act, case: &impl Case) -> Answer {
    let answers = [
        asked(&process.executables, |files| {
            if process.is_in_root() {
                case.in_root(files)
            } else {
                case.executable(files)
            }
        }),
        asked(&process.sha256, |hash| case.sha256(hash)),
        asked(&process.inodes, |inode| case.inode(*inode)),
        asked(&process.uids, |uids| case.uid(uids)),
        asked(&process.gids, |gids| case.gid(gids)),
        asked(&process.cgroups, |cgroup| case.cgroup(cgroup)),
        asked(&process.units, |unit| case.unit(unit)),
        asked(&process.containers, |prefix| case.container(prefix)),
        asked(&process.parents, |matcher| case.parent(matcher)),
        asked(&process.ancestors, |matcher| case.ancestor(matcher)),
        asked(&process.roles, |role| act.role == Some(*role)),
    ];
    answers.into_iter().min().unwrap_or(Answer::Yes)
}

fn destination_matches(destination: &Destination, act: &Act) -> Answer {
    let address = act.destination.as_ref().map(IpAddr::to_canonical);
    let answers = [
        asked(&destination.networks, |network| {
            address.is_some_and(|address| network.contains(&address))
        }),
        asked(&destination.ports, |ports| ports.contains(&act.port)),
        asked(&destination.transports, |transport| {
            act.transport == Some(*transport)
        }),
        asked(&destination.sockets, |socket| act.socket == Some(*socket)),
    ];
    answers.into_iter().min().unwrap_or(Answer::Yes)
}

impl Case for Facts {
    fn act(&self) -> Act {
        Act {
            destination: self.destination,
            port: self.port,
            source_port: self.source_port,
            transport: self.transport,
            socket: self.socket,
            role: self.role,
            now: self.now,
        }
    }

    fn executable(&self, files: &Files) -> Answer {
        path_matches(files, &self.process.exe).into()
    }

    fn in_root(&self, files: &Files) -> Answer {
        match &self.process.in_root {
            InRoot::No => Answer::No,
            InRoot::Unknown => Answer::Perhaps,
            InRoot::At(path) => files.have(path).into(),
        }
    }

    fn sha256(&self, hash: &[u8; 32]) -> Answer {
        hash_matches(hash, &self.process.exe)
    }

    fn inode(&self, inode: Inode) -> Answer {
        (self.process.exe.inode == Some(inode)).into()
    }

    fn uid(&self, uids: &RangeInclusive<u32>) -> Answer {
        uids.contains(&self.euid).into()
    }

    fn gid(&self, gids: &RangeInclusive<u32>) -> Answer {
        gids.contains(&self.egid).into()
    }

    fn cgroup(&self, cgroup: &Path) -> Answer {
        self.cgroup.starts_with(cgroup).into()
    }

    fn unit(&self, unit: &str) -> Answer {
        is_in_unit(&self.cgroup, unit).into()
    }

    fn container(&self, prefix: &str) -> Answer {
        let id = container_of(&self.cgroup);
        id.is_some_and(|id| id.starts_with(prefix)).into()
    }

    fn parent(&self, matcher: &Matcher) -> Answer {
        let parent = self.process.parent.iter();
        any(parent.map(|parent| image_matches(matcher, parent)))
    }

    fn ancestor(&self, matcher: &Matcher) -> Answer {
        let ancestors = self.process.ancestors.iter();
        any(ancestors.map(|exe| image_matches(matcher, exe)))
    }
}

/// A field's answer: any of its values will do, and without values it does not
/// ask.
fn asked<T, A: Into<Answer>>(values: &[T], answer: impl Fn(&T) -> A) -> Answer {
    if values.is_empty() {
        return Answer::Yes;
    }
    any(values.iter().map(|value| answer(value).into()))
}

/// The best of several answers.
pub(super) fn any(answers: impl Iterator<Item = Answer>) -> Answer {
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
    exe.path.as_ref().is_some_and(|path| files.have(path))
}

fn hash_matches(hash: &[u8; 32], exe: &ExeFacts) -> Answer {
    exe.sha256
        .map_or(Answer::Perhaps, |known| (known == *hash).into())
}

/// A unit's name is that of a cgroup, at any depth.
pub(super) fn is_in_unit(cgroup: &Path, unit: &str) -> bool {
    cgroup.iter().any(|name| name == unit)
}

/// The outermost container is the one.
fn container_of(cgroup: &Path) -> Option<&str> {
    cgroup.iter().map(OsStr::as_bytes).filter_map(id_in).next()
}

#[cfg(test)]
mod tests;

//! An act of the past, as its record tells of it, to be judged again.
//!
//! A record has less than a decision in the kernel: a file's name is the one it
//! was run by, in the process's own mount namespace. What it does not have
//! answers *perhaps*.

use std::{
    ffi::OsString,
    net::IpAddr,
    ops::RangeInclusive,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use self::lineage::{Images, Link};
use super::{
    Files, Inode, Matcher, Policy, Role, Socket, Transport,
    reference::{Act, Answer, Case, any, evaluate, is_in_unit},
};
use crate::records::{Exe, Process, Procid, Record, escape::unescape};

pub mod lineage;
#[cfg(test)]
mod tests;

/// Why a record cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Unjudged {
    #[error("found open: the act was not seen")]
    Found,
    #[error("the role of the image is not known")]
    Role,
    #[error("not an act")]
    NotAnAct,
}

/// What a policy says of an act of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    pub deny: bool,
    /// Index of the rule; `None`: the default.
    pub rule: Option<usize>,
    /// Something that the record does not say decides, and `unknown_hash` stands
    /// in for it.
    pub uncertain: bool,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    act: Act,
    /// What was put on the wire instead.
    wire: Option<IpAddr>,
    is_local: bool,
    record: &'a Record,
    procid: &'a Procid,
    images: &'a Images,
}

impl<'a> Past<'a> {
    /// `images` should know those that the record [wants](Images::wanted), where
    /// the policy asks for ancestors.
    ///
    /// # Errors
    ///
    /// The record is not of an act that a policy judges.
    pub fn of(record: &'a Record, images: &'a Images) -> Result<Self, Unjudged> {
        let procid = record.procid.as_deref().ok_or(Unjudged::NotAnAct)?;
        if procid.provenance.as_deref() != Some("live") {
            return Err(Unjudged::Found);
        }
        let now = record
            .timestamp
            .parse::<Timestamp>()
            .map_err(|_| Unjudged::NotAnAct)?
            .as_nanosecond();
        let role = match procid.role.as_deref() {
            _ if is_kernels(procid) => None,
            Some("opener") => Some(Role::Opener),
            Some("speaker") => Some(Role::Speaker),
            Some("acceptor") => Some(Role::Acceptor),
            _ => return Err(Unjudged::Role),
        };
        // Of an accepted connection the source is the peer.
        let (near, far) = match role {
            Some(Role::Acceptor) => (&record.destination, &record.source),
            _ => (&record.source, &record.destination),
        };
        let address = far.as_ref().and_then(|end| end.ip);
        let own = near.as_ref().and_then(|end| end.ip);
        let port = |end: &Option<crate::records::Endpoint>| {
            end.as_ref().and_then(|end| end.port).unwrap_or(0)
        };
        let network = record.network.as_ref();
        let socket = procid.socket.as_ref();
        Ok(Self {
            act: Act {
                destination: address,
                port: port(far),
                source_port: port(near),
                transport: network
                    .and_then(|network| network.transport.as_deref())
                    .and_then(Transport::of_word),
                socket: match socket.and_then(|socket| socket.socket_type.as_deref()) {
                    Some("raw") => Some(Socket::Raw),
                    Some("packet") => Some(Socket::Packet),
                    _ => None,
                },
                role,
                now,
            },
            wire: procid.wire.as_ref().and_then(|wire| wire.destination),
            is_local: address.is_some_and(|address| {
                address.to_canonical().is_loopback() || own == Some(address)
            }),
            record,
            procid,
            images,
        })
    }

    /// Judges it: as asked and as put on the wire.
    pub fn judge(&self, policy: &Policy) -> Again {
        if policy.loopback_allow && self.is_local {
            return Again {
                deny: false,
                rule: None,
                uncertain: false,
            };
        }
        let asked = self.decide(policy);
        let Some(wire) = self.wire.filter(|_| !asked.deny) else {
            return asked;
        };
        let act = Act {
            destination: Some(wire),
            ..self.act
        };
        let wired = Self { act, ..*self }.decide(policy);
        if wired.deny { wired } else { asked }
    }

    fn decide(&self, policy: &Policy) -> Again {
        let decision = evaluate(policy, self);
        Again {
            deny: decision.deny,
            rule: usize::try_from(decision.rule)
                .ok()
                .filter(|index| *index < policy.rules.len()),
            uncertain: decision.unknown,
        }
    }

    fn process(&self) -> Option<&Process> {
        self.record.process.as_deref()
    }

    /// Whether the record says that it does not know this.
    /// From the hierarchy's root; a cgroup keeps it for as long as it lives.
    fn cgroup_path(&self) -> Option<PathBuf> {
        let path = self.procid.cgroup.as_ref()?.path.as_deref()?;
        Some(OsString::from_vec(unescape(path)).into())
    }

    fn lacks(&self, field: &str) -> bool {
        self.procid.unknown.contains_key(field)
    }
}

/// Whether the policy of that time denied it.
pub fn was_denied(record: &Record) -> bool {
    let procid = record.procid.as_deref();
    procid.and_then(|procid| procid.verdict.as_deref()) == Some("deny")
}

impl Case for Past<'_> {
    fn act(&self) -> Act {
        self.act
    }

    /// A file of a container is none of the host's, whatever its name.
    fn executable(&self, files: &Files) -> Answer {
        let answer = by_name(files, self.process());
        match answer {
            Answer::Yes if self.record.container.is_some() => Answer::Perhaps,
            answer => answer,
        }
    }

    fn in_root(&self, files: &Files) -> Answer {
        by_name(files, self.process())
    }

    fn sha256(&self, hash: &[u8; 32]) -> Answer {
        by_hash(hash, self.process())
    }

    fn inode(&self, inode: Inode) -> Answer {
        by_inode(inode, self.procid.exe.as_ref())
    }

    fn uid(&self, uids: &RangeInclusive<u32>) -> Answer {
        let user = self.process().and_then(|it| it.user.as_ref());
        by_number(uids, user.map(|user| user.id.as_str()))
    }

    fn gid(&self, gids: &RangeInclusive<u32>) -> Answer {
        let group = self.process().and_then(|it| it.group.as_ref());
        by_number(gids, group.map(|group| group.id.as_str()))
    }

    fn cgroup(&self, cgroup: &Path) -> Answer {
        let path = self.cgroup_path();
        path.map_or(Answer::Perhaps, |path| path.starts_with(cgroup).into())
    }

    fn unit(&self, unit: &str) -> Answer {
        let path = self.cgroup_path();
        path.map_or(Answer::Perhaps, |path| is_in_unit(&path, unit).into())
    }

    fn container(&self, prefix: &str) -> Answer {
        match &self.record.container {
            Some(container) => container.id.starts_with(prefix).into(),
            None if self.lacks("container.id") => Answer::Perhaps,
            None => Answer::No,
        }
    }

    fn parent(&self, matcher: &Matcher) -> Answer {
        let parent = self.process().and_then(|it| it.parent.as_deref());
        match parent {
            Some(parent) => by(matcher, parent, None),
            None if self.lacks("process.parent") || self.process().is_none() => Answer::Perhaps,
            None => Answer::No,
        }
    }

    fn ancestor(&self, matcher: &Matcher) -> Answer {
        any(self.images.before(self.record).map(|link| match link {
            Link::Image(image) => by(matcher, &image.process, image.exe.as_ref()),
            Link::Missing => Answer::Perhaps,
        }))
    }
}

fn is_kernels(procid: &Procid) -> bool {
    procid.flags.iter().any(|flag| flag == "kernel")
}

fn by(matcher: &Matcher, process: &Process, exe: Option<&Exe>) -> Answer {
    match matcher {
        Matcher::Executable(files) => by_name(files, Some(process)),
        Matcher::Sha256(hash) => by_hash(hash, Some(process)),
        Matcher::Inode(inode) => by_inode(*inode, exe),
    }
}

fn by_name(files: &Files, process: Option<&Process>) -> Answer {
    match process.and_then(|process| process.executable.as_deref()) {
        // Escaped: the name itself is not kept.
        Some(path) if path.contains('\\') => Answer::Perhaps,
        Some(path) => files.have(Path::new(path)).into(),
        None => Answer::Perhaps,
    }
}

fn by_hash(hash: &[u8; 32], process: Option<&Process>) -> Answer {
    let known = process.and_then(|process| process.hash.as_ref());
    known.map_or(Answer::Perhaps, |known| is_hex(&known.sha256, hash).into())
}

/// Whether lower-case hexadecimal says these bytes.
fn is_hex(text: &str, bytes: &[u8]) -> bool {
    text.len() == 2 * bytes.len()
        && text
            .as_bytes()
            .chunks_exact(2)
            .zip(bytes)
            .all(|(digits, byte)| {
                std::str::from_utf8(digits)
                    .ok()
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                    == Some(*byte)
            })
}

fn by_inode(inode: Inode, exe: Option<&Exe>) -> Answer {
    exe.map_or(Answer::Perhaps, |exe| {
        let Inode { major, minor, ino } = inode;
        (exe.dev == format!("{major}:{minor}") && exe.inode == ino.to_string()).into()
    })
}

fn by_number(range: &RangeInclusive<u32>, id: Option<&str>) -> Answer {
    let number = id.and_then(|id| id.parse().ok());
    number.map_or(Answer::Perhaps, |number| range.contains(&number).into())
}

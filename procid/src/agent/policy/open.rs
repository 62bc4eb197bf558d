//! What a policy means for connections that are open.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    sync::Arc,
};

use procid_common::{
    image::ImageId,
    policy::{
        asked::{OpenRow, answer},
        role, verdict,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    Manager, Now,
    ask::{Apply, Refusal},
    kernel,
};
use crate::{policy::Policy, records::words};

/// Most processes above one that are looked at.
const ANCESTORS_MAX: usize = 64;

/// An open connection that a policy denies to every process that holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Denied {
    /// As `ss` prints it, in decimal; names the socket.
    pub cookie: String,
    /// Inode of its network namespace.
    pub netns: u32,
    /// `tcp`, `udp`, …; absent: none that has a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    pub destination: String,
    pub port: u32,
    /// Of the first holder.
    pub pid: u32,
    /// Its executable, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// Absent: the default denies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Open connections, and what a policy says of them.
#[derive(Debug)]
pub(in crate::agent) struct Open {
    rows: Vec<OpenRow>,
    policy: Arc<Policy>,
}

/// Open connections that a policy denies.
#[derive(Debug, Default)]
pub(in crate::agent) struct Cut {
    pub(in crate::agent) denied: Vec<(Denied, ImageId)>,
    /// Connections of which it is not certain.
    pub(in crate::agent) undecided: usize,
}

/// What is certain of one row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Certain {
    Allowed,
    Denied,
    No,
}

impl Manager {
    /// What is open, under the policy in force; `of`: what those processes hold.
    /// `None`: no policy is in force.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(in crate::agent) fn open(&mut self, of: Option<&[u32]>) -> Result<Option<Open>, Refusal> {
        let Some(in_force) = &self.in_force else {
            return Ok(None);
        };
        let policy = Arc::clone(&in_force.policy);
        let rows = self.enforcer.open(None, of);
        let rows = rows.map_err(|error| kernel(&error))?;
        Ok(Some(Open { rows, policy }))
    }

    /// The same under a policy that is not in force.
    ///
    /// # Errors
    ///
    /// It is no good, or the kernel does not tell.
    pub(in crate::agent) fn open_under(
        &mut self,
        request: &Apply,
        of: Option<&[u32]>,
        now: Now,
    ) -> Result<Option<Open>, Refusal> {
        let (source, _) = self.read(&request.text, &request.file)?;
        let Some(built) = self.build(Some(&source), &self.blocks, now)? else {
            return Ok(None);
        };
        let rows = self.enforcer.open(Some((&built.tables, &self.family)), of);
        let rows = rows.map_err(|error| kernel(&error))?;
        let policy = Arc::new(built.policy);
        Ok(Some(Open { rows, policy }))
    }

    /// Whether a policy asks for any hash; one that is no good does not.
    pub(in crate::agent) fn asks_hash(&self, request: &Apply) -> bool {
        let Ok((source, _)) = self.read(&request.text, &request.file) else {
            return false;
        };
        source.policy.asks_hash()
    }

    /// Whether what is in force does.
    pub(in crate::agent) fn asks_hash_now(&self) -> bool {
        let in_force = self.in_force.as_ref();
        in_force.is_some_and(|it| it.policy.asks_hash())
    }
}

impl Open {
    /// What the policy denies to every process that holds it: closing it takes
    /// it from all of them.
    pub(in crate::agent) fn cut(&self) -> Cut {
        self.cut_by(threads_agree)
    }

    fn cut_by(&self, agree: impl Fn(u32) -> io::Result<bool>) -> Cut {
        let mut by_socket: BTreeMap<u64, Vec<&OpenRow>> = BTreeMap::new();
        for row in &self.rows {
            by_socket.entry(row.cookie).or_default().push(row);
        }
        let asks_thread = self.policy.rules.iter().any(|rule| {
            let process = &rule.process;
            !(process.uids.is_empty()
                && process.gids.is_empty()
                && process.cgroups.is_empty()
                && process.units.is_empty())
        });
        let mut cut = Cut::default();
        for rows in by_socket.values() {
            let mut verdicts: Vec<_> = rows.iter().map(|row| certain(row)).collect();
            // An iterator shows of the threads that share descriptors the first.
            if asks_thread && verdicts.contains(&Certain::Denied) {
                for (row, verdict) in rows.iter().zip(&mut verdicts) {
                    if !agree(row.image.tgid).unwrap_or(false) {
                        *verdict = Certain::No;
                    }
                }
            }
            if verdicts.iter().all(|verdict| *verdict == Certain::Denied) {
                let first = rows.first();
                cut.denied
                    .extend(first.map(|row| (denied(row, &self.policy), row.image)));
            } else if verdicts.iter().any(|verdict| *verdict != Certain::Allowed) {
                cut.undecided += 1;
            }
        }
        cut
    }

    /// What went out and is denied to a process that holds it.
    pub(in crate::agent) fn denied(&self) -> impl Iterator<Item = (Denied, ImageId)> {
        let outgoing = self.rows.iter().filter(|row| {
            certain(row) == Certain::Denied && row.answer.role != role::ACCEPTOR as u32
        });
        outgoing.map(|row| (denied(row, &self.policy), row.image))
    }
}

/// A process and those above it, as /proc has them now, the nearest first.
pub(in crate::agent) fn ancestors(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut pid = pid;
    while all.len() < ANCESTORS_MAX
        && let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status"))
        && let Some(line) = status.lines().find_map(|line| line.strip_prefix("PPid:"))
        && let Ok(parent) = line.trim().parse()
        && parent != 0
    {
        all.push(parent);
        pid = parent;
    }
    all
}

/// A verdict that turns on what is not known yet is not certain.
const fn certain(row: &OpenRow) -> Certain {
    let given = &row.answer;
    match (given.answer, given.verdict) {
        (answer::LEFT_ALONE, _) | (answer::JUDGED, verdict::ALLOW | verdict::AUDIT)
            if given.unknown == 0 =>
        {
            Certain::Allowed
        }
        (answer::JUDGED, verdict::DENY) if given.unknown == 0 => Certain::Denied,
        _ => Certain::No,
    }
}

fn denied(row: &OpenRow, policy: &Policy) -> Denied {
    let rule = usize::try_from(row.answer.rule).ok();
    let rule = rule.and_then(|index| policy.rules.get(index));
    Denied {
        cookie: row.cookie.to_string(),
        netns: row.netns,
        transport: words::transport(row.socket.protocol).map(str::to_owned),
        destination: words::address(row.destination).to_string(),
        port: row.port,
        pid: row.image.tgid,
        executable: None,
        rule: rule.map(|rule| rule.name.to_string()),
    }
}

/// Whether all threads of a process have one effective user and group, and are
/// in one cgroup.
fn threads_agree(tgid: u32) -> io::Result<bool> {
    let mut seen = HashSet::new();
    for thread in fs::read_dir(format!("/proc/{tgid}/task"))? {
        let thread = thread?.path();
        let status = fs::read_to_string(thread.join("status"))?;
        let owner: Vec<_> = status
            .lines()
            .filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"))
            .filter_map(|line| line.split_ascii_whitespace().nth(2))
            .map(str::to_owned)
            .collect();
        seen.insert((owner, fs::read_to_string(thread.join("cgroup"))?));
    }
    Ok(seen.len() == 1)
}

#[cfg(test)]
mod tests {
    use procid_common::policy::asked::Answer;
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::{
        agent::policy::force::nothing_but_blocks,
        policy::{Action, Destination, Process, Rule},
    };

    fn policy(process: Process) -> Policy {
        let rule = Rule {
            name: Arc::from("x"),
            action: Action::Deny,
            process,
            destination: Destination::default(),
            source_ports: Vec::new(),
            ingress: false,
            expires: None,
            line: 1,
        };
        Policy {
            rules: vec![rule],
            ..nothing_but_blocks()
        }
    }

    fn open(rows: &[OpenRow], policy: Policy) -> Open {
        Open {
            rows: rows.to_vec(),
            policy: Arc::new(policy),
        }
    }

    fn row(cookie: u64, tgid: u32, answer: u32, verdict: u32, unknown: u32) -> OpenRow {
        OpenRow {
            cookie,
            image: ImageId {
                tgid,
                ..ImageId::UNKNOWN
            },
            answer: Answer {
                answer,
                verdict,
                unknown,
                ..Answer::default()
            },
            ..OpenRow::new_zeroed()
        }
    }

    #[test]
    fn only_what_is_certain_for_every_holder_is_denied() {
        let deny = |cookie, tgid| row(cookie, tgid, answer::JUDGED, verdict::DENY, 0);
        let allow = |cookie, tgid| row(cookie, tgid, answer::JUDGED, verdict::ALLOW, 0);
        let rows = [
            deny(1, 10),
            deny(1, 11),
            deny(2, 10),
            allow(2, 12),
            allow(3, 12),
            row(4, 13, answer::JUDGED, verdict::DENY, 1),
            row(5, 14, answer::NONE, verdict::ALLOW, 0),
            row(6, 15, answer::LEFT_ALONE, verdict::ALLOW, 0),
            row(7, 15, answer::JUDGED, verdict::AUDIT, 0),
        ];
        let never = |_: u32| -> io::Result<bool> { panic!("no rule asks for a thread's own") };
        let open = open(&rows, policy(Process::default())).cut_by(never);
        let cookies: Vec<_> = open
            .denied
            .iter()
            .map(|(it, _)| it.cookie.as_str())
            .collect();
        assert_eq!(cookies, ["1"]);
        assert_eq!(open.denied[0].0.rule.as_deref(), Some("x"));
        assert_eq!(open.undecided, 3);
    }

    #[test]
    fn threads_that_differ_leave_it_open() {
        let by_user = policy(Process {
            uids: vec![0..=0],
            ..Process::default()
        });
        let rows = [
            row(1, 10, answer::JUDGED, verdict::DENY, 0),
            row(2, 11, answer::JUDGED, verdict::DENY, 0),
        ];
        let open = open(&rows, by_user).cut_by(|tgid| Ok(tgid == 10));
        assert_eq!(open.denied.len(), 1);
        assert_eq!(open.undecided, 1);
        assert!(threads_agree(std::process::id()).unwrap());
    }

    #[test]
    fn the_parent_is_an_ancestor() {
        let all = ancestors(std::process::id());
        assert_eq!(all[0], std::process::id());
        assert_eq!(all[1], std::os::unix::process::parent_id());
    }
}

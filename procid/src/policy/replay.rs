//! What a policy would have done to history: acts judged again, counted by who
//! acted, where to, and what became of it.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use super::{
    Policy,
    past::{Past, Unjudged, lineage::Images, was_denied},
};
use crate::records::Record;

/// Most groups that are told apart.
const GROUPS_MAX: usize = 10_000;

/// How an act would fare under the policy, where that is not as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was let pass.
    Denied,
    /// It was denied.
    Allowed,
    /// What is not known decides; `unknown_hash` would stand in for it.
    Uncertain,
}

/// Acts that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Alike {
    pub change: Change,
    /// The policy's verdict.
    pub verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Line of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The executable's path, or the process's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
}

/// How many there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub count: u64,
    /// RFC 3339.
    pub first: String,
    pub last: String,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Replay<'a> {
    policy: &'a Policy,
    groups: BTreeMap<Alike, Tally>,
    /// Acts of groups that there was no room to tell apart.
    pub not_shown: u64,
    /// Acts that would have fared as they did.
    pub unchanged: u64,
    pub unjudged: BTreeMap<Unjudged, u64>,
    by_change: BTreeMap<Change, u64>,
}

impl<'a> Replay<'a> {
    pub const fn new(policy: &'a Policy) -> Self {
        Self {
            policy,
            groups: BTreeMap::new(),
            not_shown: 0,
            unchanged: 0,
            unjudged: BTreeMap::new(),
            by_change: BTreeMap::new(),
        }
    }

    /// Whether an image's ancestors have to be known.
    pub fn asks_ancestors(&self) -> bool {
        let mut rules = self.policy.rules.iter();
        rules.any(|rule| !rule.process.ancestors.is_empty())
    }

    /// Judges what a record tells of.
    pub fn judge(&mut self, record: &Record, images: &Images) {
        let past = match Past::of(record, images) {
            Ok(past) => past,
            Err(why) => {
                *self.unjudged.entry(why).or_default() += 1;
                return;
            }
        };
        let again = past.judge(self.policy);
        let change = match (again.uncertain, was_denied(record), again.deny) {
            (true, ..) => Change::Uncertain,
            (_, false, true) => Change::Denied,
            (_, true, false) => Change::Allowed,
            _ => {
                self.unchanged += 1;
                return;
            }
        };
        *self.by_change.entry(change).or_default() += 1;
        let rule = again.rule.and_then(|index| self.policy.rules.get(index));
        let process = record.process.as_deref();
        let destination = record.destination.as_ref();
        let alike = Alike {
            change,
            verdict: if again.deny { "deny" } else { "allow" },
            rule: rule.map(|rule| rule.name.to_string()),
            line: rule.map(|rule| rule.line).filter(|line| *line > 0),
            executable: process.and_then(|process| {
                process
                    .executable
                    .as_ref()
                    .or(process.name.as_ref())
                    .cloned()
            }),
            sha256: process
                .and_then(|process| process.hash.as_ref())
                .map(|hash| hash.sha256.clone()),
            role: record
                .procid
                .as_ref()
                .and_then(|procid| procid.role.clone()),
            ip: destination.and_then(|destination| destination.ip),
            port: destination.and_then(|destination| destination.port),
            transport: record
                .network
                .as_ref()
                .and_then(|network| network.transport.clone()),
        };
        let at = &record.timestamp;
        if let Some(tally) = self.groups.get_mut(&alike) {
            tally.count += 1;
            // Answers are in order of time, but for those of different runs.
            if *at < tally.first {
                tally.first.clone_from(at);
            }
            if *at > tally.last {
                tally.last.clone_from(at);
            }
        } else if self.groups.len() < GROUPS_MAX {
            let tally = Tally {
                count: 1,
                first: at.clone(),
                last: at.clone(),
            };
            self.groups.insert(alike, tally);
        } else {
            self.not_shown += 1;
        }
    }

    pub fn changed(&self, change: Change) -> u64 {
        self.by_change.get(&change).copied().unwrap_or(0)
    }

    /// Acts that were judged.
    pub fn judged(&self) -> u64 {
        self.unchanged + self.by_change.values().sum::<u64>()
    }

    /// By change, the most frequent first.
    pub fn groups(&self) -> Vec<(&Alike, &Tally)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by(|(a, of_a), (b, of_b)| {
            (a.change.cmp(&b.change)).then(of_b.count.cmp(&of_a.count))
        });
        groups
    }
}

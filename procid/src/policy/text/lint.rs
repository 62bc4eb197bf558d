//! Policies that are perhaps not what was meant.

use std::{ops::RangeInclusive, path::Path};

use ipnet::IpNet;
use jiff::Zoned;

use super::{
    FileSpots,
    diagnostic::{Report, Wrong},
    rule::Spots,
    words::quoted,
};
use crate::{
    identity::script::interpreters::runs_scripts,
    policy::{Action, Files, Mode, Policy, Rule, Verdict},
};

/// Pairs of values of one field that are compared; longer lists cover each
/// other only when they are the same.
const PAIRS_MAX: usize = 256;

pub(super) fn lint(policy: &Policy, spots: &FileSpots, now: &Zoned, report: &mut Report<'_>) {
    let rules = &policy.rules;
    for (index, (rule, at)) in rules.iter().zip(&spots.rules).enumerate() {
        by_path_or_hash(rule, at, report);
        by_link(rule, at, report);
        if expired(rule, now) {
            report.warning(
                at.expires,
                Wrong::new(
                    format!("rule {} has expired", quoted(&rule.name)),
                    "remove the rule, or give it a later time",
                ),
            );
        }
        let covering = rules
            .iter()
            .take(index)
            .find(|earlier| !expired(earlier, now) && covers(earlier, rule));
        if let Some(earlier) = covering {
            report.warning(
                at.rule,
                Wrong::new(
                    format!(
                        "rule {} is never reached: {} at line {} matches whatever it matches",
                        quoted(&rule.name),
                        quoted(&earlier.name),
                        earlier.line
                    ),
                    "put it before that rule, or remove it",
                ),
            );
        }
    }
    if let (Some(rule), Some(at)) = (rules.last(), spots.rules.last())
        && rule.action == Action::Audit
    {
        report.warning(
            at.rule,
            Wrong::new(
                format!(
                    "rule {} is the last one and decides nothing: what it matches gets the default",
                    quoted(&rule.name)
                ),
                "put an allow or deny rule after it, or make it one",
            ),
        );
    }
    if policy.protect && policy.mode == Mode::Audit {
        report.warning(
            spots.protect,
            Wrong::new(
                "`protect` guards an agent that blocks nothing: `mode` is \"audit\"",
                "write mode = \"enforce\", or leave `protect` out until it is",
            ),
        );
    }
    if policy.default == Verdict::Deny && !rules.iter().any(|rule| rule.action == Action::Allow) {
        report.warning(
            spots.default,
            Wrong::new(
                "`default` is \"deny\" and no rule allows: nothing can open a connection",
                "add an allow rule for what may",
            ),
        );
    }
}

/// What a rule on files does not hold.
fn by_path_or_hash(rule: &Rule, at: &Spots, report: &mut Report<'_>) {
    let process = &rule.process;
    let (path, hash) = (!process.executables.is_empty(), !process.sha256.is_empty());
    let name = quoted(&rule.name);
    match rule.action {
        Action::Allow if path && !hash => report.warning(
            at.executable,
            Wrong::new(
                format!(
                    "rule {name} allows by path alone: whoever can replace the file is allowed"
                ),
                "add the file's sha256",
            ),
        ),
        Action::Allow if hash => {
            let interpreter = process.executables.iter().find_map(|files| match files {
                Files::Exact(path) => Some(path).filter(|path| is_interpreter(path)),
                Files::Below(_) => None,
            });
            if let Some(path) = interpreter {
                report.warning(
                    at.sha256,
                    Wrong::new(
                        format!(
                            "rule {name} allows {} by hash, an interpreter: the hash says nothing of the script it runs",
                            quoted(&path.to_string_lossy())
                        ),
                        "narrow the rule by uid, unit, cgroup or parent",
                    ),
                );
            }
        }
        Action::Deny => {
            if path {
                report.warning(
                    at.executable,
                    Wrong::new(
                        format!("rule {name} denies by path: a copy elsewhere escapes it"),
                        "deny by what the caller cannot choose, such as uid, cgroup or ancestor, or allow only what may",
                    ),
                );
            }
            if hash {
                report.warning(
                    at.sha256,
                    Wrong::new(
                        format!("rule {name} denies by hash: a copy with one byte more escapes it"),
                        "deny by what the caller cannot choose, such as uid, cgroup or ancestor, or allow only what may",
                    ),
                );
            }
        }
        Action::Allow | Action::Audit => (),
    }
}

/// Directories that are a symbolic link to the one of that name in /usr, nearly
/// everywhere.
const USUAL_LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// A file of a container that its root has under another name: nobody can follow
/// the links of a root that may not exist yet.
fn by_link(rule: &Rule, at: &Spots, report: &mut Report<'_>) {
    if !rule.process.is_in_root() {
        return;
    }
    let paths = rule.process.executables.iter().map(Files::path);
    let missed = paths.clone().find_map(|path| {
        let below = path.strip_prefix("/").ok()?;
        let is_link = USUAL_LINKS.iter().any(|link| below.starts_with(link));
        let target = Path::new("/usr").join(below);
        let is_named = || paths.clone().any(|path| path == target);
        (is_link && !is_named()).then_some((path, target))
    });
    if let Some((path, target)) = missed {
        report.warning(
            at.executable,
            Wrong::new(
                format!(
                    "rule {} names {} in a container's root, where links are not followed and that is usually one",
                    quoted(&rule.name),
                    quoted(&path.to_string_lossy())
                ),
                format!("name {} too", quoted(&target.to_string_lossy())),
            ),
        );
    }
}

fn is_interpreter(path: &Path) -> bool {
    runs_scripts(path.as_os_str().as_encoded_bytes())
}

fn expired(rule: &Rule, now: &Zoned) -> bool {
    let now = now.timestamp().as_nanosecond();
    rule.expires.is_some_and(|expires| expires <= now)
}

/// Whether `earlier` ends evaluation wherever `later` matches. Values are
/// compared, not what they stand for: two names of one file are two files.
fn covers(earlier: &Rule, later: &Rule) -> bool {
    let (process, other) = (&earlier.process, &later.process);
    let (destination, to) = (&earlier.destination, &later.destination);
    let outlives = match (earlier.expires, later.expires) {
        (None, _) => true,
        (Some(earlier), Some(later)) => earlier >= later,
        (Some(_), None) => false,
    };
    outlives
        && earlier.action != Action::Audit
        && earlier.ingress == later.ingress
        && process.kernel == other.kernel
        && (process.executables.is_empty() || process.is_in_root() == other.is_in_root())
        && wider(&process.sha256, &other.sha256, PartialEq::eq)
        && wider(&process.inodes, &other.inodes, PartialEq::eq)
        && wider(&process.uids, &other.uids, range_within)
        && wider(&process.gids, &other.gids, range_within)
        && wider(&process.cgroups, &other.cgroups, |wide, narrow| {
            narrow.starts_with(wide)
        })
        && wider(&process.units, &other.units, PartialEq::eq)
        && wider(&process.containers, &other.containers, |wide, narrow| {
            narrow.starts_with(wide.as_str())
        })
        && wider(&process.parents, &other.parents, PartialEq::eq)
        && wider(&process.ancestors, &other.ancestors, PartialEq::eq)
        && wider(&process.roles, &other.roles, PartialEq::eq)
        && wider(&destination.ports, &to.ports, range_within)
        && wider(&destination.transports, &to.transports, PartialEq::eq)
        && wider(&destination.sockets, &to.sockets, PartialEq::eq)
        && wider(&earlier.source_ports, &later.source_ports, range_within)
        && wider(
            &destination.networks,
            &to.networks,
            |wide: &IpNet, narrow| wide.contains(narrow),
        )
        && wider(&process.executables, &other.executables, file_within)
}

/// Whether each value of a field is within one of another rule's field, which
/// matches everything where it is empty.
fn wider<T: PartialEq>(wide: &[T], narrow: &[T], within: impl Fn(&T, &T) -> bool) -> bool {
    if wide.is_empty() {
        return true;
    }
    if narrow.is_empty() || wide.len() * narrow.len() > PAIRS_MAX {
        return wide == narrow;
    }
    narrow
        .iter()
        .all(|narrow| wide.iter().any(|wide| within(wide, narrow)))
}

fn range_within<T: PartialOrd>(wide: &RangeInclusive<T>, narrow: &RangeInclusive<T>) -> bool {
    wide.contains(narrow.start()) && wide.contains(narrow.end())
}

fn file_within(wide: &Files, narrow: &Files) -> bool {
    match (wide, narrow) {
        (Files::Below(directory), Files::Exact(path)) => {
            path != directory && path.starts_with(directory)
        }
        (Files::Below(directory), Files::Below(path)) => path.starts_with(directory),
        // Word for word: each rule of a policy is held to each.
        (Files::Exact(wide), Files::Exact(narrow)) => wide.as_os_str() == narrow.as_os_str(),
        (Files::Exact(_), Files::Below(_)) => false,
    }
}

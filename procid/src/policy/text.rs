//! The policy language: text to a [`Policy`], and what is wrong with it.
//!
//! | module | holds |
//! | --- | --- |
//! | this one | a whole file |
//! | `rule` | one rule |
//! | `table` | keys of a table: known, unknown, one value or a list |
//! | `words`, `numbers`, `files` | single values |
//! | `lint` | what is a policy, and perhaps not the one that was meant |
//! | [`diagnostic`] | a problem and its place |
//!
//! All problems of a file are found at once, but for those of TOML itself,
//! which hide others.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;
use jiff::Zoned;
use procid_common::policy::RULES_MAX;
use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};

use self::{
    diagnostic::{Report, Wrong},
    rule::Spots,
    table::Table,
    words::{flag, text, word},
};
use super::{Mode, Policy, Rule, Verdict};

pub mod diagnostic;
mod files;
mod lint;
mod numbers;
mod rule;
mod table;
#[cfg(test)]
mod tests;
mod words;

pub use diagnostic::{Diagnostic, Severity};

/// Users and groups by name.
pub trait Names {
    /// `None`: there is no such user.
    fn uid(&self, name: &str) -> Option<u32>;
    /// `None`: there is no such group.
    fn gid(&self, name: &str) -> Option<u32>;
}

/// A policy, and what it perhaps does not mean to say.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub policy: Policy,
    pub warnings: Vec<Diagnostic>,
}

/// Reads a policy; `file` is its name in messages.
///
/// # Errors
///
/// Everything that is wrong with it, in order of place.
pub fn parse(text: &str, file: &str, names: &dyn Names) -> Result<Parsed, Vec<Diagnostic>> {
    parse_at(text, file, names, &Zoned::now())
}

/// [`parse`], where `now` gives the present moment and the local time zone.
///
/// # Errors
///
/// Everything that is wrong with it, in order of place.
pub fn parse_at(
    text: &str,
    file: &str,
    names: &dyn Names,
    now: &Zoned,
) -> Result<Parsed, Vec<Diagnostic>> {
    let mut report = Report::new(text, file);
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(_) => {
            let (_, errors) = DeTable::parse_recoverable(text);
            for error in errors {
                let at = error.span().map_or(0, |span| span.start);
                report.error(at, not_toml(error.message()));
            }
            return Err(report.first_of_each_line());
        }
    };
    let file = read(document.get_ref(), names, now, &mut report);
    let Some((mut policy, spots)) = file.filter(|_| report.is_empty()) else {
        return Err(report.in_order());
    };
    policy.sha256 = Sha256::digest(text.as_bytes()).into();
    lint::lint(&policy, &spots, now, &mut report);
    Ok(Parsed {
        policy,
        warnings: report.in_order(),
    })
}

/// A sentence of the TOML parser, cut into what is wrong and what to do.
fn not_toml(message: &str) -> Wrong {
    let message = message.trim().replace('\n', "; ");
    match message.split_once(", expected ") {
        Some((wrong, expected)) => Wrong::new(
            format!("TOML: {wrong}"),
            format!("TOML expects {expected} here"),
        ),
        None => Wrong::new(format!("TOML: {message}"), "mend the TOML here"),
    }
}

/// Where the lint points to.
struct FileSpots {
    default: usize,
    protect: usize,
    rules: Vec<Spots>,
}

const VERDICTS: &[(&str, Verdict)] = &[("allow", Verdict::Allow), ("deny", Verdict::Deny)];

/// Reads the whole file. What is wrong goes to `report`; `None`: it lacks what
/// has no default.
fn read(
    document: &DeTable<'_>,
    names: &dyn Names,
    now: &Zoned,
    report: &mut Report<'_>,
) -> Option<(Policy, FileSpots)> {
    let file = Table::new("a policy", 0, document);
    file.known(
        &[
            "mode",
            "default",
            "unknown_hash",
            "loopback",
            "established",
            "on_overflow",
            "set",
            "rule",
            "protect",
        ],
        report,
    );
    let modes: &[_] = &[("enforce", Mode::Enforce), ("audit", Mode::Audit)];
    let mode = file.one("mode", report, |value| word(value, modes));
    if !file.has("mode") {
        report.error(
            0,
            Wrong::new(
                "`mode` is missing",
                "write mode = \"enforce\", or mode = \"audit\" to record and block nothing",
            ),
        );
    }
    let mut verdict = |key: &str, default: Verdict| {
        file.one(key, report, |value| word(value, VERDICTS))
            .unwrap_or(default)
    };
    let default = verdict("default", Verdict::Allow);
    let unknown_hash = verdict("unknown_hash", Verdict::Deny);
    let on_overflow = verdict("on_overflow", Verdict::Deny);
    let loopback: &[_] = &[("judge", false), ("allow", true)];
    let loopback = file.one("loopback", report, |value| word(value, loopback));
    let established: &[_] = &[("judge", false), ("keep", true)];
    let established = file.one("established", report, |value| word(value, established));
    let protect = file.one("protect", report, flag);
    let sets = read_sets(&file, report);
    let (rules, rule_spots) = read_rules(&file, &sets, names, now, report);
    let policy = Policy {
        mode: mode?,
        default,
        unknown_hash,
        loopback_allow: loopback.unwrap_or(false),
        established_keep: established.unwrap_or(false),
        on_overflow,
        protect: protect.unwrap_or(false),
        rules,
        sha256: [0; 32],
    };
    let at = |key: &str| file.value(key).map_or(0, |value| value.span().start);
    let spots = FileSpots {
        default: at("default"),
        protect: at("protect"),
        rules: rule_spots,
    };
    Some((policy, spots))
}

/// Networks by the name of their set. A set that is wrong is there, empty.
type Sets<'t> = BTreeMap<&'t str, Vec<IpNet>>;

fn read_sets<'t>(file: &Table<'t>, report: &mut Report<'_>) -> Sets<'t> {
    let mut sets = Sets::new();
    let Some(value) = file.value("set") else {
        return sets;
    };
    let DeValue::Table(tables) = value.get_ref() else {
        let wrong = Wrong::kind("a table of sets", value.get_ref(), "write [set.NAME]");
        report.error(value.span().start, wrong.of("set"));
        return sets;
    };
    for (name, value) in tables {
        let mut networks = Vec::new();
        if let Some(set) = Table::of("set", value, report) {
            set.known(&["cidr"], report);
            networks = set.many("cidr", report, numbers::network);
            if !set.has("cidr") {
                report.error(
                    set.at,
                    Wrong::new(
                        format!("set {} has no `cidr`", words::quoted(name.get_ref())),
                        "write cidr = [\"10.1.2.3/32\"] in it, or remove the set",
                    ),
                );
            }
        }
        sets.insert(name.get_ref(), networks);
    }
    sets
}

fn read_rules(
    file: &Table<'_>,
    sets: &Sets<'_>,
    names: &dyn Names,
    now: &Zoned,
    report: &mut Report<'_>,
) -> (Vec<Rule>, Vec<Spots>) {
    let (mut rules, mut spots) = (Vec::new(), Vec::new());
    let Some(value) = file.value("rule") else {
        return (rules, spots);
    };
    let DeValue::Array(array) = value.get_ref() else {
        let wrong = Wrong::kind("a list of tables", value.get_ref(), "write [[rule]]");
        report.error(value.span().start, wrong.of("rule"));
        return (rules, spots);
    };
    if let Some(first_too_many) = array.get(RULES_MAX) {
        report.error(
            first_too_many.span().start,
            Wrong::new(
                format!(
                    "the policy has {} rules, and {RULES_MAX} is the most",
                    array.len()
                ),
                "join rules that differ in one field: a field may be a list",
            ),
        );
    }
    let mut lines = HashMap::new();
    let context = rule::Context { sets, names, now };
    for value in array {
        let Some(table) = Table::of("rule", value, report) else {
            continue;
        };
        if let Some(name) = table.value("name")
            && let Ok(text) = text(name.get_ref())
            && let Some(line) = lines.insert(text, report.line(name.span().start))
        {
            report.error(
                name.span().start,
                Wrong::new(
                    format!(
                        "{} is also the name of the rule at line {line}",
                        words::quoted(text)
                    ),
                    "give each rule a name of its own: records name the rule that decided",
                ),
            );
        }
        if let Some((rule, at)) = rule::read(&table, &context, report) {
            rules.push(rule);
            spots.push(at);
        }
    }
    (rules, spots)
}

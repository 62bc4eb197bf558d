//! What a record may say: every field, its type and its allowed values, and
//! which fields each action needs.
//!
//! A record is checked as JSON, not as [`super::Record`], so that a field the
//! struct does not know is found as well. The privileged tests put every record
//! they see through [`check`].
//!
//! | module | holds |
//! | --- | --- |
//! | [`fields`] | the table of fields |
//! | [`actions`] | the table of actions, and what fields ask of each other |
//! | [`hops`] | the steps of a chain |
//! | [`template`] | the mapping of every field for Elasticsearch |

use serde_json::{Map, Value};

use crate::records::escape::is_printable;
use fields::{Kind, field};

pub mod actions;
pub mod fields;
mod hops;
pub mod template;

/// Everything that is wrong with a record, one sentence each; empty when
/// nothing is.
pub fn check(record: &Value) -> Vec<String> {
    let Value::Object(object) = record else {
        return vec![format!("a record is an object, not {record}")];
    };
    let mut wrong = Vec::new();
    check_object("", object, &mut wrong);
    if record.pointer("/procid/coverage").is_some() {
        actions::check_coverage(record, &mut wrong);
    } else {
        actions::check_action(record, &mut wrong);
    }
    wrong
}

fn check_object(path: &str, object: &Map<String, Value>, wrong: &mut Vec<String>) {
    if object.is_empty() {
        wrong.push(format!("{} is an empty object", shown(path)));
    }
    for (key, value) in object {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match field(&path) {
            Some(field) => check_value(&path, field.kind, field.values, value, wrong),
            None => match value {
                Value::Object(inner) if fields::is_object(&path) => {
                    check_object(&path, inner, wrong);
                }
                _ if fields::is_object(&path) => {
                    wrong.push(format!("{path} is {value}, not an object"));
                }
                _ => wrong.push(format!("{} is not a field of records", shown(&path))),
            },
        }
    }
}

/// A path whose parts may be a process's words, made safe to print.
fn shown(path: &str) -> String {
    if path.is_empty() {
        "the record".to_owned()
    } else {
        format!("{path:?}")
    }
}

fn check_value(path: &str, kind: Kind, allowed: &[&str], value: &Value, wrong: &mut Vec<String>) {
    let each = |element: Kind, wrong: &mut Vec<String>| match value {
        Value::Array(values) => {
            for (at, value) in values.iter().enumerate() {
                check_value(&format!("{path}[{at}]"), element, allowed, value, wrong);
            }
        }
        _ => wrong.push(format!("{path} is {value}, not an array")),
    };
    match kind {
        Kind::Keywords | Kind::Ips => {
            if value.as_array().is_some_and(Vec::is_empty) {
                wrong.push(format!("{path} is an empty array"));
            }
            each(
                if kind == Kind::Ips {
                    Kind::Ip
                } else {
                    Kind::Keyword
                },
                wrong,
            );
        }
        Kind::KeywordsOrNone => each(Kind::Keyword, wrong),
        Kind::Texts => each(Kind::Text, wrong),
        Kind::Uncovered => match value {
            Value::Array(paths) => {
                for (at, path_and_reason) in paths.iter().enumerate() {
                    check_uncovered(&format!("{path}[{at}]"), path_and_reason, wrong);
                }
            }
            _ => wrong.push(format!("{path} is {value}, not an array")),
        },
        Kind::Gaps => match value {
            Value::Array(gaps) => {
                for (at, gap) in gaps.iter().enumerate() {
                    check_gap(&format!("{path}[{at}]"), gap, wrong);
                }
            }
            _ => wrong.push(format!("{path} is {value}, not an array")),
        },
        Kind::Hops => hops::check(path, value, wrong),
        Kind::KeywordMap | Kind::LongMap => match value {
            Value::Object(entries) => {
                let kind = if kind == Kind::LongMap {
                    Kind::Long
                } else {
                    Kind::Keyword
                };
                for (key, value) in entries {
                    check_value(&format!("{path}.{key}"), kind, allowed, value, wrong);
                }
            }
            _ => wrong.push(format!("{path} is {value}, not an object")),
        },
        _ => check_scalar(path, kind, allowed, value, wrong),
    }
}

fn check_scalar(path: &str, kind: Kind, allowed: &[&str], value: &Value, wrong: &mut Vec<String>) {
    if let Some(text) = value.as_str() {
        if text.is_empty() && kind != Kind::Text {
            wrong.push(format!("{path} is an empty string"));
            return;
        }
        if !text.chars().all(is_printable) {
            wrong.push(format!("{path} holds a control character: {text:?}"));
        }
        if !allowed.is_empty() && !allowed.contains(&text) {
            wrong.push(format!(
                "{path} is {text:?}, not one of {}",
                allowed.join(", ")
            ));
        }
    }
    if !kind.accepts(value) {
        wrong.push(format!("{path} is {value}, not {}", kind.name()));
    }
}

fn check_uncovered(path: &str, value: &Value, wrong: &mut Vec<String>) {
    let Value::Object(entries) = value else {
        wrong.push(format!("{path} is {value}, not an object"));
        return;
    };
    for name in ["path", "reason"] {
        match entries.get(name) {
            Some(value) => {
                check_scalar(&format!("{path}.{name}"), Kind::Keyword, &[], value, wrong);
            }
            None => wrong.push(format!("{path}.{name} is missing")),
        }
    }
    for name in entries
        .keys()
        .filter(|name| !matches!(name.as_str(), "path" | "reason"))
    {
        wrong.push(format!(
            "{} is not a field of records",
            shown(&format!("{path}.{name}"))
        ));
    }
}

fn check_gap(path: &str, value: &Value, wrong: &mut Vec<String>) {
    let Value::Object(entries) = value else {
        wrong.push(format!("{path} is {value}, not an object"));
        return;
    };
    for name in ["to", "cause"] {
        if !entries.contains_key(name) {
            wrong.push(format!("{path}.{name} is missing"));
        }
    }
    for (name, value) in entries {
        let at = format!("{path}.{name}");
        match name.as_str() {
            "from" | "to" => check_scalar(&at, Kind::Date, &[], value, wrong),
            "count" => check_scalar(&at, Kind::Long, &[], value, wrong),
            "cause" => check_scalar(&at, Kind::Keyword, &[], value, wrong),
            _ => wrong.push(format!("{} is not a field of records", shown(&at))),
        }
    }
}

#[cfg(test)]
mod tests;

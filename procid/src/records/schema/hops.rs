//! The steps of `procid.chain`: what each may say.

use serde_json::Value;

use super::{check_object, check_scalar, fields::Kind, shown};

/// What each step has.
const REQUIRED: [&str; 5] = ["of", "flow_id", "relation", "toward", "why"];

pub(super) fn check(path: &str, value: &Value, wrong: &mut Vec<String>) {
    let Value::Array(hops) = value else {
        wrong.push(format!("{path} is {value}, not an array"));
        return;
    };
    if hops.is_empty() {
        wrong.push(format!("{path} is an empty array"));
    }
    for (at, hop) in hops.iter().enumerate() {
        check_hop(&format!("{path}[{at}]"), hop, wrong);
    }
}

fn check_hop(path: &str, value: &Value, wrong: &mut Vec<String>) {
    let Value::Object(entries) = value else {
        wrong.push(format!("{path} is {value}, not an object"));
        return;
    };
    for name in REQUIRED {
        if !entries.contains_key(name) {
            wrong.push(format!("{path}.{name} is missing"));
        }
    }
    for (name, value) in entries {
        let at = format!("{path}.{name}");
        let mut one_of = |allowed| check_scalar(&at, Kind::Keyword, allowed, value, wrong);
        match name.as_str() {
            "relation" => one_of(&["peer", "inferred"]),
            "toward" => one_of(&["onward", "back"]),
            "why" => one_of(&[]),
            "of" | "flow_id" => check_scalar(&at, Kind::FlowId, &[], value, wrong),
            // What these hold, they hold at the top of a record too.
            "process" | "source" | "destination" => within(name, &at, value, wrong),
            "hash" => within("procid.peer.hash", &at, value, wrong),
            "transport" => within("network", &at, &serde_json::json!({name: value}), wrong),
            _ => wrong.push(format!("{} is not a field of records", shown(&at))),
        }
    }
}

/// Checks an object as one that stands elsewhere.
fn within(elsewhere: &str, path: &str, value: &Value, wrong: &mut Vec<String>) {
    match value {
        Value::Object(inner) => check_object(elsewhere, inner, wrong),
        _ => wrong.push(format!("{path} is {value}, not an object")),
    }
}

//! The index template for Elasticsearch: a mapping for each field of the
//! [table](super::fields), so that none is left to a guess from its first value.
//!
//! `packaging/elasticsearch/index-template.json` is what [`index_template`]
//! gives, and a test holds it to that: after a change of the table,
//! `PROCID_WRITE_TEMPLATE=1 cargo test -p procid --lib template` writes it anew.

use serde_json::{Map, Value, json};

use super::fields::{FIELDS, Kind, PROCESS_FIELDS, PROCESS_OBJECTS};
use crate::records::ECS_VERSION;

/// Longest keyword that is indexed: ECS's own choice. A longer one is kept, and
/// is not found.
const INDEXED_MAX: u32 = 1024;

/// The body of `PUT _index_template/procid`
/// (<https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-indices-put-index-template>).
pub fn index_template() -> Value {
    let mut mappings = json!({
        "_meta": {"ecs_version": ECS_VERSION},
        // What a newer procid adds is kept, and is not mapped by a guess.
        "dynamic": false,
        "date_detection": false,
    });
    let mut properties = Map::new();
    for (name, kind) in all() {
        insert(&mut properties, &name, mapping(&name, kind));
    }
    mappings["properties"] = Value::Object(properties);
    json!({
        "index_patterns": ["logs-procid.*-*"],
        "data_stream": {},
        // Before those that Elasticsearch brings along for logs-*-*.
        "priority": 500,
        "template": {"mappings": mappings},
        "_meta": {"description": "Records of procid, in ECS names"},
    })
}

/// Every field, also those of process objects, by its full name.
fn all() -> impl Iterator<Item = (String, Kind)> {
    let plain = FIELDS
        .iter()
        .map(|field| (field.name.to_owned(), field.kind));
    let of_processes = PROCESS_OBJECTS.iter().flat_map(|object| {
        let fields = PROCESS_FIELDS.iter();
        fields.map(move |field| (format!("{object}.{}", field.name), field.kind))
    });
    plain.chain(of_processes)
}

/// Puts a mapping where its dotted name leads.
fn insert(properties: &mut Map<String, Value>, name: &str, mapping: Value) {
    match name.split_once('.') {
        None => {
            properties.insert(name.to_owned(), mapping);
        }
        Some((first, rest)) => {
            let object = properties
                .entry(first)
                .or_insert_with(|| json!({"properties": {}}));
            if let Some(inner) = object["properties"].as_object_mut() {
                insert(inner, rest, mapping);
            }
        }
    }
}

fn mapping(name: &str, kind: Kind) -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": INDEXED_MAX});
    match kind {
        // As ECS has it: parts of a long line are looked for.
        _ if name.ends_with("command_line") => json!({"type": "wildcard"}),
        // Milliseconds, as ECS says; `event.sequence` orders what is closer.
        Kind::Date => json!({"type": "date"}),
        Kind::Ip | Kind::Ips => json!({"type": "ip"}),
        Kind::Long | Kind::Port | Kind::Id32 => json!({"type": "long"}),
        Kind::Keyword
        | Kind::Text
        | Kind::Decimal
        | Kind::IanaNumber
        | Kind::Sha256
        | Kind::CommunityId
        | Kind::Errno
        | Kind::FlowId
        | Kind::Device
        | Kind::Keywords
        | Kind::KeywordsOrNone
        | Kind::Texts => keyword,
        // Each path stays with its own reason.
        Kind::Uncovered => json!({
            "type": "nested",
            "properties": {"path": keyword, "reason": keyword},
        }),
        // So does each time.
        Kind::Gaps => json!({
            "type": "nested",
            "properties": {
                "from": {"type": "date"},
                "to": {"type": "date"},
                "count": {"type": "long"},
                "cause": keyword,
            },
        }),
        // And each step.
        Kind::Hops => {
            let end = json!({"properties": {"ip": {"type": "ip"}, "port": {"type": "long"}}});
            json!({
                "type": "nested",
                "properties": {
                    "of": keyword,
                    "flow_id": keyword,
                    "relation": keyword,
                    "toward": keyword,
                    "why": keyword,
                    "process": {
                        "properties": {
                            "entity_id": keyword,
                            "pid": {"type": "long"},
                            "name": keyword,
                            "executable": keyword,
                            "start": {"type": "date"},
                            "hash": {"properties": {"sha256": keyword}},
                        },
                    },
                    "hash": {"properties": {"grade": keyword, "reason": keyword}},
                    "transport": keyword,
                    "source": end,
                    "destination": end,
                },
            })
        }
        // Their names are not known beforehand, and some have dots in them.
        Kind::KeywordMap | Kind::LongMap => json!({"type": "flattened"}),
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use super::*;

    const FILE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../packaging/elasticsearch/index-template.json"
    );

    #[test]
    fn the_template_in_packaging_is_the_tables() {
        let mut text = serde_json::to_string_pretty(&index_template()).unwrap();
        text.push('\n');
        if env::var_os("PROCID_WRITE_TEMPLATE").is_some() {
            fs::write(FILE, &text).unwrap();
        }
        let file = fs::read_to_string(FILE).unwrap();
        assert!(file == text, "{FILE} is of another table: see this module");
    }

    /// Not by way of the generator: the file's own properties.
    #[test]
    fn every_field_is_mapped() {
        let file: Value = serde_json::from_str(&fs::read_to_string(FILE).unwrap()).unwrap();
        let mapped = |name: &str| {
            let pointer = name.replace('.', "/properties/");
            let pointer = format!("/template/mappings/properties/{pointer}/type");
            file.pointer(&pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        for (name, kind) in all() {
            let found = mapped(&name);
            assert!(found.is_some(), "{name} ({kind:?}) is not mapped");
        }
        for (name, kind) in [
            ("@timestamp", "date"),
            ("source.ip", "ip"),
            ("related.ip", "ip"),
            ("destination.port", "long"),
            ("event.duration", "long"),
            ("process.pid", "long"),
            ("process.user.id", "keyword"),
            ("process.parent.hash.sha256", "keyword"),
            ("process.command_line", "wildcard"),
            ("procid.opener.parent.args", "keyword"),
            ("procid.socket.cookie", "keyword"),
            ("procid.lost", "flattened"),
            ("procid.unknown", "flattened"),
            ("procid.uncovered", "nested"),
        ] {
            assert_eq!(mapped(name).as_deref(), Some(kind), "{name}");
        }
        assert_eq!(mapped("process.secret"), None);
    }
}

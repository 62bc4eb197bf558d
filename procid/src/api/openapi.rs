//! docs/openapi.json and the server, held to each other.
//!
//! Every route is in the file and every resource of the file is a route; every
//! example is answered as the file says; every refusal has a status that the
//! file names; and what is answered has the form that the file gives it.

use std::collections::BTreeSet;

use axum::{body::Body, extract::Request, http::Method};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

use super::{events, parameters, server};
use crate::records::schema::fields::{FIELDS, Field, Kind, PROCESS_FIELDS, PROCESS_OBJECTS};
use agent::{router, some};

mod agent;

fn file() -> Value {
    serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap()
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value
        .pointer(pointer)
        .unwrap_or_else(|| panic!("{pointer} is not in {value:#}"))
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("{value:#}"))
}

/// One resource of the file.
struct Operation {
    method: Method,
    path: String,
    text: Value,
}

fn operations() -> Vec<Operation> {
    let file = file();
    let mut all = Vec::new();
    for (path, methods) in object(at(&file, "/paths")) {
        for (method, text) in object(methods) {
            all.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                text: text.clone(),
            });
        }
    }
    all
}

impl Operation {
    /// Name, place and text of each parameter.
    fn parameters(&self) -> Vec<(String, String, Value)> {
        let all = self.text.get("parameters").and_then(Value::as_array);
        let text = |parameter: &Value, name: &str| parameter[name].as_str().unwrap().to_owned();
        all.into_iter()
            .flatten()
            .map(|it| (text(it, "name"), text(it, "in"), it.clone()))
            .collect()
    }

    fn query_names(&self) -> BTreeSet<String> {
        let all = self.parameters().into_iter();
        all.filter(|(_, place, _)| place == "query")
            .map(|(name, ..)| name)
            .collect()
    }

    /// Its path, with the examples in it.
    fn target(&self) -> String {
        let parameters = self.parameters().into_iter();
        parameters.filter(|(_, place, _)| place == "path").fold(
            self.path.clone(),
            |path, (name, _, text)| {
                path.replace(&format!("{{{name}}}"), text["example"].as_str().unwrap())
            },
        )
    }

    fn body(&self) -> String {
        let example = "/requestBody/content/application~1json/example";
        self.text
            .pointer(example)
            .map_or_else(String::new, Value::to_string)
    }

    /// Asks, and holds the answer to the file; returns its status.
    async fn ask(&self, uid: u32, target: &str, body: String) -> u16 {
        let what = format!("{} {target} {body}", self.method);
        let request = Request::builder()
            .method(self.method.clone())
            .uri(target)
            .body(Body::from(body))
            .unwrap();
        let response = router(uid).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers()["content-type"].to_str().unwrap();
        let kind = kind.split(';').next().unwrap().to_owned();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        let known = self.text["responses"].get(status.to_string());
        let known = known.unwrap_or_else(|| panic!("{what}: {status} is not in the file: {text}"));
        let schema = known["content"].get(&kind);
        let schema =
            &schema.unwrap_or_else(|| panic!("{what}: {kind} is not in the file"))["schema"];
        match kind.as_str() {
            "application/json" => assert_form(&what, schema, &text),
            "application/x-ndjson" => {
                for line in text.lines() {
                    assert_form(&what, schema, line);
                }
            }
            _ => assert!(!text.is_empty()),
        }
        status
    }
}

fn assert_form(what: &str, schema: &Value, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    let mut wrong = Vec::new();
    form(&file(), schema, &value, "", &mut wrong);
    assert_eq!(wrong, [""; 0], "{what}: {text}");
}

/// What of a value does not have the form of a schema; of JSON Schema, what the
/// file uses.
fn form(file: &Value, schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let schema = at(file, name.trim_start_matches('#'));
        return form(file, schema, value, path, wrong);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => kind.as_str().into_iter().collect(),
    };
    let is_one = kinds.iter().any(|kind| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        kind => panic!("{kind}"),
    });
    if !is_one {
        wrong.push(format!("{path} is {value}, not {kinds:?}"));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array)
        && !values.contains(value)
    {
        wrong.push(format!("{path} is {value}, not one of {values:?}"));
    }
    if let Some(required) = schema.get("required").and_then(Value::as_array) {
        let missing = required.iter().filter_map(Value::as_str);
        let missing = missing.filter(|name| value.get(name).is_none());
        wrong.extend(missing.map(|name| format!("{path}.{name} is missing")));
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let known = schema.get("properties").and_then(|all| all.get(name));
        match known.or_else(|| schema.get("additionalProperties")) {
            Some(schema) if schema.is_object() => form(file, schema, inner, &path, wrong),
            _ => wrong.push(format!("{path} is not in the file")),
        }
    }
    for (at, element) in value.as_array().into_iter().flatten().enumerate() {
        form(
            file,
            &schema["items"],
            element,
            &format!("{path}[{at}]"),
            wrong,
        );
    }
}

#[test]
fn the_file_has_the_routes_of_the_server() {
    let file: BTreeSet<_> = operations()
        .into_iter()
        .map(|it| (it.method.to_string(), it.path))
        .collect();
    let server: BTreeSet<_> = server::routes()
        .into_iter()
        .map(|(method, path, _)| (method.to_string(), path.to_owned()))
        .collect();
    assert_eq!(file, server);
}

#[test]
fn the_file_has_the_parameters_of_the_server() {
    let names = |value: Value| object(&value).keys().cloned().collect::<BTreeSet<_>>();
    let query = names(
        serde_json::to_value(parameters::Parameters {
            either: some(),
            src: some(),
            dst: some(),
            community_id: some(),
            pid: Some(1),
            exe: some(),
            sha256: some(),
            user: Some(1),
            container: some(),
            domain: some(),
            verdict: some(),
            since: Some(1),
            until: Some(1),
            at: Some(1),
        })
        .unwrap(),
    );
    let events = names(
        serde_json::to_value(events::Parameters {
            after: Some(1),
            ephemeral_id: some(),
        })
        .unwrap(),
    );
    for operation in operations() {
        let expected = match operation.path.as_str() {
            "/v1/who" | "/v1/connections" => query.clone(),
            "/v1/events" => events.clone(),
            _ => BTreeSet::new(),
        };
        assert_eq!(operation.query_names(), expected, "{}", operation.path);
    }
}

#[tokio::test]
async fn each_resource_answers_its_example() {
    for operation in operations() {
        let target = operation.target();
        let status = operation.ask(0, &target, operation.body()).await;
        assert_eq!(status, 200, "{target}");
    }
}

#[tokio::test]
async fn each_parameter_does_as_the_file_says() {
    for operation in operations() {
        let target = operation.target();
        for (name, place, text) in operation.parameters() {
            if place != "query" {
                continue;
            }
            let with = |value: &str| {
                let query = serde_urlencoded::to_string([(name.as_str(), value)]).unwrap();
                format!("{target}?{query}")
            };
            let example = match &text["example"] {
                Value::String(example) => example.clone(),
                example => example.to_string(),
            };
            // It says of which run another one is.
            let example = match name.as_str() {
                "ephemeral_id" => format!("{}&after=0", with(&example)),
                _ => with(&example),
            };
            let status = operation.ask(0, &example, String::new()).await;
            assert_eq!(status, 200, "{example}");
            if text["schema"]["type"] == "integer" {
                for bad in ["x", "", "1.5", "99999999999999999999999999"] {
                    let bad = with(bad);
                    let status = operation.ask(0, &bad, String::new()).await;
                    assert_eq!(status, 400, "{bad}");
                }
            }
            let twice = format!("{example}&{name}=1");
            let status = operation.ask(0, &twice, String::new()).await;
            assert_eq!(status, 400, "{twice}");
        }
        let body = operation.body();
        for bad in ["?nonsense=1", "?%zz=1", "?pid=%ff"] {
            let bad = format!("{target}{bad}");
            let status = operation.ask(0, &bad, body.clone()).await;
            assert_eq!(status, 400, "{bad}");
        }
    }
}

#[tokio::test]
async fn changes_are_roots_and_looking_is_everyones() {
    for operation in operations() {
        let target = operation.target();
        let status = operation.ask(1000, &target, operation.body()).await;
        let is_change = operation.text["description"] == "Root's alone.";
        assert_eq!(status, if is_change { 403 } else { 200 }, "{target}");
        let is_question = operation.method == Method::GET || target == "/v1/policy/explain";
        assert_ne!(is_change, is_question, "{target}");
    }
}

#[tokio::test]
async fn a_body_that_is_none_is_refused() {
    for operation in operations() {
        if operation.body().is_empty() {
            continue;
        }
        let target = operation.target();
        for bad in ["", "{", "[]", "null", "{\"nonsense\":1}", "\u{0}"] {
            let status = operation.ask(0, &target, bad.to_owned()).await;
            assert_eq!(status, 400, "{target} {bad:?}");
        }
    }
}

/// The file's form of a record is the table that records are checked against.
#[test]
fn the_file_has_the_fields_of_records() {
    let file = file();
    let process = json!({"$ref": "#/components/schemas/Process"});
    let mut record = tree(FIELDS);
    record["process"] = process.clone();
    record["procid"]["properties"]["opener"] = process.clone();
    for end in ["process", "speaker"] {
        record["procid"]["properties"]["peer"]["properties"][end] = process.clone();
    }
    assert_eq!(at(&file, "/components/schemas/Record/properties"), &record);
    let mut fields = tree(PROCESS_FIELDS);
    fields["parent"] = process.clone();
    fields["previous"] = process;
    assert_eq!(at(&file, "/components/schemas/Process/properties"), &fields);
    let objects = ["process", "procid.opener"].map(|object| {
        let parent = PROCESS_OBJECTS.contains(&format!("{object}.parent").as_str());
        PROCESS_OBJECTS.contains(&object) && parent
    });
    assert_eq!(objects, [true; 2]);
}

/// `properties` of an object with these fields.
fn tree(fields: &[Field]) -> Value {
    let mut root = json!({});
    for field in fields {
        let (path, name) = field.name.rsplit_once('.').unwrap_or(("", field.name));
        let mut within = &mut root;
        for part in path.split('.').filter(|part| !part.is_empty()) {
            within = &mut within.as_object_mut().unwrap().entry(part).or_insert_with(
                || json!({"type": "object", "additionalProperties": false, "properties": {}}),
            )["properties"];
        }
        within[name] = schema_of(field);
    }
    root
}

fn schema_of(field: &Field) -> Value {
    let keyword = json!({"type": "string", "minLength": 1});
    let pattern = |pattern: &str| json!({"type": "string", "pattern": pattern});
    let below = |maximum: u64| json!({"type": "integer", "minimum": 0, "maximum": maximum});
    let count = json!({"type": "integer", "minimum": 0});
    let ip = json!({"type": "string", "format": "ip"});
    let mut schema = match field.kind {
        Kind::Keyword => keyword,
        Kind::Text => json!({"type": "string"}),
        Kind::Date => json!({"type": "string", "format": "date-time"}),
        Kind::Ip => ip,
        Kind::Long => count,
        Kind::Port => below(u16::MAX.into()),
        Kind::Id32 => below(u32::MAX.into()),
        Kind::Decimal => pattern("^[0-9]+$"),
        Kind::IanaNumber => pattern("^[0-9]{1,3}$"),
        Kind::Sha256 => pattern("^[0-9a-f]{64}$"),
        Kind::CommunityId => pattern("^1:"),
        Kind::Errno => pattern("^(E[A-Z0-9]+|[0-9]+)$"),
        Kind::FlowId => pattern("^[0-9]+\\.[0-9]+$"),
        Kind::Device => pattern("^[0-9]+:[0-9]+$"),
        Kind::Keywords => json!({"type": "array", "minItems": 1, "items": keyword}),
        Kind::KeywordsOrNone => json!({"type": "array", "items": keyword}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Ips => json!({"type": "array", "minItems": 1, "items": ip}),
        Kind::Uncovered => {
            json!({"type": "array", "items": {"$ref": "#/components/schemas/Uncovered"}})
        }
        Kind::Gaps => json!({"type": "array", "items": {"$ref": "#/components/schemas/Gap"}}),
        Kind::Hops => json!({
            "type": "array",
            "minItems": 1,
            "items": {"$ref": "#/components/schemas/Hop"},
        }),
        Kind::KeywordMap => {
            json!({"type": "object", "additionalProperties": {"type": "string"}})
        }
        Kind::LongMap => json!({"type": "object", "additionalProperties": count}),
    };
    if !field.values.is_empty() {
        let of = match schema.get_mut("items") {
            Some(items) => items,
            None => &mut schema,
        };
        of["enum"] = json!(field.values);
    }
    schema
}

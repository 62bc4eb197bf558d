//! The table of actions, and what the fields of one record ask of each other.

use serde_json::Value;

/// What one row of the table asks of a record.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    pub name: &'static str,
    /// `event.category`; `None`: absent.
    pub category: Option<&'static str>,
    /// Values of `event.type` together, in any order; any of the sets.
    pub types: &'static [&'static [&'static str]],
    /// Values of `event.outcome`; empty: absent.
    pub outcomes: &'static [&'static str],
    /// Fields that must be there, beside those of every record, unless
    /// `procid.unknown` says why they are not.
    pub required: &'static [&'static str],
}

const ATTEMPT_TYPES: &[&[&str]] = &[
    &["connection", "start", "allowed"],
    &["connection", "denied"],
];
const SPEAKER_TYPES: &[&[&str]] = &[
    &["connection", "info", "allowed"],
    &["connection", "info", "denied"],
];
const ANY_OUTCOME: &[&str] = &["success", "failure", "unknown"];
const SOCKET: &[&str] = &["procid.provenance", "procid.socket.type"];
const FLOW: &[&str] = &[
    "procid.flow_id",
    "procid.provenance",
    "procid.socket.cookie",
    "procid.socket.type",
];
const ATTEMPT: &[&str] = &[
    "network.direction",
    "procid.flow_id",
    "procid.hook",
    "procid.provenance",
    "procid.role",
    "procid.socket.cookie",
    "procid.socket.netns",
    "procid.socket.type",
    "procid.verdict",
];
const IMAGE: &[&str] = &[
    "process.entity_id",
    "process.pid",
    "process.start",
    "procid.hash.grade",
    "procid.provenance",
];

/// Fields that every record but the coverage record has.
pub const REQUIRED: &[&str] = &[
    "@timestamp",
    "agent.type",
    "agent.version",
    "ecs.version",
    "event.action",
    "event.dataset",
    "event.kind",
    "event.module",
    "event.type",
    "host.boot.id",
];

/// Every action of a record of kind `event`, `send` as an opener's.
pub const ACTIONS: &[Action] = &[
    row(
        "ready",
        None,
        &[&["info"]],
        &[],
        &["procid.backend", "procid.hooks", "procid.uncovered"],
    ),
    row(
        "connect",
        Some("network"),
        ATTEMPT_TYPES,
        ANY_OUTCOME,
        ATTEMPT,
    ),
    row("send", Some("network"), ATTEMPT_TYPES, ANY_OUTCOME, ATTEMPT),
    row(
        "accept",
        Some("network"),
        ATTEMPT_TYPES,
        &["success"],
        ATTEMPT,
    ),
    row(
        "update",
        Some("network"),
        &[&["connection", "info"]],
        &[],
        FLOW,
    ),
    row(
        "close",
        Some("network"),
        &[&["connection", "end"]],
        &[],
        FLOW,
    ),
    row(
        "hash",
        Some("process"),
        &[&["info"]],
        &[],
        &["process.entity_id", "procid.hash.grade"],
    ),
    row("fork", Some("process"), &[&["start"]], &[], IMAGE),
    row("exec", Some("process"), &[&["start"]], &[], IMAGE),
    row(
        "exit",
        Some("process"),
        &[&["end"]],
        &[],
        &["process.entity_id", "process.pid"],
    ),
    row(
        "policy",
        Some("configuration"),
        &[&["change"]],
        &["success", "failure"],
        &["process", "procid.policy.change", "rule.version"],
    ),
    row("loss", None, &[&["info"]], &[], &["procid.lost"]),
];

/// A `send` with role `speaker`: the first use of a socket by an image that did
/// not open it.
const SPEAKER: Action = row("send", Some("network"), SPEAKER_TYPES, ANY_OUTCOME, ATTEMPT);

const fn row(
    name: &'static str,
    category: Option<&'static str>,
    types: &'static [&'static [&'static str]],
    outcomes: &'static [&'static str],
    required: &'static [&'static str],
) -> Action {
    Action {
        name,
        category,
        types,
        outcomes,
        required,
    }
}

/// A record's fields by their dotted names.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn get(self, name: &str) -> Option<&'a Value> {
        name.split('.')
            .try_fold(self.0, |value, key| value.get(key))
    }

    fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn text(self, name: &str) -> Option<&'a str> {
        self.get(name)?.as_str()
    }

    fn list(self, name: &str) -> Vec<&'a str> {
        let list = self.get(name).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }
}

/// Checks a record's `event` fields against its action, and its other fields
/// against each other.
pub(super) fn check_action(record: &Value, wrong: &mut Vec<String>) {
    let fields = Fields(record);
    require(fields, REQUIRED, wrong);
    match fields.text("event.kind") {
        Some("state") => check_state(fields, wrong),
        _ => check_event(fields, wrong),
    }
    check_hash(fields, wrong);
}

/// The last record of an answer, which holds nothing but its coverage.
pub(super) fn check_coverage(record: &Value, wrong: &mut Vec<String>) {
    let fields = Fields(record);
    require(
        fields,
        &[
            "procid.coverage.to",
            "procid.coverage.lost",
            "procid.coverage.uncovered",
            "procid.coverage.provenance",
        ],
        wrong,
    );
    let sizes = [Some(record), record.get("procid")].map(|object| {
        object
            .and_then(Value::as_object)
            .map_or(0, serde_json::Map::len)
    });
    if sizes != [1, 1] {
        wrong.push("a coverage record holds something else beside procid.coverage".to_owned());
    }
}

/// Asks for fields, or for the reason in `procid.unknown` why they are absent.
fn require(fields: Fields<'_>, names: &[&str], wrong: &mut Vec<String>) {
    for name in names {
        if !fields.has(name) && !is_explained(fields, name) {
            let action = fields.text("event.action").unwrap_or("this");
            wrong.push(format!(
                "{name} is missing from a record of action {action:?}"
            ));
        }
    }
}

/// What existed before the hooks were on.
fn check_state(fields: Fields<'_>, wrong: &mut Vec<String>) {
    if fields.list("event.type") != ["info"] {
        wrong.push("event.type of a snapshot row is not [info]".to_owned());
    }
    if fields.text("procid.provenance") != Some("snapshot") {
        wrong.push("procid.provenance of a snapshot row is not snapshot".to_owned());
    }
    if fields.has("event.outcome") {
        wrong.push("a snapshot row has an event.outcome".to_owned());
    }
    match fields.list("event.category")[..] {
        ["network"] => {
            require(fields, SOCKET, wrong);
            check_addresses(fields, wrong);
        }
        ["process"] => require(fields, IMAGE, wrong),
        _ => wrong.push("event.category of a snapshot row is not network or process".to_owned()),
    }
}

fn check_event(fields: Fields<'_>, wrong: &mut Vec<String>) {
    require(fields, &["event.sequence", "agent.ephemeral_id"], wrong);
    let name = fields.text("event.action").unwrap_or("");
    let is_speaker = fields.text("procid.role") == Some("speaker");
    let Some(action) = ACTIONS.iter().find(|action| action.name == name) else {
        wrong.push(format!("event.action is {name:?}, which is no action"));
        return;
    };
    let action = if name == "send" && is_speaker {
        &SPEAKER
    } else {
        action
    };
    require(fields, action.required, wrong);

    let category = fields.list("event.category");
    if category != action.category.as_slice() {
        wrong.push(format!(
            "event.category of {name} is {category:?}, not {:?}",
            action.category
        ));
    }
    let mut types = fields.list("event.type");
    types.sort_unstable();
    let is_same = |set: &&[&str]| {
        let mut set = set.to_vec();
        set.sort_unstable();
        set == types
    };
    if !action.types.iter().any(is_same) {
        wrong.push(format!(
            "event.type of {name} is {types:?}, not one of {:?}",
            action.types
        ));
    }
    match fields.text("event.outcome") {
        None if action.outcomes.is_empty() => {}
        Some(outcome) if action.outcomes.contains(&outcome) => {}
        outcome => wrong.push(format!(
            "event.outcome of {name} is {outcome:?}, not one of {:?}",
            action.outcomes
        )),
    }
    if action.category == Some("network") {
        check_addresses(fields, wrong);
    }
    match name {
        "connect" | "send" | "accept" => {
            check_attempt(fields, wrong);
            check_role(fields, wrong);
        }
        "close" if fields.text("procid.provenance") == Some("live") => {
            require(
                fields,
                &["event.start", "event.end", "event.duration"],
                wrong,
            );
        }
        "policy" if fields.text("event.outcome") == Some("failure") => {
            require(fields, &["event.reason"], wrong);
        }
        "hash" if fields.text("procid.hash.reason") == Some("pending") => {
            wrong.push("a hash record says that the hash is pending".to_owned());
        }
        "loss" => {
            let lost = fields.get("procid.lost").and_then(Value::as_object);
            if lost.is_some_and(|lost| lost.values().all(|count| count == &Value::from(0))) {
                wrong.push("procid.lost of a loss record counts nothing".to_owned());
            }
        }
        _ => {}
    }
}

/// Verdict, type, outcome, error and owner of an attempt agree.
fn check_attempt(fields: Fields<'_>, wrong: &mut Vec<String>) {
    let is_denied = fields.list("event.type").contains(&"denied");
    if is_denied != (fields.text("procid.verdict") == Some("deny")) {
        wrong.push("event.type and procid.verdict disagree on whether it was denied".to_owned());
    }
    if is_denied && fields.text("event.outcome") != Some("success") {
        wrong.push("event.outcome of a denial is not success".to_owned());
    }
    if is_denied && fields.text("event.action") == Some("connect") && fields.has("source") {
        wrong.push("a denied connect has a source".to_owned());
    }
    if fields.text("event.outcome") == Some("failure") {
        require(fields, &["error.code"], wrong);
    } else if fields.has("error.code") {
        wrong.push("error.code stands in a record that is no failure".to_owned());
    }
    if !fields.list("procid.flags").contains(&"kernel") {
        require(fields, &["process.entity_id", "process.pid"], wrong);
    }
    if fields.has("process.entity_id") {
        require(fields, &["procid.hash.grade"], wrong);
    }
}

/// The role agrees with the action, and a speaker's record names the opener.
fn check_role(fields: Fields<'_>, wrong: &mut Vec<String>) {
    let role = fields.text("procid.role");
    let is_accept = fields.text("event.action") == Some("accept");
    // A send on what was accepted is told of only where it is denied.
    let is_denied = fields.list("event.type").contains(&"denied");
    if is_accept != (role == Some("acceptor")) && (is_accept || !is_denied) {
        wrong.push("event.action and procid.role disagree on whether it was accepted".to_owned());
    }
    if is_accept && fields.text("network.direction") != Some("ingress") {
        wrong.push("network.direction of an accepted connection is not ingress".to_owned());
    }
    if role == Some("speaker") {
        require(fields, &["procid.opener.pid"], wrong);
    }
}

/// Whether `procid.unknown` gives a reason for a field, or for an object that
/// holds it.
fn is_explained(fields: Fields<'_>, name: &str) -> bool {
    let unknown = fields.get("procid.unknown").and_then(Value::as_object);
    unknown.is_some_and(|unknown| {
        unknown.keys().any(|key| {
            name.strip_prefix(key.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    })
}

/// Addresses, ports and the words for them agree.
fn check_addresses(fields: Fields<'_>, wrong: &mut Vec<String>) {
    let transport = fields.text("network.transport");
    if fields.text("procid.socket.type") == Some("packet") {
        for name in ["network.transport", "destination"] {
            if fields.has(name) {
                wrong.push(format!("{name} stands in a record of a packet socket"));
            }
        }
        return;
    }
    let has_ports = fields.text("procid.socket.type") != Some("raw")
        && matches!(transport, Some("tcp" | "udp" | "udplite" | "sctp" | "dccp"));
    let is_attempt = matches!(
        fields.text("event.action"),
        Some("connect" | "send" | "accept")
    );
    if is_attempt && fields.text("event.kind") == Some("event") {
        require(fields, &["destination.ip", "network.type"], wrong);
        if has_ports {
            require(fields, &["destination.port"], wrong);
        }
    }
    if fields.text("procid.socket.type") != Some("raw") {
        require(fields, &["network.transport", "network.iana_number"], wrong);
    }
    let number = match transport {
        Some("icmp") => Some("1"),
        Some("tcp") => Some("6"),
        Some("udp") => Some("17"),
        Some("dccp") => Some("33"),
        Some("ipv6-icmp") => Some("58"),
        Some("sctp") => Some("132"),
        Some("udplite") => Some("136"),
        _ => None,
    };
    if number.is_some() && number != fields.text("network.iana_number") {
        wrong.push("network.iana_number is not the number of network.transport".to_owned());
    }
    for name in ["source.ip", "destination.ip"] {
        let Some(ip) = fields.text(name) else {
            continue;
        };
        let family = if ip.contains(':') { "ipv6" } else { "ipv4" };
        if fields.text("network.type") != Some(family) {
            wrong.push(format!("network.type is not {family}, but {name} is {ip}"));
        }
    }
}

/// A hash has earned its grade, and what is missing has its reason.
fn check_hash(fields: Fields<'_>, wrong: &mut Vec<String>) {
    for (hash, state) in [
        ("process.hash.sha256", "procid.hash"),
        ("process.parent.hash.sha256", "procid.parent.hash"),
        ("procid.script.hash.sha256", "procid.script.hash"),
        ("procid.peer.process.hash.sha256", "procid.peer.hash"),
    ] {
        let grade = fields.text(&format!("{state}.grade"));
        let has_reason = fields.has(&format!("{state}.reason"));
        let is_known = matches!(grade, Some("kernel" | "gated" | "verified" | "named"));
        if fields.has(hash) != is_known {
            wrong.push(format!(
                "{hash} and {state}.grade disagree on whether the hash is known"
            ));
        }
        if has_reason != (grade == Some("none")) {
            wrong.push(format!(
                "{state}.reason stands beside {state}.grade {grade:?}"
            ));
        }
    }
}

//! The page: what it covers, when each image spoke, the tree of images, tables.
//!
//! All text goes through maud, which escapes it; nothing of a record becomes
//! markup, an attribute's name, a script or a style.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use super::{
    case::{Case, Node, Tree},
    timeline,
    words::{anchor, lasted, link, name, short_hash, start, verdict},
};
use crate::{
    cli::{
        output::{count, local, printable},
        who::{
            printer::covered,
            text::{endpoint as end, hash},
        },
    },
    flow::Query,
    records::Record,
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// How deep the tree is shown; an agent follows fewer ancestors.
const DEPTH_MAX: usize = 64;
/// Letters of a command line in the tree: the whole is in the table.
const LINE_MAX: usize = 160;
/// Connections shown in the tree for each image: all are in the table.
const SHOWN_MAX: usize = 20;

/// The whole page; `made` is RFC 3339.
pub fn page(case: &Case, made: &str) -> Markup {
    let denied = case.connections.iter().filter(|it| verdict(it) == "deny");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width";
                title { "procid report, " (local(made)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Connections and the process images behind them" }
                    dl {
                        @for (what, value) in about(case, made) {
                            dt { (what) }
                            dd { (value) }
                        }
                    }
                    p {
                        (count(case.connections.len() as u64, "connection")) ", "
                        (count(denied.count() as u64, "denial")) ", "
                        (count(case.tree.images() as u64, "process image")) "."
                    }
                    nav {
                        a href="#complete" { "Completeness" } " "
                        a href="#timeline" { "Timeline" } " "
                        a href="#tree" { "Process tree" } " "
                        a href="#connections" { "Connections" } " "
                        a href="#images" { "Process images" }
                    }
                }
                (complete(case))
                section #timeline {
                    h2 { "Timeline" }
                    (timeline::picture(case))
                }
                section #tree {
                    h2 { "Process tree" }
                    (tree(case))
                }
                (connections(case))
                (images(&case.tree))
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// Nothing is fetched, and only this page's script and style count.
fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; base-uri 'none'; form-action 'none'; script-src 'sha256-{}'; \
         style-src 'sha256-{}'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

fn about(case: &Case, made: &str) -> Vec<(&'static str, String)> {
    let host = case
        .connections
        .iter()
        .find_map(|record| record.host.as_ref());
    let mut about = Vec::new();
    if let Some(host) = host {
        let name = host.name.as_deref().unwrap_or("no name");
        let id = host.id.as_deref().unwrap_or("not known");
        let host = format!("{}, machine id {}", printable(name), printable(id));
        about.push(("Host", host));
    }
    about.push(("Made", local(made)));
    about.push(("By", format!("procid {}", env!("CARGO_PKG_VERSION"))));
    about.push(("Asked", asked(&case.query)));
    about
}

/// The question, in the words of the command line.
fn asked(query: &Query) -> String {
    let time = |ns: Option<i64>| ns.map(|ns| local(&crate::time::rfc3339_ns(ns)));
    let end = |end: &Option<crate::flow::End>| end.as_ref().map(ToString::to_string);
    let parts = [
        ("flow", end(&query.either)),
        ("flow", query.community_id.clone()),
        ("source", end(&query.source)),
        ("destination", end(&query.destination)),
        ("pid", query.pid.map(|pid| pid.to_string())),
        ("executable", query.exe.clone()),
        ("sha256", query.sha256.clone()),
        ("user", query.user.map(|uid| uid.to_string())),
        ("container", query.container.clone()),
        ("verdict", query.verdict.clone()),
        ("since", time(query.since)),
        ("until", time(query.until)),
        ("at", time(query.at)),
    ];
    let said: Vec<String> = parts
        .into_iter()
        .filter_map(|(what, value)| Some(format!("{what} {}", printable(&value?))))
        .collect();
    match said.as_slice() {
        [] => "everything".to_owned(),
        said => said.join(", "),
    }
}

fn complete(case: &Case) -> Markup {
    let unknown: usize = case.tree.unknown.values().map(Vec::len).sum();
    html! {
        section #complete {
            h2 { "Completeness" }
            ul {
                @for sentence in covered(case.coverage.as_ref()) {
                    li { (sentence) }
                }
                li {
                    @if unknown == 0 {
                        "the process of every connection is known"
                    } @else {
                        "the process is not known of " (count(unknown as u64, "connection"))
                        ": see the process tree"
                    }
                }
            }
        }
    }
}

fn tree(case: &Case) -> Markup {
    html! {
        ul .tree {
            @for root in &case.tree.roots {
                (branch(case, root, 0))
            }
            @for (reason, places) in &case.tree.unknown {
                li {
                    span .image { "process not known: " (printable(reason)) }
                    (spoken(case, places))
                }
            }
        }
    }
}

fn branch(case: &Case, entity: &str, depth: usize) -> Markup {
    let Some(node) = case.tree.get(entity) else {
        return html! {};
    };
    html! {
        li {
            a .image href={ "#" (anchor(entity)) } { (name(node.process.as_ref())) }
            @if let Some(line) = node.process.as_ref().and_then(|it| it.command_line.as_deref()) {
                " " code { (shortened(line)) }
            }
            (spoken(case, &node.connections))
            @if !node.children.is_empty() {
                @if depth < DEPTH_MAX {
                    ul {
                        @for child in &node.children {
                            (branch(case, child, depth + 1))
                        }
                    }
                } @else {
                    p { "more below is not shown here" }
                }
            }
        }
    }
}

fn shortened(line: &str) -> String {
    let mut text: String = printable(line).chars().take(LINE_MAX).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    text
}

fn spoken(case: &Case, places: &[usize]) -> Markup {
    let over = places.len().saturating_sub(SHOWN_MAX);
    html! {
        @if !places.is_empty() {
            ul .spoken {
                @for at in places.iter().take(SHOWN_MAX) {
                    @if let Some(record) = case.connections.get(*at) {
                        li class=(verdict(record)) {
                            (local(start(record))) " " (transport(record)) " "
                            (end(record.source.as_ref())) " → " (end(record.destination.as_ref()))
                            " " (role(record)) " " (verdict(record))
                        }
                    }
                }
                @if over > 0 {
                    li { "and " (over) " more: see the table" }
                }
            }
        }
    }
}

fn transport(record: &Record) -> String {
    let network = record.network.as_ref();
    let transport = network.and_then(|network| network.transport.as_deref());
    printable(transport.unwrap_or("")).into_owned()
}

fn role(record: &Record) -> String {
    let procid = record.procid.as_deref();
    let role = procid.and_then(|procid| procid.role.as_deref());
    printable(role.unwrap_or("")).into_owned()
}

fn number(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| bytes.to_string())
}

fn connections(case: &Case) -> Markup {
    html! {
        section #connections {
            h2 { "Connections" }
            table {
                thead { tr {
                    @for head in [
                        "Start", "Lasted", "Transport", "Source", "Destination", "Role", "Verdict",
                        "Rule", "Outcome", "Bytes from source", "Bytes from destination", "Process",
                        "SHA-256", "User", "Known", "Flow",
                    ] { th { (head) } }
                } }
                tbody {
                    @for record in &case.connections {
                        (connection(record))
                    }
                }
            }
        }
    }
}

fn connection(record: &Record) -> Markup {
    let event = record.event.as_ref();
    let procid = record.procid.as_deref();
    let code = record.error.as_ref().map(|error| error.code.as_str());
    let outcome = code.or(event.and_then(|event| event.outcome.as_deref()));
    let rule = record.rule.as_ref().and_then(|rule| rule.name.as_deref());
    let user = record.user.as_ref();
    let known = procid.and_then(|procid| procid.provenance.as_deref());
    let flow = procid.and_then(|procid| procid.flow_id.as_deref());
    let bytes = |end: Option<&crate::records::Endpoint>| number(end.and_then(|end| end.bytes));
    html! {
        tr class=(verdict(record)) {
            td { (local(start(record))) }
            td { (lasted(record)) }
            td { (transport(record)) }
            td { (end(record.source.as_ref())) }
            td { (end(record.destination.as_ref())) }
            td { (role(record)) }
            td { (verdict(record)) }
            td { (printable(rule.unwrap_or(""))) }
            td { (printable(outcome.unwrap_or(""))) }
            td .number { (bytes(record.source.as_ref())) }
            td .number { (bytes(record.destination.as_ref())) }
            td {
                (link(record.process.as_deref()))
                @if let Some(opener) = procid.and_then(|procid| procid.opener.as_deref()) {
                    ", opened by " (link(Some(opener)))
                }
            }
            td { code { (short_hash(record.process.as_deref())) } }
            td { (printable(user.map_or("", |user| &user.id))) }
            td { (printable(known.unwrap_or(""))) }
            td { (printable(flow.unwrap_or(""))) }
        }
    }
}

fn images(tree: &Tree) -> Markup {
    html! {
        section #images {
            h2 { "Process images" }
            table {
                thead { tr {
                    @for head in [
                        "Started", "Pid", "Executable", "Command line", "SHA-256 and its grade",
                        "User", "Login uid", "Where", "Parent", "Connections", "Entity id",
                    ] { th { (head) } }
                } }
                tbody {
                    @for (entity, node) in tree.in_order() {
                        (image(tree, entity, node))
                    }
                }
            }
        }
    }
}

fn image(tree: &Tree, entity: &str, node: &Node) -> Markup {
    let process = node.process.as_ref();
    let text = |text: Option<&str>| printable(text.unwrap_or("")).into_owned();
    let started = process.and_then(|process| process.start.as_deref());
    let parent = node.parent.as_deref();
    let parent_process = parent
        .and_then(|parent| tree.get(parent))
        .and_then(|node| node.process.as_ref());
    // Whoever logged in; all ones: nobody did.
    let login = node.loginuid.filter(|uid| *uid != u32::MAX);
    html! {
        tr id=(anchor(entity)) {
            td { (started.map(local).unwrap_or_default()) }
            td .number { (process.and_then(|it| it.pid).map_or_else(String::new, |pid| pid.to_string())) }
            td {
                (text(process.and_then(|it| it.executable.as_deref())))
                @if let Some(script) = &node.script { ", script " (printable(script)) }
                @if process.is_none() { "named as an ancestor; nothing else is known of it" }
            }
            td { code { (text(process.and_then(|it| it.command_line.as_deref()))) } }
            td { code { (hash(process, node.hash.as_ref())) } }
            td { (text(node.user.as_deref())) }
            td { (login.map_or_else(String::new, |uid| uid.to_string())) }
            td {
                (text(node.unit.as_deref()))
                @if let Some(container) = &node.container { " container " (printable(container)) }
            }
            td {
                @if let Some(parent) = parent {
                    a href={ "#" (anchor(parent)) } { (name(parent_process)) }
                }
            }
            td .number { (node.connections.len()) }
            td { code { (printable(entity)) } }
        }
    }
}

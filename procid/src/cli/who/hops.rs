//! The other end of a connection, and where its request came from and went on.

use std::collections::HashMap;

use super::text::{endpoint, hash, image, indent};
use crate::{
    cli::output::printable,
    records::{Hop, Peer, Process, Record},
};

/// Lines with their names: the other end, then what lies back and onward, each as
/// a tree.
pub(super) fn lines(record: &Record) -> Vec<(&'static str, String)> {
    let Some(procid) = record.procid.as_deref() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    if let Some(peer) = procid.peer.as_deref() {
        lines.push(("peer", self::peer(peer)));
        if let Some(speaker) = peer.speaker.as_deref() {
            lines.push(("", format!("spoken on by {}", image(speaker))));
        }
    }
    let chain = procid.chain.as_deref().unwrap_or_default();
    for toward in ["back", "onward"] {
        let mut depths = HashMap::new();
        for hop in chain.iter().filter(|hop| hop.toward == toward) {
            let depth = depths.get(hop.of.as_str()).map_or(0, |depth| depth + 1);
            depths.insert(hop.flow_id.as_str(), depth);
            let name = match (toward, depths.len()) {
                ("back", 1) => "back",
                (_, 1) => "onward",
                _ => "",
            };
            lines.push((name, format!("{}{}", indent(depth), step(hop))));
        }
    }
    lines
}

fn peer(peer: &Peer) -> String {
    let process = peer.process.as_deref();
    let mut text = process.map_or_else(|| "a process that is not known".to_owned(), image);
    if let Some(role) = peer.role.as_deref() {
        text.push_str(&format!(", {}", printable(role)));
    }
    text.push_str(&format!(", flow {}", printable(&peer.flow_id)));
    if peer.hash.is_some() {
        text.push_str(&format!(", sha256 {}", hash(process, peer.hash.as_ref())));
    }
    text
}

/// `inferred: tcp 10.0.0.5:45384 -> 203.0.113.7:443, envoy, pid 42, flow 9.1 (why)`
fn step(hop: &Hop) -> String {
    let mut text = String::new();
    if hop.relation != "peer" {
        text.push_str(&format!("{}: ", printable(&hop.relation)));
    }
    text.push_str(&format!(
        "{} {} -> {}, ",
        printable(hop.transport.as_deref().unwrap_or("?")),
        endpoint(hop.source.as_ref()),
        endpoint(hop.destination.as_ref())
    ));
    let name = |process: &Process| {
        let name = process.name.as_deref().map_or("?".into(), printable);
        let pid = process
            .pid
            .map_or_else(String::new, |pid| format!(", pid {pid}"));
        format!("{name}{pid}")
    };
    let who = hop.process.as_deref().map(name);
    text.push_str(who.as_deref().unwrap_or("a process that is not known"));
    text.push_str(&format!(
        ", flow {} ({})",
        printable(&hop.flow_id),
        printable(&hop.why)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Endpoint, Procid};

    fn hop(of: &str, flow_id: &str, toward: &str, relation: &str, name: &str) -> Hop {
        Hop {
            of: of.to_owned(),
            flow_id: flow_id.to_owned(),
            toward: toward.to_owned(),
            relation: relation.to_owned(),
            why: "because".to_owned(),
            process: Some(Box::new(Process {
                name: Some(name.to_owned()),
                pid: Some(7),
                ..Process::default()
            })),
            transport: Some("tcp".to_owned()),
            destination: Some(Endpoint {
                ip: "10.0.0.6".parse().ok(),
                port: Some(443),
                ..Endpoint::default()
            }),
            ..Hop::default()
        }
    }

    #[test]
    fn a_chain_is_a_tree_either_way_and_says_what_is_inferred() {
        let record = Record {
            procid: Some(Box::new(Procid {
                flow_id: Some("1.1".to_owned()),
                chain: Some(vec![
                    hop("1.1", "0.1", "back", "inferred", "proxy"),
                    hop("1.1", "2.1", "onward", "peer", "pro\x1bxy"),
                    hop("2.1", "3.1", "onward", "inferred", "proxy"),
                    hop("2.1", "4.1", "onward", "inferred", "proxy"),
                ]),
                ..Procid::default()
            })),
            ..Record::default()
        };
        let lines = lines(&record);
        let text = |depth: &str, word: &str, name: &str, flow: &str| {
            format!("{depth}{word}tcp ? -> 10.0.0.6:443, {name}, pid 7, flow {flow} (because)")
        };
        assert_eq!(
            lines,
            [
                ("back", text("", "inferred: ", "proxy", "0.1")),
                ("onward", text("", "", "pro\\u{1b}xy", "2.1")),
                ("", text("└ ", "inferred: ", "proxy", "3.1")),
                ("", text("└ ", "inferred: ", "proxy", "4.1")),
            ]
        );
    }
}

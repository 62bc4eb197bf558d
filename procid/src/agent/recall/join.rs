//! Memory and history, one answer.
//!
//! What memory holds of the present run, memory answers; what it has forgotten,
//! and all earlier runs, history does. A socket that was found open at the start
//! of a run is the connection of an earlier run of the same boot with that
//! cookie, where history knows it: one record is given, of the run that saw it
//! being opened.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use super::{ANSWER_MAX, Answer, Recalled, coverage::coverage, recall};
use crate::{
    agent::{handle::Memory, render},
    flow::Query,
    history::{Reader, reader::PastRun, restore::PastFlow},
    identity::entity::EntityId,
    records::{Coverage, Gap, Record, Uncovered},
};

/// Name of the count of records beyond the limit, as an answer from memory has it.
pub(super) const OVER_LIMIT: &str = "over-answer-limit";
/// Why a record of an earlier run says that it has no end.
const NO_END: &str = "event.end";

/// Joins what memory has answered with what the history in that state directory
/// knows; the last record is the coverage, which says so where history cannot be
/// asked.
pub fn join(state_dir: &Path, query: &Query, mut memory: Memory) -> Vec<Record> {
    let past = Reader::open(state_dir)
        .map_err(|error| error.to_string())
        .and_then(|reader| past(&reader, query, &memory).map_err(|error| error.to_string()));
    match past {
        Ok(past) => {
            let mut records = past.records;
            records.append(&mut memory.records);
            let covered = both(past.covered, memory.coverage, memory.gap);
            finish(query, records, covered, past.is_cut)
        }
        Err(reason) => {
            memory.coverage.uncovered.push(Uncovered {
                path: "history".to_owned(),
                reason,
            });
            memory_alone(query, memory)
        }
    }
}

/// What memory alone answers; the last record is the coverage.
pub fn memory_alone(query: &Query, memory: Memory) -> Vec<Record> {
    finish(query, memory.records, memory.coverage, false)
}

/// An image that memory does not know; `None`: nor does history, or it cannot be
/// asked.
pub fn image(state_dir: &Path, entity: EntityId) -> Option<Record> {
    let reader = Reader::open(state_dir).ok()?;
    super::image(&reader, entity)
        .inspect_err(|error| tracing::warn!(%error, "the history cannot be asked for an image"))
        .ok()?
}

/// What history adds to memory.
struct Past {
    records: Vec<Record>,
    covered: Coverage,
    is_cut: bool,
}

fn past(reader: &Reader, query: &Query, memory: &Memory) -> rusqlite::Result<Past> {
    reader.refresh()?;
    let runs = reader.runs()?;
    let is_own = |run: &PastRun| run.run.agent.ephemeral_id.as_deref() == Some(&memory.run);
    let answer = recall(reader, query, &runs, |run, flow| {
        is_own(run) && !is_forgotten(flow, memory.forgotten_ns)
    })?;
    let mut covered = coverage(reader, query, &runs)?;
    // The present run says itself what it has lost.
    let earlier: Vec<PastRun> = runs.iter().filter(|run| !is_own(run)).cloned().collect();
    covered.lost = coverage(reader, query, &earlier)?.lost;
    let own: HashSet<i64> = runs
        .iter()
        .filter(|run| is_own(run))
        .map(|run| run.id)
        .collect();
    let known: HashSet<Use> = memory.records.iter().map(used).collect();
    let found = answer
        .found
        .into_iter()
        .filter(|one| !own.contains(&one.run) || !known.contains(&used(&one.record)));
    Ok(Past {
        records: found.map(|one| one.record).collect(),
        covered,
        is_cut: answer.is_cut,
    })
}

/// What history alone answers; the last record is the coverage.
///
/// # Errors
///
/// Those of reading.
pub fn alone(reader: &Reader, query: &Query) -> rusqlite::Result<Vec<Record>> {
    let runs = reader.runs()?;
    let answer = recall(reader, query, &runs, |_, _| false)?;
    whole(reader, query, &runs, answer)
}

/// The same, and records of the images that it names and of those before them.
///
/// # Errors
///
/// Those of reading.
pub fn with_images(reader: &Reader, query: &Query) -> rusqlite::Result<(Vec<Record>, Vec<Record>)> {
    let runs = reader.runs()?;
    let answer = recall(reader, query, &runs, |_, _| false)?;
    let images = answer.images();
    Ok((whole(reader, query, &runs, answer)?, images))
}

fn whole(
    reader: &Reader,
    query: &Query,
    runs: &[PastRun],
    answer: Answer<'_>,
) -> rusqlite::Result<Vec<Record>> {
    let covered = coverage(reader, query, runs)?;
    let records = answer.found.into_iter().map(|one: Recalled| one.record);
    Ok(finish(query, records.collect(), covered, answer.is_cut))
}

/// Orders, bounds and ends an answer.
fn finish(query: &Query, records: Vec<Record>, mut covered: Coverage, is_cut: bool) -> Vec<Record> {
    let mut records = merged(records);
    // RFC 3339 in UTC: in the order of time.
    records.sort_by(|a, b| a.timestamp.cmp(&b.timestamp));
    let over = records.len().saturating_sub(ANSWER_MAX);
    records.drain(..over);
    if over > 0 || is_cut {
        let count = covered.lost.entry(OVER_LIMIT.to_owned()).or_default();
        *count += (over as u64).max(1);
    }
    if query.at.is_some() {
        // All of these were open then: the one that began last is the nearest.
        records.reverse();
    }
    records.push(render::coverage(covered));
    records
}

/// Memory holds what had not ended by then, and what ended later.
fn is_forgotten(flow: &PastFlow, forgotten_ns: u64) -> bool {
    let ended_ns = flow.connection.ended_ns;
    ended_ns.is_some_and(|ended_ns| ended_ns.get() <= forgotten_ns)
}

/// One use of a connection by one image.
type Use = (Option<String>, Option<String>, Option<String>, String);

fn used(record: &Record) -> Use {
    let procid = record.procid.as_deref();
    (
        procid.and_then(|procid| procid.flow_id.clone()),
        record
            .process
            .as_ref()
            .and_then(|process| process.entity_id.clone()),
        procid.and_then(|procid| procid.role.clone()),
        record.timestamp.clone(),
    )
}

/// Names a socket across the runs of a boot, and where it leads.
type Socket = (String, String, Option<std::net::IpAddr>, Option<u16>);

fn socket(record: &Record) -> Option<Socket> {
    let boot = record.host.as_ref()?.boot.as_ref()?.id.clone();
    let cookie = record.procid.as_ref()?.socket.as_ref()?.cookie.clone()?;
    let direction = record
        .network
        .as_ref()
        .and_then(|it| it.direction.as_deref());
    // Of one that was found open, nobody saw from which end it was opened.
    let to = if direction == Some("ingress") {
        record.source.as_ref()
    } else {
        record.destination.as_ref()
    };
    Some((
        boot,
        cookie,
        to.and_then(|to| to.ip),
        to.and_then(|to| to.port),
    ))
}

fn provenance(record: &Record) -> Option<&str> {
    record.procid.as_ref()?.provenance.as_deref()
}

fn has_no_end(record: &Record) -> bool {
    let unknown = record.procid.as_ref().map(|procid| &procid.unknown);
    unknown.is_some_and(|unknown| unknown.contains_key(NO_END))
        && record
            .event
            .as_ref()
            .is_some_and(|event| event.end.is_none())
}

/// Leaves out the sockets found open that an earlier run had seen being opened,
/// and lets the record of that one say how it went on.
fn merged(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by(|a, b| a.timestamp.cmp(&b.timestamp));
    let mut open: BTreeMap<Socket, usize> = BTreeMap::new();
    let mut kept: Vec<Record> = Vec::with_capacity(records.len());
    for record in records {
        let socket = socket(&record);
        if provenance(&record) == Some("snapshot")
            && let Some(&at) = socket.as_ref().and_then(|socket| open.get(socket))
            && let Some(opened) = kept.get_mut(at)
        {
            go_on(opened, &record);
            continue;
        }
        if has_no_end(&record)
            && let Some(socket) = socket
        {
            open.insert(socket, kept.len());
        }
        kept.push(record);
    }
    kept
}

/// A later sight of a connection that had no end.
fn go_on(opened: &mut Record, later: &Record) {
    let (Some(procid), Some(event)) = (&mut opened.procid, &mut opened.event) else {
        return;
    };
    let reason = later
        .procid
        .as_ref()
        .and_then(|procid| procid.unknown.get(NO_END));
    match reason {
        Some(reason) => procid.unknown.insert(NO_END.to_owned(), reason.clone()),
        None => procid.unknown.remove(NO_END),
    };
    if let Some(later) = later.procid.as_deref() {
        procid.peer.clone_from(&later.peer);
        procid.chain.clone_from(&later.chain);
    }
    event.end = later.event.as_ref().and_then(|event| event.end.clone());
    if event.end.is_some() {
        for field in ["event.duration", "source.bytes", "destination.bytes"] {
            let reason = "another run of the agent saw its end";
            render::absent(procid, field, reason);
        }
    }
}

/// What both have covered: `memory` is of the present run.
fn both(history: Coverage, memory: Coverage, gap: Option<Gap>) -> Coverage {
    let mut lost = history.lost;
    for (cause, count) in memory.lost {
        *lost.entry(cause).or_default() += count;
    }
    let mut uncovered = memory.uncovered;
    for path in history.uncovered {
        if !uncovered.contains(&path) {
            uncovered.push(path);
        }
    }
    let mut gaps = history.gaps;
    gaps.extend(gap);
    Coverage {
        from: history.from.or(memory.from),
        to: memory.to,
        lost,
        gaps,
        uncovered,
        provenance: memory.provenance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Endpoint, Event, Host, Id, Network, Procid, Socket as SocketObject};

    fn record(at: &str, provenance: &str, end: Result<&str, Option<&str>>) -> Record {
        let mut procid = Procid {
            provenance: Some(provenance.to_owned()),
            flow_id: Some(format!("9.{}", u8::from(provenance == "live"))),
            socket: Some(SocketObject {
                cookie: Some("9".to_owned()),
                ..SocketObject::default()
            }),
            ..Procid::default()
        };
        if let Err(Some(reason)) = end {
            procid.unknown.insert(NO_END.to_owned(), reason.to_owned());
        }
        Record {
            timestamp: format!("2026-11-22T15:04:{at}.000000000Z"),
            event: Some(Event {
                end: end.ok().map(str::to_owned),
                ..Event::default()
            }),
            host: Some(Host {
                boot: Some(Id {
                    id: "boot".to_owned(),
                }),
                ..Host::default()
            }),
            destination: Some(Endpoint {
                port: Some(443),
                ..Endpoint::default()
            }),
            procid: Some(Box::new(procid)),
            ..Record::default()
        }
    }

    #[test]
    fn a_socket_found_open_is_the_connection_that_was_opened() {
        let first = record("01", "live", Err(Some("run 1 ended")));
        let second = record("02", "snapshot", Err(Some("run 2 ended")));
        // Still open.
        let third = record("03", "snapshot", Err(None));
        let kept = merged(vec![third, second.clone(), first.clone()]);
        assert_eq!(kept.len(), 1);
        assert_eq!(provenance(&kept[0]), Some("live"));
        assert!(!has_no_end(&kept[0]));
        assert_eq!(kept[0].event.as_ref().unwrap().end, None);
        // Closed since.
        let third = record("03", "snapshot", Ok("then"));
        let kept = merged(vec![second.clone(), third, first.clone()]);
        assert_eq!(kept.len(), 1);
        let event = kept[0].event.as_ref().unwrap();
        assert_eq!(event.end.as_deref(), Some("then"));
        // Accepted, it leads to where it came from.
        let mut accepted = first.clone();
        accepted.source = accepted.destination.take();
        accepted.network = Some(Network {
            direction: Some("ingress".to_owned()),
            ..Network::default()
        });
        let kept = merged(vec![second.clone(), accepted.clone()]);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].source, accepted.source);
        // Its opener was never seen.
        assert_eq!(merged(vec![second.clone()]), std::slice::from_ref(&second));
        // Another boot, another peer, one that had ended.
        let mut boot = second.clone();
        boot.host.as_mut().unwrap().boot = Some(Id {
            id: "other".to_owned(),
        });
        let mut peer = second.clone();
        peer.destination.as_mut().unwrap().port = Some(80);
        assert_eq!(merged(vec![first, boot, peer]).len(), 3);
        let ended = record("01", "live", Ok("then"));
        assert_eq!(merged(vec![ended, second]).len(), 2);
    }

    #[test]
    fn the_nearest_in_time_comes_first() {
        let records = ["01", "02"].map(|at| record(at, "live", Ok("then")));
        let times = |query: &Query| -> Vec<String> {
            let mut answer = finish(query, records.to_vec(), Coverage::default(), false);
            answer.pop();
            let seconds = |record: Record| record.timestamp[17..19].to_owned();
            answer.into_iter().map(seconds).collect()
        };
        assert_eq!(times(&Query::default()), ["01", "02"]);
        let at = Query {
            at: Some(7),
            ..Query::default()
        };
        assert_eq!(times(&at), ["02", "01"]);
    }

    #[test]
    fn an_answer_is_bounded_and_says_so() {
        let records = vec![record("01", "live", Ok("then")); ANSWER_MAX + 2];
        let mut answer = finish(&Query::default(), records, Coverage::default(), false);
        let last = answer.pop().unwrap().procid.unwrap().coverage.unwrap();
        assert_eq!(answer.len(), ANSWER_MAX);
        assert_eq!(last.lost, [(OVER_LIMIT.to_owned(), 2)].into());
    }
}

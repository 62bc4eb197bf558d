//! What is known, against a question.

use super::{Renderer, cgroup, community_id_of, hex, pid, uid, verdict};
use crate::{
    connections::{Connection, Speaker},
    flow::{Facts, Query},
    identity::{context::Context, hash::FileHash, image::Provenance},
    records::escape::escape,
};

/// A connection, or a further image that used it.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Seen<'a> {
    pub(in crate::agent) connection: &'a Connection,
    pub(in crate::agent) by: Option<&'a Speaker>,
    /// Where who acted was.
    pub(in crate::agent) context: Option<&'a Context>,
    /// Without an end, it is known to have been open until then (nanoseconds
    /// since the epoch); `None`: until now.
    pub(in crate::agent) until: Option<i64>,
}

impl Renderer<'_> {
    /// Text is made only where it is asked for.
    pub(in crate::agent) fn is_answer(&self, query: &Query, seen: &Seen<'_>) -> bool {
        let Seen {
            connection,
            by,
            context,
            until,
        } = *seen;
        let image = self
            .images
            .get(&by.map_or(connection.image, |speaker| speaker.image));
        let path = image
            .filter(|_| query.exe.is_some())
            .and_then(|image| image.path.as_deref())
            .map(escape);
        let name = path.as_deref().and_then(|path| path.rsplit('/').next());
        let sha256 = match image.map(|image| image.hash) {
            Some(FileHash::Known { sha256, .. }) if query.sha256.is_some() => Some(hex(&sha256)),
            _ => None,
        };
        let community_id = query
            .community_id
            .as_ref()
            .and_then(|_| community_id_of(connection));
        let (source_nat, destination_nat) = connection.translated();
        let is_seen = by.is_some() || cgroup(connection).is_some();
        let is_live = connection.provenance == Provenance::Live;
        let clock = &self.frame.clock;
        query.matches(&Facts {
            source_ip: connection.source_ip(),
            source_port: connection.source_port(),
            destination_ip: connection.destination_ip(),
            destination_port: connection.destination_port(),
            source_nat,
            destination_nat,
            community_id: community_id.as_deref(),
            pid: by.map_or_else(|| pid(connection), |speaker| Some(speaker.image.tgid)),
            executable: path.as_deref(),
            name,
            sha256: sha256.as_deref(),
            uid: by.map_or_else(|| uid(connection), |speaker| Some(speaker.actor.creds.euid)),
            container: context
                .filter(|_| is_seen)
                .and_then(|context| context.container.as_ref())
                .map(|container| container.id.as_str()),
            domain: connection.domain.as_deref(),
            verdict: match (by, connection.judged.as_deref()) {
                (None, Some(judged)) => Some(verdict(judged.verdict)),
                _ => (is_live || by.is_some()).then_some("allow"),
            },
            start: Some(clock.at(by.map_or(connection.started_ns, |speaker| speaker.at_ns))),
            end: connection
                .ended_ns
                .map(|ended_ns| clock.at(ended_ns.get()))
                .or(until),
        })
    }
}

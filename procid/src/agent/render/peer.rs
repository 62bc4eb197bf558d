//! The other end of a connection.

use super::{Renderer, absent, process::hash_state};
use crate::{
    connections::{Connection, Connections, Key, NoPeer, Role, Speaker},
    records::{Endpoint, HashState, Hop, Peer, Process, Procid, Record, words},
};

impl Renderer<'_> {
    /// Names the image at the other end, or says why none is named where one could
    /// be.
    pub(in crate::agent) fn put_peer(
        &self,
        record: &mut Record,
        key: &Key,
        connections: &Connections,
    ) {
        let Some(procid) = record.procid.as_deref_mut() else {
            return;
        };
        let reason = match connections.peer(key) {
            Ok(peer) => {
                if let Some(connection) = connections.get(&peer) {
                    procid.peer = Some(Box::new(self.peer(peer, connection)));
                }
                return;
            }
            Err(NoPeer::Elsewhere) => return,
            Err(NoPeer::NotSeen) => "no process of this host was seen at the other end",
            Err(NoPeer::Ended) => "it had ended before it was accepted",
            Err(NoPeer::Several) => {
                "several connections had these ends: the end of one of them was not seen"
            }
        };
        absent(procid, "procid.peer", reason);
    }

    fn peer(&self, key: Key, connection: &Connection) -> Peer {
        let (process, hash) = self.acting(connection, None);
        let speaker = last_speaker(connection);
        Peer {
            flow_id: key.to_string(),
            role: role(connection).map(str::to_owned),
            process,
            hash,
            speaker: speaker.map(|speaker| Box::new(self.brief_of(&speaker.image))),
        }
    }

    /// A step to a flow; what it is taken from and why, the caller says.
    pub(in crate::agent) fn hop(
        &self,
        key: Key,
        connection: &Connection,
        by: Option<&Speaker>,
    ) -> Hop {
        let (process, hash) = self.acting(connection, by);
        let end = |ip, port| Endpoint {
            ip,
            port,
            ..Endpoint::default()
        };
        let (source_ip, source_port) = (connection.source_ip(), connection.source_port());
        let is_bound = source_ip.is_some() || source_port.is_some();
        Hop {
            flow_id: key.to_string(),
            process,
            hash,
            transport: words::transport(connection.protocol).map(str::to_owned),
            source: is_bound.then(|| end(source_ip, source_port)),
            destination: connection
                .destination_ip()
                .map(|ip| end(Some(ip), connection.destination_port())),
            ..Hop::default()
        }
    }

    /// The image that acts on a flow: its own, or one that has spoken on it.
    fn acting(
        &self,
        connection: &Connection,
        by: Option<&Speaker>,
    ) -> (Option<Box<Process>>, Option<HashState>) {
        let image = by.map_or(connection.image, |speaker| speaker.image);
        if by.is_none() && connection.is_kernels() {
            let kernel = Process {
                pid: Some(0),
                name: Some("kernel".to_owned()),
                ..Process::default()
            };
            return (Some(Box::new(kernel)), None);
        }
        if !image.is_known() {
            return (None, None);
        }
        let hash = self.images.get(&image).map(|image| hash_state(image.hash));
        (Some(Box::new(self.brief_of(&image))), hash)
    }
}

/// The image that began to speak last, of those that were let.
fn last_speaker(connection: &Connection) -> Option<&Speaker> {
    let mut speakers = connection.speakers.iter().flat_map(|all| all.iter());
    speakers.rfind(|speaker| speaker.denied.is_none())
}

fn role(connection: &Connection) -> Option<&'static str> {
    match connection.role() {
        Role::Opener => Some("opener"),
        Role::Acceptor => Some("acceptor"),
        Role::Speaker(_) | Role::SpeakerOfUnknown => Some("speaker"),
        Role::NotSeen => None,
    }
}

/// Says that a chain has more steps than are given.
pub(in crate::agent) fn put_cut(procid: &mut Procid) {
    let reason = "there are more connections of these processes than are followed";
    absent(procid, "procid.chain", reason);
}

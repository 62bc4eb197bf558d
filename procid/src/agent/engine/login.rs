//! Where a login came from.
//!
//! The kernel knows the session of a process (`sessionid`), and not who began
//! it. sshd accepts a connection, and the images that serve it begin the session
//! and become the ancestors of all that runs in it: the image at the session's
//! beginning, or the one that forked it and was in no session of that number
//! yet, uses an accepted connection that was open then. Its remote end is most
//! likely where the login came from.
//!
//! Nobody further up is asked, for a listener accepts other connections too, and
//! nobody further down, for what runs in a session may accept connections of its
//! own. An image that used several that were open then says nothing.

use std::collections::HashMap;

use procid_common::{image::ImageId, process::Actor};

use super::Engine;
use crate::{
    connections::Connection,
    conntrack::End,
    records::{Login, LoginFrom, Record},
};

/// A session that was never set, as the kernel has it.
const UNSET: u32 = u32::MAX;
/// Most ancestors that are looked at.
const DEPTH_MAX: usize = 64;

/// Accepted connections, by who uses them.
#[derive(Debug, Default)]
pub(super) struct Accepted<'a>(HashMap<ImageId, Vec<&'a Connection>>);

impl<'a> Accepted<'a> {
    fn of(engine: &'a Engine) -> Self {
        let mut accepted = Self::default();
        for (_, connection) in engine.connections.iter() {
            if connection.is_accepted() && connection.is_stream() {
                for image in connection.images() {
                    accepted.0.entry(image).or_default().push(connection);
                }
            }
        }
        accepted
    }

    /// The remote end of the one that this image used and that was open then.
    fn peer(&self, image: &ImageId, at_ns: u64) -> Option<End> {
        let was_open = |connection: &&&Connection| {
            let ended_ns = connection.ended_ns.map_or(u64::MAX, std::num::NonZero::get);
            connection.started_ns <= at_ns && at_ns <= ended_ns
        };
        let mut found = self.0.get(image)?.iter().filter(was_open);
        let only = found.next().filter(|_| found.next().is_none())?;
        Some((only.source_ip()?, only.source_port()?))
    }
}

impl Engine {
    /// Puts where their logins came from into these records, each with who acted.
    pub(super) fn put_logins(&self, records: &mut [(Record, ImageId, Actor)]) {
        let has_session = |actor: &Actor| actor.creds.sessionid != UNSET;
        if !records.iter().any(|(.., actor)| has_session(actor)) {
            return;
        }
        let accepted = Accepted::of(self);
        for (record, image, actor) in records {
            if has_session(actor)
                && let Some(procid) = &mut record.procid
            {
                procid.login = self.login(image, actor.creds.sessionid, &accepted);
            }
        }
    }

    fn login(&self, acting: &ImageId, session: u32, accepted: &Accepted<'_>) -> Option<Login> {
        let mut first = self.images.get(acting)?;
        let parent = |of: &crate::identity::image::Image| self.images.get(&of.parent?);
        let mut before = parent(first);
        for _ in 0..DEPTH_MAX {
            match before {
                Some(image) if image.actor.creds.sessionid == session => {
                    first = image;
                    before = parent(image);
                }
                _ => break,
            }
        }
        let began_ns = first.born_ns;
        [Some(first), before]
            .into_iter()
            .flatten()
            .find_map(|image| {
                let (ip, port) = accepted.peer(&image.id, began_ns)?;
                Some(Login {
                    from: LoginFrom { ip, port },
                    entity_id: image.entity.to_string(),
                    grade: "inferred".to_owned(),
                })
            })
    }
}

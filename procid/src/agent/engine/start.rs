//! What existed before the hooks, joined with what they saw since.
//!
//! The hooks are attached first, then the rows are read, while events are held
//! back. So whatever began after the hooks is in the events, whatever was there
//! before is in the rows, and what is in both began after: its row is dropped.

use std::collections::{BTreeMap, HashMap, HashSet};

use procid_common::{
    image::{ImageId, ImageRecord, flags as image_flags},
    socket::{SocketRow, V4_MAPPED, flags},
};

use super::{Engine, Item};
use crate::{
    connections::{Connection, Key},
    decode::{Event, ExecFacts},
    identity::{image::Provenance, script},
};

/// Names a row's socket; the cookie is 0 where the kernel has given none.
type SocketName = (u64, u64);

impl Engine {
    /// Takes in the rows of the snapshot, then the events held back meanwhile.
    pub fn start(&mut self, rows: Vec<Event>, held: Vec<Event>) {
        let mut live_images = HashSet::new();
        let mut live_sockets = HashSet::new();
        for event in &held {
            match event {
                Event::Fork(fork) => live_images.insert(fork.image.id),
                Event::Exec(facts) => live_images.insert(facts.event.image.id),
                // A datagram to elsewhere leaves a connected socket as it was.
                Event::Attempt(attempt) if attempt.flags & flags::SEND == 0 => {
                    live_sockets.insert(attempt.cookie)
                }
                _ => false,
            };
        }
        let mut overtaken: HashMap<ImageId, ExecFacts> = HashMap::new();
        let mut sockets: BTreeMap<SocketName, (SocketRow, Vec<ImageId>)> = BTreeMap::new();
        for row in rows {
            match row {
                Event::TaskRow(facts) if live_images.contains(&facts.event.image.id) => {
                    overtaken.insert(facts.event.image.id, facts);
                }
                Event::TaskRow(facts) => {
                    self.contexts.learn(facts.event.actor.cgroup);
                    self.task_row(facts);
                }
                Event::SocketRow(row) if is_connected(&row) => {
                    if row.cookie != 0 && live_sockets.contains(&row.cookie) {
                        continue;
                    }
                    let inode = if row.cookie == 0 { row.inode } else { 0 };
                    let (_, holders) = sockets
                        .entry((row.cookie, inode))
                        .or_insert_with(|| (row, Vec::new()));
                    if row.image.is_known() && !holders.contains(&row.image) {
                        holders.push(row.image);
                    }
                }
                _ => {}
            }
        }
        for (row, mut holders) in sockets.into_values() {
            // By start time first: the oldest holder is told as the process.
            holders.sort_unstable();
            self.socket_row(&row, &holders);
        }
        for event in held {
            match event {
                Event::Fork(mut fork) => {
                    let row = overtaken.remove(&fork.image.id);
                    if let Some(row) = &row {
                        take_file(&mut fork.image, &row.event.image);
                    }
                    self.fork(&fork, row);
                }
                event => self.event(event),
            }
        }
    }

    fn task_row(&mut self, facts: ExecFacts) {
        let id = facts.event.image.id;
        let at_ns = facts.event.header.boot_ns;
        let place = script::Place::of(&facts.event, Provenance::Snapshot);
        self.images.task_row(facts);
        self.ask_for_hash(&id);
        self.ask_for_script(&id, place);
        self.push(Item::Row(id), at_ns);
    }

    fn socket_row(&mut self, row: &SocketRow, holders: &[ImageId]) {
        if row.cookie == 0 {
            let key = Key { cookie: 0, flow: 0 };
            let connection = Connection::of_row(row, holders);
            let at_ns = connection.started_ns;
            self.push(Item::Standalone(Box::new((key, connection))), at_ns);
        } else if self.connections.found(row, holders) {
            self.hold_images(Key {
                cookie: row.cookie,
                flow: 0,
            });
            self.take_news();
        }
    }
}

/// A fork of an image that the hooks did not know comes without its executable;
/// the row of the same image, taken later, has it.
fn take_file(fork: &mut ImageRecord, row: &ImageRecord) {
    const OF_THE_FILE: u32 = image_flags::DELETED
        | image_flags::MEMFD
        | image_flags::OVERLAY
        | image_flags::CTIME_QUERIED
        | image_flags::KTHREAD
        | image_flags::NO_EXE;
    if fork.flags & image_flags::NO_EXE != 0 {
        fork.exe = row.exe;
        fork.fs_magic = row.fs_magic;
        fork.flags = fork.flags & !OF_THE_FILE | row.flags & OF_THE_FILE;
    }
}

/// Whether a socket has, or is getting, another end. Ended and listening ones
/// have none; `TIME_WAIT` and half-open ones have no holder.
/// <https://github.com/torvalds/linux/blob/v6.12/include/net/tcp_states.h#L12>
fn is_connected(row: &SocketRow) -> bool {
    const TCP_CLOSE: u32 = 7;
    const TCP_LISTEN: u32 = 10;
    const BOUND_INACTIVE: u32 = 13;

    let nowhere = [0; 16];
    let mut nowhere_v4 = nowhere;
    nowhere_v4[..12].copy_from_slice(&V4_MAPPED);
    let is_somewhere = row.destination != nowhere && row.destination != nowhere_v4;
    is_somewhere && !matches!(row.state, TCP_CLOSE | TCP_LISTEN | BOUND_INACTIVE)
}

//! What is open now, from the kernel's socket table and /proc: the answer of
//! `procid who` where no agent runs.
//!
//! | module | holds |
//! | --- | --- |
//! | [`sockets`] | the socket tables of the network namespaces |
//! | [`holders`] | the processes that hold descriptors of those sockets |
//! | [`hashes`] | SHA-256 of the files that the holders run |
//! | [`destroy`] | closing one of those sockets |
//! | [`rows`] | the join of both, as records |
//!
//! What this cannot tell, and says so in `procid.unknown` and in the coverage:
//! who opened a socket (only who holds it now), which image it was at the time
//! (/proc rounds start times and hides `self_exec_id`, so there is no
//! `entity_id`), anything that has ended, raw and packet sockets, and what this
//! user may not look at. Without root it sees the user's own processes.

use std::{collections::HashMap, io};

use crate::{
    flow::Query,
    records::{Record, Uncovered},
};

pub mod destroy;
pub mod hashes;
pub mod holders;
pub mod rows;
pub mod sockets;

/// One connection, and the processes that hold it.
#[derive(Clone, Debug)]
pub struct Row {
    pub socket: sockets::SocketFacts,
    pub holders: Vec<holders::Holder>,
}

/// Connections that are open now, and what could not be looked at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub rows: Vec<Row>,
    pub unseen: Vec<Uncovered>,
}

/// Looks at every network namespace and process that this user may look at.
/// Listening sockets and datagram sockets without a peer are left out.
///
/// # Errors
///
/// The socket table of this process's own namespace cannot be read, or /proc.
pub fn take() -> io::Result<Snapshot> {
    let mut unseen = Vec::new();
    let sockets = sockets::everywhere(&mut unseen)?;
    let inodes = sockets
        .iter()
        .map(|socket| socket.inode)
        .filter(|&inode| inode != 0)
        .collect();
    let found = holders::of(&inodes, &mut unseen)?;
    let mut by_inode: HashMap<u64, Vec<holders::Holder>> = HashMap::new();
    for (holder, inodes) in found {
        for inode in inodes {
            by_inode.entry(inode).or_default().push(holder.clone());
        }
    }
    let rows = sockets
        .into_iter()
        .map(|socket| Row {
            holders: by_inode.get(&socket.inode).cloned().unwrap_or_default(),
            socket,
        })
        .collect();
    Ok(Snapshot { rows, unseen })
}

/// Answers a question: a record for each connection and holder that match, and
/// the coverage record.
///
/// # Errors
///
/// As [`take`].
pub fn who(query: &Query) -> io::Result<Vec<Record>> {
    let snapshot = take()?;
    Ok(rows::answer(query, &snapshot))
}

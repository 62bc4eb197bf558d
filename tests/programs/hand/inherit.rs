//! Sockets used by children and threads of the image that opened them.

use std::{process::Stdio, thread};

use anyhow::{Result, bail};
use procid_tests::truth::print_line;
use rustix::net::{SocketType, connect};

use super::{
    child::{forked, spawned},
    copies::Copies,
    flow::{Used, add, opened, tell},
    means::{Means, connected, greeted, new_socket, send_to},
    peer::Peer,
};

/// The child sends, the parent does not.
pub(crate) fn fork(means: Means) -> Result<()> {
    let peer = Peer::server()?;
    let (socket, flow) = peer.connection()?;
    let child = forked(|| Ok(print_line(&Used::now(means.send(&socket)?, 0)?)?))?;
    let user = child.only_line()?;
    drop(socket);
    peer.agrees_with(&tell(flow, &[user])?)
}

/// The child receives. It is no speaker.
pub(crate) fn receive() -> Result<()> {
    let peer = Peer::server()?;
    let socket = connected(peer.address)?;
    let mut flow = opened(&socket, peer.address)?;
    add(&mut flow, Means::Send.send(&socket)?, 0);
    let child = forked(|| Ok(print_line(&Used::now(0, greeted(&socket)?)?)?))?;
    let user = child.only_line()?;
    drop(socket);
    peer.agrees_with(&tell(flow, &[user])?)
}

/// How a datagram is addressed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination {
    InEachCall,
    Connected,
}

/// Both send to one destination.
pub(crate) fn fork_udp(destination: Destination) -> Result<()> {
    let peer = Peer::datagrams()?;
    let to = peer.address;
    let socket = new_socket(SocketType::DGRAM, to)?;
    let send = || match destination {
        Destination::InEachCall => send_to(&socket, to),
        Destination::Connected => Means::Send.send(&socket),
    };
    if let Destination::Connected = destination {
        connect(&socket, &to)?;
    }
    let sent = send()?;
    let mut flow = opened(&socket, to)?;
    add(&mut flow, sent, 0);
    let child = forked(|| Ok(print_line(&Used::now(send()?, 0)?)?))?;
    let user = child.only_line()?;
    peer.agrees_with(&tell(flow, &[user])?)
}

/// One image, so that only the opener is told.
pub(crate) fn thread() -> Result<()> {
    let peer = Peer::server()?;
    let (socket, flow) = peer.connection()?;
    let user = thread::scope(|scope| {
        scope
            .spawn(|| Used::now(Means::Send.send(&socket)?, 0))
            .join()
            .unwrap_or_else(|_| bail!("the thread panicked"))
    })?;
    drop(socket);
    peer.agrees_with(&tell(flow, &[user])?)
}

/// The standard library starts programs by vfork.
pub(crate) fn vfork_exec() -> Result<()> {
    let copies = Copies::new()?;
    let peer = Peer::server()?;
    let (socket, flow) = peer.connection()?;
    let mut user = copies.user("inherits")?;
    let child = spawned(user.arg("send").stdin(Stdio::from(socket)))?;
    // It holds the socket as well.
    drop(user);
    let user = child.only_line()?;
    peer.agrees_with(&tell(flow, &[user])?)
}

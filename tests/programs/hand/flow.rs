//! The lines that tell of a socket.

use std::{net::SocketAddr, os::fd::AsFd};

use anyhow::{Context as _, Result};
use procid_tests::{
    truth::{Actor, print_line},
    way::{Flow, Role, Unsupported},
};
use rustix::net::{SocketType, getpeername, ipproto, sockopt};
use serde::{Deserialize, Serialize};

use crate::tcp::local;

/// What one image did with a socket, told by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) actor: Actor,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Used {
    /// By the calling image.
    pub(crate) fn now(sent: u64, received: u64) -> Result<Self> {
        Ok(Self {
            actor: Actor::current()?,
            sent,
            received,
        })
    }
}

/// The calling image opened this socket; nothing has gone over it yet.
pub(crate) fn opened(socket: impl AsFd, destination: SocketAddr) -> Result<Flow> {
    let source = local(&socket)?;
    flow(&socket, Role::Opener, source, destination)
}

/// The calling image took this connection from accept. As in records, its
/// source is the client.
pub(crate) fn accepted(socket: impl AsFd) -> Result<Flow> {
    let client = getpeername(&socket)?
        .context("a connection without an other end")?
        .try_into()
        .ok()
        .context("an other end without an address")?;
    flow(&socket, Role::Acceptor, client, local(&socket)?)
}

fn flow(
    socket: &impl AsFd,
    role: Role,
    source: SocketAddr,
    destination: SocketAddr,
) -> Result<Flow> {
    let kind = match sockopt::socket_type(socket)? {
        SocketType::STREAM => "stream",
        _ => "dgram",
    };
    let transport = match sockopt::socket_protocol(socket)? {
        Some(ipproto::TCP) => "tcp",
        _ => "udp",
    };
    Ok(Flow {
        cookie: sockopt::socket_cookie(socket)?.to_string(),
        role,
        actor: Actor::current()?,
        kind: kind.into(),
        transport: Some(transport.into()),
        source: Some(source),
        destination: Some(destination),
        wire: None,
        error: None,
        sent: Some(0),
        received: Some(0),
    })
}

/// Counts what an image did in the line of the socket's owner.
pub(crate) fn add(owner: &mut Flow, sent: u64, received: u64) {
    owner.sent = owner.sent.map(|sum| sum + sent);
    owner.received = owner.received.map(|sum| sum + received);
}

/// Prints the lines of a socket: that of the image that opened or accepted
/// it, with what all have sent and received, and one for each other image
/// that has sent. Returns the first.
pub(crate) fn tell(mut owner: Flow, users: &[Used]) -> Result<Flow> {
    for user in users {
        add(&mut owner, user.sent, user.received);
    }
    print_line(&owner)?;
    let mut told = vec![&owner.actor];
    for user in users.iter().filter(|user| user.sent > 0) {
        if told.iter().any(|actor| same_image(actor, &user.actor)) {
            continue;
        }
        told.push(&user.actor);
        print_line(&Flow {
            role: Role::Speaker,
            actor: user.actor.clone(),
            sent: None,
            received: None,
            ..owner.clone()
        })?;
    }
    Ok(owner)
}

/// Every exec here is of another file.
fn same_image(one: &Actor, other: &Actor) -> bool {
    (one.pid, &one.exe) == (other.pid, &other.exe)
}

/// Says that this kernel does not have the means, and which errno proves it.
pub(crate) fn unsupported(sentence: impl Into<String>) -> Result<()> {
    print_line(&Unsupported {
        unsupported: sentence.into(),
    })?;
    Ok(())
}

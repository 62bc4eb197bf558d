//! Sockets that stay open while their process becomes another image.

use std::{
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Command, Stdio},
};

use anyhow::Result;
use procid_tests::truth::print_line;
use rustix::net::SocketType;

use super::{
    child::{Running, forked},
    copies::Copies,
    flow::{add, tell},
    means::{Means, new_socket},
    peer::Peer,
};

/// Both images send.
pub(crate) fn exec() -> Result<()> {
    let copies = Copies::new()?;
    let mut next = copies.user("sends")?;
    next.arg("send");
    let peer = Peer::server()?;
    let child = forked(|| {
        let (socket, mut flow) = peer.connection()?;
        add(&mut flow, Means::Send.send(&socket)?, 0);
        print_line(&flow)?;
        become_image(&mut next, socket)
    })?;
    told(child, peer)
}

/// The second sends, the first has only connected.
pub(crate) fn between() -> Result<()> {
    let copies = Copies::new()?;
    let mut next = copies.user("sends")?;
    next.arg("send");
    let peer = Peer::server()?;
    let child = forked(|| {
        let (socket, flow) = peer.connection()?;
        print_line(&flow)?;
        become_image(&mut next, socket)
    })?;
    told(child, peer)
}

/// The first makes the socket, the second connects it, the third sends.
pub(crate) fn before_connect() -> Result<()> {
    let copies = Copies::new()?;
    let peer = Peer::server()?;
    let mut next = copies.user("connects")?;
    next.args(["connect", "--to", &peer.address.to_string(), "--"])
        .arg(copies.copy("sends")?)
        .args(["hand-user", "send"]);
    let child = forked(|| {
        let socket = new_socket(SocketType::STREAM, peer.address)?;
        become_image(&mut next, socket)
    })?;
    told(child, peer)
}

/// Runs the program in this process, with the socket as its stdin.
fn become_image(next: &mut Command, socket: OwnedFd) -> Result<()> {
    Err(next.stdin(Stdio::from(socket)).exec().into())
}

/// The opener's line, then that of the image after it.
fn told(mut child: Running, peer: Peer) -> Result<()> {
    let flow = child.line()?;
    let user = child.only_line()?;
    peer.agrees_with(&tell(flow, &[user])?)
}

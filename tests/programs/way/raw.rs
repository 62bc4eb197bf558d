//! Raw and ping sockets.

use std::{net::SocketAddr, os::fd::OwnedFd};

use anyhow::{Result, ensure};
use procid_tests::truth::print_line;
use rustix::net::{SendFlags, connect, send, sendto};

use super::{
    craft::{IP, echo},
    payload::{Load, PART, part, parts},
    peer::Counts,
    socket::socket,
    tcp::LOOPBACK,
    told::opened,
    udp::taken,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Icmp {
    Unconnected,
    Connected,
}

/// Asks for an echo of as much as is to be sent or received; the kernel is
/// the other end. What raw sockets are told of each other is counted too.
pub(crate) fn icmp(how: Icmp, load: Load) -> Result<()> {
    let to: SocketAddr = LOOPBACK.parse()?;
    let socket = socket("ICMP", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?;
    if how == Icmp::Connected {
        connect(&socket, &to)?;
    }
    let counts = echoes(&socket, load, (8, 0), IP, |message| match how {
        Icmp::Unconnected => sendto(&socket, message, SendFlags::empty(), &to),
        Icmp::Connected => send(&socket, message, SendFlags::empty()),
    })?;
    let flow = opened(&socket, Some(to))?;
    drop(socket);
    Ok(print_line(&counts.of(flow))?)
}

/// Sends echo requests, one after the other, each after the reply to the one
/// before. `skipped` is what comes before the ICMP header in what is read.
fn echoes(
    socket: &OwnedFd,
    load: Load,
    (request, reply): (u8, u8),
    skipped: usize,
    send: impl Fn(&[u8]) -> rustix::io::Result<usize>,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let id = std::process::id() as u16;
    for (number, (offset, length)) in parts(load.up.max(load.down), PART).enumerate() {
        let message = echo(request, id, number as u16, part(offset, length));
        counts.sent += send(&message)? as u64;
        loop {
            let (answer, returned) = taken(socket)?;
            counts.received += returned as u64;
            let answer = &answer[skipped..];
            ensure!(answer.len() >= 8, "{} bytes of ICMP", answer.len());
            // A ping socket has an id of its own.
            let ours = skipped == 0 || answer[4..6] == message[4..6];
            if ours && answer[0] == reply && answer[6..8] == message[6..8] {
                ensure!(answer[8..] == message[8..], "another echo");
                break;
            }
        }
    }
    Ok(counts)
}

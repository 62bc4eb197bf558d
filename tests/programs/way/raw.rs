//! Raw and ping sockets.

use std::{net::SocketAddr, os::fd::OwnedFd};

use anyhow::{Result, ensure};
use procid_tests::truth::print_line;
use rustix::net::{SendFlags, bind, connect, send, sendto};

use super::{
    craft::{self, IP, echo},
    netns,
    packet::{Scene, next},
    payload::{Load, PART, part, parts},
    peer::{Counts, exchange},
    socket::{family_number, set, socket},
    tcp::{LOOPBACK, LOOPBACK_V6},
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

/// The same from a datagram socket of ICMP or ICMPv6, as ping(8) does.
pub(crate) fn ping(version: u8, load: Load) -> Result<()> {
    netns::enter()?;
    netns::sysctl("ipv4/ping_group_range", "0 0")?;
    let (at, protocol, kinds) = match version {
        4 => (LOOPBACK, libc::IPPROTO_ICMP, (8, 0)),
        _ => (LOOPBACK_V6, libc::IPPROTO_ICMPV6, (128, 129)),
    };
    let to: SocketAddr = at.parse()?;
    let socket = socket(
        "ping sockets",
        family_number(to),
        libc::SOCK_DGRAM,
        protocol,
    )?;
    let counts = echoes(&socket, load, kinds, 0, |message| {
        sendto(&socket, message, SendFlags::empty(), &to)
    })?;
    let flow = opened(&socket, Some(to))?;
    drop(socket);
    Ok(print_line(&counts.of(flow))?)
}

/// Who writes the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Kernel,
    Program,
}

/// UDP datagrams from a raw socket.
pub(crate) fn udp(header: Header, load: Load) -> Result<()> {
    let Scene {
        mut peer,
        here,
        there,
        _kept,
    } = Scene::set()?;
    // IPPROTO_RAW is the usual one for whole packets, but receives nothing.
    let protocol = match header {
        Header::Program if load.down == 0 => libc::IPPROTO_RAW,
        _ => libc::IPPROTO_UDP,
    };
    let socket = socket("raw sockets", libc::AF_INET, libc::SOCK_RAW, protocol)?;
    if header == Header::Program {
        set(&socket, libc::IPPROTO_IP, libc::IP_HDRINCL, &1_i32)?;
    }
    bind(&socket, &SocketAddr::from((*here.ip(), 0)))?;
    let to = SocketAddr::from((*there.ip(), 0));
    let counts = exchange(
        &mut peer,
        load,
        PART,
        |part| {
            let packet = match header {
                Header::Kernel => craft::udp(here.port(), there.port(), part),
                Header::Program => craft::ip_udp(here, there, part),
            };
            Ok(sendto(&socket, &packet, SendFlags::empty(), &to)?)
        },
        || next(&socket, libc::SOCK_DGRAM, there, here),
    )?;
    let flow = opened(&socket, Some(to))?;
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
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

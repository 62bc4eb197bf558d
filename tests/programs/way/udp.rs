//! UDP and UDP-Lite.

use std::{net::SocketAddr, os::fd::AsFd};

use anyhow::Result;
use procid_tests::truth::print_line;
use rustix::net::{RecvFlags, SendFlags, connect, recv, recvfrom, send, sendto};

use super::{
    payload::{Load, PART},
    peer::{Counts, Peer, Spec, exchange},
    socket::{family_number, socket, udp},
    tcp::LOOPBACK,
    told::{on_the_wire, opened},
};

/// Takes the next datagram with recvfrom(2).
pub(crate) fn taken(socket: impl AsFd) -> Result<(Vec<u8>, usize)> {
    let mut buffer = vec![0; 2 * PART];
    let (length, _, _) = recvfrom(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
    buffer.truncate(length);
    Ok((buffer, length))
}

/// Exchanges the load with sendto(2) and recvfrom(2).
pub(crate) fn by_sendto(
    socket: impl AsFd,
    to: SocketAddr,
    load: Load,
    peer: &mut Peer,
) -> Result<Counts> {
    by_sendto_of(PART, socket, to, load, peer)
}

/// The same in messages of at most `most` bytes.
pub(crate) fn by_sendto_of(
    most: usize,
    socket: impl AsFd,
    to: SocketAddr,
    load: Load,
    peer: &mut Peer,
) -> Result<Counts> {
    exchange(
        peer,
        load,
        most,
        |part| Ok(sendto(&socket, part, SendFlags::empty(), &to)?),
        || taken(&socket),
    )
}

/// The same with send(2).
pub(crate) fn by_send(socket: impl AsFd, load: Load, peer: &mut Peer) -> Result<Counts> {
    exchange(
        peer,
        load,
        PART,
        |part| Ok(send(&socket, part, SendFlags::empty())?),
        || taken(&socket),
    )
}

/// Unconnected; listening there, asked for as `ask` says.
pub(crate) fn plain(at: &str, ask: impl Fn(SocketAddr) -> SocketAddr, load: Load) -> Result<()> {
    let mut peer = Spec::datagrams(at.parse()?).start()?;
    let to = ask(peer.address);
    let socket = udp(to)?;
    let counts = by_sendto(&socket, to, load, &mut peer)?;
    let mut flow = opened(&socket, Some(to))?;
    if to.ip().to_canonical() != peer.address.ip() {
        flow = on_the_wire(flow, peer.address.ip());
    }
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

/// Whether connect(2) comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dial {
    Connected,
    Unconnected,
}

/// To one destination, by UDP or UDP-Lite.
pub(crate) fn to_one(protocol: i32, dial: Dial, load: Load) -> Result<()> {
    let at: SocketAddr = LOOPBACK.parse()?;
    let what = match protocol {
        libc::IPPROTO_UDPLITE => "UDP-Lite",
        _ => "UDP",
    };
    let socket = socket(what, family_number(at), libc::SOCK_DGRAM, protocol)?;
    let mut peer = Spec::datagrams(at).protocol(protocol).start()?;
    let (flow, counts) = match dial {
        Dial::Connected => {
            connect(&socket, &peer.address)?;
            let flow = opened(&socket, Some(peer.address))?;
            (flow, by_send(&socket, load, &mut peer)?)
        }
        Dial::Unconnected => {
            let counts = by_sendto(&socket, peer.address, load, &mut peer)?;
            (opened(&socket, Some(peer.address))?, counts)
        }
    };
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

/// Answers are taken by recv(2), which asks for no address.
pub(crate) fn nameless(load: Load) -> Result<()> {
    let load = Load {
        up: load.up,
        down: load.down.max(load.up),
    };
    let mut peer = Spec::datagrams(LOOPBACK.parse()?).start()?;
    let to = peer.address;
    let socket = udp(to)?;
    let counts = exchange(
        &mut peer,
        load,
        PART,
        |part| Ok(sendto(&socket, part, SendFlags::empty(), &to)?),
        || {
            let mut buffer = vec![0; 2 * PART];
            let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            buffer.truncate(length);
            Ok((buffer, length))
        },
    )?;
    let flow = opened(&socket, Some(to))?;
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

//! UDP and UDP-Lite.

use std::{net::SocketAddr, os::fd::AsFd};

use anyhow::Result;
use procid_tests::truth::print_line;
use rustix::net::{RecvFlags, SendFlags, connect, recvfrom, send, sendto};

use super::{
    payload::{Load, PART},
    peer::{Counts, Peer, Spec, exchange},
    socket::udp,
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
    exchange(
        peer,
        load,
        PART,
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

pub(crate) fn connected(load: Load) -> Result<()> {
    let mut peer = Spec::datagrams(LOOPBACK.parse()?).start()?;
    let socket = udp(peer.address)?;
    connect(&socket, &peer.address)?;
    let flow = opened(&socket, Some(peer.address))?;
    let counts = by_send(&socket, load, &mut peer)?;
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

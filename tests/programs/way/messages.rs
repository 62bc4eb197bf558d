//! Protocols of connections and messages: SCTP and DCCP.

use std::net::SocketAddr;

use anyhow::Result;
use procid_tests::truth::print_line;
use rustix::net::{SendFlags, connect, send};

use super::{
    payload::Load,
    peer::{Spec, exchange},
    socket::socket,
    tcp::LOOPBACK,
    told::opened,
    udp::{by_sendto_of, taken},
};

/// `SOCK_DCCP`
const DCCP: i32 = 6;

/// Short enough to be one packet on loopback.
const MOST: usize = 8 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Sctp,
    Dccp,
}

/// One connection, each end's messages taken one by one.
pub(crate) fn connected(protocol: Protocol, load: Load) -> Result<()> {
    let at: SocketAddr = LOOPBACK.parse()?;
    let (what, kind, protocol) = match protocol {
        Protocol::Sctp => ("SCTP", libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        Protocol::Dccp => ("DCCP", DCCP, libc::IPPROTO_DCCP),
    };
    let socket = socket(what, libc::AF_INET, kind, protocol)?;
    let mut peer = Spec::messages(at).protocol(protocol).kind(kind).start()?;
    connect(&socket, &peer.address)?;
    let flow = opened(&socket, Some(peer.address))?;
    let counts = exchange(
        &mut peer,
        load,
        MOST,
        |part| Ok(send(&socket, part, SendFlags::NOSIGNAL)?),
        || taken(&socket),
    )?;
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

/// SCTP's one-to-many socket, which needs no connect(2).
pub(crate) fn one_to_many(load: Load) -> Result<()> {
    let at: SocketAddr = LOOPBACK.parse()?;
    let (kind, protocol) = (libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP);
    let socket = socket("SCTP", libc::AF_INET, kind, protocol)?;
    let mut peer = Spec::datagrams(at).protocol(protocol).kind(kind).start()?;
    let counts = by_sendto_of(MOST, &socket, peer.address, load, &mut peer)?;
    let flow = opened(&socket, Some(peer.address))?;
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

//! The lines that tell of a socket.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
};

use anyhow::{Context as _, Result};
use procid_tests::{
    truth::Actor,
    way::{Flow, Role},
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType, getpeername, getsockname, sockopt},
};

/// The calling image opened this socket, and asked for `destination`.
pub(crate) fn opened(socket: impl AsFd, destination: Option<SocketAddr>) -> Result<Flow> {
    let source = source(&socket)?;
    flow(&socket, Role::Opener, source, destination)
}

/// The calling image took this connection from accept(2). As in records, its
/// source is the client.
pub(crate) fn accepted(socket: impl AsFd) -> Result<Flow> {
    let client = getpeername(&socket)?
        .context("a connection without an other end")?
        .try_into()
        .ok();
    let here = source(&socket)?;
    flow(&socket, Role::Acceptor, client, here)
}

/// What getsockname(2) says, if that is anything.
fn source(socket: impl AsFd) -> Result<Option<SocketAddr>> {
    let name = match getsockname(&socket) {
        Err(Errno::OPNOTSUPP) => None, // AF_XDP has none
        name => SocketAddr::try_from(name?).ok(),
    };
    Ok(name.filter(|name| name.port() != 0 || !name.ip().is_unspecified()))
}

fn flow(
    socket: &impl AsFd,
    role: Role,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
) -> Result<Flow> {
    let domain = sockopt::socket_domain(socket)?;
    let kind = match sockopt::socket_type(socket)? {
        _ if domain == AddressFamily::PACKET => "packet",
        SocketType::STREAM => "stream",
        SocketType::DGRAM => "dgram",
        SocketType::RAW => "raw",
        SocketType::SEQPACKET => "seqpacket",
        _ => "dccp",
    };
    let internet = [AddressFamily::INET, AddressFamily::INET6].contains(&domain);
    let protocol = sockopt::socket_protocol(socket)?
        .filter(|_| internet)
        .map_or(0, |protocol| protocol.as_raw().get() as i32);
    let transport = match protocol {
        libc::IPPROTO_TCP | libc::IPPROTO_MPTCP => Some("tcp"),
        libc::IPPROTO_UDP => Some("udp"),
        libc::IPPROTO_UDPLITE => Some("udplite"),
        libc::IPPROTO_ICMP => Some("icmp"),
        libc::IPPROTO_ICMPV6 => Some("ipv6-icmp"),
        libc::IPPROTO_SCTP => Some("sctp"),
        libc::IPPROTO_DCCP => Some("dccp"),
        _ => None,
    };
    let ports = kind != "raw" && !matches!(transport, Some("icmp" | "ipv6-icmp"));
    let without = |address: SocketAddr| match ports {
        true => address,
        false => SocketAddr::new(address.ip(), 0),
    };
    Ok(Flow {
        cookie: sockopt::socket_cookie(socket)?.to_string(),
        role,
        actor: Actor::current()?,
        kind: kind.into(),
        transport: transport.map(Into::into),
        source: source
            .map(without)
            .filter(|source| ports || !source.ip().is_unspecified()),
        destination: destination.map(without),
        wire: None,
        error: None,
        sent: Some(0),
        received: Some(0),
    })
}

/// Where the packets of a flow really go.
pub(crate) fn on_the_wire(flow: Flow, wire: impl Into<IpAddr>) -> Flow {
    Flow {
        wire: Some(wire.into()),
        ..flow
    }
}

/// The same with what was sent and received.
pub(crate) fn counted(flow: Flow, sent: u64, received: u64) -> Flow {
    Flow {
        sent: Some(sent),
        received: Some(received),
        ..flow
    }
}

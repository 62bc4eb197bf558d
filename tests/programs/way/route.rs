//! Source routing: what is asked for is the last of the packet's destinations,
//! what it is first addressed to another.

use std::{
    net::{Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use anyhow::Result;
use procid_tests::truth::print_line;
use rustix::{
    io::Errno,
    net::{RecvFlags, bind, connect, recv},
};

use super::{
    absent::lacking,
    cmsg,
    netns::{self, BETWEEN, HERE, THERE},
    payload::{Load, PART},
    peer::{Spec, exchange},
    socket::{set_slice, socket, tcp, udp},
    tcp::converse,
    told::{on_the_wire, opened},
    udp::{by_sendto, taken},
};

const HERE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const THERE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
const BETWEEN_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 3);

/// The options of IPv4.
pub(crate) const LOOSE: u8 = 131;
pub(crate) const STRICT: u8 = 137;

/// One option with one address between.
fn options(route: u8) -> [u8; 8] {
    let [a, b, c, d] = BETWEEN.octets();
    const NOTHING: u8 = 1;
    [NOTHING, route, 7, 4, a, b, c, d]
}

/// By `IP_OPTIONS`, UDP and TCP.
pub(crate) fn by_option(route: u8, load: Load) -> Result<()> {
    netns::enter_routed()?;
    let routed =
        |socket: &OwnedFd| set_slice(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &options(route));
    let ends = (HERE.into(), THERE.into(), BETWEEN.into());
    udp_and_tcp(ends, routed, load)
}

/// By `IPV6_RTHDR`, UDP and TCP: a segment routing header, the one type whose
/// receiver needs nothing but a setting.
pub(crate) fn by_header_option(load: Load) -> Result<()> {
    enter_v6()?;
    let routed = |socket: &OwnedFd| {
        const TYPE: u8 = 4;
        // Next header, length, type, segments left, last entry, flags, tag.
        let mut header = vec![0, 4, TYPE, 1, 1, 0, 0, 0];
        // The last segment, which the kernel fills in, comes first.
        header.extend([0; 16]);
        header.extend(BETWEEN_V6.octets());
        set_slice(socket, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header)
    };
    udp_and_tcp(
        (HERE_V6.into(), THERE_V6.into(), BETWEEN_V6.into()),
        routed,
        load,
    )
}

fn enter_v6() -> Result<()> {
    netns::enter()?;
    for address in [HERE_V6, THERE_V6, BETWEEN_V6] {
        netns::add_v6(address)?;
    }
    for device in ["all", "lo"] {
        netns::sysctl(&format!("ipv6/conf/{device}/seg6_enabled"), "1")?;
        netns::sysctl(&format!("ipv6/conf/{device}/accept_source_route"), "1")?;
    }
    Ok(())
}

fn udp_and_tcp(
    (here, there, between): (std::net::IpAddr, std::net::IpAddr, std::net::IpAddr),
    routed: impl Fn(&OwnedFd) -> rustix::io::Result<()>,
    load: Load,
) -> Result<()> {
    let (here, there) = (SocketAddr::new(here, 0), SocketAddr::new(there, 0));
    let mut peer = Spec::datagrams(there).start()?;
    let socket = udp(there)?;
    bind(&socket, &here)?;
    routed(&socket)?;
    let counts = by_sendto(&socket, peer.address, load, &mut peer)?;
    let flow = on_the_wire(opened(&socket, Some(peer.address))?, between);
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()?;

    let peer = Spec::stream(there, load).start()?;
    let socket = tcp(there)?;
    bind(&socket, &here)?;
    routed(&socket)?;
    connect(&socket, &peer.address)?;
    let flow = on_the_wire(opened(&socket, Some(peer.address))?, between);
    converse(socket, 0, load, flow, peer)
}

/// By a control message with each datagram.
pub(crate) fn by_message(load: Load) -> Result<()> {
    netns::enter_routed()?;
    let mut peer = Spec::datagrams(SocketAddr::from((THERE, 0))).start()?;
    let to = peer.address;
    let socket = udp(to)?;
    bind(&socket, &SocketAddr::from((HERE, 0)))?;
    let route = options(LOOSE);
    let counts = exchange(
        &mut peer,
        load,
        PART,
        |part| {
            let control = (libc::IPPROTO_IP, libc::IP_RETOPTS, &route[..]);
            Ok(cmsg::send(&socket, Some(&to), part, control)?)
        },
        || taken(&socket),
    )?;
    let flow = on_the_wire(opened(&socket, Some(to))?, BETWEEN);
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

/// By a control message with one datagram of IPv6, for which kernels take only
/// mobile IPv6's header (type 2). No host here is a mobile one that would take
/// it in, so arrival on the wire is what is looked at.
pub(crate) fn by_header_message(load: Load) -> Result<()> {
    enter_v6()?;
    let to = SocketAddr::from((THERE_V6, 9));
    let socket_of_udp = udp(to)?;
    bind(&socket_of_udp, &SocketAddr::from((HERE_V6, 0)))?;
    let protocol = i32::from((libc::ETH_P_IPV6 as u16).to_be());
    let wire = socket("AF_PACKET", libc::AF_PACKET, libc::SOCK_DGRAM, protocol)?;
    let mut header = vec![0, 2, 2, 1, 0, 0, 0, 0];
    header.extend(BETWEEN_V6.octets());
    let payload = super::payload::part(0, load.up.min(1024) as usize);
    let control = (libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header[..]);
    let sent = cmsg::send(&socket_of_udp, Some(&to), payload, control)
        .map_err(|error| lacking("routing header by control message", error, &[Errno::INVAL]))?;
    let mut packet = [0; 4096];
    loop {
        let (length, _) = recv(&wire, &mut packet, RecvFlags::empty())?;
        let udp_packet = packet[..length].ends_with(payload);
        if udp_packet && packet[24..40] == BETWEEN_V6.octets() {
            break;
        }
    }
    let flow = on_the_wire(opened(&socket_of_udp, Some(to))?, BETWEEN_V6);
    drop(socket_of_udp);
    Ok(print_line(&super::told::counted(flow, sent as u64, 0))?)
}

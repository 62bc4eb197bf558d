//! Packets written by hand.

use std::net::{Ipv4Addr, SocketAddrV4};

/// An IPv4 header's length, and a UDP header's.
pub(crate) const IP: usize = 20;
pub(crate) const UDP: usize = 8;

/// The one's complement sum of the internet protocols.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// An echo request; `kind` is 8 for ICMP and 128 for ICMPv6.
pub(crate) fn echo(kind: u8, id: u16, number: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(number.to_be_bytes());
    message.extend(payload);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// A UDP datagram with its header, and no checksum, which IPv4 allows.
pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(UDP + payload.len());
    datagram.extend(from.to_be_bytes());
    datagram.extend(to.to_be_bytes());
    datagram.extend(((UDP + payload.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// The same in an IPv4 packet.
pub(crate) fn ip_udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let length = (IP + UDP + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, libc::IPPROTO_UDP as u8, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(udp(from.port(), to.port(), payload));
    packet
}

/// The payload of a packet, if it is a UDP datagram of that flow.
pub(crate) fn udp_payload(packet: &[u8], from: SocketAddrV4, to: SocketAddrV4) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let address = |at: usize| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    let port = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let is = (address(12)?, port(header)?, address(16)?, port(header + 2)?)
        == (*from.ip(), from.port(), *to.ip(), to.port())
        && packet[9] == libc::IPPROTO_UDP as u8;
    is.then(|| packet.get(header + UDP..)).flatten()
}

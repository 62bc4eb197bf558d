//! A capture of a network, as QEMU's filter-dump writes it: libpcap's format
//! (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>), Ethernet.

use anyhow::{Context as _, Result, ensure};

/// A TCP segment or UDP datagram over IPv4.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) protocol: Protocol,
    /// The destination's.
    pub(super) port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

const MAGIC: [u8; 4] = [0xd4, 0xc3, 0xb2, 0xa1];
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
const ETHERNET_HEADER: usize = 14;

/// What was sent, in the order of the capture; what is neither TCP nor UDP over
/// IPv4 is left out.
///
/// # Errors
///
/// When it is no capture, or it ends within a packet.
pub(super) fn sent(capture: &[u8]) -> Result<Vec<Sent>> {
    ensure!(capture.starts_with(&MAGIC), "this is no capture");
    let mut rest = capture.get(FILE_HEADER..).context("a short header")?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = rest.get(8..12).context("a packet without its length")?;
        let length = u32::from_le_bytes(length.try_into()?) as usize;
        let end = PACKET_HEADER + length;
        let packet = rest.get(PACKET_HEADER..end).context("a cut packet")?;
        found.extend(read(packet));
        rest = &rest[end..];
    }
    Ok(found)
}

/// What an Ethernet frame holds.
fn read(frame: &[u8]) -> Option<Sent> {
    const IPV4: &[u8] = &[0x08, 0x00];
    if frame.get(12..14)? != IPV4 {
        return None;
    }
    let packet = &frame[ETHERNET_HEADER..];
    let header = usize::from(*packet.first()? & 0xf) * 4;
    let protocol = match *packet.get(9)? {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    let port = packet.get(header + 2..header + 4)?;
    Some(Sent {
        protocol,
        port: u16::from_be_bytes([port[0], port[1]]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.resize(FILE_HEADER, 0);
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
            bytes.extend([[0; 4], [0; 4], length, length].concat());
            bytes.extend(frame);
        }
        bytes
    }

    /// An IPv4 packet of `protocol` with `options` words of them.
    fn frame(protocol: u8, options: u8, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45 + options]);
        frame.extend([0; 8]);
        frame.push(protocol);
        frame.extend([0; 10]);
        frame.extend(vec![0xff; usize::from(options) * 4]);
        frame.extend([1, 2]);
        frame.extend(port.to_be_bytes());
        frame.extend([0; 4]);
        frame
    }

    #[test]
    fn ports_are_found_behind_options_and_others_passed_over() {
        let mut arp = vec![0; 60];
        (arp[12], arp[13]) = (8, 6);
        let frames = [frame(17, 0, 9001), arp, frame(1, 0, 7), frame(6, 2, 9002)];
        let found: Vec<_> = sent(&capture(&frames)).unwrap();
        let expected = [(Protocol::Udp, 9001), (Protocol::Tcp, 9002)];
        let expected = expected.map(|(protocol, port)| Sent { protocol, port });
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_cut_is_no_empty_capture() {
        let whole = capture(&[frame(17, 0, 9001)]);
        sent(&whole[..whole.len() - 1]).unwrap_err();
        sent(&[]).unwrap_err();
        assert!(sent(&whole[..FILE_HEADER]).unwrap().is_empty());
    }
}

//! Answers, byte by byte.

use std::net::Ipv4Addr;

use procid_common::{
    answer::{Answer, MESSAGE_MAX},
    event::kind,
    image::ImageId,
};

use crate::connections::fixtures::{header, image};

/// That of [`attempt`](crate::connections::fixtures::attempt).
pub(crate) const NETNS: u32 = 100;

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const AAAA: u16 = 28;

/// A name as it stands in a message.
pub(crate) fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

pub(crate) fn record(owner: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = wire(owner);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 0, 60]);
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

pub(crate) fn answer(asked: &str, kind: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![7, 7, 0x81, 0x80, 0, 1];
    bytes.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(wire(asked));
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(records.concat());
    bytes
}

/// An answer that reached a socket of that process; 0: of one that is not known.
pub(crate) fn event(bytes: &[u8], by: u32, at_ns: u64) -> Answer {
    let mut message = [0xff; MESSAGE_MAX];
    message[..bytes.len()].copy_from_slice(bytes);
    Answer {
        header: header::<Answer>(kind::ANSWER, at_ns),
        image: if by == 0 { ImageId::UNKNOWN } else { image(by) },
        netns: NETNS,
        whole: u32::try_from(bytes.len()).unwrap(),
        len: u32::try_from(bytes.len()).unwrap(),
        reserved: 0,
        message,
    }
}

/// Somebody was told that address for a name.
pub(crate) fn told(name: &str, address: Ipv4Addr, by: u32, at_ns: u64) -> Answer {
    let bytes = answer(name, A, &[record(name, A, &address.octets())]);
    event(&bytes, by, at_ns)
}

//! Questions and answers as ctnetlink has them.
//!
//! Bytes of the kernel are read as any others: what does not look like an
//! answer is none.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple as Part},
};

use super::{Entry, Tuple};

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Entry(Entry),
    /// The errno.
    Refused(i32),
    /// It is no answer that this can be asked for.
    Other,
}

/// Appends the question after the entry that has this tuple.
pub fn put_request(tuple: &Tuple, sequence: u32, bytes: &mut Vec<u8>) {
    let family = match tuple.local.0 {
        IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
        IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    let parts = vec![
        Part::Ip(vec![
            IPTuple::SourceAddress(tuple.local.0),
            IPTuple::DestinationAddress(tuple.remote.0),
        ]),
        Part::Proto(vec![
            ProtoTuple::Protocol(tuple.protocol.into()),
            ProtoTuple::SourcePort(tuple.local.1),
            ProtoTuple::DestinationPort(tuple.remote.1),
        ]),
    ];
    let inner = ConntrackMessage::Get(vec![ConntrackAttribute::CtaTupleOrig(parts)]);
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner);
    put(NLM_F_REQUEST, sequence, message, bytes);
}

fn put(flags: u16, sequence: u32, message: NetfilterMessage, bytes: &mut Vec<u8>) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    // The next one begins at a multiple of 4.
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    if let Some(room) = bytes.get_mut(start..) {
        message.serialize(room);
    }
}

/// `nlmsg_type` of an error, and of an entry: `NFNL_SUBSYS_CTNETLINK << 8 |
/// IPCTNL_MSG_CT_NEW`.
const READ: [u16; 2] = [2, 1 << 8];

/// Reads one answer, and says to which question; `None`: these bytes are no
/// message that answers one.
pub fn read(bytes: &[u8]) -> Option<(u32, Reply)> {
    // Attributes of other subsystems make the crate panic where they are damaged.
    let kind: [u8; 2] = bytes.get(4..6)?.try_into().ok()?;
    if !READ.contains(&u16::from_ne_bytes(kind)) {
        return None;
    }
    let message = NetlinkMessage::<NetfilterMessage>::deserialize(bytes).ok()?;
    let reply = match message.payload {
        NetlinkPayload::Error(error) => {
            Reply::Refused(error.to_io().raw_os_error().unwrap_or(libc::EIO))
        }
        NetlinkPayload::InnerMessage(message) => match message.inner {
            NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) => {
                entry(&attributes).map_or(Reply::Other, Reply::Entry)
            }
            _ => Reply::Other,
        },
        _ => Reply::Other,
    };
    Some((message.header.sequence_number, reply))
}

/// Of an entry that has both tuples, whole.
fn entry(attributes: &[ConntrackAttribute]) -> Option<Entry> {
    let (mut original, mut reply) = (None, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => original = tuple(parts),
            ConntrackAttribute::CtaTupleReply(parts) => reply = tuple(parts),
            _ => {}
        }
    }
    Some(Entry {
        original: original?,
        reply: reply?,
    })
}

fn tuple(parts: &[Part]) -> Option<Tuple> {
    let (mut source, mut destination, mut protocol) = (None, None, None);
    let (mut source_port, mut destination_port) = (None, None);
    for part in parts {
        match part {
            Part::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(ip) => source = Some(ip.to_canonical()),
                        IPTuple::DestinationAddress(ip) => destination = Some(ip.to_canonical()),
                        _ => {}
                    }
                }
            }
            Part::Proto(facts) => {
                for fact in facts {
                    match fact {
                        ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
                        ProtoTuple::SourcePort(port) => source_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => destination_port = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Tuple {
        protocol: protocol?,
        local: (source?, source_port?),
        remote: (destination?, destination_port?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conntrack::tests::{any_tuple, tuple};

    fn parts(tuple: &Tuple) -> Vec<Part> {
        let mut bytes = Vec::new();
        put_request(tuple, 1, &mut bytes);
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(&bytes).unwrap();
        match message.payload {
            NetlinkPayload::InnerMessage(NetfilterMessage {
                inner: NetfilterMessageInner::Conntrack(ConntrackMessage::Get(attributes)),
                ..
            }) => match attributes.into_iter().next() {
                Some(ConntrackAttribute::CtaTupleOrig(parts)) => parts,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn answer(entry: &Entry, sequence: u32) -> Vec<u8> {
        let inner = ConntrackMessage::New(vec![
            ConntrackAttribute::CtaTupleOrig(parts(&entry.original)),
            ConntrackAttribute::CtaTimeout(120),
            ConntrackAttribute::CtaTupleReply(parts(&entry.reply)),
        ]);
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let mut bytes = Vec::new();
        put(
            0,
            sequence,
            NetfilterMessage::new(header, inner),
            &mut bytes,
        );
        bytes
    }

    /// As nf_conntrack_netlink reads it: types and nesting of
    /// `include/uapi/linux/netfilter/nfnetlink_conntrack.h`, values in the
    /// network's order.
    #[test]
    fn a_question_is_as_the_kernel_reads_it() {
        let mut bytes = Vec::new();
        put_request(&tuple("10.0.0.2:4444", "192.0.2.7:443"), 7, &mut bytes);
        let mut expected = Vec::new();
        expected.extend(72_u32.to_ne_bytes());
        expected.extend(0x0101_u16.to_ne_bytes()); // conntrack, IPCTNL_MSG_CT_GET
        expected.extend(1_u16.to_ne_bytes()); // NLM_F_REQUEST
        expected.extend(7_u32.to_ne_bytes());
        expected.extend(0_u32.to_ne_bytes());
        expected.extend([2, 0, 0, 0]); // AF_INET
        let mut attribute = |len: u16, kind: u16, value: &[u8]| {
            expected.extend(len.to_ne_bytes());
            expected.extend(kind.to_ne_bytes());
            expected.extend(value);
        };
        const NESTED: u16 = 1 << 15;
        attribute(52, 1 | NESTED, &[]);
        attribute(20, 1 | NESTED, &[]);
        attribute(8, 1, &[10, 0, 0, 2]);
        attribute(8, 2, &[192, 0, 2, 7]);
        attribute(28, 2 | NESTED, &[]);
        attribute(5, 1, &[6, 0, 0, 0]);
        attribute(6, 2, &[0x11, 0x5c, 0, 0]);
        attribute(6, 3, &[0x01, 0xbb, 0, 0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn questions_lie_one_after_the_other() {
        let mut bytes = Vec::new();
        let v6 = tuple("[2001:db8::1]:4444", "[2001:db8::2]:443");
        put_request(&v6, 1, &mut bytes);
        let first = bytes.len();
        put_request(&v6, 2, &mut bytes);
        assert_eq!(bytes.len(), 2 * first);
        let second = NetlinkMessage::<NetfilterMessage>::deserialize(&bytes[first..]).unwrap();
        assert_eq!(second.header.sequence_number, 2);
        assert_eq!(super::tuple(&parts(&v6)), Some(v6));
    }

    #[test]
    fn a_refusal_is_told_by_its_number() {
        let mut bytes = Vec::new();
        bytes.extend(36_u32.to_ne_bytes());
        bytes.extend(2_u16.to_ne_bytes()); // NLMSG_ERROR
        bytes.extend(0_u16.to_ne_bytes());
        bytes.extend(9_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend((-libc::ENOENT).to_ne_bytes());
        bytes.extend([0; 16]);
        assert_eq!(read(&bytes), Some((9, Reply::Refused(libc::ENOENT))));
    }

    /// Found by fuzzing: an attribute of an nf_tables set, shorter than its header.
    #[test]
    fn a_message_of_another_subsystem_is_none() {
        let mut bytes = [0; 43];
        bytes[..20].copy_from_slice(&[
            36, 0, 0, 0, 10, 10, 0, 68, 0, 1, 0, 2, 0, 0, 3, 0, 36, 0, 0, 0,
        ]);
        bytes[20..40].copy_from_slice(&[
            4, 0, 17, 0, 4, 0, 12, 0, 0, 0, 0, 4, 0, 17, 0, 4, 0, 12, 0, 0,
        ]);
        bytes[41] = 255;
        assert_eq!(read(&bytes), None);
    }

    proptest! {
        #[test]
        fn an_answer_is_read_as_it_was_written(
            original in any_tuple(), reply in any_tuple(), sequence: u32,
        ) {
            let entry = Entry { original, reply };
            let bytes = answer(&entry, sequence);
            prop_assert_eq!(read(&bytes), Some((sequence, Reply::Entry(entry))));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _any = read(&bytes);
        }

        /// An answer with some bytes changed, and its end cut off.
        #[test]
        fn no_damaged_answer_makes_it_panic(
            original in any_tuple(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            end in any::<prop::sample::Index>(),
        ) {
            let mut bytes = answer(&Entry { original, reply: original.turned() }, 1);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _any = read(&bytes);
            bytes.truncate(end.index(bytes.len()));
            let _any = read(&bytes);
        }
    }
}

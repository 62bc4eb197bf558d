//! Community ID flow hashing, version 1 with seed 0
//! (<https://github.com/corelight/community-id-spec>).
//!
//! The same string that Zeek, Suricata and Wireshark compute for a flow,
//! whichever end they saw it from.

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// One end of a flow: its address, and its port where its protocol has ports.
pub type FlowEnd = (IpAddr, Option<u16>);

/// The Community ID of a flow of IANA protocol number `protocol`.
///
/// `None` where it cannot be told: the ends are of two address families, a port
/// that the protocol has is not known, or the protocol is ICMP, whose ID is
/// made from the type and code of each message, which a socket does not have.
/// v4-mapped addresses are taken as IPv4, as they are on the wire.
pub fn community_id(protocol: u8, source: FlowEnd, destination: FlowEnd) -> Option<String> {
    const ICMP: u8 = 1;
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const ICMPV6: u8 = 58;
    const SCTP: u8 = 132;

    // Version 1 of the specification takes the ports of these three alone.
    let ports = match protocol {
        ICMP | ICMPV6 => return None,
        TCP | UDP | SCTP => Some((source.1?, destination.1?)),
        _ => None,
    };
    let (source, destination) = (source.0.to_canonical(), destination.0.to_canonical());
    if source.is_ipv4() != destination.is_ipv4() {
        return None;
    }
    let port = |pick: fn((u16, u16)) -> u16| ports.map(pick);
    let mut first = (source, port(|ports| ports.0));
    let mut second = (destination, port(|ports| ports.1));
    if first > second {
        std::mem::swap(&mut first, &mut second);
    }

    let mut hash = Sha1::new();
    hash.update([0, 0]); // seed
    for (ip, _) in [first, second] {
        match ip {
            IpAddr::V4(ip) => hash.update(ip.octets()),
            IpAddr::V6(ip) => hash.update(ip.octets()),
        }
    }
    hash.update([protocol, 0]);
    for port in [first.1, second.1].into_iter().flatten() {
        hash.update(port.to_be_bytes());
    }
    let mut id = String::with_capacity(30);
    id.push_str("1:");
    STANDARD.encode_string(hash.finalize(), &mut id);
    Some(id)
}

/// Whether `text` has the form of a version 1 Community ID.
pub fn is_community_id(text: &str) -> bool {
    text.strip_prefix("1:")
        .and_then(|digest| STANDARD.decode(digest).ok())
        .is_some_and(|digest| digest.len() == 20)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn end(ip: &str, port: Option<u16>) -> FlowEnd {
        (ip.parse().unwrap(), port)
    }

    /// The specification's own vectors:
    /// <https://github.com/corelight/community-id-spec/blob/master/baseline/baseline_deflt.json>
    #[rstest]
    #[case(
        6,
        "128.232.110.120",
        Some(34855),
        "66.35.250.204",
        Some(80),
        "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
    )]
    #[case(
        6,
        "2001:470:e5bf:dead:4957:2174:e82c:4887",
        Some(63943),
        "2607:f8b0:400c:c03::1a",
        Some(25),
        "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="
    )]
    #[case(
        17,
        "192.168.1.52",
        Some(54585),
        "8.8.8.8",
        Some(53),
        "1:d/FP5EW3wiY1vCndhwleRRKHowQ="
    )]
    #[case(
        132,
        "192.168.170.8",
        Some(7),
        "192.168.170.56",
        Some(7),
        "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="
    )]
    #[case(
        46,
        "10.1.12.1",
        None,
        "10.1.12.2",
        None,
        "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="
    )]
    fn vectors(
        #[case] protocol: u8,
        #[case] source: &str,
        #[case] source_port: Option<u16>,
        #[case] destination: &str,
        #[case] destination_port: Option<u16>,
        #[case] id: &str,
    ) {
        let (a, b) = (end(source, source_port), end(destination, destination_port));
        assert_eq!(community_id(protocol, a, b).as_deref(), Some(id));
        assert_eq!(community_id(protocol, b, a).as_deref(), Some(id));
        assert!(is_community_id(id));
    }

    #[test]
    fn v4_mapped_is_ipv4() {
        assert_eq!(
            community_id(
                6,
                end("::ffff:128.232.110.120", Some(34855)),
                end("::ffff:66.35.250.204", Some(80))
            )
            .as_deref(),
            Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg=")
        );
    }

    #[test]
    fn no_id_where_it_cannot_be_told() {
        let (v4, v6) = (end("10.0.0.1", Some(1)), end("fe80::1", Some(1)));
        assert_eq!(community_id(6, v4, v6), None);
        assert_eq!(community_id(6, v4, end("10.0.0.2", None)), None);
        assert_eq!(community_id(1, v4, v4), None);
        assert_eq!(community_id(58, v6, v6), None);
    }

    #[rstest]
    #[case("1:LQU9qZlK+B5F3KDmev6m5PMibrg")]
    #[case("2:LQU9qZlK+B5F3KDmev6m5PMibrg=")]
    #[case("1:443")]
    #[case("1::2")]
    #[case("")]
    fn not_community_ids(#[case] text: &str) {
        assert!(!is_community_id(text));
    }

    proptest! {
        #[test]
        fn both_directions_agree(
            protocol: u8,
            a: (std::net::Ipv4Addr, u16),
            b: (std::net::Ipv4Addr, u16),
        ) {
            let (a, b) = ((IpAddr::V4(a.0), Some(a.1)), (IpAddr::V4(b.0), Some(b.1)));
            let id = community_id(protocol, a, b);
            prop_assert_eq!(&id, &community_id(protocol, b, a));
            prop_assert!(id.is_none_or(|id| is_community_id(&id)));
        }
    }
}

//! What the kernel says of a socket: its kind, its ends, its counters.

use procid_common::{
    offsets::ABSENT,
    socket::{
        Address, Counts, SocketKind, SocketTag, V4_MAPPED,
        flags::{RECEIVED_UNKNOWN, SENT_UNKNOWN, WITHHELD},
    },
};

use crate::kernel::{Kptr, offset};

pub(crate) const AF_UNSPEC: u16 = 0;
pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
pub(crate) const AF_PACKET: u16 = 17;
pub(crate) const SOCK_STREAM: u16 = 1;
pub(crate) const SOCK_RAW: u16 = 3;
pub(crate) const IPPROTO_ICMP: u16 = 1;
pub(crate) const IPPROTO_ICMPV6: u16 = 58;
pub(crate) const IPPROTO_TCP: u16 = 6;
pub(crate) const IPPROTO_UDP: u16 = 17;
pub(crate) const IPPROTO_DCCP: u16 = 33;
pub(crate) const IPPROTO_SCTP: u16 = 132;
pub(crate) const IPPROTO_UDPLITE: u16 = 136;
pub(crate) const IPPROTO_MPTCP: u16 = 262;
pub(crate) const TCP_ESTABLISHED: u8 = 1;
pub(crate) const TCP_SYN_SENT: u8 = 2;
pub(crate) const TCP_SYN_RECV: u8 = 3;
pub(crate) const TCP_CLOSE: u8 = 7;
pub(crate) const TCP_LISTEN: u8 = 10;
/// Bit of `sk_flags`: the peer's FIN has come.
/// <https://github.com/torvalds/linux/blob/v6.12/include/net/sock.h#L923>
const SOCK_DONE: u64 = 1 << 1;

/// A v4 address in network order, v4-mapped.
#[inline(always)]
pub(crate) fn mapped(v4: u32) -> Address {
    let [a, b, c, d] = v4.to_ne_bytes();
    let mut address = [0; 16];
    address[..12].copy_from_slice(&V4_MAPPED);
    address[12] = a;
    address[13] = b;
    address[14] = c;
    address[15] = d;
    address
}

/// Whether this is 0.0.0.0 or `::`, which reach this host itself.
#[inline(always)]
pub(crate) fn is_any(address: &Address) -> bool {
    *address == [0; 16] || *address == mapped(0)
}

/// Four words in network order, as the context of the v6 hooks has them.
#[inline(always)]
pub(crate) fn from_words(words: [u32; 4]) -> Address {
    let mut address = [0; 16];
    address[0..4].copy_from_slice(&words[0].to_ne_bytes());
    address[4..8].copy_from_slice(&words[1].to_ne_bytes());
    address[8..12].copy_from_slice(&words[2].to_ne_bytes());
    address[12..16].copy_from_slice(&words[3].to_ne_bytes());
    address
}

/// Reads of a `struct sock` by address.
impl Kptr {
    #[inline(always)]
    pub(crate) fn sock_family(self) -> u16 {
        self.read(offset!(sock_family)).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn sock_protocol(self) -> u16 {
        self.read(offset!(sock_protocol)).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn sock_state(self) -> u8 {
        self.read(offset!(sock_state)).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn sock_kind(self) -> SocketKind {
        SocketKind {
            family: self.sock_family(),
            sock_type: self.read(offset!(sock_type)).unwrap_or(0),
            protocol: self.sock_protocol(),
            reserved: 0,
        }
    }

    /// 0 where the kernel has given the socket no cookie yet.
    #[inline(always)]
    pub(crate) fn sock_cookie(self) -> u64 {
        self.read(offset!(sock_cookie)).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn sock_netns(self) -> u32 {
        self.follow(offset!(sock_net))
            .and_then(|net| net.read(offset!(net_inum)))
            .unwrap_or(0)
    }

    /// The address and port (host order) the socket has; zero where not bound.
    #[inline(always)]
    pub(crate) fn sock_source(self) -> (Address, u32) {
        let address = if self.sock_family() == AF_INET6 {
            self.read(offset!(sock_v6_rcv_saddr)).unwrap_or([0; 16])
        } else {
            match self.read::<u32>(offset!(sock_rcv_saddr)) {
                None | Some(0) => [0; 16],
                Some(v4) => mapped(v4),
            }
        };
        // A closing TCP socket has given its port back (skc_num is 0) and
        // keeps the number in inet_sport, in network order.
        let mut port = u32::from(self.read::<u16>(offset!(sock_num)).unwrap_or(0));
        if port == 0 {
            port = u32::from(u16::from_be(
                self.read::<u16>(offset!(inet_sport)).unwrap_or(0),
            ));
        }
        (address, port)
    }

    #[inline(always)]
    pub(crate) fn sock_destination(self) -> (Address, u32) {
        let address = if self.sock_family() == AF_INET6 {
            self.read(offset!(sock_v6_daddr)).unwrap_or([0; 16])
        } else {
            match self.read::<u32>(offset!(sock_daddr)) {
                None | Some(0) => [0; 16],
                Some(v4) => mapped(v4),
            }
        };
        let port = u16::from_be(self.read::<u16>(offset!(sock_dport)).unwrap_or(0));
        (address, u32::from(port))
    }

    /// Whether this is a subflow of an MPTCP connection.
    #[inline(always)]
    pub(crate) fn sock_is_subflow(self) -> bool {
        let mptcp = offset!(tcp_is_mptcp);
        mptcp != ABSENT as usize
            && self.sock_protocol() == IPPROTO_TCP
            && self.read::<u8>(mptcp).unwrap_or(0) != 0
    }

    /// Whether the kernel, not a process, made this socket. The subflows of an
    /// MPTCP connection carry the kernel's flag and are a process's all the
    /// same: their creation is part of its connect.
    #[inline(always)]
    pub(crate) fn sock_is_kernels(self) -> bool {
        self.bit(offset!(sock_kern)).unwrap_or(false) && !self.sock_is_subflow()
    }

    /// Where an MPTCP socket speaks: its first subflow; else the socket itself.
    #[inline(always)]
    pub(crate) fn sock_on_the_wire(self) -> Self {
        let first = offset!(mptcp_first);
        if self.sock_protocol() == IPPROTO_MPTCP && first != ABSENT as usize {
            self.follow(first).unwrap_or(self)
        } else {
            self
        }
    }
}

/// The bytes of flow `primary` so far.
///
/// Of TCP they are the kernel's own counters. `bytes_sent` counts segments,
/// again when they are sent again, which `bytes_retrans` counts too; the SYN
/// and the FIN are in neither. `bytes_received` has the peer's FIN in it.
///
/// - <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp_output.c#L1500>
/// - <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp_input.c#L3650>
#[inline(always)]
pub(crate) fn counts(sk: Kptr, tag: &SocketTag) -> Counts {
    let mut counts = Counts {
        sent: tag.sent,
        received: tag.received,
        flow: tag.primary,
        flags: tag.flags & (SENT_UNKNOWN | RECEIVED_UNKNOWN),
    };
    match sk.sock_protocol() {
        IPPROTO_TCP => {
            // The kernel counts what it hands on, whether it leaves or not.
            counts.flags = if tag.flags & WITHHELD == 0 {
                0
            } else {
                SENT_UNKNOWN
            };
            let sent: u64 = sk.read(offset!(tcp_bytes_sent)).unwrap_or(0);
            let again: u64 = sk.read(offset!(tcp_bytes_retrans)).unwrap_or(0);
            let received: u64 = sk.read(offset!(tcp_bytes_received)).unwrap_or(0);
            let bits: u64 = sk.read(offset!(sock_flags)).unwrap_or(0);
            let fin = u64::from(bits & SOCK_DONE != 0);
            counts.sent = sent.wrapping_sub(again);
            counts.received = received.wrapping_sub(fin);
        }
        IPPROTO_MPTCP => {
            let absent = ABSENT as usize;
            if offset!(mptcp_bytes_sent) == absent || offset!(mptcp_bytes_received) == absent {
                counts.flags = SENT_UNKNOWN | RECEIVED_UNKNOWN;
            } else {
                counts.flags = 0;
                counts.sent = sk.read(offset!(mptcp_bytes_sent)).unwrap_or(0);
                counts.received = sk.read(offset!(mptcp_bytes_received)).unwrap_or(0);
            }
        }
        _ => {}
    }
    counts
}

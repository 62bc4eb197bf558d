//! The kernel's numbers in the words that records use.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv6Addr},
};

use procid_common::socket::Address;

/// `IPPROTO_MPTCP`: the kernel's own number, which no packet carries.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/in.h#L86>
const MPTCP: u16 = 262;

/// The word of `network.transport` for a socket's protocol number; `None` where
/// the schema has no word for it.
pub fn transport(protocol: u16) -> Option<&'static str> {
    Some(match protocol {
        1 => "icmp",
        6 | MPTCP => "tcp",
        17 => "udp",
        33 => "dccp",
        58 => "ipv6-icmp",
        132 => "sctp",
        136 => "udplite",
        _ => return None,
    })
}

/// The number IANA gave the protocol a socket puts on the wire. `None` for
/// numbers that name none: 0 ("any", to a socket) and 255 (the application
/// writes the IP header itself).
pub fn iana_number(protocol: u16) -> Option<u8> {
    match protocol {
        MPTCP => Some(6),
        0 | 255 => None,
        other => u8::try_from(other).ok(),
    }
}

/// The word of `procid.socket.type` for the `SOCK_*` number of an internet socket.
pub fn socket_type(sock_type: u16) -> Option<&'static str> {
    Some(match i32::from(sock_type) {
        libc::SOCK_STREAM => "stream",
        libc::SOCK_DGRAM => "dgram",
        libc::SOCK_RAW => "raw",
        libc::SOCK_SEQPACKET => "seqpacket",
        libc::SOCK_DCCP => "dccp",
        _ => return None,
    })
}

/// Every TCP state's name, by the kernel's number.
/// <https://github.com/torvalds/linux/blob/v6.12/include/net/tcp_states.h#L12>
const TCP_STATES: [(u32, &str); 13] = [
    (1, "ESTABLISHED"),
    (2, "SYN_SENT"),
    (3, "SYN_RECV"),
    (4, "FIN_WAIT1"),
    (5, "FIN_WAIT2"),
    (6, "TIME_WAIT"),
    (7, "CLOSE"),
    (8, "CLOSE_WAIT"),
    (9, "LAST_ACK"),
    (10, "LISTEN"),
    (11, "CLOSING"),
    (12, "NEW_SYN_RECV"),
    (13, "BOUND_INACTIVE"),
];

/// The kernel's name of a TCP state, without its prefix `TCP_`.
pub fn tcp_state(state: u32) -> Option<&'static str> {
    TCP_STATES
        .iter()
        .find(|&&(number, _)| number == state)
        .map(|&(_, name)| name)
}

/// Names of all TCP states, as [`tcp_state`] gives them.
pub fn tcp_states() -> impl Iterator<Item = &'static str> {
    TCP_STATES.iter().map(|&(_, name)| name)
}

/// The word of `network.type`; a v4-mapped address is IPv4.
pub fn network_type(address: IpAddr) -> &'static str {
    match address.to_canonical() {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

/// An address as the kernel side keeps it, a v4-mapped one unwrapped.
pub fn address(bytes: Address) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

macro_rules! errno_names {
    ($($name:ident)*) => {
        /// The name of an errno; its number as text where it has none here.
        pub fn errno(number: i32) -> Cow<'static, str> {
            match number {
                $(libc::$name => Cow::Borrowed(stringify!($name)),)*
                other => Cow::Owned(other.to_string()),
            }
        }

        #[cfg(test)]
        const ERRNOS: &[(i32, &str)] = &[$((libc::$name, stringify!($name))),*];
    };
}

errno_names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
    ELOOP ENODATA ETIME ENOSR ENOLINK EPROTO EMULTIHOP EBADMSG EOVERFLOW EUSERS ENOTSOCK
    EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP
    EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET
    ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EREMOTEIO EDQUOT ECANCELED
    ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(libc::IPPROTO_TCP, Some("tcp"), Some(6))]
    #[case(libc::IPPROTO_MPTCP, Some("tcp"), Some(6))]
    #[case(libc::IPPROTO_UDP, Some("udp"), Some(17))]
    #[case(libc::IPPROTO_UDPLITE, Some("udplite"), Some(136))]
    #[case(libc::IPPROTO_ICMP, Some("icmp"), Some(1))]
    #[case(libc::IPPROTO_ICMPV6, Some("ipv6-icmp"), Some(58))]
    #[case(libc::IPPROTO_SCTP, Some("sctp"), Some(132))]
    #[case(libc::IPPROTO_DCCP, Some("dccp"), Some(33))]
    #[case(89, None, Some(89))] // OSPF over a raw socket
    #[case(libc::IPPROTO_RAW, None, None)]
    #[case(libc::IPPROTO_IP, None, None)]
    #[case(300, None, None)]
    fn protocols(#[case] number: i32, #[case] word: Option<&str>, #[case] iana: Option<u8>) {
        let number = u16::try_from(number).unwrap();
        assert_eq!((transport(number), iana_number(number)), (word, iana));
    }

    #[rstest]
    #[case(1, Some("stream"))]
    #[case(2, Some("dgram"))]
    #[case(3, Some("raw"))]
    #[case(4, None)]
    #[case(5, Some("seqpacket"))]
    fn socket_types(#[case] number: u16, #[case] word: Option<&str>) {
        assert_eq!(socket_type(number), word);
    }

    #[test]
    fn tcp_state_names() {
        assert_eq!(tcp_state(1), Some("ESTABLISHED"));
        assert_eq!(tcp_state(13), Some("BOUND_INACTIVE"));
        assert_eq!(tcp_state(0), None);
        assert_eq!(tcp_state(14), None);
    }

    #[test]
    fn addresses() {
        let mapped = address([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 5]);
        assert_eq!(mapped.to_string(), "10.0.0.5");
        assert_eq!(network_type(mapped), "ipv4");
        assert_eq!(network_type("::ffff:10.0.0.5".parse().unwrap()), "ipv4");
        let loopback = address([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(loopback.to_string(), "::1");
        assert_eq!(network_type(loopback), "ipv6");
    }

    #[test]
    fn errno_names_are_the_kernels() {
        assert_eq!(errno(111), "ECONNREFUSED");
        assert_eq!(errno(113), "EHOSTUNREACH");
        assert_eq!(errno(11), "EAGAIN");
        assert_eq!(errno(512), "512"); // ERESTARTSYS, which no process sees
        for &(number, name) in ERRNOS {
            assert_eq!(errno(number), name);
        }
    }
}

//! Every way out: one act of each kind, with an other end in a process of its
//! own, and one line a flow and user that says what both have counted.
//!
//! | module | ways |
//! | --- | --- |
//! | [`tcp`], [`udp`] | those protocols and their relatives |
//! | [`udp_many`] | one datagram socket and several destinations |
//! | [`uring`], [`int80`] | other ways into the kernel |
//! | [`mover`], [`udp_mover`] | means of moving bytes |
//! | [`raw`], [`packet`], [`xdp`] | packets written by the program |
//! | [`messages`] | SCTP and DCCP |
//! | [`route`] | source routing |
//! | [`subflow`] | a second path of MPTCP |
//! | [`others`] | vsock, SMC, RxRPC |

mod absent;
mod cmsg;
mod craft;
mod int80;
mod messages;
mod mover;
mod netns;
mod others;
mod packet;
mod payload;
mod peer;
mod peer_program;
mod raw;
mod route;
mod socket;
mod subflow;
mod tcp;
mod tls;
mod told;
mod udp;
mod udp_many;
mod udp_mover;
mod uring;
mod xdp;

use anyhow::Result;
use clap::ValueEnum;
use procid_tests::truth::print_line;

use self::{
    absent::Absent,
    mover::Means,
    payload::Load,
    tcp::{FastOpen, LOOPBACK, LOOPBACK_V6, at},
    udp::Dial,
};
pub(crate) use peer_program::PeerProgram;

#[derive(Debug, clap::Args)]
pub(crate) struct Way {
    #[arg(value_enum)]
    name: Name,
    /// Payload to send
    #[arg(long, default_value_t = 5)]
    bytes: u64,
    /// Receive them instead, after asking with one byte
    #[arg(long)]
    download: bool,
    /// Destinations of a scan
    #[arg(long, default_value_t = 2000)]
    count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Tcp,
    TcpV6,
    TcpMapped,
    TcpFastopenSendto,
    TcpFastopenConnect,
    TcpTwice,
    TcpAfterFailure,
    TcpAny,
    TcpAnyV6,
    Mptcp,
    MptcpSecondSubflow,
    Udp,
    UdpV6,
    UdpConnected,
    UdpMapped,
    UdpSendmmsg,
    UdpRedial,
    UdpOverride,
    UdpUnspec,
    UdpAny,
    UdpAnyV6,
    UdpNamelessReceive,
    UdpScan,
    Udplite,
    UdpliteConnected,
    UringConnect,
    UringAsync,
    UringSqpoll,
    UringRegistered,
    UringPersonality,
    UringSendUdp,
    RawIcmp,
    RawIcmpConnected,
    RawUdp,
    RawHdrincl,
    Ping,
    PingV6,
    Packet,
    PacketRaw,
    PacketRing,
    Xdp,
    Sctp,
    SctpSeqpacket,
    Dccp,
    Tls,
    RouteLsrr,
    RouteSsrr,
    RouteLsrrCmsg,
    RouteRthdr,
    RouteRthdrCmsg,
    Rxrpc,
    Smc,
    Vsock,
    Int80,
    Zerocopy,
    ZerocopyUdp,
    BytesWrite,
    BytesSendmsg,
    BytesSendmmsg,
    BytesRecvmmsg,
    BytesSendfile,
    BytesSpliceOut,
    BytesSpliceIn,
    BytesUring,
    BytesUringZc,
    BytesUdp,
    BytesUdpSendfile,
    BytesPeek,
    BytesUnread,
}

impl Way {
    pub(crate) fn run(self) -> Result<()> {
        match self.act() {
            Err(error) => match error.downcast::<Absent>() {
                Ok(absent) => Ok(print_line(&absent.line())?),
                Err(error) => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    fn act(&self) -> Result<()> {
        let load = Load::new(self.bytes, self.download);
        let down = Load::new(self.bytes, true);
        let same = |address| address;
        match self.name {
            Name::Tcp => tcp::plain(LOOPBACK, same, load),
            Name::TcpV6 => tcp::plain(LOOPBACK_V6, same, load),
            Name::TcpMapped => tcp::plain(LOOPBACK, at("::ffff:127.0.0.1")?, load),
            Name::TcpFastopenSendto => tcp::fast_open(FastOpen::Sendto, load),
            Name::TcpFastopenConnect => tcp::fast_open(FastOpen::Connect, load),
            Name::TcpTwice => tcp::twice(load),
            Name::TcpAfterFailure => tcp::after_failure(load),
            Name::TcpAny => tcp::plain(LOOPBACK, at("0.0.0.0")?, load),
            Name::TcpAnyV6 => tcp::plain(LOOPBACK_V6, at("::")?, load),
            Name::Mptcp => tcp::multipath(load),
            Name::MptcpSecondSubflow => subflow::second(load),
            Name::Rxrpc => others::over_rxrpc(load),
            Name::Smc => others::over_smc(load),
            Name::Vsock => others::over_vsock(load),
            Name::Udp => udp::plain(LOOPBACK, same, load),
            Name::UdpV6 => udp::plain(LOOPBACK_V6, same, load),
            Name::UdpConnected => udp::to_one(libc::IPPROTO_UDP, Dial::Connected, load),
            Name::UdpSendmmsg => udp_many::sendmmsg(load),
            Name::UdpRedial => udp_many::redial(load),
            Name::UdpOverride => udp_many::overridden(load),
            Name::UdpUnspec => udp_many::unspecified_family(load),
            Name::UdpNamelessReceive => udp::nameless(load),
            Name::UdpScan => udp_many::scan(self.count, load),
            Name::Udplite => udp::to_one(libc::IPPROTO_UDPLITE, Dial::Unconnected, load),
            Name::UdpliteConnected => udp::to_one(libc::IPPROTO_UDPLITE, Dial::Connected, load),
            Name::UringConnect => uring::over_tcp(uring::Manner::Inline, load),
            Name::UringAsync => uring::over_tcp(uring::Manner::Async, load),
            Name::UringSqpoll => uring::over_tcp(uring::Manner::Sqpoll, load),
            Name::UringRegistered => uring::over_tcp(uring::Manner::Registered, load),
            Name::UringPersonality => uring::over_tcp(uring::Manner::Personality, load),
            Name::UringSendUdp => uring::over_udp(load),
            Name::Int80 => int80::over_tcp(load),
            Name::Zerocopy => mover::over_tcp(Means::Zerocopy, load),
            Name::ZerocopyUdp => udp_mover::over_udp(udp_mover::Means::Zerocopy, load),
            Name::BytesWrite => mover::over_tcp(Means::Write, load),
            Name::BytesSendmsg => mover::over_tcp(Means::Sendmsg, load),
            Name::BytesSendmmsg => udp_mover::over_udp(udp_mover::Means::Batch, load),
            // These, and splice from the socket, only receive.
            Name::BytesRecvmmsg => udp_mover::over_udp(udp_mover::Means::Batch, down),
            Name::BytesPeek => udp_mover::over_udp(udp_mover::Means::Peek, down),
            Name::BytesSendfile => mover::over_tcp(Means::Sendfile, load),
            Name::BytesSpliceOut => mover::over_tcp(Means::SpliceOut, load),
            Name::BytesSpliceIn => mover::over_tcp(Means::SpliceIn, down),
            Name::BytesUring => mover::over_tcp(Means::Uring, load),
            Name::BytesUringZc => mover::over_tcp(Means::UringZc, load),
            Name::BytesUdp => udp_mover::over_udp(udp_mover::Means::Send, load),
            Name::BytesUdpSendfile => udp_mover::over_udp(udp_mover::Means::Sendfile, load),
            Name::BytesUnread => mover::unread(load),
            Name::UdpMapped => udp::plain(LOOPBACK, at("::ffff:127.0.0.1")?, load),
            Name::UdpAny => udp::plain(LOOPBACK, at("0.0.0.0")?, load),
            Name::UdpAnyV6 => udp::plain(LOOPBACK_V6, at("::")?, load),
            Name::RawIcmp => raw::icmp(raw::Icmp::Unconnected, load),
            Name::RawIcmpConnected => raw::icmp(raw::Icmp::Connected, load),
            Name::Packet => packet::plain(libc::SOCK_DGRAM, load),
            Name::RawUdp => raw::udp(raw::Header::Kernel, load),
            Name::RawHdrincl => raw::udp(raw::Header::Program, load),
            Name::Ping => raw::ping(4, load),
            Name::PingV6 => raw::ping(6, load),
            Name::PacketRing => packet::ring(load),
            Name::Xdp => xdp::one(load),
            Name::Sctp => messages::connected(messages::Protocol::Sctp, load),
            Name::SctpSeqpacket => messages::one_to_many(load),
            Name::Dccp => messages::connected(messages::Protocol::Dccp, load),
            Name::Tls => tcp::encrypted(load),
            Name::RouteLsrr => route::by_option(route::LOOSE, load),
            Name::RouteSsrr => route::by_option(route::STRICT, load),
            Name::RouteLsrrCmsg => route::by_message(load),
            Name::RouteRthdr => route::by_header_option(load),
            Name::RouteRthdrCmsg => route::by_header_message(load),
            Name::PacketRaw => packet::plain(libc::SOCK_RAW, load),
        }
    }
}

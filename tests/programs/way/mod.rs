//! Every way out: one act of each kind, with an other end in a process of its
//! own, and one line a flow and user that says what both have counted.
//!
//! | module | ways |
//! | --- | --- |
//! | [`tcp`], [`udp`] | those protocols and their relatives |
//! | [`raw`], [`packet`] | packets written by the program |

mod absent;
mod cmsg;
mod craft;
mod netns;
mod packet;
mod payload;
mod peer;
mod peer_program;
mod raw;
mod socket;
mod tcp;
mod tls;
mod told;
mod udp;

use anyhow::Result;
use clap::ValueEnum;
use procid_tests::truth::print_line;

use self::{
    absent::Absent,
    payload::Load,
    tcp::{FastOpen, LOOPBACK, LOOPBACK_V6, at},
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
    Udp,
    UdpV6,
    UdpConnected,
    UdpMapped,
    UdpAny,
    UdpAnyV6,
    RawIcmp,
    RawIcmpConnected,
    Packet,
    PacketRaw,
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
            Name::Udp => udp::plain(LOOPBACK, same, load),
            Name::UdpV6 => udp::plain(LOOPBACK_V6, same, load),
            Name::UdpConnected => udp::connected(load),
            Name::UdpMapped => udp::plain(LOOPBACK, at("::ffff:127.0.0.1")?, load),
            Name::UdpAny => udp::plain(LOOPBACK, at("0.0.0.0")?, load),
            Name::UdpAnyV6 => udp::plain(LOOPBACK_V6, at("::")?, load),
            Name::RawIcmp => raw::icmp(raw::Icmp::Unconnected, load),
            Name::RawIcmpConnected => raw::icmp(raw::Icmp::Connected, load),
            Name::Packet => packet::plain(libc::SOCK_DGRAM, load),
            Name::PacketRaw => packet::plain(libc::SOCK_RAW, load),
        }
    }
}

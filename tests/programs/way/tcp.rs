//! TCP, and what speaks like it.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context as _, Result, bail, ensure};
use procid_tests::{truth::print_line, way::Flow};
use rustix::{
    io::Errno,
    net::{
        RecvFlags, SendFlags, Shutdown, bind, connect, connect_unspec, recv, send, sendto, shutdown,
    },
};

use super::{
    netns,
    payload::{Load, receive_all, send_all},
    peer::{Counts, Peer, Spec},
    socket::{family_number, set, socket, tcp},
    tls,
    told::{on_the_wire, opened},
};

pub(crate) const LOOPBACK: &str = "127.0.0.1:0";
pub(crate) const LOOPBACK_V6: &str = "[::1]:0";

/// The rest of a connection of which `already` bytes were sent by the act
/// itself, and the end of the socket and of the peer.
pub(crate) fn converse(
    socket: OwnedFd,
    already: u64,
    load: Load,
    flow: Flow,
    peer: Peer,
) -> Result<()> {
    let counts = talk(&socket, already, load)?;
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

/// Sends and receives with send(2) and recv(2).
pub(crate) fn talk(socket: impl AsFd, already: u64, load: Load) -> Result<Counts> {
    let sent = send_all(already, load.up, |part| {
        send(&socket, part, SendFlags::NOSIGNAL)
    })?;
    shutdown(&socket, Shutdown::Write)?;
    let received = receive_all(load.down, |buffer| {
        recv(&socket, buffer, RecvFlags::empty()).map(|(length, _)| length)
    })?;
    Ok(Counts {
        sent: sent + already,
        received,
    })
}

/// Listening there, asked for as `ask` says.
pub(crate) fn plain(at: &str, ask: impl Fn(SocketAddr) -> SocketAddr, load: Load) -> Result<()> {
    let peer = Spec::stream(at.parse()?, load).start()?;
    let to = ask(peer.address);
    let socket = tcp(to)?;
    connect(&socket, &to)?;
    let mut flow = opened(&socket, Some(to))?;
    if to.ip().to_canonical() != peer.address.ip() {
        flow = on_the_wire(flow, peer.address.ip());
    }
    converse(socket, 0, load, flow, peer)
}

/// The same port at another address.
pub(crate) fn at(ip: &str) -> Result<impl Fn(SocketAddr) -> SocketAddr> {
    let ip = ip.parse()?;
    Ok(move |address: SocketAddr| SocketAddr::new(ip, address.port()))
}

/// How the data of the first segment is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FastOpen {
    Sendto,
    Connect,
}

pub(crate) fn fast_open(by: FastOpen, load: Load) -> Result<()> {
    netns::enter()?;
    // Client and server, neither with a cookie, every listener.
    netns::sysctl("ipv4/tcp_fastopen", "1543")?;
    let peer = Spec::stream(LOOPBACK.parse()?, load).late().start()?;
    let socket = tcp(peer.address)?;
    let first = super::payload::part(0, load.up.min(1024) as usize);
    let already = match by {
        FastOpen::Sendto => {
            const MSG_FASTOPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
            sendto(&socket, first, MSG_FASTOPEN, &peer.address)?
        }
        FastOpen::Connect => {
            set(
                &socket,
                libc::IPPROTO_TCP,
                libc::TCP_FASTOPEN_CONNECT,
                &1_i32,
            )?;
            connect(&socket, &peer.address)?;
            send(&socket, first, SendFlags::NOSIGNAL)?
        }
    };
    let flow = opened(&socket, Some(peer.address))?;
    let counts = talk(&socket, already as u64, load)?;
    ensure!(
        info(&socket)?.tcpi_options & 32 != 0,
        "no data in the SYN (TCPI_OPT_SYN_DATA)"
    );
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

fn info(socket: &OwnedFd) -> Result<libc::tcp_info> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: zeros are a value of this plain struct.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    super::socket::result(returned as isize).context("TCP_INFO")?;
    Ok(info)
}

/// One socket, connected, let go (`AF_UNSPEC`), connected to another.
pub(crate) fn twice(load: Load) -> Result<()> {
    let first = Spec::stream(LOOPBACK.parse()?, load).start()?;
    let second = Spec::stream("127.0.0.2:0".parse()?, load).start()?;
    let socket = tcp(first.address)?;
    connect(&socket, &first.address)?;
    let flow = opened(&socket, Some(first.address))?;
    print_line(&talk(&socket, 0, load)?.of(flow))?;
    first.finish()?;
    connect_unspec(&socket)?;
    connect(&socket, &second.address)?;
    let flow = opened(&socket, Some(second.address))?;
    converse(socket, 0, load, flow, second)
}

/// One socket, refused, then connected.
pub(crate) fn after_failure(load: Load) -> Result<()> {
    let socket = tcp(LOOPBACK.parse()?)?;
    // A port that is taken, where nobody listens.
    let taken = tcp(LOOPBACK.parse()?)?;
    bind(&taken, &LOOPBACK.parse::<SocketAddr>()?)?;
    let nobody = crate::tcp::local(&taken)?;
    let refused = connect(&socket, &nobody);
    if refused != Err(Errno::CONNREFUSED) {
        refused.context("to a port where nobody listens")?;
        bail!("somebody listened");
    }
    let flow = opened(&socket, Some(nobody))?;
    print_line(&Flow {
        source: None,
        error: Some(libc::ECONNREFUSED),
        ..flow
    })?;
    let peer = Spec::stream(LOOPBACK.parse()?, load).start()?;
    connect(&socket, &peer.address)?;
    let flow = opened(&socket, Some(peer.address))?;
    converse(socket, 0, load, flow, peer)
}

/// Multipath TCP, of one path.
pub(crate) fn multipath(load: Load) -> Result<()> {
    let socket = socket(
        "MPTCP",
        family_number(LOOPBACK.parse()?),
        libc::SOCK_STREAM,
        libc::IPPROTO_MPTCP,
    )?;
    let peer = Spec::stream(LOOPBACK.parse()?, load)
        .protocol(libc::IPPROTO_MPTCP)
        .start()?;
    connect(&socket, &peer.address)?;
    let flow = opened(&socket, Some(peer.address))?;
    converse(socket, 0, load, flow, peer)
}

/// The kernel encrypts and decrypts. What that makes of the payload's length
/// is left to the kernel, so the counts are not judged.
pub(crate) fn encrypted(load: Load) -> Result<()> {
    let peer = Spec::stream(LOOPBACK.parse()?, load).tls().start()?;
    let socket = tcp(peer.address)?;
    connect(&socket, &peer.address)?;
    tls::start(&socket)?;
    let flow = opened(&socket, Some(peer.address))?;
    send_all(0, load.up, |part| send(&socket, part, SendFlags::NOSIGNAL))?;
    tls::end(&socket)?;
    receive_all(load.down, |buffer| tls::receive(&socket, buffer))?;
    drop(socket);
    print_line(&Flow {
        sent: None,
        received: None,
        ..flow
    })?;
    peer.finish()
}

//! One datagram socket and several destinations.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _},
};

use anyhow::{Result, bail, ensure};
use procid_tests::truth::print_line;
use rustix::net::{SendFlags, connect, sendto};

use super::{
    payload::{Load, part, parts},
    peer::{Counts, Spec, exchange},
    socket::{result, udp, v4},
    tcp::LOOPBACK,
    told::opened,
    udp::{by_send, by_sendto, taken},
};

/// Three destinations in one sendmmsg(2), as often as the load asks for.
pub(crate) fn sendmmsg(load: Load) -> Result<()> {
    let mut peers = Vec::new();
    for at in ["127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"] {
        peers.push(Spec::datagrams(at.parse()?).start()?);
    }
    let to: Vec<SocketAddr> = peers.iter().map(|peer| peer.address).collect();
    let socket = udp(to[0])?;
    let mut sent = 0;
    for (offset, length) in parts(load.up, 8 << 10) {
        let batch: Vec<_> = to
            .iter()
            .map(|&to| (part(offset, length), Some(to)))
            .collect();
        let lengths = batched(&socket, &batch)?;
        ensure!(lengths == vec![length; to.len()], "{lengths:?} of {length}");
        sent += length as u64;
        for peer in &mut peers {
            peer.take(offset, length)?;
        }
    }
    for mut peer in peers {
        let down = Load { up: 0, ..load };
        let counts = by_sendto(&socket, peer.address, down, &mut peer)?;
        let flow = opened(&socket, Some(peer.address))?;
        print_line(&Counts { sent, ..counts }.of(flow))?;
        peer.finish()?;
    }
    Ok(())
}

/// sendmmsg(2); the length of each message that went.
pub(crate) fn batched(
    socket: impl AsFd,
    batch: &[(&[u8], Option<SocketAddr>)],
) -> Result<Vec<usize>> {
    let mut iovecs = Vec::new();
    let mut names = Vec::new();
    for (payload, to) in batch {
        iovecs.push(libc::iovec {
            iov_base: payload.as_ptr().cast_mut().cast(),
            iov_len: payload.len(),
        });
        names.push(match to {
            None => None,
            Some(SocketAddr::V4(to)) => Some(v4(*to)),
            Some(SocketAddr::V6(_)) => bail!("IPv4 only"),
        });
    }
    let mut messages = Vec::new();
    for (iovec, name) in iovecs.iter_mut().zip(&mut names) {
        // SAFETY: zeros are a value of this plain struct.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_iov = &raw mut *iovec;
        message.msg_hdr.msg_iovlen = 1;
        if let Some(name) = name {
            message.msg_hdr.msg_name = (&raw mut *name).cast();
            message.msg_hdr.msg_namelen = size_of_val(name) as u32;
        }
        messages.push(message);
    }
    let fd = socket.as_fd().as_raw_fd();
    let count = messages.len() as u32;
    // SAFETY: all that the messages point to lives until the call returns.
    let went = result(unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), count, 0) } as isize)?;
    Ok(messages[..went]
        .iter()
        .map(|message| message.msg_len as usize)
        .collect())
}

/// Connected to one, then to another.
pub(crate) fn redial(load: Load) -> Result<()> {
    let socket = udp(LOOPBACK.parse()?)?;
    for at in ["127.0.0.1:0", "127.0.0.2:0"] {
        let mut peer = Spec::datagrams(at.parse()?).start()?;
        connect(&socket, &peer.address)?;
        let flow = opened(&socket, Some(peer.address))?;
        print_line(&by_send(&socket, load, &mut peer)?.of(flow))?;
        peer.finish()?;
    }
    Ok(())
}

/// Connected to one; sends to another, from whom it can receive nothing; then
/// to the first.
pub(crate) fn overridden(load: Load) -> Result<()> {
    let mut first = Spec::datagrams("127.0.0.1:0".parse()?).start()?;
    let mut other = Spec::datagrams("127.0.0.2:0".parse()?).start()?;
    let socket = udp(first.address)?;
    connect(&socket, &first.address)?;
    let up = Load { down: 0, ..load };
    let counts = by_sendto(&socket, other.address, up, &mut other)?;
    print_line(&counts.of(opened(&socket, Some(other.address))?))?;
    let counts = by_send(&socket, load, &mut first)?;
    print_line(&counts.of(opened(&socket, Some(first.address))?))?;
    drop(socket);
    other.finish()?;
    first.finish()
}

/// An address whose family is `AF_UNSPEC`, which UDP takes for `AF_INET`.
pub(crate) fn unspecified_family(load: Load) -> Result<()> {
    let mut peer = Spec::datagrams(LOOPBACK.parse()?).start()?;
    let SocketAddr::V4(to) = peer.address else {
        bail!("not IPv4");
    };
    let mut address = v4(to);
    address.sin_family = libc::AF_UNSPEC as u16;
    let socket = udp(peer.address)?;
    let counts = exchange(
        &mut peer,
        load,
        super::payload::PART,
        |part| {
            Ok(sendto(
                &socket,
                part,
                SendFlags::empty(),
                &super::socket::Address(address),
            )?)
        },
        || taken(&socket),
    )?;
    let flow = opened(&socket, Some(to.into()))?;
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

/// One socket, the same load to each of `count` addresses in 127.0.0.0/8, all
/// of one other end.
pub(crate) fn scan(count: u32, load: Load) -> Result<()> {
    /// Few enough for a receive buffer.
    const UNREAD: usize = 64;
    const SMALL: u64 = 1024;
    ensure!(
        load.up <= SMALL && load.down == 0 && count <= 1 << 20,
        "a scan sends at most {SMALL} bytes to each of a million"
    );
    let mut peer = Spec::datagrams("0.0.0.0:0".parse()?).start()?;
    let port = peer.address.port();
    // 127.1.0.0 and on, so that no other test's address is among them.
    let to: Vec<SocketAddr> = (0..count)
        .map(|number| (Ipv4Addr::from(0x7f01_0000 + number), port).into())
        .collect();
    let socket = udp(peer.address)?;
    let payload = part(0, load.up as usize);
    for group in to.chunks(UNREAD) {
        for to in group {
            let sent = sendto(&socket, payload, SendFlags::empty(), to)?;
            ensure!(sent == payload.len(), "{sent} bytes sent");
        }
        for _ in group {
            peer.take(0, payload.len())?;
        }
    }
    let mut flow = opened(&socket, None)?;
    drop(socket);
    flow.sent = Some(load.up);
    for to in to {
        flow.destination = Some(to);
        print_line(&flow)?;
    }
    peer.finish()
}

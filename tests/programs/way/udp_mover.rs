//! Each means of moving bytes over UDP.

use std::{
    mem::zeroed,
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Result, ensure};
use procid_tests::truth::print_line;
use rustix::{
    fs::sendfile,
    net::{RecvFlags, connect, recv, send},
};

use super::{
    mover::{Zerocopy, pattern},
    payload::{Load, PART, check, part, parts},
    peer::{Counts, Peer, Spec, exchange},
    socket::{result, udp},
    tcp::LOOPBACK,
    told::opened,
    udp::taken,
    udp_many::batched,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    Send,
    /// sendmmsg(2) and recvmmsg(2)
    Batch,
    Sendfile,
    /// Each datagram looked at (`MSG_PEEK`) before it is taken
    Peek,
    Zerocopy,
}

pub(crate) fn over_udp(means: Means, load: Load) -> Result<()> {
    let at: SocketAddr = LOOPBACK.parse()?;
    let mut peer = Spec::datagrams(at).start()?;
    let socket = udp(at)?;
    connect(&socket, &peer.address)?;
    let flow = opened(&socket, Some(peer.address))?;
    let counts = match means {
        Means::Batch => in_batches(&socket, load, &mut peer)?,
        _ => one_by_one(means, &socket, load, &mut peer)?,
    };
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

fn one_by_one(means: Means, socket: &OwnedFd, load: Load, peer: &mut Peer) -> Result<Counts> {
    /// Few enough for the pipe inside sendfile(2).
    const FEW: usize = 16 << 10;
    let file = pattern()?;
    let mut copies = match means {
        Means::Zerocopy => Some(Zerocopy::new(socket)?),
        _ => None,
    };
    let mut at = 0_u64;
    let counts = exchange(
        peer,
        load,
        FEW,
        |bytes| {
            let sent = match (means, &mut copies) {
                (Means::Sendfile, _) => {
                    let mut offset = at % 251;
                    sendfile(socket, &file, Some(&mut offset), bytes.len())?
                }
                (_, Some(copies)) => copies.send(part(at, bytes.len()))?,
                _ => send(socket, bytes, rustix::net::SendFlags::empty())?,
            };
            at += sent as u64;
            Ok(sent)
        },
        || {
            if means == Means::Peek {
                let mut buffer = [0; PART];
                let (peeked, _) = recv(socket, &mut buffer, RecvFlags::PEEK)?;
                let (message, returned) = taken(socket)?;
                ensure!(
                    buffer[..peeked] == message,
                    "another datagram than peeked at"
                );
                return Ok((message, returned));
            }
            taken(socket)
        },
    )?;
    if let Some(copies) = copies {
        copies.finish()?;
    }
    Ok(counts)
}

/// Datagrams in one batch, and their length at most: together less than a
/// receive buffer.
const BATCH: usize = 4;
const SHORT: usize = 8 << 10;

fn in_batches(socket: &OwnedFd, load: Load, peer: &mut Peer) -> Result<Counts> {
    let mut counts = Counts::default();
    let up: Vec<_> = parts(load.up, SHORT).collect();
    for batch in up.chunks(BATCH) {
        let messages: Vec<_> = batch
            .iter()
            .map(|&(offset, length)| (part(offset, length), None))
            .collect();
        let lengths = batched(socket, &messages)?;
        ensure!(lengths.len() == batch.len(), "{} of a batch", lengths.len());
        counts.sent += lengths.iter().sum::<usize>() as u64;
        for &(offset, length) in batch {
            peer.take(offset, length)?;
        }
    }
    let down: Vec<_> = parts(load.down, SHORT).collect();
    for batch in down.chunks(BATCH) {
        for &(offset, length) in batch {
            peer.give(offset, length)?;
        }
        let messages = received(socket, batch.len())?;
        for (message, &(offset, length)) in messages.iter().zip(batch) {
            ensure!(
                message.len() == length,
                "{} bytes of {length}",
                message.len()
            );
            check(offset, message)?;
            counts.received += message.len() as u64;
        }
    }
    Ok(counts)
}

/// recvmmsg(2) of so many.
fn received(socket: &OwnedFd, count: usize) -> Result<Vec<Vec<u8>>> {
    let mut buffers = vec![vec![0_u8; PART]; count];
    let mut iovecs: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        })
        .collect();
    let mut messages: Vec<_> = iovecs
        .iter_mut()
        .map(|iovec| {
            // SAFETY: zeros are a value of this plain struct.
            let mut message: libc::mmsghdr = unsafe { zeroed() };
            message.msg_hdr.msg_iov = &raw mut *iovec;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let fd = socket.as_raw_fd();
    let none = std::ptr::null_mut();
    // SAFETY: all that the messages point to lives until the call returns.
    let returned = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), count as u32, 0, none) };
    let came = result(returned as isize)?;
    ensure!(came == count, "{came} of {count} in one call");
    for (buffer, message) in buffers.iter_mut().zip(&messages) {
        buffer.truncate(message.msg_len as usize);
    }
    Ok(buffers)
}

//! Each means of moving bytes over a TCP connection.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use anyhow::{Result, ensure};
use procid_tests::{truth::print_line, way::Flow};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{MemfdFlags, memfd_create, sendfile},
    io::{Errno, IoSlice, IoSliceMut, read, write},
    net::{
        RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, connect, recv,
        recvmsg, send, sendmsg, shutdown, sockopt::socket_error,
    },
    pipe::{SpliceFlags, pipe, splice},
};

use super::{
    absent::lacking,
    payload::{Load, PART, part, receive_all, send_all},
    peer::{Counts, Spec},
    socket::{patience, result, set, tcp},
    tcp::LOOPBACK,
    told::opened,
    uring::{Manner, Ring},
};

/// How the bytes are moved; what cannot receive leaves that to recv(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    Write,
    Sendmsg,
    Sendfile,
    SpliceOut,
    SpliceIn,
    Uring,
    UringZc,
    Zerocopy,
}

pub(crate) fn over_tcp(means: Means, load: Load) -> Result<()> {
    let at: SocketAddr = LOOPBACK.parse()?;
    let peer = Spec::stream(at, load).start()?;
    let socket = tcp(at)?;
    connect(&socket, &peer.address)?;
    let flow = opened(&socket, Some(peer.address))?;
    let counts = moved(means, &socket, load)?;
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

fn moved(means: Means, socket: &OwnedFd, load: Load) -> Result<Counts> {
    let mut ring = match means {
        Means::Uring | Means::UringZc => Some(Ring::new(socket, Manner::Inline)?),
        _ => None,
    };
    let file = pattern()?;
    let (out, into) = pipe()?;
    let (mut out, mut into) = (File::from(out), File::from(into));
    let mut copies = None;
    if means == Means::Zerocopy {
        copies = Some(Zerocopy::new(socket)?);
    }
    let mut at = 0;
    let sent = send_all(0, load.up, |bytes| {
        let sent = match (means, &mut ring, &mut copies) {
            (Means::Write, ..) => write(socket, bytes)?,
            (Means::Sendmsg, ..) => {
                // In two pieces, as its users have them.
                let (one, two) = bytes.split_at(bytes.len() / 2);
                sendmsg(
                    socket,
                    &[IoSlice::new(one), IoSlice::new(two)],
                    &mut SendAncillaryBuffer::default(),
                    SendFlags::NOSIGNAL,
                )?
            }
            (Means::Sendfile, ..) => {
                let mut offset = at % PERIODS;
                sendfile(socket, &file, Some(&mut offset), bytes.len())?
            }
            (Means::SpliceOut, ..) => {
                into.write_all(bytes)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                let mut sent = 0;
                while sent < bytes.len() {
                    let rest = bytes.len() - sent;
                    sent += splice(&out, None, socket, None, rest, SpliceFlags::MOVE)?;
                }
                sent
            }
            (Means::Uring, Some(ring), _) => ring.send(bytes)?,
            (Means::UringZc, Some(ring), _) => ring.send_zc(bytes)?,
            (Means::Zerocopy, _, Some(copies)) => copies.send(bytes)?,
            _ => send(socket, bytes, SendFlags::NOSIGNAL)?,
        };
        at += sent as u64;
        Ok(sent)
    })?;
    if let Some(copies) = copies {
        copies.finish()?;
    }
    shutdown(socket, Shutdown::Write)?;
    let received = receive_all(load.down, |buffer| match (means, &mut ring) {
        (Means::Write, _) => read(socket, buffer),
        (Means::Sendmsg, _) => {
            let mut control = RecvAncillaryBuffer::default();
            let parts = &mut [IoSliceMut::new(buffer)];
            Ok(recvmsg(socket, parts, &mut control, RecvFlags::empty())?.bytes)
        }
        (Means::SpliceIn, _) => {
            let length = splice(socket, None, &into, None, PART, SpliceFlags::MOVE)?;
            out.read_exact(&mut buffer[..length])
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            Ok(length)
        }
        (Means::Uring | Means::UringZc, Some(ring)) => ring.receive(buffer),
        _ => recv(socket, buffer, RecvFlags::empty()).map(|(length, _)| length),
    })?;
    Ok(Counts { sent, received })
}

/// How much of the pattern the file below holds before it is at its beginning.
const PERIODS: u64 = 251;

/// A file of the pattern, of which any part can be sent.
pub(crate) fn pattern() -> Result<File> {
    let mut file = File::from(memfd_create("pattern", MemfdFlags::CLOEXEC)?);
    file.write_all(part(0, PART))?;
    file.write_all(part(PART as u64, PERIODS as usize))?;
    Ok(file)
}

/// A socket whose sends copy nothing (`MSG_ZEROCOPY`), and whose error queue
/// says when the kernel has let go of the memory.
#[derive(Debug)]
pub(crate) struct Zerocopy<'a> {
    socket: &'a OwnedFd,
    sends: u32,
    free: u32,
}

impl<'a> Zerocopy<'a> {
    pub(crate) fn new(socket: &'a OwnedFd) -> Result<Self> {
        set(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1_i32)
            .map_err(|error| lacking("MSG_ZEROCOPY", error, &[Errno::NOPROTOOPT]))?;
        Ok(Self {
            socket,
            sends: 0,
            free: 0,
        })
    }

    /// Sends on a connected socket. The memory is never written to again.
    pub(crate) fn send(&mut self, bytes: &'static [u8]) -> rustix::io::Result<usize> {
        const ZEROCOPY: SendFlags = SendFlags::from_bits_retain(libc::MSG_ZEROCOPY as u32);
        let sent = send(self.socket, bytes, ZEROCOPY.union(SendFlags::NOSIGNAL))?;
        self.sends += 1;
        while self.reap()? {}
        Ok(sent)
    }

    /// Waits until the kernel holds no memory any more.
    pub(crate) fn finish(mut self) -> Result<()> {
        while self.free < self.sends {
            if !self.reap()? {
                // POLLERR is always waited for.
                let mut wait = [PollFd::new(self.socket, PollFlags::empty())];
                let ready = poll(&mut wait, Some(&patience().try_into()?))?;
                ensure!(ready > 0, "{} of {} let go", self.free, self.sends);
            }
        }
        ensure!(socket_error(self.socket)?.is_ok(), "an error on the socket");
        Ok(())
    }

    /// Takes one notice, if there is one.
    fn reap(&mut self) -> rustix::io::Result<bool> {
        let mut control = [0_u64; 32];
        // SAFETY: zeros are a value of this plain struct.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        let fd = self.socket.as_fd().as_raw_fd();
        // SAFETY: the control buffer lives until the call returns.
        match result(unsafe { libc::recvmsg(fd, &raw mut message, flags) }) {
            Err(Errno::AGAIN) => return Ok(false),
            other => other?,
        };
        // SAFETY: the kernel has just filled the control buffer.
        let notice = unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            if header.is_null() {
                return Err(Errno::BADMSG);
            }
            libc::CMSG_DATA(header)
                .cast::<libc::sock_extended_err>()
                .read_unaligned()
        };
        const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
        if notice.ee_origin != SO_EE_ORIGIN_ZEROCOPY {
            return Err(Errno::BADMSG);
        }
        self.free += notice.ee_data - notice.ee_info + 1;
        Ok(true)
    }
}

/// The other end closes with everything unread, which resets the connection.
/// Sends as much as the buffers take.
pub(crate) fn unread(load: Load) -> Result<()> {
    let at: SocketAddr = LOOPBACK.parse()?;
    let mut peer = Spec::unread(at).start()?;
    let socket = tcp(at)?;
    connect(&socket, &peer.address)?;
    let flow = opened(&socket, Some(peer.address))?;
    let mut sent = 0;
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    while sent < load.up {
        let length = (load.up - sent).min(PART as u64) as usize;
        match send(&socket, part(sent, length), flags) {
            Ok(length) => sent += length as u64,
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    // What the other end has no room for was never sent for it to count.
    let settled = wait_for_acks(&socket)?;
    peer.go_on()?;
    peer.finish()?;
    let mut buffer = [0; 1];
    let reset = recv(&socket, &mut buffer, RecvFlags::empty()).map(|(length, _)| length);
    ensure!(reset == Err(Errno::CONNRESET), "{reset:?}");
    drop(socket);
    Ok(print_line(&Flow {
        sent: settled.then_some(sent),
        ..flow
    })?)
}

/// Waits until all that was sent has been acknowledged; whether it was.
fn wait_for_acks(socket: &OwnedFd) -> Result<bool> {
    for _ in 0..50 {
        let mut unsent: libc::c_int = 0;
        // SAFETY: the kernel writes one int.
        let returned = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unsent) };
        result(returned as isize)?;
        if unsent == 0 {
            return Ok(true);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(false)
}

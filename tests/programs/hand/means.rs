//! The calls that open a socket and move bytes over it.

use std::{
    fs::File,
    io::{Seek as _, Write as _, pipe},
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Result, bail, ensure};
use io_uring::{IoUring, opcode, squeue, types};
use rustix::{
    fs::{MemfdFlags, memfd_create, sendfile},
    io::{Errno, write},
    net::{
        RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, sendto, socket_with,
    },
    pipe::{SpliceFlags, splice},
};

use crate::tcp::family;

/// What an image sends, by whatever call.
pub(crate) const PAYLOAD: &[u8] = b"hello";

/// What the other end of a connection sends first.
pub(crate) const GREETING: &[u8] = b"welcome";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Means {
    Send,
    Write,
    Sendfile,
    Splice,
}

impl Means {
    /// Sends the payload and returns how much of it went, which is all.
    pub(crate) fn send(self, socket: impl AsFd) -> Result<u64> {
        let sent = match self {
            Self::Send => send(socket, PAYLOAD, SendFlags::empty())?,
            Self::Write => write(socket, PAYLOAD)?,
            Self::Sendfile => {
                let mut file = File::from(memfd_create("procid-test", MemfdFlags::CLOEXEC)?);
                file.write_all(PAYLOAD)?;
                file.rewind()?;
                sendfile(socket, &file, None, PAYLOAD.len())?
            }
            Self::Splice => {
                let (reader, mut writer) = pipe()?;
                writer.write_all(PAYLOAD)?;
                let all = PAYLOAD.len();
                splice(&reader, None, socket, None, all, SpliceFlags::empty())?
            }
        };
        whole(sent)
    }
}

fn whole(sent: usize) -> Result<u64> {
    ensure!(sent == PAYLOAD.len(), "sent {sent} bytes only");
    Ok(sent as u64)
}

/// Sends the payload to `to`.
pub(crate) fn send_to(socket: impl AsFd, to: SocketAddr) -> Result<u64> {
    whole(sendto(socket, PAYLOAD, SendFlags::empty(), &to)?)
}

/// Takes the greeting of the other end, whole.
pub(crate) fn greeted(socket: impl AsFd) -> Result<u64> {
    let mut greeting = [0; GREETING.len()];
    let (_, received) = recv(socket, &mut greeting, RecvFlags::WAITALL)?;
    ensure!(greeting == GREETING, "greeted by {received} bytes");
    Ok(received as u64)
}

pub(crate) fn new_socket(kind: SocketType, to: SocketAddr) -> Result<OwnedFd> {
    Ok(socket_with(family(to), kind, SocketFlags::CLOEXEC, None)?)
}

/// A TCP connection.
pub(crate) fn connected(to: SocketAddr) -> Result<OwnedFd> {
    let socket = new_socket(SocketType::STREAM, to)?;
    connect(&socket, &to)?;
    Ok(socket)
}

/// A ring; `None`: this kernel has none.
pub(crate) fn ring() -> Result<Option<IoUring>> {
    match IoUring::new(4) {
        Ok(ring) => Ok(Some(ring)),
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends the payload on the ring's registered socket of that number.
pub(crate) fn send_by(ring: &mut IoUring, number: u32) -> Result<u64> {
    let payload = PAYLOAD.as_ptr();
    let entry = opcode::Send::new(types::Fixed(number), payload, PAYLOAD.len() as u32).build();
    whole(done(ring, &entry)?.try_into()?)
}

/// Submits one entry, which uses no memory but constants, and waits for it.
pub(crate) fn done(ring: &mut IoUring, entry: &squeue::Entry) -> Result<i32> {
    // SAFETY: what the entry points to, if anything, lives for ever.
    unsafe { ring.submission().push(entry) }?;
    ring.submit_and_wait(1)?;
    let Some(completion) = ring.completion().next() else {
        bail!("a submission without a completion");
    };
    let result = completion.result();
    ensure!(result >= 0, Errno::from_raw_os_error(-result));
    Ok(result)
}

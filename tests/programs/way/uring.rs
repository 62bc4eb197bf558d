//! io_uring.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Result, bail};
use io_uring::{IoUring, opcode, squeue::Flags, types};
use procid_tests::truth::print_line;
use rustix::{
    io::Errno,
    net::{Shutdown, shutdown},
};

use super::{
    absent::lacking,
    payload::{Load, PART, receive_all, send_all},
    peer::{Counts, Spec, exchange},
    socket::{tcp, udp, v4},
    tcp::LOOPBACK,
    told::opened,
    udp::taken,
};

/// In which way the ring works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// In the submitter's own call, where it can be
    Inline,
    /// By a worker thread (`IOSQE_ASYNC`)
    Async,
    /// By the kernel's polling thread
    Sqpoll,
    /// On a registered descriptor
    Registered,
    /// With another user's registered credentials
    Personality,
}

/// A ring for one socket.
pub(crate) struct Ring {
    ring: IoUring,
    manner: Manner,
    personality: u16,
    fd: i32,
}

/// An entry on the socket, by descriptor or as registered.
macro_rules! entry {
    ($ring:expr, $code:ident($($argument:expr),*)) => {
        match $ring.manner {
            Manner::Registered => opcode::$code::new(types::Fixed(0), $($argument),*).build(),
            _ => opcode::$code::new(types::Fd($ring.fd), $($argument),*).build(),
        }
    };
}

impl Ring {
    pub(crate) fn new(socket: &OwnedFd, manner: Manner) -> Result<Self> {
        let mut builder = IoUring::builder();
        if manner == Manner::Sqpoll {
            builder.setup_sqpoll(100);
        }
        let ring = builder
            .build(8)
            .map_err(|error| match Errno::from_io_error(&error) {
                Some(errno) => lacking("io_uring", errno, &[Errno::NOSYS]),
                None => error.into(),
            })?;
        let fd = socket.as_raw_fd();
        let mut personality = 0;
        match manner {
            Manner::Registered => ring.submitter().register_files(&[fd])?,
            Manner::Personality => personality = another_user(&ring)?,
            Manner::Inline | Manner::Async | Manner::Sqpoll => {}
        }
        Ok(Self {
            ring,
            manner,
            personality,
            fd,
        })
    }

    pub(crate) fn connect(&mut self, to: SocketAddr) -> Result<()> {
        let SocketAddr::V4(to) = to else {
            bail!("IPv4 only");
        };
        let address = v4(to);
        let entry = entry!(
            self,
            Connect((&raw const address).cast(), size_of_val(&address) as u32)
        );
        self.done(entry)?;
        Ok(())
    }

    pub(crate) fn send(&mut self, part: &[u8]) -> rustix::io::Result<usize> {
        self.done(entry!(self, Send(part.as_ptr(), part.len() as u32)))
    }

    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        self.done(entry!(self, Recv(buffer.as_mut_ptr(), buffer.len() as u32)))
    }

    /// Sends without a copy, and waits until the buffer is free again.
    pub(crate) fn send_zc(&mut self, part: &[u8]) -> rustix::io::Result<usize> {
        self.done(entry!(self, SendZc(part.as_ptr(), part.len() as u32)))
    }

    fn send_message(&mut self, message: &libc::msghdr) -> rustix::io::Result<usize> {
        self.done(entry!(self, SendMsg(&raw const *message)))
    }

    /// Submits an entry and waits for all that it says.
    fn done(&mut self, entry: io_uring::squeue::Entry) -> rustix::io::Result<usize> {
        // The builder has set FIXED_FILE where it belongs; `flags` adds.
        let entry = match self.manner {
            Manner::Async => entry.flags(Flags::ASYNC),
            _ => entry,
        };
        let entry = entry.personality(self.personality);
        // SAFETY: what the entry points to lives until the last completion is
        // there, for which the loop below waits.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| Errno::BUSY)?;
        let mut answer = None;
        loop {
            let waited = self.ring.submit_and_wait(1);
            waited.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            while let Some(completion) = self.ring.completion().next() {
                if !io_uring::cqueue::notif(completion.flags()) {
                    answer = Some(completion.result());
                }
                if io_uring::cqueue::more(completion.flags()) {
                    continue;
                }
                if let Some(answer) = answer {
                    return usize::try_from(answer).map_err(|_| Errno::from_raw_os_error(-answer));
                }
            }
        }
    }
}

/// Registers the credentials of nobody.
fn another_user(ring: &IoUring) -> Result<u16> {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: plain system calls.
    let (there, registered, back) = unsafe {
        (
            libc::seteuid(NOBODY),
            ring.submitter().register_personality(),
            libc::seteuid(0),
        )
    };
    anyhow::ensure!(there == 0 && back == 0, "seteuid");
    Ok(registered?)
}

/// Connects, sends and receives over TCP, all by the ring.
pub(crate) fn over_tcp(manner: Manner, load: Load) -> Result<()> {
    let at: SocketAddr = LOOPBACK.parse()?;
    let socket = tcp(at)?;
    let mut ring = Ring::new(&socket, manner)?;
    let peer = Spec::stream(at, load).start()?;
    ring.connect(peer.address)?;
    let flow = opened(&socket, Some(peer.address))?;
    let sent = send_all(0, load.up, |part| ring.send(part))?;
    shutdown(&socket, Shutdown::Write)?;
    let received = receive_all(load.down, |buffer| ring.receive(buffer))?;
    // The ring holds the socket too.
    drop(ring);
    drop(socket);
    print_line(&Counts { sent, received }.of(flow))?;
    peer.finish()
}

/// Sends datagrams by the ring to where the message says.
pub(crate) fn over_udp(load: Load) -> Result<()> {
    let at: SocketAddr = LOOPBACK.parse()?;
    let socket = udp(at)?;
    let mut ring = Ring::new(&socket, Manner::Inline)?;
    let mut peer = Spec::datagrams(at).start()?;
    let SocketAddr::V4(to) = peer.address else {
        bail!("IPv4 only");
    };
    let mut name = v4(to);
    let counts = exchange(
        &mut peer,
        load,
        PART,
        |part| {
            let mut iovec = libc::iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            };
            // SAFETY: zeros are a value of this plain struct.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_name = (&raw mut name).cast();
            message.msg_namelen = size_of_val(&name) as u32;
            message.msg_iov = &raw mut iovec;
            message.msg_iovlen = 1;
            Ok(ring.send_message(&message)?)
        },
        || taken(&socket),
    )?;
    let flow = opened(&socket, Some(to.into()))?;
    drop(ring);
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

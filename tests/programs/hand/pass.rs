//! Sockets handed to another process, or taken by it.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    process::Stdio,
};

use anyhow::{Context as _, Result};
use procid_tests::truth::print_line;
use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg,
    },
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use super::{
    child::{Running, forked, spawned},
    copies::Copies,
    flow::{Used, add, opened, tell, unsupported},
    means::{Means, new_socket, ring, send_by, send_to},
    peer::Peer,
};

/// Hands `socket` over.
pub(crate) fn hand(over: &UnixStream, socket: impl AsFd) -> Result<()> {
    let sockets = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&sockets));
    sendmsg(over, &[IoSlice::new(b"!")], &mut rights, SendFlags::empty())?;
    Ok(())
}

/// Takes what was handed over; `None`: there is no more.
pub(crate) fn taken(from: &UnixStream) -> Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut rights, flags)?;
    if message.bytes == 0 {
        return Ok(None);
    }
    for right in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(mut sockets) = right {
            return Ok(sockets.next());
        }
    }
    anyhow::bail!("a message without a socket")
}

pub(crate) fn steal(pid: Pid, fd: RawFd) -> Result<OwnedFd> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?)
}

/// A copy of this program that was started before the socket it is to use was
/// made, and so has it from nobody but by its Unix socket.
struct Taker {
    running: Running,
    unix: UnixStream,
}

impl Taker {
    fn start(copies: &Copies, name: &str, arguments: &[&str]) -> Result<Self> {
        let (unix, its) = UnixStream::pair()?;
        let mut command = copies.user(name)?;
        command.args(arguments).args(["--from", "unix"]);
        let running = spawned(command.stdin(Stdio::from(OwnedFd::from(its))))?;
        Ok(Self { running, unix })
    }

    fn ended(self) -> Result<()> {
        drop(self.unix);
        self.running.ended()
    }

    /// Uses the socket, once.
    fn uses(&mut self, socket: impl AsFd) -> Result<Used> {
        hand(&self.unix, socket)?;
        self.running.line()
    }
}

pub(crate) fn tcp() -> Result<()> {
    let copies = Copies::new()?;
    let mut taker = Taker::start(&copies, "takes", &["send"])?;
    let peer = Peer::server()?;
    let (socket, flow) = peer.connection()?;
    let user = taker.uses(&socket)?;
    taker.ended()?;
    drop(socket);
    peer.agrees_with(&tell(flow, &[user])?)
}

pub(crate) fn udp() -> Result<()> {
    let peer = Peer::datagrams()?;
    let to = peer.address;
    let arguments = ["send", "--to", &to.to_string()];
    let copies = Copies::new()?;
    let mut taker = Taker::start(&copies, "takes", &arguments)?;
    let socket = new_socket(SocketType::DGRAM, to)?;
    let sent = send_to(&socket, to)?;
    let mut flow = opened(&socket, to)?;
    add(&mut flow, sent, 0);
    let user = taker.uses(&socket)?;
    taker.ended()?;
    peer.agrees_with(&tell(flow, &[user])?)
}

pub(crate) fn listener() -> Result<()> {
    let copies = Copies::new()?;
    let mut taker = Taker::start(&copies, "accepts", &["accept"])?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    hand(&taker.unix, &listener)?;
    let peer = Peer::client(listener.local_addr()?)?;
    let flow = taker.running.line()?;
    taker.ended()?;
    peer.agrees_with(&tell(flow, &[])?)
}

/// Its maker is not its opener.
pub(crate) fn unconnected() -> Result<()> {
    let peer = Peer::server()?;
    let arguments = ["connect-send", "--to", &peer.address.to_string()];
    let copies = Copies::new()?;
    let mut taker = Taker::start(&copies, "connects", &arguments)?;
    let socket = new_socket(SocketType::STREAM, peer.address)?;
    hand(&taker.unix, &socket)?;
    drop(socket);
    let flow = taker.running.line()?;
    taker.ended()?;
    peer.agrees_with(&tell(flow, &[])?)
}

/// Five turns, three images: each is told once.
pub(crate) fn relay() -> Result<()> {
    let copies = Copies::new()?;
    let mut second = Taker::start(&copies, "second", &["send"])?;
    let mut third = Taker::start(&copies, "third", &["send"])?;
    let peer = Peer::server()?;
    let (socket, mut flow) = peer.connection()?;
    let mut users = Vec::new();
    add(&mut flow, Means::Send.send(&socket)?, 0);
    users.push(second.uses(&socket)?);
    users.push(third.uses(&socket)?);
    add(&mut flow, Means::Send.send(&socket)?, 0);
    users.push(second.uses(&socket)?);
    second.ended()?;
    third.ended()?;
    drop(socket);
    peer.agrees_with(&tell(flow, &users)?)
}

pub(crate) fn theft() -> Result<()> {
    let copies = Copies::new()?;
    let peer = Peer::server()?;
    let (socket, flow) = peer.connection()?;
    if let Err(error) = steal(rustix::process::getpid(), socket.as_raw_fd()) {
        return match error.downcast_ref() {
            Some(&Errno::NOSYS) => unsupported("no pidfd_getfd (ENOSYS)"),
            _ => Err(error).context("pidfd_getfd"),
        };
    }
    let mut thief = copies.user("steals")?;
    thief
        .args(["send", "--from", "theft"])
        .args(["--pid", &std::process::id().to_string()])
        .args(["--fd", &socket.as_raw_fd().to_string()])
        .stdin(Stdio::null());
    let user = spawned(&mut thief)?.only_line()?;
    drop(socket);
    peer.agrees_with(&tell(flow, &[user])?)
}

/// One image opens, another has the ring in which the socket is registered,
/// and a third, which has the ring only, submits: the second did nothing.
pub(crate) fn ring_of_another() -> Result<()> {
    let peer = Peer::server()?;
    let (socket, flow) = peer.connection()?;
    let mut owner = forked(|| {
        let Some(mut ring) = ring()? else {
            print_line(&None::<Used>)?;
            return Ok(());
        };
        ring.submitter().register_files(&[socket.as_raw_fd()])?;
        let submitter = forked(|| {
            let sent = send_by(&mut ring, 0)?;
            Ok(print_line(&Used::now(sent, 0)?)?)
        })?;
        let user: Used = submitter.only_line()?;
        Ok(print_line(&Some(user))?)
    })?;
    let user: Option<Used> = owner.line()?;
    owner.ended()?;
    let Some(user) = user else {
        return unsupported("no io_uring (ENOSYS)");
    };
    drop(socket);
    peer.agrees_with(&tell(flow, &[user])?)
}

//! What the agent and the watchdog say to each other, over a socket that keeps
//! messages whole (`SOCK_SEQPACKET`).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Kinds of [`Order`].
pub(super) mod order {
    /// The first: the descriptor is the group, `value` the limit of an answer in
    /// nanoseconds.
    pub(in super::super) const START: u64 = 1;
    /// The execution of number `value` may go on.
    pub(in super::super) const ALLOW: u64 = 2;
    /// Mark the file system of the descriptor.
    pub(in super::super) const MARK: u64 = 3;
    /// Mark none any more.
    pub(in super::super) const UNMARK: u64 = 4;
}

/// Kinds of [`News`].
pub(super) mod news {
    /// Execution number `value` waits; the descriptor is its file.
    pub(in super::super) const WAITS: u64 = 1;
    /// The answer to the one MARK or UNMARK under way: `value` is 0 or an errno.
    pub(in super::super) const MARKED: u64 = 2;
    /// Nothing but the tally.
    pub(in super::super) const TALLY: u64 = 3;
}

/// From the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct Order {
    pub(super) kind: u64,
    pub(super) value: u64,
}

/// From the watchdog.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct News {
    pub(super) kind: u64,
    pub(super) value: u64,
    pub(super) tally: Tally,
}

/// What the watchdog has counted since it started.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub(super) struct Tally {
    /// Executions that asked.
    pub(super) events: u64,
    /// Let go on because the agent did not answer within the limit.
    pub(super) timed_out: u64,
    /// Let go on without asking the agent, which is behind.
    pub(super) passed: u64,
    /// Times that the kernel's own queue was full.
    pub(super) overflows: u64,
    /// Denied by the kernel, which could not open the file for this process.
    pub(super) unopened: u64,
}

/// Sends a message, and a descriptor with it.
///
/// # Errors
///
/// Of sendmsg(2): `EAGAIN` when it would have to wait.
pub(super) fn send<M: IntoBytes + Immutable>(
    socket: BorrowedFd<'_>,
    message: &M,
    descriptor: Option<BorrowedFd<'_>>,
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(descriptor) = &descriptor {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(
            descriptor,
        )));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(
        socket,
        &[IoSlice::new(message.as_bytes())],
        &mut control,
        flags,
    )?;
    Ok(())
}

/// Receives a message; `None` when the other side is gone.
///
/// A descriptor that found no free number here is missing.
///
/// # Errors
///
/// Of recvmsg(2), and a message of another size.
pub(super) fn receive<M: FromBytes + IntoBytes>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> io::Result<Option<(M, Option<OwnedFd>)>> {
    let mut message = M::new_zeroed();
    let bytes = message.as_mut_bytes();
    let size = bytes.len();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        flags | RecvFlags::CMSG_CLOEXEC,
    )?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match received.bytes {
        0 => Ok(None),
        len if len == size => Ok(Some((message, descriptor))),
        _ => Err(io::Error::other("a message of another size")),
    }
}

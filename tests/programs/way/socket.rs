//! Sockets, and addresses of any family.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::Result;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, Protocol, SocketFlags, SocketType,
        addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
        socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::absent::lacking;
use crate::{is_to_be_denied, tcp::family};

/// No end waits longer for the other.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(if is_to_be_denied() { 3 } else { 60 })
}

/// A socket of any kind, by the kernel's numbers; `what` it is for.
pub(crate) fn socket(what: &str, domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    let proofs = [
        Errno::AFNOSUPPORT,
        Errno::PROTONOSUPPORT,
        Errno::SOCKTNOSUPPORT,
    ];
    let socket = socket_with(
        AddressFamily::from_raw(domain as u16),
        SocketType::from_raw(kind as u32),
        SocketFlags::CLOEXEC,
        std::num::NonZeroU32::new(protocol as u32).map(Protocol::from_raw),
    )
    .map_err(|error| lacking(what, error, &proofs))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(patience()))?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience()))?;
    Ok(socket)
}

/// A TCP socket to reach `to` with.
pub(crate) fn tcp(to: SocketAddr) -> Result<OwnedFd> {
    socket("TCP", family_number(to), libc::SOCK_STREAM, 0)
}

/// A UDP socket to reach `to` with.
pub(crate) fn udp(to: SocketAddr) -> Result<OwnedFd> {
    socket("UDP", family_number(to), libc::SOCK_DGRAM, 0)
}

pub(crate) fn family_number(address: SocketAddr) -> i32 {
    i32::from(family(address).as_raw())
}

/// The result of a system call in libc's manner.
pub(crate) fn result(returned: isize) -> rustix::io::Result<usize> {
    usize::try_from(returned)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// setsockopt(2) with any value.
pub(crate) fn set<T: Copy>(
    socket: impl AsFd,
    level: i32,
    option: i32,
    value: &T,
) -> rustix::io::Result<()> {
    set_bytes(
        socket,
        level,
        option,
        (&raw const *value).cast(),
        size_of::<T>(),
    )
}

/// setsockopt(2) with a list of bytes.
pub(crate) fn set_slice(
    socket: impl AsFd,
    level: i32,
    option: i32,
    value: &[u8],
) -> rustix::io::Result<()> {
    set_bytes(socket, level, option, value.as_ptr(), value.len())
}

fn set_bytes(
    socket: impl AsFd,
    level: i32,
    option: i32,
    value: *const u8,
    length: usize,
) -> rustix::io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: both callers pass memory of that length, which the kernel only reads.
    let returned =
        unsafe { libc::setsockopt(fd, level, option, value.cast(), length as libc::socklen_t) };
    result(returned as isize).map(|_| ())
}

/// An address of a family that has no other type: one of libc's `sockaddr_*`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address<T>(pub(crate) T);

// SAFETY: the pointer is to a value that lives until `f` has returned.
unsafe impl<T: Copy> SocketAddrArg for Address<T> {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f((&raw const self.0).cast(), size_of::<T>() as SocketAddrLen)
    }
}

/// `address` in the kernel's words.
pub(crate) fn v4(address: std::net::SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

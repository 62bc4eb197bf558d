//! Messages with a control message of any kind.

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::net::addr::SocketAddrArg;

use super::socket::result;

/// sendmsg(2) with one control message: level, type and data.
pub(crate) fn send(
    socket: impl AsFd,
    to: Option<&impl SocketAddrArg>,
    payload: &[u8],
    (level, kind, data): (i32, i32, &[u8]),
) -> rustix::io::Result<usize> {
    let mut part = libc::iovec {
        iov_base: payload.as_ptr().cast_mut().cast(),
        iov_len: payload.len(),
    };
    let mut control = [0_u64; 16];
    // SAFETY: zeros are a value of this plain struct.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: arithmetic.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(data.len() as u32) } as usize;
    assert!(message.msg_controllen <= size_of_val(&control));
    // SAFETY: the control buffer is aligned and, as asserted, long enough.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(data.len() as u32) as usize;
        libc::CMSG_DATA(header).copy_from_nonoverlapping(data.as_ptr(), data.len());
    }
    let fd = socket.as_fd().as_raw_fd();
    let Some(to) = to else {
        // SAFETY: all that the message points to lives until the call returns.
        return result(unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL) });
    };
    // SAFETY: the address too, inside the closure.
    unsafe {
        to.with_sockaddr(|address, length| {
            message.msg_name = address.cast_mut().cast();
            message.msg_namelen = length;
            result(libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL))
        })
    }
}

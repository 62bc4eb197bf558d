//! TLS in the kernel, with keys that both ends know.

use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::Result;
use rustix::io::Errno;

use super::{
    absent::lacking,
    socket::{result, set, set_slice},
};

const TCP_ULP: i32 = 31;
const TLS_GET_RECORD_TYPE: i32 = 2;
const TLS_1_2_VERSION: u16 = 0x0303;
const TLS_CIPHER_AES_GCM_128: u16 = 51;

/// `struct tls12_crypto_info_aes_gcm_128`
#[repr(C)]
#[derive(Clone, Copy)]
struct Keys {
    version: u16,
    cipher: u16,
    iv: [u8; 8],
    key: [u8; 16],
    salt: [u8; 4],
    sequence: [u8; 8],
}

/// Takes a connection over, both directions with the same fixed keys.
pub(crate) fn start(connection: impl AsFd) -> Result<()> {
    set_slice(&connection, libc::IPPROTO_TCP, TCP_ULP, b"tls").map_err(|error| {
        lacking(
            "TLS in the kernel",
            error,
            &[Errno::NOENT, Errno::NOPROTOOPT],
        )
    })?;
    let keys = Keys {
        version: TLS_1_2_VERSION,
        cipher: TLS_CIPHER_AES_GCM_128,
        iv: [1; 8],
        key: [2; 16],
        salt: [3; 4],
        sequence: [0; 8],
    };
    for direction in [libc::TLS_TX, libc::TLS_RX] {
        set(&connection, libc::SOL_TLS, direction, &keys)?;
    }
    Ok(())
}

/// Receives application data. An alert, which ends the connection, is its end.
pub(crate) fn receive(connection: impl AsFd, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let mut control = [0_u64; 4];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: zeros are a value of this plain struct.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let fd = connection.as_fd().as_raw_fd();
    // SAFETY: all that the message points to lives until the call returns.
    let returned = result(unsafe { libc::recvmsg(fd, &raw mut message, 0) })?;
    // SAFETY: the kernel has just filled the control buffer.
    let record = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_type != TLS_GET_RECORD_TYPE {
            None
        } else {
            Some(*libc::CMSG_DATA(header))
        }
    };
    const APPLICATION_DATA: u8 = 23;
    Ok(match record {
        None | Some(APPLICATION_DATA) => returned,
        Some(_) => 0,
    })
}

/// Sends the alert that ends the data.
pub(crate) fn end(connection: impl AsFd) -> Result<()> {
    const TLS_SET_RECORD_TYPE: i32 = 1;
    const ALERT: u8 = 21;
    const CLOSE_NOTIFY: [u8; 2] = [1, 0];
    super::cmsg::send(
        connection,
        None::<&std::net::SocketAddr>,
        &CLOSE_NOTIFY,
        (libc::SOL_TLS, TLS_SET_RECORD_TYPE, &[ALERT]),
    )?;
    Ok(())
}

//! System calls of 32-bit programs, made by a 64-bit one.

use std::{arch::asm, net::SocketAddr, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result, bail};
use procid_tests::truth::print_line;
use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap_anonymous, munmap},
    net::{Shutdown, shutdown},
};

use super::{
    payload::{Load, PART, receive_all, send_all},
    peer::{Counts, Spec},
    socket::{tcp, v4},
    tcp::LOOPBACK,
    told::opened,
};

/// `socketcall` of the 32-bit table, and what it calls.
const SOCKETCALL: u32 = 102;
const CONNECT: u32 = 3;
const SEND: u32 = 9;
const RECV: u32 = 10;

/// Memory below 4 GiB: the arguments first, then what they point to.
struct Low(*mut u8);

impl Low {
    const ARGUMENTS: usize = 64;
    const LENGTH: usize = Self::ARGUMENTS + PART;

    fn new() -> Result<Self> {
        // SAFETY: new memory, which nobody else knows.
        let at = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                Self::LENGTH,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::from_bits_retain(libc::MAP_32BIT as u32),
            )
        }
        .context("memory below 4 GiB")?;
        Ok(Self(at.cast()))
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: inside the mapping.
        unsafe { self.0.add(Self::ARGUMENTS) }
    }

    /// `socketcall(call, {fd, data, length, 0})`
    fn call(&self, call: u32, fd: i32, length: usize) -> rustix::io::Result<usize> {
        let data = self.data() as usize as u32;
        let arguments = [fd as u32, data, length as u32, 0];
        // SAFETY: inside the mapping, which is aligned.
        unsafe { self.0.cast::<[u32; 4]>().write(arguments) };
        let answer: u64;
        // SAFETY: the system call reads the arguments and reads or writes
        // `length` bytes of the data; `int 0x80` clears r8 to r11. rbx, which
        // the compiler keeps, is exchanged before and after.
        unsafe {
            asm!(
                "xchg rbx, {call:r}",
                "int 0x80",
                "xchg rbx, {call:r}",
                call = inout(reg) u64::from(call) => _,
                inlateout("rax") u64::from(SOCKETCALL) => answer,
                in("rcx") self.0 as usize,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        let answer = answer as u32 as i32;
        usize::try_from(answer).map_err(|_| Errno::from_raw_os_error(-answer))
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        // SAFETY: the mapping made above, to which no reference is left.
        let _ = unsafe { munmap(self.0.cast(), Self::LENGTH) };
    }
}

/// Connects, sends and receives, all by `int 0x80`.
pub(crate) fn over_tcp(load: Load) -> Result<()> {
    let at: SocketAddr = LOOPBACK.parse()?;
    let peer = Spec::stream(at, load).start()?;
    let SocketAddr::V4(to) = peer.address else {
        bail!("IPv4 only");
    };
    let low = Low::new()?;
    let socket = tcp(at)?;
    let fd = socket.as_raw_fd();
    // SAFETY: there is room for it, at an aligned address.
    unsafe { low.data().cast::<libc::sockaddr_in>().write(v4(to)) };
    low.call(CONNECT, fd, size_of::<libc::sockaddr_in>())?;
    let flow = opened(&socket, Some(peer.address))?;
    let sent = send_all(0, load.up, |part| {
        // SAFETY: a part is no longer than the room for it.
        unsafe {
            low.data()
                .copy_from_nonoverlapping(part.as_ptr(), part.len());
        };
        low.call(SEND, fd, part.len())
    })?;
    shutdown(&socket, Shutdown::Write)?;
    let received = receive_all(load.down, |buffer| {
        let length = low.call(RECV, fd, PART.min(buffer.len()))?;
        // SAFETY: the kernel has just written so much.
        unsafe {
            buffer
                .as_mut_ptr()
                .copy_from_nonoverlapping(low.data(), length);
        };
        Ok(length)
    })?;
    drop(socket);
    print_line(&Counts { sent, received }.of(flow))?;
    peer.finish()
}

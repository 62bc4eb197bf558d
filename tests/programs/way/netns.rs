//! A network namespace of the program's own, with what it needs on `lo`.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::socket::{Address, result, socket, v4};
use crate::is_to_be_denied;

pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const BETWEEN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);

/// `lo`, the first interface of every namespace.
pub(crate) const LO: i32 = 1;

/// Moves this process to a new network namespace, whose `lo` is up; where it
/// is to be denied, it is in one.
pub(crate) fn enter() -> Result<()> {
    if is_to_be_denied() {
        return Ok(());
    }
    // SAFETY: a network namespace is no part of what Rust's libraries share
    // between threads; descriptors stay as they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare(CLONE_NEWNET)")?;
    let mut request = named("lo");
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    let done = ioctl(libc::AF_INET, libc::SIOCSIFFLAGS, &mut request);
    done.context("lo up")
}

/// The same with the three addresses above, which the kernel lets pass
/// through `lo` as if they came from a wire.
pub(crate) fn enter_routed() -> Result<()> {
    enter()?;
    for (number, address) in [HERE, THERE, BETWEEN].into_iter().enumerate() {
        add(number, address)?;
    }
    for (option, value) in [
        ("accept_local", "1"),
        ("accept_source_route", "1"),
        ("rp_filter", "0"),
    ] {
        for device in ["all", "lo"] {
            sysctl(&format!("ipv4/conf/{device}/{option}"), value)?;
        }
    }
    Ok(())
}

/// Writes a file below /proc/sys/net.
pub(crate) fn sysctl(name: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/net/{name}"), value).with_context(|| format!("{name} = {value}"))
}

fn add(number: usize, address: Ipv4Addr) -> Result<()> {
    let mut request = named(&format!("lo:{number}"));
    let Address(address) = Address(v4(std::net::SocketAddrV4::new(address, 0)));
    // SAFETY: both are plain data, of 16 bytes each.
    request.ifr_ifru.ifru_addr =
        unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
    ioctl(libc::AF_INET, libc::SIOCSIFADDR, &mut request).context("SIOCSIFADDR")
}

/// Adds an IPv6 address to `lo`.
pub(crate) fn add_v6(address: Ipv6Addr) -> Result<()> {
    /// `struct in6_ifreq`
    #[repr(C)]
    struct Request {
        address: [u8; 16],
        prefix: u32,
        interface: i32,
    }
    let mut request = Request {
        address: address.octets(),
        prefix: 128,
        interface: LO,
    };
    ioctl(libc::AF_INET6, libc::SIOCSIFADDR, &mut request).context("SIOCSIFADDR of IPv6")?;
    // The kernel clears it for use a moment later, in a thread of its own.
    for _ in 0..200 {
        if UdpSocket::bind((address, 0)).is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("{address} does not become usable")
}

fn named(name: &str) -> libc::ifreq {
    // SAFETY: zeros are a value of this plain struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ioctl<T>(domain: i32, number: libc::Ioctl, request: &mut T) -> Result<()> {
    let socket = socket("sockets", domain, libc::SOCK_DGRAM, 0)?;
    // SAFETY: every caller passes the struct that this request takes.
    let returned = unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw mut *request) };
    result(returned as isize)?;
    Ok(())
}

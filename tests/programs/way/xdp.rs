//! AF_XDP: a frame written to memory that the program shares with the driver.

use std::ptr::null_mut;

use anyhow::{Result, ensure};
use procid_tests::truth::print_line;
use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, mmap_anonymous},
    net::{SendFlags, bind, send},
};

use super::{
    absent::lacking,
    craft::ip_udp,
    netns::LO,
    packet::{Scene, header},
    payload::{Load, part},
    socket::{Address, set, socket},
    told::opened,
};

const FRAME: usize = 2048;
/// Entries of each ring.
const RING: u32 = 4;

/// One frame, of at most 1024 bytes of payload, on `lo`.
pub(crate) fn one(load: Load) -> Result<()> {
    let Scene {
        mut peer,
        here,
        there,
        _kept,
    } = Scene::set()?;
    let socket = socket("AF_XDP", libc::AF_XDP, libc::SOCK_RAW, 0)?;
    let memory = {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new memory, which only the kernel knows beside us.
        unsafe { mmap_anonymous(null_mut(), 2 * FRAME, protection, MapFlags::SHARED) }?
    };
    let mut area: libc::xdp_umem_reg = zeroed();
    area.addr = memory as u64;
    area.len = 2 * FRAME as u64;
    area.chunk_size = FRAME as u32;
    set(&socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &area)
        .map_err(|error| lacking("AF_XDP memory", error, &[Errno::NOPROTOOPT]))?;
    for ring in [
        libc::XDP_UMEM_FILL_RING,
        libc::XDP_UMEM_COMPLETION_RING,
        libc::XDP_TX_RING,
    ] {
        set(&socket, libc::SOL_XDP, ring, &RING)?;
    }
    let offsets: libc::xdp_mmap_offsets = get(&socket, libc::XDP_MMAP_OFFSETS)?;
    let length = offsets.tx.desc as usize + RING as usize * size_of::<libc::xdp_desc>();
    let ring = {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let at = libc::XDP_PGOFF_TX_RING as u64;
        // SAFETY: the kernel's own ring, of the size that it was made with.
        unsafe {
            mmap(
                null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                &socket,
                at,
            )
        }?
    };
    let mut on: libc::sockaddr_xdp = zeroed();
    on.sxdp_family = libc::AF_XDP as u16;
    on.sxdp_flags = libc::XDP_COPY;
    on.sxdp_ifindex = LO as u32;
    bind(&socket, &Address(on))?;

    let payload = part(0, load.up.min(1024) as usize);
    let mut frame = header(libc::SOCK_RAW);
    frame.extend(ip_udp(here, there, payload));
    ensure!(frame.len() <= FRAME, "the frame is too long");
    // SAFETY: the frame fits into the memory, and the descriptor into the ring,
    // at the places that the kernel named; both are mapped and ours until the
    // producer's index says otherwise.
    unsafe {
        memory
            .cast::<u8>()
            .copy_from_nonoverlapping(frame.as_ptr(), frame.len());
        let desc = ring.byte_add(offsets.tx.desc as usize);
        desc.cast::<libc::xdp_desc>().write(libc::xdp_desc {
            addr: 0,
            len: frame.len() as u32,
            options: 0,
        });
        let producer = ring.byte_add(offsets.tx.producer as usize).cast::<u32>();
        std::sync::atomic::AtomicU32::from_ptr(producer)
            .store(1, std::sync::atomic::Ordering::Release);
    }
    send(&socket, &[], SendFlags::DONTWAIT)?;
    peer.take(0, payload.len())?;
    print_line(&opened(&socket, None)?)?;
    drop(socket);
    peer.finish()
}

/// Plain data of the kernel's, all zero.
fn zeroed<T: Copy>() -> T {
    // SAFETY: used for structures of numbers only.
    unsafe { std::mem::zeroed() }
}

/// getsockopt(2) of a structure of numbers.
fn get<T: Copy>(socket: &impl std::os::fd::AsRawFd, option: i32) -> Result<T> {
    let mut value: T = zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` has room for `length` bytes, and any bytes make it valid.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    ensure!(returned == 0, std::io::Error::last_os_error());
    Ok(value)
}

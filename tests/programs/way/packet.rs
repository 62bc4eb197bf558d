//! AF_PACKET sockets.

use std::{
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::OwnedFd,
    ptr::null_mut,
};

use anyhow::{Result, bail};
use procid_tests::truth::print_line;
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    net::{SendFlags, bind, sendto},
};

use super::{
    craft::{ip_udp, udp_payload},
    netns::{self, HERE, LO, THERE},
    payload::{Load, PART},
    peer::{Peer, Spec, exchange},
    socket::{Address, set, socket},
    told::opened,
    udp::taken,
};

/// An Ethernet header's length.
pub(crate) const ETHERNET: usize = 14;

/// Both ends in a namespace of their own: a UDP socket as the other end, and
/// one that keeps a port here, so that nobody answers for it.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) peer: Peer,
    pub(crate) here: SocketAddrV4,
    pub(crate) there: SocketAddrV4,
    pub(crate) _kept: UdpSocket,
}

impl Scene {
    pub(crate) fn set() -> Result<Self> {
        netns::enter_routed()?;
        let peer = Spec::datagrams(SocketAddr::from((THERE, 0))).start()?;
        let kept = UdpSocket::bind((HERE, 0))?;
        let (SocketAddr::V4(here), SocketAddr::V4(there)) = (kept.local_addr()?, peer.address)
        else {
            bail!("not IPv4");
        };
        Ok(Self {
            peer,
            here,
            there,
            _kept: kept,
        })
    }
}

/// `lo`, for IPv4.
pub(crate) fn lo() -> Address<libc::sockaddr_ll> {
    Address(libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_IP as u16).to_be(),
        sll_ifindex: LO,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    })
}

/// What comes before the IP header in a packet of this kind of socket.
pub(crate) fn header(kind: i32) -> Vec<u8> {
    let mut header = Vec::new();
    if kind == libc::SOCK_RAW {
        header.resize(ETHERNET - 2, 0);
        header.extend((libc::ETH_P_IP as u16).to_be_bytes());
    }
    header
}

/// Reads until the other end's next datagram; all that is read is counted.
pub(crate) fn next(
    socket: &OwnedFd,
    kind: i32,
    there: SocketAddrV4,
    here: SocketAddrV4,
) -> Result<(Vec<u8>, usize)> {
    let mut sum = 0;
    loop {
        let (packet, returned) = taken(socket)?;
        sum += returned;
        if let Some(payload) = udp_payload(&packet[header(kind).len()..], there, here) {
            return Ok((payload.to_vec(), sum));
        }
    }
}

/// Sends with sendto(2).
pub(crate) fn plain(kind: i32, load: Load) -> Result<()> {
    let Scene {
        mut peer,
        here,
        there,
        _kept,
    } = Scene::set()?;
    // Without a protocol it is told of nothing.
    let socket = socket("AF_PACKET", libc::AF_PACKET, kind, 0)?;
    if load.down > 0 {
        bind(&socket, &lo())?;
    }
    let counts = exchange(
        &mut peer,
        load,
        PART,
        |part| {
            let mut packet = header(kind);
            packet.extend(ip_udp(here, there, part));
            Ok(sendto(&socket, &packet, SendFlags::empty(), &lo())?)
        },
        || next(&socket, kind, there, here),
    )?;
    let flow = opened(&socket, None)?;
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

/// Sends from a ring that the program shares with the kernel
/// (`PACKET_TX_RING`), of one frame.
pub(crate) fn ring(load: Load) -> Result<()> {
    const FRAME: usize = 1 << 16;
    /// `TPACKET_ALIGN(sizeof(struct tpacket2_hdr))`, where the packet begins.
    const HEADER: usize = 32;
    const SEND_REQUEST: u32 = 1;
    let Scene {
        mut peer,
        here,
        there,
        _kept,
    } = Scene::set()?;
    let socket = socket("AF_PACKET", libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    let version = libc::tpacket_versions::TPACKET_V2 as i32;
    set(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
    let request = libc::tpacket_req {
        tp_block_size: FRAME as u32,
        tp_block_nr: 1,
        tp_frame_size: FRAME as u32,
        tp_frame_nr: 1,
    };
    set(&socket, libc::SOL_PACKET, libc::PACKET_TX_RING, &request)?;
    // SAFETY: new memory, which only the kernel knows beside us.
    let frame = unsafe {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        mmap(null_mut(), FRAME, protection, MapFlags::SHARED, &socket, 0)
    }?;
    if load.down > 0 {
        bind(&socket, &lo())?;
    }
    let counts = exchange(
        &mut peer,
        load,
        PART,
        |part| {
            let mut packet = header(libc::SOCK_RAW);
            packet.extend(ip_udp(here, there, part));
            // SAFETY: the frame is longer than header and packet, and ours:
            // the kernel has returned from the last send.
            unsafe {
                let packet_at = frame.cast::<u8>().add(HEADER);
                packet_at.copy_from_nonoverlapping(packet.as_ptr(), packet.len());
                let header = frame.cast::<libc::tpacket2_hdr>();
                (*header).tp_len = packet.len() as u32;
                (*header).tp_status = SEND_REQUEST;
            }
            Ok(sendto(&socket, &[], SendFlags::empty(), &lo())?)
        },
        || next(&socket, libc::SOCK_RAW, there, here),
    )?;
    let flow = opened(&socket, None)?;
    // SAFETY: mapped above; nobody looks at it any more.
    unsafe { munmap(frame, FRAME) }?;
    drop(socket);
    print_line(&counts.of(flow))?;
    peer.finish()
}

//! Families beside the internet's: vsock, SMC and RxRPC.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use procid_tests::truth::print_line;
use rustix::{
    io::Errno,
    net::{bind, connect},
};

use super::{
    absent::lacking,
    cmsg,
    payload::{Load, part},
    peer::Spec,
    socket::{Address, socket, v4},
    tcp::{LOOPBACK, converse},
    told::{counted, opened},
};

/// An address of vsock, at the port of `at`.
pub(crate) fn vsock(cid: u32, at: SocketAddr) -> Address<libc::sockaddr_vm> {
    vsock_at(cid, u32::from(at.port()))
}

fn vsock_at(cid: u32, port: u32) -> Address<libc::sockaddr_vm> {
    // SAFETY: zeros are a value of this plain struct.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as u16;
    address.svm_cid = cid;
    address.svm_port = port;
    Address(address)
}

/// To this machine's own context.
pub(crate) fn over_vsock(load: Load) -> Result<()> {
    let port = 10_000 + (std::process::id() % 50_000) as u16;
    let at = SocketAddr::from(([0, 0, 0, 0], port));
    let socket = socket("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0)?;
    // Without that transport a hypervisor would be asked to connect.
    let here = vsock_at(libc::VMADDR_CID_LOCAL, libc::VMADDR_PORT_ANY);
    bind(&socket, &here)
        .map_err(|error| lacking("loopback transport of vsock", error, &[Errno::ADDRNOTAVAIL]))?;
    let peer = Spec::stream(at, load)
        .domain(libc::AF_VSOCK)
        .protocol(0)
        .start()?;
    connect(&socket, &vsock(libc::VMADDR_CID_LOCAL, at))?;
    let flow = opened(&socket, None)?;
    converse(socket, 0, load, flow, peer)
}

/// SMC, which falls back to TCP where there is no such device.
pub(crate) fn over_smc(load: Load) -> Result<()> {
    const AF_SMC: i32 = 43;
    let at: SocketAddr = LOOPBACK.parse()?;
    let socket = socket("SMC", AF_SMC, libc::SOCK_STREAM, 0)?;
    let peer = Spec::stream(at, load).domain(AF_SMC).protocol(0).start()?;
    connect(&socket, &peer.address)?;
    let flow = opened(&socket, Some(peer.address))?;
    converse(socket, 0, load, flow, peer)
}

/// `struct sockaddr_rxrpc`, with a transport of IPv4.
#[repr(C)]
#[derive(Clone, Copy)]
struct Service {
    family: u16,
    service: u16,
    transport_type: u16,
    transport_length: u16,
    transport: libc::sockaddr_in,
    rest: [u8; 12],
}

/// The first packet of a call, of at most 1024 bytes. The other end takes it
/// and never answers: it is no server of RxRPC.
pub(crate) fn over_rxrpc(load: Load) -> Result<()> {
    const SOL_RXRPC: i32 = 272;
    const RXRPC_USER_CALL_ID: i32 = 1;
    /// Of a packet, before its payload.
    const HEADER: usize = 28;
    let socket = socket("AF_RXRPC", libc::AF_RXRPC, libc::SOCK_DGRAM, libc::PF_INET)?;
    let mut peer = Spec::datagrams(LOOPBACK.parse()?).skip(HEADER).start()?;
    let SocketAddr::V4(to) = peer.address else {
        bail!("IPv4 only");
    };
    let service = Service {
        family: libc::AF_RXRPC as u16,
        service: 1,
        transport_type: libc::SOCK_DGRAM as u16,
        transport_length: size_of::<libc::sockaddr_in>() as u16,
        transport: v4(to),
        rest: [0; 12],
    };
    let length = load.up.min(1024) as usize;
    let call = 1_u64.to_ne_bytes();
    let sent = cmsg::send(
        &socket,
        Some(&Address(service)),
        part(0, length),
        (SOL_RXRPC, RXRPC_USER_CALL_ID, &call),
    )?;
    peer.take(0, length)?;
    let flow = opened(&socket, Some(to.into()))?;
    drop(socket);
    print_line(&counted(flow, sent as u64, 0))?;
    peer.finish()
}

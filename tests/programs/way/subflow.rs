//! A second path of an MPTCP connection.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, bind, connect, recv, send},
};

use super::{
    netns::{self, BETWEEN, HERE, THERE},
    payload::{Load, part},
    peer::Spec,
    socket::{result, socket},
    tcp::converse,
    told::opened,
};

/// Connects from one address, and waits for the kernel to open a subflow from
/// another after the first bytes.
pub(crate) fn second(load: Load) -> Result<()> {
    netns::enter_routed()?;
    let socket = socket(
        "MPTCP",
        libc::AF_INET,
        libc::SOCK_STREAM,
        libc::IPPROTO_MPTCP,
    )?;
    let peer = Spec::stream(SocketAddr::from((THERE, 0)), load)
        .protocol(libc::IPPROTO_MPTCP)
        .start()?;
    bind(&socket, &SocketAddr::from((HERE, 0)))?;
    connect(&socket, &peer.address)?;
    let flow = opened(&socket, Some(peer.address))?;
    let already = send(&socket, part(0, 1), SendFlags::NOSIGNAL)?;
    // Told while connecting, the kernel tries for the other end, which shares
    // the namespace, before that has accepted; told now, it opens one at once.
    std::thread::sleep(Duration::from_secs(1));
    endpoint(BETWEEN)?;
    await_subflow(&socket)?;
    converse(socket, already as u64, load, flow, peer)
}

fn await_subflow(socket: &OwnedFd) -> Result<()> {
    const SOL_MPTCP: i32 = 284;
    const MPTCP_INFO: i32 = 1;
    for _ in 0..3000 {
        // `struct mptcp_info` begins with the number of further subflows.
        let mut info = [0_u8; 256];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `info`.
        let returned = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                SOL_MPTCP,
                MPTCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        result(returned as isize).context("MPTCP_INFO")?;
        if info[0] > 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("no second subflow in thirty seconds")
}

/// Tells the namespace's path manager of an address to open subflows from.
fn endpoint(address: Ipv4Addr) -> Result<()> {
    const GENL_ID_CTRL: u16 = 16;
    const CTRL_CMD_GETFAMILY: u8 = 3;
    const CTRL_ATTR_FAMILY_ID: u16 = 1;
    const CTRL_ATTR_FAMILY_NAME: u16 = 2;
    const ADD_ADDR: u8 = 1;
    const SET_LIMITS: u8 = 5;
    const SUBFLOW: u32 = 2;
    const NESTED: u16 = 0x8000;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"mptcp_pm\0");
    let told = ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name)?;
    let family = find(&told, CTRL_ATTR_FAMILY_ID).context("no id of mptcp_pm")?;
    let family = u16::from_ne_bytes(family[..2].try_into()?);
    // Received addresses, and subflows. The other end, which shares the
    // namespace, tries one too, in vain, and counts it: with a limit of 1 it
    // may refuse ours meanwhile.
    let limits = [
        attribute(2, &0_u32.to_ne_bytes()),
        attribute(3, &2_u32.to_ne_bytes()),
    ];
    ask(family, SET_LIMITS, &limits.concat())?;
    let inner = [
        attribute(1, &(libc::AF_INET as u16).to_ne_bytes()),
        attribute(2, &[1]),
        attribute(3, &address.octets()),
        attribute(6, &SUBFLOW.to_ne_bytes()),
    ];
    ask(family, ADD_ADDR, &attribute(1 | NESTED, &inner.concat()))?;
    Ok(())
}

/// An attribute of netlink, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first such attribute.
fn find(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        if u16::from_ne_bytes([bytes[2], bytes[3]]) == kind {
            return bytes.get(4..length);
        }
        bytes = bytes.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

/// One command of generic netlink; the attributes of its answer, or nothing
/// where it is only acknowledged.
fn ask(family: u16, command: u8, attributes: &[u8]) -> Result<Vec<u8>> {
    const REQUEST_WITH_ACK: u16 = 5;
    const NLMSG_ERROR: u16 = 2;
    const HEADERS: usize = 16 + 4;
    let socket = socket(
        "generic netlink",
        libc::AF_NETLINK,
        libc::SOCK_RAW,
        libc::NETLINK_GENERIC,
    )?;
    let mut message = ((HEADERS + attributes.len()) as u32).to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST_WITH_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = vec![0; 8192];
    let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    answer.truncate(length);
    ensure!(length >= HEADERS, "{length} bytes of netlink");
    if u16::from_ne_bytes([answer[4], answer[5]]) == NLMSG_ERROR {
        let error = i32::from_ne_bytes(answer[16..20].try_into()?);
        return match error {
            0 => Ok(Vec::new()),
            error => Err(Errno::from_raw_os_error(-error).into()),
        };
    }
    Ok(answer.split_off(HEADERS))
}

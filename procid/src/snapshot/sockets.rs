//! The kernel's socket tables, by `sock_diag(7)`.
//!
//! A table is that of one network namespace. Others than our own are entered
//! with setns(2) on a thread made for it, so that no other thread is moved.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use rustix::{
    fs::{fstat, stat},
    net::sockopt::{Timeout, set_socket_timeout},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::records::Uncovered;

/// Room for one datagram of a dump: the kernel fills at most 32 KiB at once.
pub(super) const BUFFER: usize = 64 << 10;
/// The kernel answers at once, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the kernel says of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFacts {
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u16,
    /// `TCP_ESTABLISHED`, …; 1 for a connected datagram socket.
    pub state: u32,
    /// v4-mapped addresses are given as IPv4.
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    /// Index of the interface that it is bound to; 0: none.
    pub interface: u32,
    /// Owner of the socket.
    pub uid: u32,
    /// In sockfs, as `/proc/PID/fd` shows it; 0: no descriptor is left.
    pub inode: u64,
    pub cookie: u64,
    /// Inode of the network namespace.
    pub netns: u32,
}

/// The connections of every network namespace that can be entered.
///
/// # Errors
///
/// Our own namespace's table cannot be read.
pub(super) fn everywhere(unseen: &mut Vec<Uncovered>) -> io::Result<Vec<SocketFacts>> {
    let own = inode_of("/proc/self/ns/net")?;
    let mut sockets = table(own, unseen)?;
    for (netns, path) in namespaces() {
        if netns == own {
            continue;
        }
        match elsewhere(netns, &path) {
            Ok((found, not_seen)) => {
                sockets.extend(found);
                unseen.extend(not_seen);
            }
            Err(error) => unseen.push(Uncovered {
                path: format!("network namespace {netns}"),
                reason: error.to_string(),
            }),
        }
    }
    Ok(sockets)
}

fn inode_of(path: &str) -> io::Result<u32> {
    u32::try_from(stat(path)?.st_ino).map_err(io::Error::other)
}

/// Network namespaces in use by a process or bound to a name, and a way in.
fn namespaces() -> BTreeMap<u32, PathBuf> {
    let of_processes = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_pid(entry.file_name().as_encoded_bytes()))
        .map(|entry| entry.path().join("ns/net"));
    let named = fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut namespaces = BTreeMap::new();
    for path in of_processes.chain(named) {
        if let Some(netns) = path.to_str().and_then(|path| inode_of(path).ok()) {
            namespaces.entry(netns).or_insert(path);
        }
    }
    namespaces
}

fn is_pid(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_digit)
}

type Table = (Vec<SocketFacts>, Vec<Uncovered>);

/// The table of another namespace.
fn elsewhere(netns: u32, path: &Path) -> io::Result<Table> {
    inside(netns, path, || {
        let mut unseen = Vec::new();
        let sockets = table(netns, &mut unseen)?;
        Ok((sockets, unseen))
    })
}

/// Does something in the network namespace of that number.
///
/// # Errors
///
/// There is no way into it, or what `act` fails with.
pub(super) fn within<T: Send>(
    netns: u32,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    if netns == inode_of("/proc/self/ns/net")? {
        return act();
    }
    match namespaces().get(&netns) {
        Some(path) => inside(netns, path, act),
        None => Err(io::Error::other("its network namespace is gone")),
    }
}

/// Does something on a thread that `path` leads into another namespace.
fn inside<T: Send>(
    netns: u32,
    path: &Path,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let file = File::open(path)?;
    if u32::try_from(fstat(&file)?.st_ino) != Ok(netns) {
        return Err(io::Error::other("its last process ended meanwhile"));
    }
    thread::scope(|scope| {
        thread::Builder::new()
            .name("procid-netns".to_owned())
            .spawn_scoped(scope, || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                act()
            })?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that entered it panicked")))
    })
}

/// A socket to ask the kernel with.
pub(super) fn channel() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

/// The table of the namespace that this thread is in.
fn table(netns: u32, unseen: &mut Vec<Uncovered>) -> io::Result<Vec<SocketFacts>> {
    let socket = channel()?;
    let mut sockets = Vec::new();
    let tcp = StateFlags::all() - StateFlags::LISTEN;
    for (protocol, states) in [(IPPROTO_TCP, tcp), (IPPROTO_UDP, StateFlags::ESTABLISHED)] {
        for family in [AF_INET, AF_INET6] {
            let wanted = Wanted {
                family,
                protocol,
                states: states.clone(),
            };
            match dump(&socket, &wanted, netns, &mut sockets) {
                Ok(()) => {}
                // The protocol, or the module that lists its sockets, is not there.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    unseen.push(Uncovered {
                        path: format!("{wanted} sockets of network namespace {netns}"),
                        reason: "the kernel has no list of them (module tcp_diag or udp_diag)"
                            .to_owned(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(sockets)
}

struct Wanted {
    family: u8,
    protocol: u8,
    states: StateFlags,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = if self.protocol == IPPROTO_TCP {
            "TCP"
        } else {
            "UDP"
        };
        let family = if self.family == AF_INET {
            "IPv4"
        } else {
            "IPv6"
        };
        write!(f, "{protocol} {family}")
    }
}

fn dump(
    socket: &Socket,
    wanted: &Wanted,
    netns: u32,
    sockets: &mut Vec<SocketFacts>,
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family: wanted.family,
        protocol: wanted.protocol,
        extensions: ExtensionFlags::empty(),
        states: wanted.states.clone(),
        socket_id: SocketId::new_v6(),
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut buffer = vec![0; BUFFER];
    loop {
        let len = socket.recv(&mut &mut buffer[..], 0)?;
        let mut rest = buffer.get(..len).ok_or_else(too_long)?;
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    sockets.push(facts(&response, wanted.protocol, netns));
                }
                _ => {}
            }
            let len = usize::try_from(message.header.length).map_err(io::Error::other)?;
            // Messages are aligned to 4 bytes; the last may end without padding.
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn too_long() -> io::Error {
    io::Error::other("the kernel's answer is longer than it may be")
}

fn facts(response: &InetResponse, protocol: u8, netns: u32) -> SocketFacts {
    let header = &response.header;
    let id = &header.socket_id;
    // Two 32-bit halves, the lower first, each in the host's order.
    let half = |from: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&id.cookie[from..from + 4]);
        u64::from(u32::from_ne_bytes(bytes))
    };
    SocketFacts {
        family: header.family,
        protocol: u16::from(protocol),
        state: u32::from(header.state),
        source: (id.source_address.to_canonical(), id.source_port),
        destination: (id.destination_address.to_canonical(), id.destination_port),
        interface: id.interface_id,
        uid: header.uid,
        inode: u64::from(header.inode),
        cookie: half(4) << 32 | half(0),
        netns,
    }
}

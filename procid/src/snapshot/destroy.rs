//! Closing a connection of others, by `SOCK_DESTROY` of `sock_diag(7)`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::AF_INET6,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};

use super::sockets::{BUFFER, SocketFacts, channel, within};

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/sock_diag.h#L8>
const SOCK_DESTROY: u16 = 21;

/// Closes a connection, at both its programs' cost: the socket's own calls fail
/// with `ECONNABORTED`, and the other end is reset.
///
/// The kernel looks it up by its ends and holds it to its cookie: no other
/// socket is ever closed in its place.
///
/// # Errors
///
/// `EPERM`: needs `CAP_NET_ADMIN`; `EOPNOTSUPP`: the kernel is built without
/// `CONFIG_INET_DIAG_DESTROY`; `ENOENT`: it has ended meanwhile.
pub fn destroy(socket: &SocketFacts) -> io::Result<()> {
    within(socket.netns, || destroy_here(socket))
}

fn destroy_here(socket: &SocketFacts) -> io::Result<()> {
    let channel = channel()?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let request = InetRequest {
        family: socket.family,
        protocol: u8::try_from(socket.protocol).map_err(io::Error::other)?,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: id_of(socket),
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    message.header.message_type = SOCK_DESTROY;
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    channel.send(&bytes, 0)?;

    let mut buffer = vec![0; BUFFER];
    let len = channel.recv(&mut &mut buffer[..], 0)?;
    let answer = buffer.get(..len).unwrap_or_default();
    match NetlinkMessage::<SockDiagMessage>::deserialize(answer)
        .map_err(io::Error::other)?
        .payload
    {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("the kernel gave another answer")),
    }
}

/// The kernel's name of a socket.
fn id_of(socket: &SocketFacts) -> SocketId {
    let address = |address: IpAddr| match address {
        // An IPv6 socket that speaks IPv4 is listed, and found, by mapped ones.
        IpAddr::V4(v4) if socket.family == AF_INET6 => mapped(v4),
        other => other,
    };
    // Two 32-bit halves, the lower first, each in the host's order.
    let [low, high] = [socket.cookie, socket.cookie >> 32].map(|half| half as u32);
    let mut cookie = [0; 8];
    cookie[..4].copy_from_slice(&low.to_ne_bytes());
    cookie[4..].copy_from_slice(&high.to_ne_bytes());
    SocketId {
        source_address: address(socket.source.0),
        source_port: socket.source.1,
        destination_address: address(socket.destination.0),
        destination_port: socket.destination.1,
        interface_id: socket.interface,
        cookie,
    }
}

fn mapped(address: Ipv4Addr) -> IpAddr {
    address.to_ipv6_mapped().into()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::snapshot;

    /// The connection of a test's own socket.
    fn found(stream: &TcpStream) -> SocketFacts {
        let ends = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let rows = snapshot::take().unwrap().rows;
        let mut sockets = rows.iter().map(|row| row.socket);
        let is_it = |socket: &SocketFacts| {
            let canonical = |end: std::net::SocketAddr| (end.ip().to_canonical(), end.port());
            (socket.source, socket.destination) == (canonical(ends.0), canonical(ends.1))
        };
        sockets.find(is_it).unwrap()
    }

    fn pair(at: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(at).unwrap();
        let mut to = listener.local_addr().unwrap();
        if to.ip().is_unspecified() {
            to.set_ip(IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
        }
        let client = TcpStream::connect(to).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn the_connection_ends_and_no_other() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: closing another's socket needs root");
            return;
        }
        for at in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let (mut client, mut server) = pair(at);
            let (other, _kept) = pair(at);
            destroy(&found(&client)).unwrap();
            let error = client.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{at}");
            let error = server.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{at}");
            assert!(other.take_error().unwrap().is_none());
        }
    }

    #[test]
    fn another_socket_of_the_same_ends_is_not_closed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: closing another's socket needs root");
            return;
        }
        let (client, _server) = pair("127.0.0.1:0");
        let mut socket = found(&client);
        socket.cookie += 1;
        let error = destroy(&socket).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        assert!(client.take_error().unwrap().is_none());
    }
}

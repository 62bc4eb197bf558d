//! Datagrams to one receiver, which may come later, be slow, or begin anew.

use std::{
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixDatagram,
    },
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

use super::{spec::Receiver, worker::Trouble};

/// How long a receiver whose queue is full is waited for.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// Why a datagram was not sent.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No datagram holds so much.
    #[error("it is too long for one datagram")]
    TooLong,
    /// Nobody has taken an earlier one, which is lost.
    #[error(transparent)]
    Refused(Trouble),
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

/// See the [module](self).
#[derive(Debug)]
pub struct Datagrams {
    to: Receiver,
    /// `None`: not connected (any more).
    socket: Option<Socket>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

impl Datagrams {
    pub const fn to(receiver: Receiver) -> Self {
        Self {
            to: receiver,
            socket: None,
        }
    }

    /// Sends one datagram.
    ///
    /// # Errors
    ///
    /// It was not sent, and why; it can be tried again, but where it is too long.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.send_with(bytes, None)
    }

    /// Sends a descriptor alone, over a Unix socket.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn send_file(&mut self, file: BorrowedFd<'_>) -> Result<(), Failure> {
        self.send_with(&[], Some(file))
    }

    fn send_with(&mut self, bytes: &[u8], file: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        let was_connected = self.socket.is_some();
        match self.send_once(bytes, file) {
            Ok(()) => Ok(()),
            Err(Errno::MSGSIZE) => Err(Failure::TooLong),
            Err(Errno::CONNREFUSED) if matches!(self.to, Receiver::Udp(_)) => {
                Err(Failure::Refused(self.trouble(Errno::CONNREFUSED)))
            }
            // Full, and not broken: the socket is kept.
            Err(error @ (Errno::AGAIN | Errno::NOBUFS)) => Err(self.trouble(error).into()),
            Err(error) => {
                self.socket = None;
                // One that has begun anew since has a new socket of that name.
                if was_connected && self.send_once(bytes, file).is_ok() {
                    return Ok(());
                }
                Err(self.trouble(error).into())
            }
        }
    }

    fn send_once(&mut self, bytes: &[u8], file: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(&self.to).map_err(|error| errno(&error))?,
        };
        let socket = self.socket.insert(socket);
        let fds: Vec<BorrowedFd<'_>> = file.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        loop {
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&*socket, &[IoSlice::new(bytes)], &mut ancillary, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait_for_room(socket)?,
                Err(error) => return Err(error),
            }
        }
    }

    fn trouble(&self, error: Errno) -> Trouble {
        let source = match error {
            Errno::AGAIN => io::Error::other("it takes nothing, and its queue is full"),
            error => error.into(),
        };
        Trouble {
            what: "send to",
            place: match &self.to {
                Receiver::Unix(path) => path.display().to_string(),
                Receiver::Udp(address) => address.to_string(),
            },
            source,
        }
    }
}

/// Waits until the receiver has room.
fn wait_for_room(socket: &Socket) -> Result<(), Errno> {
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    match poll(&mut fds, Some(&PATIENCE)) {
        Ok(0) => Err(Errno::AGAIN),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

fn connect(to: &Receiver) -> io::Result<Socket> {
    match to {
        Receiver::Unix(path) => connect_unix(path).map(Socket::Unix),
        Receiver::Udp(address) => {
            let own: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(own)?;
            socket.connect(address)?;
            Ok(Socket::Udp(socket))
        }
    }
}

fn connect_unix(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or_else(|| match error.kind() {
        ErrorKind::InvalidInput => Errno::NAMETOOLONG,
        _ => Errno::IO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn a_receiver_may_come_later_and_begin_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut datagrams = Datagrams::to(Receiver::Unix(path.clone()));
        let said = datagrams.send(b"0").unwrap_err().to_string();
        assert!(said.contains("No such file"), "{said}");
        let first = UnixDatagram::bind(&path).unwrap();
        datagrams.send(b"1").unwrap();
        assert_eq!(received(&first), b"1");
        drop(first);
        assert!(datagrams.send(b"2").is_err());
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        datagrams.send(b"3").unwrap();
        assert_eq!(received(&second), b"3");
        // At once, where it did so while nothing was sent.
        drop(second);
        std::fs::remove_file(&path).unwrap();
        let third = UnixDatagram::bind(&path).unwrap();
        datagrams.send(b"4").unwrap();
        assert_eq!(received(&third), b"4");
    }

    #[test]
    fn one_that_takes_nothing_does_not_hold_it_up_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut datagrams = Datagrams::to(Receiver::Unix(path));
        let mut sent = 0_u32;
        let failure = loop {
            match datagrams.send(b"x") {
                Ok(()) => sent += 1,
                Err(failure) => break failure,
            }
            assert!(sent < 1_000_000);
        };
        assert!(failure.to_string().ends_with("its queue is full"));
        for _ in 0..sent {
            assert_eq!(received(&receiver), b"x");
        }
        datagrams.send(b"y").unwrap();
        assert_eq!(received(&receiver), b"y");
    }

    #[test]
    fn nobody_at_a_udp_port_is_told_with_the_next_datagram() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let mut datagrams = Datagrams::to(Receiver::Udp(address));
        datagrams.send(b"1").unwrap();
        drop(receiver);
        datagrams.send(b"2").unwrap();
        assert!(matches!(datagrams.send(b"3"), Err(Failure::Refused(_))));
        let receiver = UdpSocket::bind(address).unwrap();
        datagrams.send(b"3").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], b'3');
        let long = vec![0; 70_000];
        assert!(matches!(datagrams.send(&long), Err(Failure::TooLong)));
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_an_error() {
        let mut datagrams = Datagrams::to(Receiver::Unix("x".repeat(200).into()));
        assert!(matches!(datagrams.send(b""), Err(Failure::Trouble(_))));
    }
}

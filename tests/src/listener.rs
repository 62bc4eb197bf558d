//! The other end of the connections: whom the kernel says it spoke to.

use std::{
    collections::HashMap,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

use crate::{agent::LIMIT, truth::canonical};

/// Longest wait of a listener's thread, so that it sees that it is to end.
const WAIT: Duration = Duration::from_millis(50);
/// Pending connections: a full backlog would make connects wait a second.
const BACKLOG: i32 = 4096;

/// Takes TCP connections, keeps each until the peer closes it, and notes the
/// peer's address.
#[derive(Debug)]
pub struct Tcp {
    address: SocketAddr,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tcp {
    /// # Panics
    ///
    /// When the address cannot be listened on.
    #[must_use]
    pub fn on(address: &str) -> Self {
        let listener = TcpListener::bind(address).expect("a test can listen");
        rustix::net::listen(&listener, BACKLOG).expect("a listener can listen");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        let peers = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (peers, stop) = (Arc::clone(&peers), Arc::clone(&stop));
            move || serve(&listener, &peers, &stop)
        });
        Self {
            address,
            peers,
            stop,
            thread: Some(thread),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The peers so far, v4-mapped ones as IPv4, once there are as many as
    /// `expected`; fewer where they do not come.
    ///
    /// # Panics
    ///
    /// When the listener's thread has.
    pub fn peers(&self, expected: usize) -> Vec<SocketAddr> {
        let start = Instant::now();
        loop {
            let peers = self.peers.lock().expect("no panic").clone();
            if peers.len() >= expected || start.elapsed() > LIMIT {
                return peers;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, peers: &Mutex<Vec<SocketAddr>>, stop: &AtomicBool) {
    const LISTENER: u64 = u64::MAX;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    let key = epoll::EventData::new_u64(LISTENER);
    epoll::add(&poll, listener, key, epoll::EventFlags::IN).expect("epoll");
    let timeout = Timespec::try_from(WAIT).expect("a short time");
    let mut open: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = Vec::with_capacity(256);
    while !stop.load(Ordering::Relaxed) {
        events.clear();
        let waited = epoll::wait(&poll, spare_capacity(&mut events), Some(&timeout));
        assert!(matches!(waited, Ok(_) | Err(rustix::io::Errno::INTR)));
        for event in &events {
            let key = event.data.u64();
            if key != LISTENER {
                let ended = open.get_mut(&key).is_none_or(has_ended);
                if ended {
                    open.remove(&key);
                }
                continue;
            }
            while let Ok((stream, peer)) = listener.accept() {
                peers.lock().expect("no panic").push(canonical(peer));
                stream.set_nonblocking(true).expect("non-blocking");
                let key = stream.as_raw_fd() as u64;
                let data = epoll::EventData::new_u64(key);
                epoll::add(&poll, &stream, data, epoll::EventFlags::IN).expect("epoll");
                open.insert(key, stream);
            }
        }
    }
}

/// Reads what came; true after the end.
fn has_ended(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// A UDP socket that keeps what it gets.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
}

impl Udp {
    /// # Panics
    ///
    /// When the address cannot be bound.
    #[must_use]
    pub fn on(address: &str) -> Self {
        let socket = UdpSocket::bind(address).expect("a test can bind");
        socket.set_nonblocking(true).expect("non-blocking");
        Self { socket }
    }

    /// # Panics
    ///
    /// Never: a bound socket has an address.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket")
    }

    /// Senders of the datagrams that wait: over loopback, all that were sent.
    pub fn senders(&self) -> Vec<SocketAddr> {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| self.socket.recv_from(&mut buffer).ok())
            .map(|(_, sender)| canonical(sender))
            .collect()
    }
}

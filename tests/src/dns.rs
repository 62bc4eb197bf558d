//! A DNS server that answers what a test tells it to.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Longest wait of a server's thread, so that it sees that it is to end.
const WAIT: Duration = Duration::from_millis(20);
/// Addresses that are tried, since a host may have servers of its own.
const TRIES: u32 = 100;
const PORT: u16 = 53;

/// What a name has.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    Address(IpAddr),
    Alias(&'a str),
}

/// What is answered, by name.
pub type Answers = HashMap<String, Vec<u8>>;

/// A question for the addresses of a name.
pub fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(wire(name));
    bytes.extend([0, 1, 0, 1]);
    bytes
}

/// The answer to that.
///
/// # Panics
///
/// When there is too much of it.
pub fn answer(name: &str, records: &[(&str, Data<'_>)]) -> Vec<u8> {
    let mut bytes = query(name);
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes[7] = u8::try_from(records.len()).expect("few records");
    for (owner, data) in records {
        let (kind, data) = match data {
            Data::Address(IpAddr::V4(ip)) => (1, ip.octets().to_vec()),
            Data::Address(IpAddr::V6(ip)) => (28, ip.octets().to_vec()),
            Data::Alias(name) => (5, wire(name)),
        };
        bytes.extend(wire(owner));
        bytes.extend([0, kind, 0, 1, 0, 0, 0, 60, 0]);
        bytes.push(u8::try_from(data.len()).expect("little data"));
        bytes.extend(data);
    }
    bytes
}

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A server on port 53 of an address of this host's own, over UDP and TCP; ended
/// when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// # Panics
    ///
    /// When no address has its port free.
    #[must_use]
    pub fn start(answers: Answers) -> Self {
        Self::with_liar(answers, None)
    }

    /// The same with a lie that is sent before each answer over UDP, from another
    /// address.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    #[must_use]
    pub fn with_liar(answers: Answers, lie: Option<Vec<u8>>) -> Self {
        let (udp, tcp) = sockets();
        let liar = lie.map(|lie| (sockets().0, lie));
        let address = udp.local_addr().expect("a socket has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(answers);
        udp.set_read_timeout(Some(WAIT)).expect("a timeout");
        tcp.set_nonblocking(true).expect("non-blocking");
        let threads = vec![
            thread::spawn({
                let (answers, stop) = (Arc::clone(&answers), Arc::clone(&stop));
                move || {
                    let mut bytes = [0; 512];
                    while !stop.load(Ordering::Relaxed) {
                        let Ok((len, from)) = udp.recv_from(&mut bytes) else {
                            continue;
                        };
                        if let Some((liar, lie)) = &liar {
                            liar.send_to(lie, from).expect("a lie can be sent");
                        }
                        if let Some(answer) = of(&answers, &bytes[..len]) {
                            udp.send_to(answer, from).expect("an answer can be sent");
                        }
                    }
                }
            }),
            thread::spawn({
                let (answers, stop) = (answers, Arc::clone(&stop));
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        match tcp.accept() {
                            Ok((mut stream, _)) => {
                                let mut len = [0; 2];
                                stream.set_nonblocking(false).expect("blocking");
                                stream.read_exact(&mut len).expect("a length");
                                let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
                                stream.read_exact(&mut bytes).expect("a question");
                                if let Some(answer) = of(&answers, &bytes) {
                                    let len = u16::try_from(answer.len()).expect("a short one");
                                    let answer = [&len.to_be_bytes()[..], answer].concat();
                                    stream.write_all(&answer).expect("an answer can be sent");
                                }
                            }
                            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                                thread::sleep(WAIT);
                            }
                            Err(error) => panic!("the DNS server: {error}"),
                        }
                    }
                }
            }),
        ];
        Self {
            address,
            stop,
            threads,
        }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(
                ended.is_ok() || thread::panicking(),
                "the DNS server failed"
            );
        }
    }
}

/// What is answered to that question.
fn of<'a>(answers: &'a Answers, question: &[u8]) -> Option<&'a [u8]> {
    let asked = |name: &&String| question == query(name);
    let name = answers.keys().find(asked)?;
    answers.get(name).map(Vec::as_slice)
}

fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..TRIES {
        let ip = Ipv4Addr::new(127, fastrand::u8(64..250), fastrand::u8(..), 77);
        if let (Ok(udp), Ok(tcp)) = (UdpSocket::bind((ip, PORT)), TcpListener::bind((ip, PORT))) {
            return (udp, tcp);
        }
    }
    panic!("port {PORT} is free on no address");
}

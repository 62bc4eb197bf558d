//! Questions to an agent's API by hand, as `curl` would ask them.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::Value;

/// An answer whose body has not been read.
#[derive(Debug)]
pub struct Answer<S> {
    pub status: u16,
    body: BufReader<S>,
}

/// Asks for a resource.
///
/// # Panics
///
/// When nobody answers.
pub fn get(socket: &Path, target: &str) -> Answer<UnixStream> {
    let stream = UnixStream::connect(socket).expect("an agent listens");
    ask(stream, target)
}

/// The same over TCP.
///
/// # Panics
///
/// When nobody answers.
pub fn get_tcp(address: SocketAddr, target: &str) -> Answer<TcpStream> {
    let stream = TcpStream::connect(address).expect("an agent listens");
    ask(stream, target)
}

fn ask<S: Read + Write>(mut stream: S, target: &str) -> Answer<S> {
    // The body of HTTP/1.0 ends with the connection, and is in no chunks.
    write!(stream, "GET {target} HTTP/1.0\r\n\r\n").expect("the request is taken");
    let mut body = BufReader::new(stream);
    let mut line = String::new();
    body.read_line(&mut line).expect("a status line");
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    while line != "\r\n" {
        line.clear();
        assert!(body.read_line(&mut line).expect("a head") > 0, "no body");
    }
    Answer {
        status: status.expect("a status"),
        body,
    }
}

impl<S: Read> Answer<S> {
    /// The next record; `None` at the end.
    ///
    /// # Panics
    ///
    /// When a line is no JSON.
    pub fn record(&mut self) -> Option<Value> {
        let mut line = String::new();
        let length = self.body.read_line(&mut line).expect("a body");
        (length > 0).then(|| serde_json::from_str(&line).expect("a record a line"))
    }

    /// The rest of the body.
    ///
    /// # Panics
    ///
    /// When it breaks off.
    pub fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).expect("a body");
        text
    }
}

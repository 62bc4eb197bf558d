//! What the conformance programs say of each socket they used: one line a
//! flow and user, to which every record of that socket is held.
//!
//! A socket is named by its cookie (`SO_COOKIE`), as records name it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::truth::Actor;

/// Set in the environment of a program that is to be denied.
pub const DENIED: &str = "PROCID_TEST_DENIED";

/// How an image used a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Connected it, or made it and sent the first datagram.
    Opener,
    /// Sent on it without having opened it.
    Speaker,
    /// Took it from accept(2).
    Acceptor,
}

/// One flow, by one user of its socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Of the socket, decimal as in `procid.socket.cookie`.
    pub cookie: String,
    pub role: Role,
    pub actor: Actor,
    /// `procid.socket.type`: `stream`, `dgram`, `raw`, `packet`, `seqpacket`.
    pub kind: String,
    /// `network.transport`; `None` where records have none.
    pub transport: Option<String>,
    /// What getsockname(2) said after the act; `None`: there was none.
    pub source: Option<SocketAddr>,
    /// As asked for; port 0 for protocols without ports. `None`: records have none.
    pub destination: Option<SocketAddr>,
    /// What the packet was addressed to, where that is another address.
    pub wire: Option<IpAddr>,
    /// Errno of the act.
    pub error: Option<i32>,
    /// Payload bytes that all users of the socket together sent to this
    /// destination: the sum of the returns. `None`: not judged, or told in the
    /// opener's line.
    pub sent: Option<u64>,
    /// The same of what was received.
    pub received: Option<u64>,
}

/// A way that this kernel does not have, in one sentence with the errno's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsupported {
    pub unsupported: String,
}

/// A line of a conformance program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Said {
    Flow(Box<Flow>),
    Unsupported(Unsupported),
}

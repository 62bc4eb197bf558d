//! The other end of a connection, and where its request came from and went on.

use serde::{Deserialize, Serialize};

use super::{Endpoint, HashState, Process};

/// The other end of a connection, where it is a socket of this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// `COOKIE.COUNT` of the other end.
    pub flow_id: String,
    /// How `process` came to that end: `opener`, `speaker` or `acceptor`; absent
    /// where its beginning was not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Box<Process>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashState>,
    /// The image that began to speak there last, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speaker: Option<Box<Process>>,
}

/// A step from one connection to the next, on the way of a request through the
/// processes of this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hop {
    /// The flow that the step is taken from.
    pub of: String,
    /// The flow that it leads to.
    pub flow_id: String,
    /// `peer`: the other end of the same connection. `inferred`: another
    /// connection of the same process, which may have nothing to do with it.
    pub relation: String,
    /// `onward`: to where a request may have gone. `back`: to who may have asked.
    pub toward: String,
    pub why: String,
    /// Who acts on the flow that it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Box<Process>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Endpoint>,
}

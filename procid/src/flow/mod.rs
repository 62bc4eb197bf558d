//! What `procid who` asks: a flow and filters, parsed and matched.
//!
//! FLOW is `:port`, `ip`, `ip:port`, `[v6]:port`, two of them (`SRC DST`, as
//! `ss` prints them), or a Community ID.
//!
//! | module | holds |
//! | --- | --- |
//! | [`parse`] | the words of a command line → [`Query`] |
//! | [`mod@matches`] | [`Query`] against what is known of a connection |
//! | [`community_id`] | the flow hash that other tools share |

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub mod community_id;
pub mod matches;
pub mod parse;

pub use matches::Facts;
pub use parse::FlowError;

/// One end of a connection; an absent part matches anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub address: Option<IpNet>,
    pub port: Option<u16>,
}

/// A question. Every part that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// A bare FLOW: matches either end.
    pub either: Option<End>,
    pub source: Option<End>,
    pub destination: Option<End>,
    pub community_id: Option<String>,
    pub pid: Option<u32>,
    /// Exact path, or a base name without a slash.
    pub exe: Option<String>,
    /// Lower-case hexadecimal prefix.
    pub sha256: Option<String>,
    /// Numeric uid (names are resolved before the question is asked).
    pub user: Option<u32>,
    /// Container id prefix.
    pub container: Option<String>,
    /// What the destination was called, or a name above that.
    pub domain: Option<String>,
    /// `allow`, `deny` or `audit`.
    pub verdict: Option<String>,
    /// Nanoseconds since the epoch.
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// Open at this moment.
    pub at: Option<i64>,
}

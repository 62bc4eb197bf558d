//! The local API: HTTP/1.1 on a Unix socket, JSON answers.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | [`Status`](crate::agent::handle::Status) as one JSON object |
//! | `GET /v1/who?PARAMETERS` | matching records, NDJSON, oldest first; the last line is the coverage record. Parameters: [`parameters`] |
//! | `GET /v1/processes/ENTITY_ID` | the image's record, or 404 |
//!
//! An error is `{"error": "one sentence"}` with the fitting HTTP status: 400
//! for a bad parameter, 403 for a caller that is not served, 404, 503 when the
//! agent is stopping. One request a connection. By hand:
//!
//! ```text
//! curl --unix-socket /run/procid/procid.sock 'http://procid/v1/who?dst=:443'
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`socket`] | where the API listens: one agent a socket, mode, owner |
//! | [`access`] | who is served |
//! | [`parameters`] | a [`Query`](crate::flow::Query) as URL parameters |
//! | [`server`] | requests to answers, bounded in number, size and time |
//! | [`client`] | the other end, for the commands |
//! | [`accounts`] | names and numbers of users and groups |

pub mod access;
pub mod accounts;
pub mod client;
pub mod parameters;
pub mod server;
pub mod socket;

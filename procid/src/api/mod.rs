//! The local API: HTTP/1.1 on a Unix socket, JSON answers.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | [`Status`](crate::agent::handle::Status) as one JSON object |
//! | `GET /v1/who?PARAMETERS` | matching records, NDJSON, oldest first; the last line is the coverage record. Parameters: [`parameters`] |
//! | `GET /v1/processes/ENTITY_ID` | the image's record, or 404 |
//! | `GET /v1/policy` | [`Shown`](crate::agent::policy::ask::Shown): the policy in force, or 409 |
//! | `POST /v1/policy/apply` | takes an [`Apply`](crate::agent::policy::ask::Apply); this and the following answer [`Changed`](crate::agent::policy::ask::Changed), and are root's |
//! | `POST /v1/policy/confirm`, `POST /v1/policy/revert` | take nothing |
//! | `POST /v1/block` | takes a [`BlockRequest`](crate::agent::policy::ask::BlockRequest) |
//! | `POST /v1/unblock` | takes an [`Unblock`](crate::agent::policy::ask::Unblock) |
//!
//! An error is `{"error": "one sentence"}` with the fitting HTTP status: 400
//! for a bad parameter or a bad policy, 403 for a caller that is not served or
//! may not change the policy, 404, 409 when there is nothing to confirm, revert
//! or unblock, 501 for what this host cannot enforce, 503 when the agent is
//! stopping. One request a connection. By hand:
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
//! | [`policy`] | the policy in force, and its changes |
//! | [`server`] | requests to answers, bounded in number, size and time |
//! | [`client`] | the other end, for the commands |
//! | [`accounts`] | names and numbers of users and groups |

pub mod access;
pub mod accounts;
pub mod client;
pub mod parameters;
mod policy;
pub mod server;
pub mod socket;

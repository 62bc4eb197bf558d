//! The local API: HTTP/1.1 on a Unix socket, JSON answers.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | [`Status`](crate::agent::handle::Status) as one JSON object |
//! | `GET /v1/who?PARAMETERS` | matching records, NDJSON, oldest first; the last line is the coverage record. Parameters: [`parameters`] |
//! | `GET /v1/connections?PARAMETERS` | the same of connections that are open, each with the bytes it has carried so far |
//! | `GET /v1/events?after=SEQUENCE&ephemeral_id=ID` | every record as it is emitted, NDJSON, until the agent ends: [`events`] |
//! | `GET /v1/processes` | the images that run, NDJSON, the last line is the coverage record |
//! | `GET /v1/processes/ENTITY_ID` | the image's record, or 404 |
//! | `GET /v1/policy` | [`Shown`](crate::agent::policy::ask::Shown): the policy in force, or 409 |
//! | `GET /metrics` | the same numbers as `/v1/status`, as Prometheus reads them; also on the TCP address of `run --metrics` |
//! | `POST /v1/policy/apply` | takes an [`Apply`](crate::agent::policy::ask::Apply); this and the following answer [`Changed`](crate::agent::policy::ask::Changed), and are root's |
//! | `POST /v1/policy/confirm`, `POST /v1/policy/revert` | take nothing |
//! | `POST /v1/block` | takes a [`BlockRequest`](crate::agent::policy::ask::BlockRequest) |
//! | `POST /v1/unblock` | takes an [`Unblock`](crate::agent::policy::ask::Unblock) |
//!
//! An error is `{"error": "one sentence"}` with the fitting HTTP status: 400
//! for a bad parameter or a bad policy, 403 for a caller that is not served or
//! may not change the policy, 404, 409 when there is nothing to confirm, revert
//! or unblock, 501 for what this host cannot enforce, 503 when the agent is
//! stopping or answers too many. What cannot be decoded, and a parameter that
//! is not listed, is refused, never ignored. docs/openapi.json has it all, and a
//! test holds the server to it. One request a connection. By hand:
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
//! | [`events`] | records as they are emitted, to who reads along |
//! | [`metrics`] | numbers for Prometheus |
//! | [`percent`] | whether an address can be decoded |
//! | [`slots`] | how many are served at a time, and for how long |
//! | [`server`] | requests to answers, bounded in number, size and time |
//! | [`client`] | the other end, for the commands |
//! | [`accounts`] | names and numbers of users and groups |

pub mod access;
pub mod accounts;
pub mod client;
pub mod events;
mod metrics;
#[cfg(test)]
mod openapi;
pub mod parameters;
mod percent;
mod policy;
pub mod server;
mod slots;
pub mod socket;

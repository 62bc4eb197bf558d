//! procid: which running process image is speaking on this connection?
//!
//! Data flows one way: [`kernel`] (hooks, ring buffer) → [`decode`] →
//! [`identity`] and [`connections`] (what is known) → [`agent`] (joins them
//! into [`records`]) → stdout, [`outputs`], [`api`]. [`cli`] holds the commands. [`policy`]
//! flows the other way: file → rules → tables → [`kernel`]. [`gate`] holds an
//! execution up until its file's hash is known.
//!
//! [`names`] are those that DNS answers gave the destinations of connections.
//!
//! [`history`] keeps what was seen, and [`outputs`] hand it on.
//!
//! `records`, `flow`, `decode`, `identity`, `connections`, `conntrack`, `policy`, `snapshot`,
//! `gate`, `history`, `outputs` and `names` need no eBPF and never import aya; `cargo xtask
//! test` checks that.

pub mod agent;
pub mod api;
pub mod cli;
pub mod connections;
pub mod conntrack;
pub mod decode;
pub mod flow;
pub mod gate;
pub mod history;
pub mod identity;
pub mod kernel;
pub mod names;
pub mod outputs;
pub mod policy;
pub mod records;
pub mod snapshot;
pub mod time;

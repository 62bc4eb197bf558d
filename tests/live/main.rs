//! procid as root on the running kernel, held to what programs and listeners
//! say happened.
//!
//! Each test has a cgroup of its own, and its agent attaches there only. Run
//! by `cargo xtask test`, which sets `PROCID_BIN` and `PROCID_TESTPROG`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod commands;
mod connections;
mod containers;
mod context;
mod crowd;
mod cut;
mod decisions;
mod dns;
mod elsewhere;
mod events;
mod explain;
mod files;
mod flows;
mod forged;
mod gate;
mod history;
mod hops;
mod hung;
mod identity;
mod incident;
mod lineage;
mod load;
mod lockout;
mod login;
mod names;
mod nat;
mod open;
mod outlive;
mod outputs;
mod overflow;
mod policy;
mod pressure;
mod programs;
mod questions;
mod replay;
mod report;
mod save;
mod scripts;
mod speakers;
mod stall;
mod start;
mod storm;
mod unseen;
mod use_cases;
mod watch;
mod who;

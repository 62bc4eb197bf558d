//! procid as root on a Debian kernel in a virtual machine, where BPF LSM
//! programs may be loaded.
//!
//! Run by `cargo xtask test`, which boots the machine and sets `PROCID_BIN` and
//! `PROCID_TESTPROG`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backends;
mod containers;
mod crowd;
mod lockout;
mod outlive;
mod protect;
mod scripts;
mod unseen;

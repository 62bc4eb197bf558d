//! A compiled policy.

use procid_common::policy::{Bits, Epoch, Fact, HashKey, Head, InodeKey, Name, Node, Uses};

/// The tables of one policy. Keys have slot 0.
#[derive(Clone, Debug)]
pub struct Tables {
    pub head: Head,
    /// With the bits of the value that count.
    pub facts: Vec<(u32, Fact, Bits)>,
    pub names: Vec<(Name, Node)>,
    pub hashes: Vec<(HashKey, Uses)>,
    pub inodes: Vec<(InodeKey, Uses)>,
    /// In order of time; the last one's `until_ns` is `u64::MAX`.
    pub epochs: Vec<Epoch>,
}

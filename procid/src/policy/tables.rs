//! A compiled policy, and who puts it in force.

use std::{fmt, io};

use super::lineage::{Family, Named};
use procid_common::policy::{
    Bits, Epoch, Fact, HashKey, Head, InodeKey, Name, Node, Uses,
    asked::{Asked, AskedRow, OpenRow},
};

/// The tables of one policy. Keys have slot 0: [`Enforcer`] puts in its own.
#[derive(Clone, Debug)]
pub struct Tables {
    /// `generation`, `fallback` and `applied_ns` are the [`Enforcer`]'s.
    pub head: Head,
    /// With the bits of the value that count.
    pub facts: Vec<(u32, Fact, Bits)>,
    pub names: Vec<(Name, Node)>,
    pub hashes: Vec<(HashKey, Uses)>,
    pub inodes: Vec<(InodeKey, Uses)>,
    /// For images that have ended before the policy.
    pub named: Named,
    /// In order of time; the last one's `until_ns` is `u64::MAX`.
    pub epochs: Vec<Epoch>,
}

/// Puts policies in force; the kernel side, but for tests.
///
/// A generation is a number that grows with every policy put in force, by any
/// agent, since the programs were loaded; 0: no policy.
pub trait Enforcer: fmt::Debug + Send {
    /// Puts a policy in force, whole and at once, and returns its generation.
    /// With a deadline (nanoseconds since boot) the one before comes into force
    /// again at that time, agent or no agent, unless it is confirmed. `family`:
    /// the images that are known, where the policy asks for ancestors.
    ///
    /// # Errors
    ///
    /// What the kernel refused; the policy before is still in force.
    fn apply(
        &mut self,
        tables: &Tables,
        revert_at_ns: Option<u64>,
        family: &Family,
    ) -> io::Result<u64>;

    /// Hashes of images have become known since: what depends on those of images
    /// before others is found out again, for the policy in force.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    fn settle(&mut self, family: &Family) -> io::Result<()>;

    /// What the programs would say to each thread of a process, by these tables
    /// and who forked whom; `None`: by those in force. The question's slot is the
    /// [`Enforcer`]'s.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    fn ask(
        &mut self,
        tables: Option<(&Tables, &Family)>,
        asked: Asked,
    ) -> io::Result<Vec<AskedRow>>;

    /// Open connections, a row for each process that holds one (`of`: for each of
    /// those), and what the programs would say to its next send.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    fn open(
        &mut self,
        tables: Option<(&Tables, &Family)>,
        of: Option<&[u32]>,
    ) -> io::Result<Vec<OpenRow>>;

    /// The policy in force has no deadline any more.
    ///
    /// # Errors
    ///
    /// None waits to be confirmed, or the kernel's refusal.
    fn confirm(&mut self) -> io::Result<()>;

    /// Puts the policy before the one that waits to be confirmed in force again;
    /// returns its generation.
    ///
    /// # Errors
    ///
    /// None waits to be confirmed, or the kernel's refusal.
    fn revert(&mut self) -> io::Result<u64>;

    /// Puts no policy in force.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    fn clear(&mut self) -> io::Result<()>;

    /// The generation in force at this moment.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    fn generation(&self) -> io::Result<u64>;

    /// Decisions made by each rule of the policy in force, by its index; the
    /// last one's are the default's.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    fn hits(&self) -> io::Result<Vec<u64>>;
}

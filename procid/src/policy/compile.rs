//! From a policy as it was meant to the tables that the programs read.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    ops::RangeInclusive,
};

use procid_common::policy::{
    Bits, Dimension, EXPIRIES_MAX, Epoch, Fact, HashKey, Head, InodeKey, NO_RULES, RULES_MAX, Uses,
    flags, kind, role, transport,
};
use zerocopy::FromZeros;

use self::{names::Names, prefixes::Asked};
use super::{
    Action, Files, Inode, Matcher, Mode, Policy, Role, Rule, Socket, Transport, Verdict,
    bits::insert, lineage::Named, places::Places, tables::Tables,
};
use crate::identity::hash::settle::Offset;

pub use self::error::{CompileError, RuleName};

mod error;
pub(super) mod names;
pub(super) mod prefixes;
#[cfg(test)]
mod tests;

/// Compiles a policy for this host: paths are looked up now, and `clock` turns
/// the times at which rules expire into the kernel's.
///
/// # Errors
///
/// The policy has too many rules or expiries, or one of them asks for what
/// cannot be told on this host.
pub fn compile(
    policy: &Policy,
    places: &dyn Places,
    clock: Offset,
) -> Result<Tables, CompileError> {
    if policy.rules.len() > RULES_MAX {
        return Err(CompileError::Rules(policy.rules.len()));
    }
    let mut compiler = Compiler::new(policy, places);
    for (index, rule) in policy.rules.iter().enumerate() {
        compiler.rule(index, rule)?;
    }
    let epochs = epochs(&policy.rules, clock)?;
    Ok(compiler.finish(epochs))
}

/// Whose executable a rule asks for.
#[derive(Clone, Copy)]
enum Whose {
    Own,
    Ancestor,
    Parent,
}

impl Whose {
    fn of(self, uses: &mut Uses) -> &mut Bits {
        match self {
            Self::Own => &mut uses.own,
            Self::Ancestor => &mut uses.ancestor,
            Self::Parent => &mut uses.parent,
        }
    }
}

struct Compiler<'a> {
    places: &'a dyn Places,
    head: Head,
    named: Named,
    asked: [Asked; Dimension::COUNT],
    names: Names,
    hashes: BTreeMap<[u8; 32], Uses>,
    inodes: BTreeMap<(u32, u64), Uses>,
}

impl<'a> Compiler<'a> {
    fn new(policy: &Policy, places: &'a dyn Places) -> Self {
        let mut head = Head::new_zeroed();
        head.sha256 = policy.sha256;
        head.words = policy.rules.len().div_ceil(64).max(1) as u32;
        for (flag, is_set) in [
            (flags::DEFAULT_DENY, policy.default == Verdict::Deny),
            (flags::AUDIT, policy.mode == Mode::Audit),
            (flags::UNKNOWN_DENY, policy.unknown_hash == Verdict::Deny),
            (flags::LOOPBACK_ALLOW, policy.loopback_allow),
            (flags::ESTABLISHED_KEEP, policy.established_keep),
            (flags::OVERFLOW_DENY, policy.on_overflow == Verdict::Deny),
        ] {
            if is_set {
                head.flags |= flag;
            }
        }
        Self {
            places,
            named: Named::of(policy),
            head,
            asked: Default::default(),
            names: Names::default(),
            hashes: BTreeMap::new(),
            inodes: BTreeMap::new(),
        }
    }

    fn rule(&mut self, index: usize, rule: &Rule) -> Result<(), CompileError> {
        let head = &mut self.head;
        match rule.action {
            Action::Allow => insert(&mut head.allow, index),
            Action::Deny => insert(&mut head.deny, index),
            Action::Audit => insert(&mut head.audit, index),
        }
        self.socket(index, rule);
        self.values(index, rule);
        self.cgroup(index, rule);
        self.image(index, rule)?;
        self.lineage(index, rule)
    }

    /// Transport, kind of socket, and who acts.
    fn socket(&mut self, index: usize, rule: &Rule) {
        let head = &mut self.head;
        let transports = &rule.destination.transports;
        for (nth, bits) in head.transport.iter_mut().enumerate() {
            if transports.is_empty() || transports.iter().any(|one| one.index() == nth) {
                insert(bits, index);
            }
        }
        let sockets = &rule.destination.sockets;
        for (nth, bits) in head.kind.iter_mut().enumerate() {
            if sockets.is_empty() || sockets.iter().any(|one| one.index() == nth) {
                insert(bits, index);
            }
        }
        let kernel = rule.process.kernel;
        let roles = &rule.process.roles;
        let may_be = |role| roles.is_empty() || roles.contains(&role);
        for (nth, acts) in [
            (
                role::OPENER,
                !kernel && !rule.ingress && may_be(Role::Opener),
            ),
            (
                role::SPEAKER,
                !kernel && !rule.ingress && may_be(Role::Speaker),
            ),
            (
                role::ACCEPTOR,
                !kernel && rule.ingress && may_be(Role::Acceptor),
            ),
            (role::KERNEL, kernel && !rule.ingress && roles.is_empty()),
        ] {
            if acts {
                insert(&mut head.role[nth], index);
            }
        }
        if rule.ingress {
            head.flags |= flags::ASKS_INGRESS;
        }
    }

    /// What is looked up by prefix.
    fn values(&mut self, index: usize, rule: &Rule) {
        let networks = &rule.destination.networks;
        for network in networks {
            self.asked[Dimension::Destination as usize].network(index, network);
        }
        self.asks(index, Dimension::Destination, !networks.is_empty());
        for (dimension, ranges) in [
            (Dimension::Port, wide(&rule.destination.ports)),
            (Dimension::SourcePort, wide(&rule.source_ports)),
            (Dimension::Uid, rule.process.uids.clone()),
            (Dimension::Gid, rule.process.gids.clone()),
        ] {
            for range in &ranges {
                self.asked[dimension as usize].range(index, range, dimension.width());
            }
            self.asks(index, dimension, !ranges.is_empty());
        }
    }

    fn asks(&mut self, index: usize, dimension: Dimension, asks: bool) {
        if asks {
            self.head.flags |= flags::ASKS_DIMENSION << dimension as u32;
        } else {
            insert(&mut self.head.unasked[dimension as usize], index);
        }
    }

    fn cgroup(&mut self, index: usize, rule: &Rule) {
        let mut anywhere = rule.process.cgroups.is_empty();
        for path in &rule.process.cgroups {
            match self.names.cgroup(path) {
                Some(node) => insert(&mut node.below.own, index),
                // Every cgroup is the root or below it.
                None => anywhere = true,
            }
        }
        if anywhere {
            insert(&mut self.head.no_cgroup, index);
        } else {
            self.head.flags |= flags::ASKS_CGROUP;
        }
        for unit in &rule.process.units {
            insert(&mut self.names.unit(OsStr::new(unit)).below.own, index);
        }
        if rule.process.units.is_empty() {
            insert(&mut self.head.no_unit, index);
        } else {
            self.head.flags |= flags::ASKS_CGROUP;
        }
        for prefix in &rule.process.containers {
            insert(&mut self.names.container(prefix).below.own, index);
        }
        if rule.process.containers.is_empty() {
            insert(&mut self.head.no_container, index);
        } else {
            self.head.flags |= flags::ASKS_CGROUP | flags::ASKS_CONTAINER;
        }
    }

    /// The calling image itself.
    fn image(&mut self, index: usize, rule: &Rule) -> Result<(), CompileError> {
        let process = &rule.process;
        if process.is_in_root() {
            insert(&mut self.head.in_root, index);
            self.files_in_root(index, rule)?;
        } else {
            for files in &process.executables {
                self.files(index, rule, Whose::Own, files)?;
            }
        }
        if process.executables.is_empty() {
            insert(&mut self.head.no_path, index);
        }
        for sha256 in &process.sha256 {
            self.hash(index, Whose::Own, sha256);
        }
        if process.sha256.is_empty() {
            insert(&mut self.head.no_hash, index);
        }
        for inode in &process.inodes {
            self.inode(index, rule, Whose::Own, *inode)?;
        }
        if process.inodes.is_empty() {
            insert(&mut self.head.no_inode, index);
        }
        Ok(())
    }

    /// The images before it.
    fn lineage(&mut self, index: usize, rule: &Rule) -> Result<(), CompileError> {
        let process = &rule.process;
        let head = &mut self.head;
        if process.ancestors.is_empty() {
            insert(&mut head.no_ancestor, index);
        } else {
            head.flags |= flags::ASKS_ANCESTOR;
        }
        if process.parents.is_empty() {
            insert(&mut head.no_parent, index);
        } else {
            head.flags |= flags::ASKS_PARENT;
        }
        let by_hash = |one: &Matcher| matches!(one, Matcher::Sha256(_));
        if process.ancestors.iter().any(by_hash) {
            insert(&mut head.ancestor_by_hash, index);
        }
        if process.parents.iter().any(by_hash) {
            insert(&mut head.parent_by_hash, index);
        }
        let ancestors = process.ancestors.iter().map(|one| (Whose::Ancestor, one));
        let parents = process.parents.iter().map(|one| (Whose::Parent, one));
        for (whose, matcher) in ancestors.chain(parents) {
            match matcher {
                Matcher::Executable(files) => self.files(index, rule, whose, files)?,
                Matcher::Sha256(sha256) => self.hash(index, whose, sha256),
                Matcher::Inode(inode) => self.inode(index, rule, whose, *inode)?,
            }
        }
        Ok(())
    }

    fn files(
        &mut self,
        index: usize,
        rule: &Rule,
        whose: Whose,
        files: &Files,
    ) -> Result<(), CompileError> {
        let path = files.path();
        let failed = |reason| CompileError::Path {
            rule: rule.into(),
            path: path.to_owned(),
            reason,
        };
        self.head.flags |= flags::ASKS_PATH;
        let place = self.places.place(path).map_err(failed)?;
        let node = self.names.file(&place);
        match files {
            Files::Exact(_) => insert(whose.of(&mut node.exact), index),
            Files::Below(_) => {
                insert(whose.of(&mut node.below), index);
                for mount in self.places.mounts_below(path).map_err(failed)? {
                    let node = self.names.file(&mount);
                    insert(whose.of(&mut node.below), index);
                    // A file may be a mount point too.
                    insert(whose.of(&mut node.exact), index);
                }
            }
        }
        Ok(())
    }

    /// Names in the root of a container are taken as they are written: it may not
    /// exist yet, and there may be more than one.
    fn files_in_root(&mut self, index: usize, rule: &Rule) -> Result<(), CompileError> {
        let failed = |reason| CompileError::Root {
            rule: rule.into(),
            reason,
        };
        self.head.flags |= flags::ASKS_IN_ROOT;
        self.head.host_mntns = self.places.namespace().map_err(failed)?;
        for files in &rule.process.executables {
            let node = self.names.file(&names::in_root(files.path()));
            match files {
                Files::Exact(_) => insert(&mut node.exact.own, index),
                Files::Below(_) => insert(&mut node.below.own, index),
            }
        }
        Ok(())
    }

    fn hash(&mut self, index: usize, whose: Whose, sha256: &[u8; 32]) {
        let uses = self.hashes.entry(*sha256).or_insert(Uses::NONE);
        insert(whose.of(uses), index);
        self.head.flags |= flags::ASKS_HASH;
    }

    fn inode(
        &mut self,
        index: usize,
        rule: &Rule,
        whose: Whose,
        inode: Inode,
    ) -> Result<(), CompileError> {
        let dev = inode.dev().ok_or_else(|| CompileError::Device {
            rule: rule.into(),
            major: inode.major,
            minor: inode.minor,
        })?;
        let uses = self.inodes.entry((dev, inode.ino)).or_insert(Uses::NONE);
        insert(whose.of(uses), index);
        self.head.flags |= flags::ASKS_INODE;
        Ok(())
    }

    fn finish(self, epochs: Vec<Epoch>) -> Tables {
        let mut facts = Vec::new();
        for (dimension, asked) in Dimension::ALL.into_iter().zip(self.asked) {
            let unasked = &self.head.unasked[dimension as usize];
            facts.extend(asked.entries(unasked).into_iter().map(|(prefix, bits)| {
                let fact = Fact {
                    slot: 0,
                    dimension: dimension as u8,
                    reserved: [0; 6],
                    value: prefix.value.to_be_bytes(),
                };
                (prefix.len, fact, bits)
            }));
        }
        let hashes = self.hashes.into_iter().map(|(sha256, uses)| {
            let key = HashKey {
                slot: 0,
                reserved: 0,
                sha256,
            };
            (key, uses)
        });
        let inodes = self
            .inodes
            .into_iter()
            .map(|((dev, ino), uses)| (InodeKey { slot: 0, dev, ino }, uses));
        Tables {
            head: self.head,
            facts,
            names: self.names.into_nodes(),
            hashes: hashes.collect(),
            inodes: inodes.collect(),
            named: self.named,
            epochs,
        }
    }
}

fn wide(ports: &[RangeInclusive<u16>]) -> Vec<RangeInclusive<u32>> {
    let wide = |range: &RangeInclusive<u16>| u32::from(*range.start())..=u32::from(*range.end());
    ports.iter().map(wide).collect()
}

/// The times between expiries, and the rules in force in each.
fn epochs(rules: &[Rule], clock: Offset) -> Result<Vec<Epoch>, CompileError> {
    // A time that the clock cannot tell is never.
    let until = |rule: &Rule| {
        let real = rule.expires.filter(|real| *real <= i128::from(i64::MAX));
        real.map_or(u64::MAX, |real| {
            clock.to_boot(i64::try_from(real).unwrap_or(i64::MIN))
        })
    };
    let untils: Vec<u64> = rules.iter().map(until).collect();
    let mut times: BTreeSet<u64> = untils.iter().copied().collect();
    times.insert(u64::MAX);
    if times.len() > EXPIRIES_MAX {
        return Err(CompileError::Expiries(times.len() - 1));
    }
    let epoch = |until_ns| {
        let mut live = NO_RULES;
        for (index, until) in untils.iter().enumerate() {
            if *until >= until_ns {
                insert(&mut live, index);
            }
        }
        Epoch { until_ns, live }
    };
    Ok(times.into_iter().map(epoch).collect())
}

impl Transport {
    /// In [`Head::transport`].
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Tcp => transport::TCP,
            Self::Udp => transport::UDP,
            Self::UdpLite => transport::UDPLITE,
            Self::Icmp => transport::ICMP,
            Self::Ipv6Icmp => transport::IPV6_ICMP,
            Self::Sctp => transport::SCTP,
            Self::Dccp => transport::DCCP,
        }
    }
}

impl Socket {
    /// In [`Head::kind`].
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Raw => kind::RAW,
            Self::Packet => kind::PACKET,
        }
    }
}

impl Inode {
    /// As in [`InodeKey::dev`]; `None`: no device has these numbers.
    pub(super) const fn dev(self) -> Option<u32> {
        if self.major < 1 << 12 && self.minor < 1 << 20 {
            Some(self.major << 20 | self.minor)
        } else {
            None
        }
    }
}

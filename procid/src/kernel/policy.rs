//! The policy's maps: filling a set of tables, and putting it in force.

use std::{io, net::Ipv4Addr};

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, MapData, MapError, PerCpuArray, lpm_trie::Key},
};
use procid_common::{
    image::ImageId,
    policy::{
        Bits, EXPIRIES_MAX, Epoch, Fact, HashKey, Head, InodeKey, Name, Node, RULES_MAX, SLOTS,
        Uses, active,
        asked::{Asked, AskedRow, OpenRow},
        flags,
    },
};
use rustix::time::{ClockId, clock_gettime};
use zerocopy::{Immutable, IntoBytes};

use super::{AttachError, asked::Ask, lineage, take_map};
use crate::policy::{
    lineage::Family,
    tables::{Enforcer, Tables},
};

/// The bytes of a `T`, as aya takes keys and values.
type Raw<const N: usize> = [u8; N];

const HEAD: usize = size_of::<Head>();
const EPOCH: usize = size_of::<Epoch>();
const FACT: usize = size_of::<Fact>();
const BITS: usize = size_of::<Bits>();
const NAME: usize = size_of::<Name>();
const NODE: usize = size_of::<Node>();
const HASH: usize = size_of::<HashKey>();
const INODE: usize = size_of::<InodeKey>();
const USES: usize = size_of::<Uses>();
const IMAGE: usize = size_of::<ImageId>();

/// Generations of policies that are only asked: what is remembered under one is
/// never taken for another's.
const TRIED: u64 = 1 << 61;

/// What a slot was filled with, to be taken out again.
#[derive(Debug, Default)]
struct Filled {
    /// With the bits that count.
    facts: Vec<(u32, Raw<FACT>)>,
    names: Vec<Raw<NAME>>,
    hashes: Vec<Raw<HASH>>,
    inodes: Vec<Raw<INODE>>,
    /// The policy, where it asks for ancestors or parents.
    asks: Option<Tables>,
}

/// The kernel side of a policy.
pub struct Policies {
    active: Array<MapData, u64>,
    heads: Array<MapData, Raw<HEAD>>,
    deadlines: Array<MapData, u64>,
    epochs: Array<MapData, Raw<EPOCH>>,
    facts: LpmTrie<MapData, Raw<FACT>, Raw<BITS>>,
    names: HashMap<MapData, Raw<NAME>, Raw<NODE>>,
    hashes: HashMap<MapData, Raw<HASH>, Raw<USES>>,
    inodes: HashMap<MapData, Raw<INODE>, Raw<USES>>,
    hits: PerCpuArray<MapData, u64>,
    own: HashMap<MapData, [u8; 16], u32>,
    lineages: lineage::Table,
    ask: Ask,
    filled: [Filled; SLOTS as usize],
    /// Of each slot: the word in force before it, 0 where there was none.
    fallbacks: [u64; SLOTS as usize],
    /// Of the newest policy.
    generation: u64,
    /// Policies that were filled in only to be asked.
    tried: u64,
    /// Policies that an earlier agent put in force.
    earlier: Vec<Since>,
    /// What an earlier agent's programs kept under the rules of the policy that
    /// this agent put in force first.
    kept: lineage::Known,
}

/// What an earlier agent's programs enforced.
#[derive(Clone, Debug, Default)]
pub(super) struct Earlier {
    /// Of its newest policy.
    pub(super) generation: u64,
    pub(super) policies: Vec<Since>,
}

/// Since when a policy is in force.
#[derive(Clone, Debug)]
pub(super) struct Since {
    pub(super) head: Head,
    /// Of the images that lived then.
    pub(super) lineages: lineage::Known,
}

impl Since {
    /// Whether these tables are of the same rules, so that what was kept under
    /// the one holds under the other.
    fn is_same(&self, head: &Head) -> bool {
        let rules = |head: &Head| Head {
            generation: 0,
            fallback: 0,
            applied_ns: 0,
            ..*head
        };
        rules(&self.head) == rules(head)
    }
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// An entry that the kernel did not take. `E2BIG` of a hash map and `ENOSPC` of
/// a trie: it is full.
///
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/hashtab.c#L1035>
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/lpm_trie.c#L296>
pub(super) fn refused(error: MapError) -> io::Error {
    if let MapError::SyscallError(refused) = &error
        && matches!(
            refused.io_error.raw_os_error(),
            Some(libc::E2BIG | libc::ENOSPC)
        )
    {
        return io::Error::other(
            "a table of the programs is full: the policy has more names, prefixes or hashes than \
             it holds; shorten it",
        );
    }
    io::Error::other(format!(
        "the kernel refused an entry of a policy table: {:#}",
        anyhow::Error::from(error)
    ))
}

pub(super) fn raw<T: IntoBytes + Immutable, const N: usize>(value: &T) -> io::Result<Raw<N>> {
    value
        .as_bytes()
        .try_into()
        .map_err(|_| io::Error::other("a table entry of another size"))
}

/// Whether the policy asks for ancestors or parents.
fn asks(tables: &Tables) -> bool {
    tables.head.flags & (flags::ASKS_ANCESTOR | flags::ASKS_PARENT) != 0
}

fn boot_now_ns() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let (sec, nsec) = (time.tv_sec.max(0), time.tv_nsec.max(0));
    sec.unsigned_abs() * 1_000_000_000 + nsec.unsigned_abs()
}

/// The host's own addresses now, v4-mapped, in the agent's network namespace.
///
/// - `/proc/net/if_inet6`: <https://github.com/torvalds/linux/blob/v6.12/net/ipv6/addrconf.c#L4410>
/// - `/proc/net/fib_trie`: <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/fib_trie.c#L2758>
fn own_addresses() -> Vec<[u8; 16]> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let trie = read("/proc/net/fib_trie");
    let mut lines = trie.lines().map(str::trim).peekable();
    let mut own = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(address) = line.strip_prefix("|-- ")
            && lines.peek() == Some(&"/32 host LOCAL")
            && let Ok(address) = address.parse::<Ipv4Addr>()
        {
            own.push(address.to_ipv6_mapped().octets());
        }
    }
    let v6 = read("/proc/net/if_inet6");
    own.extend(v6.lines().filter_map(|line| {
        let digits = line.split_whitespace().next()?;
        Some(u128::from_str_radix(digits, 16).ok()?.to_be_bytes())
    }));
    own
}

impl Policies {
    pub(super) fn take(ebpf: &mut Ebpf, earlier: Earlier) -> Result<Self, AttachError> {
        Ok(Self {
            active: take_map(ebpf, "ACTIVE")?,
            heads: take_map(ebpf, "HEADS")?,
            deadlines: take_map(ebpf, "DEADLINES")?,
            epochs: take_map(ebpf, "EPOCHS")?,
            facts: take_map(ebpf, "FACTS")?,
            names: take_map(ebpf, "NAMES")?,
            hashes: take_map(ebpf, "HASHES")?,
            inodes: take_map(ebpf, "INODES")?,
            hits: take_map(ebpf, "HITS")?,
            own: take_map(ebpf, "OWN_ADDRESSES")?,
            lineages: lineage::Table::take(ebpf)?,
            ask: Ask::take(ebpf)?,
            tried: 0,
            filled: Default::default(),
            fallbacks: [0; SLOTS as usize],
            generation: earlier.generation,
            earlier: earlier.policies,
            kept: lineage::Known::new(),
        })
    }

    /// The word in force, the one fallen back to where the time to confirm is
    /// over, and whether one waits to be confirmed.
    fn in_force(&self) -> io::Result<(u64, bool)> {
        let word = self.active.get(&0, 0).map_err(refused)?;
        let slot = active::slot(word);
        let deadline = self.deadlines.get(&slot, 0).map_err(refused)?;
        if deadline == 0 || word == 0 {
            return Ok((word, false));
        }
        if boot_now_ns() < deadline {
            return Ok((word, true));
        }
        Ok((self.fallback_of(slot), false))
    }

    fn fallback_of(&self, slot: u32) -> u64 {
        let slot = usize::try_from(slot).unwrap_or(0);
        self.fallbacks.get(slot).copied().unwrap_or(0)
    }

    /// A slot that no program reads, nor will.
    fn idle(&self, in_force: u64) -> io::Result<u32> {
        let is_used = |slot: u32| {
            let current = active::slot(in_force);
            in_force != 0
                && (slot == current
                    || (self.fallback_of(current) != 0
                        && slot == active::slot(self.fallback_of(current))))
        };
        (0..SLOTS)
            .find(|slot| !is_used(*slot))
            .ok_or_else(|| io::Error::other("no set of policy tables is idle"))
    }

    fn empty(&mut self, slot: u32) {
        let Some(filled) = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.filled.get_mut(slot))
        else {
            return;
        };
        let filled = std::mem::take(filled);
        // What is not there need not be taken out.
        for &(bits, key) in &filled.facts {
            let _ = self.facts.remove(&Key::new(bits, key));
        }
        for key in &filled.names {
            let _ = self.names.remove(key);
        }
        for key in &filled.hashes {
            let _ = self.hashes.remove(key);
        }
        for key in &filled.inodes {
            let _ = self.inodes.remove(key);
        }
    }

    fn fill(&mut self, slot: u32, tables: &Tables) -> io::Result<()> {
        let at = usize::try_from(slot).map_err(io::Error::other)?;
        let short = u8::try_from(slot).map_err(io::Error::other)?;
        let filled = self
            .filled
            .get_mut(at)
            .ok_or_else(|| io::Error::other("no such set of policy tables"))?;
        for (bits, fact, rules) in &tables.facts {
            let fact = Fact {
                slot: short,
                ..*fact
            };
            let (bits, key) = (Fact::HEAD + bits, raw(&fact)?);
            self.facts
                .insert(&Key::new(bits, key), raw(rules)?, 0)
                .map_err(refused)?;
            filled.facts.push((bits, key));
        }
        for (name, node) in &tables.names {
            let key = raw(&Name { slot, ..*name })?;
            self.names.insert(key, raw(node)?, 0).map_err(refused)?;
            filled.names.push(key);
        }
        for (hash, uses) in &tables.hashes {
            let key = raw(&HashKey { slot, ..*hash })?;
            self.hashes.insert(key, raw(uses)?, 0).map_err(refused)?;
            filled.hashes.push(key);
        }
        for (inode, uses) in &tables.inodes {
            let key = raw(&InodeKey { slot, ..*inode })?;
            self.inodes.insert(key, raw(uses)?, 0).map_err(refused)?;
            filled.inodes.push(key);
        }
        filled.asks = asks(tables).then(|| tables.clone());
        let most = u32::try_from(EXPIRIES_MAX).map_err(io::Error::other)?;
        for (index, epoch) in (0..most).zip(&tables.epochs) {
            self.epochs
                .set(slot * most + index, raw(epoch)?, 0)
                .map_err(refused)?;
        }
        Ok(())
    }

    fn note_own_addresses(&mut self) -> io::Result<()> {
        for address in own_addresses() {
            self.own.insert(address, 1, 0).map_err(refused)?;
        }
        Ok(())
    }

    /// Asks of these tables, in a set that no act is judged by; `None`: of those
    /// in force.
    fn with<T>(
        &mut self,
        tables: Option<(&Tables, &Family)>,
        ask: impl FnOnce(&mut Ask, u32) -> io::Result<T>,
    ) -> io::Result<T> {
        let (in_force, _) = self.in_force()?;
        let Some((tables, family)) = tables else {
            return ask(&mut self.ask, active::slot(in_force));
        };
        let slot = self.idle(in_force)?;
        self.heads.set(slot, [0; HEAD], 0).map_err(refused)?;
        self.empty(slot);
        self.note_own_addresses()?;
        self.tried += 1;
        let head = Head {
            generation: TRIED | self.tried,
            applied_ns: boot_now_ns(),
            ..tables.head
        };
        let answer = self
            .fill(slot, tables)
            .and_then(|()| self.heads.set(slot, raw(&head)?, 0).map_err(refused))
            .and_then(|()| {
                if asks(tables) {
                    let none_kept = lineage::Known::new();
                    self.lineages
                        .fill(slot, head.generation, tables, family, &none_kept)?;
                }
                Ok(())
            })
            .and_then(|()| ask(&mut self.ask, slot));
        self.heads.set(slot, [0; HEAD], 0).map_err(refused)?;
        self.empty(slot);
        answer
    }

    fn first_hit(slot: u32) -> io::Result<u32> {
        Ok(slot * u32::try_from(RULES_MAX + 1).map_err(io::Error::other)?)
    }

    fn put(&mut self, word: u64) -> io::Result<()> {
        self.active.set(0, word, 0).map_err(refused)
    }
}

impl Enforcer for Policies {
    fn apply(
        &mut self,
        tables: &Tables,
        revert_at_ns: Option<u64>,
        family: &Family,
    ) -> io::Result<u64> {
        let (before, waits) = self.in_force()?;
        let slot = self.idle(before)?;
        // A decision that is still reading it sees that it is no policy now.
        self.heads.set(slot, [0; HEAD], 0).map_err(refused)?;
        self.empty(slot);
        if let Err(error) = self.fill(slot, tables) {
            self.empty(slot);
            return Err(error);
        }
        // What waits to be confirmed is nothing to fall back to.
        let fallback = if waits {
            self.fallback_of(active::slot(before))
        } else {
            before
        };
        let generation = self.generation + 1;
        self.note_own_addresses()?;
        // A policy that goes on is as old as it was.
        let earlier = std::mem::take(&mut self.earlier);
        let same = earlier
            .iter()
            .find(|it| it.head.sha256 == tables.head.sha256);
        let head = Head {
            generation,
            fallback,
            applied_ns: same.map_or_else(boot_now_ns, |it| it.head.applied_ns),
            ..tables.head
        };
        let first = Self::first_hit(slot)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        for rule in 0..=u32::try_from(RULES_MAX).map_err(io::Error::other)? {
            let none = aya::maps::PerCpuValues::try_from(vec![0_u64; cpus])?;
            self.hits.set(first + rule, none, 0).map_err(refused)?;
        }
        self.heads.set(slot, raw(&head)?, 0).map_err(refused)?;
        if asks(tables) {
            let same = earlier.into_iter().find(|it| it.is_same(&tables.head));
            self.kept = same.map(|it| it.lineages).unwrap_or_default();
            self.lineages
                .fill(slot, generation, tables, family, &self.kept)?;
        }
        self.deadlines
            .set(slot, revert_at_ns.unwrap_or(0), 0)
            .map_err(refused)?;
        if let Some(kept) = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.fallbacks.get_mut(slot))
        {
            *kept = if revert_at_ns.is_some() { fallback } else { 0 };
        }
        self.put(active::word(slot, generation))?;
        self.generation = generation;
        Ok(generation)
    }

    fn settle(&mut self, family: &Family) -> io::Result<()> {
        let (word, _) = self.in_force()?;
        let slot = active::slot(word);
        let filled = usize::try_from(slot)
            .ok()
            .and_then(|at| self.filled.get(at));
        let Some(tables) = filled.and_then(|filled| filled.asks.as_ref()) else {
            return Ok(());
        };
        self.lineages
            .fill(slot, active::generation(word), tables, family, &self.kept)
    }

    fn ask(
        &mut self,
        tables: Option<(&Tables, &Family)>,
        asked: Asked,
    ) -> io::Result<Vec<AskedRow>> {
        self.with(tables, |ask, slot| ask.process(&Asked { slot, ..asked }))
    }

    fn open(
        &mut self,
        tables: Option<(&Tables, &Family)>,
        of: Option<&[u32]>,
    ) -> io::Result<Vec<OpenRow>> {
        self.with(tables, |ask, slot| ask.open(slot, of))
    }

    fn confirm(&mut self) -> io::Result<()> {
        let (word, waits) = self.in_force()?;
        if !waits {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let slot = active::slot(word);
        self.deadlines.set(slot, 0, 0).map_err(refused)?;
        if let Some(kept) = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.fallbacks.get_mut(slot))
        {
            *kept = 0;
        }
        Ok(())
    }

    fn revert(&mut self) -> io::Result<u64> {
        let (word, waits) = self.in_force()?;
        if !waits {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let before = self.fallback_of(active::slot(word));
        self.put(before)?;
        Ok(active::generation(before))
    }

    fn clear(&mut self) -> io::Result<()> {
        self.put(0)?;
        for slot in 0..SLOTS {
            self.empty(slot);
        }
        Ok(())
    }

    fn generation(&self) -> io::Result<u64> {
        Ok(active::generation(self.in_force()?.0))
    }

    fn hits(&self) -> io::Result<Vec<u64>> {
        let (word, _) = self.in_force()?;
        let first = Self::first_hit(active::slot(word))?;
        (0..=u32::try_from(RULES_MAX).map_err(io::Error::other)?)
            .map(|rule| {
                let counts = self.hits.get(&(first + rule), 0).map_err(refused)?;
                Ok(counts.iter().sum())
            })
            .collect()
    }
}

/// SHA-256 of the files of live images.
pub(super) struct ImageHashes(HashMap<MapData, Raw<IMAGE>, [u8; 32]>);

impl ImageHashes {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, AttachError> {
        take_map(ebpf, "IMAGE_HASHES").map(Self)
    }

    pub(super) fn insert(&mut self, image: &ImageId, sha256: [u8; 32]) {
        let done = raw(image).and_then(|key| self.0.insert(key, sha256, 0).map_err(refused));
        if let Err(error) = done {
            tracing::warn!(%error, "the programs cannot be told an image's hash");
        }
    }

    pub(super) fn remove(&mut self, image: &ImageId) {
        if let Ok(key) = raw(image) {
            let _ = self.0.remove(&key);
        }
    }
}

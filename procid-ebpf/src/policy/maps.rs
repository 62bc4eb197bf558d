//! The maps of the policy: written by the agent, but for what is remembered of
//! images and cgroups between decisions.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
    helpers::generated::bpf_get_smp_processor_id,
    macros::btf_map,
};
use procid_common::{
    image::ImageId,
    policy::{
        Bits, EXPIRIES_MAX, Epoch, Fact, HashKey, Head, InodeKey, Lineage, Name, Node, RULES_MAX,
        SLOTS, Subject, SubjectKey, Uses, asked::Asked, container::ID_LEN, decide::Progress,
    },
    socket::Address,
};

use super::{Judgement, Question};
use crate::{atomic, kernel::Kptr, maps::IMAGES_MAX};

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// The word of [`procid_common::policy::active`].
#[btf_map]
pub(super) static ACTIVE: Array<u64, 1> = Array::new();

#[btf_map]
pub(super) static HEADS: Array<Head, { SLOTS as usize }> = Array::new();

/// Nanoseconds since boot at which a slot gives way to its fallback; 0: never.
#[btf_map]
pub(super) static DEADLINES: Array<u64, { SLOTS as usize }> = Array::new();

#[btf_map]
pub(super) static EPOCHS: Array<Epoch, { SLOTS as usize * EXPIRIES_MAX }> = Array::new();

/// Room for the prefixes of as long a text as is read, in each slot: each takes
/// eight of its 2^20 bytes.
#[btf_map]
pub(super) static FACTS: LpmTrie<Fact, Bits, 393_216> = LpmTrie::new();

#[btf_map]
pub(super) static NAMES: HashMap<Name, Node, 65_536, ON_DEMAND> = HashMap::new();

#[btf_map]
pub(super) static HASHES: HashMap<HashKey, Uses, 65_536, ON_DEMAND> = HashMap::new();

#[btf_map]
pub(super) static INODES: HashMap<InodeKey, Uses, 65_536, ON_DEMAND> = HashMap::new();

/// The host's own addresses, beside the loopback networks.
#[btf_map]
pub(super) static OWN_ADDRESSES: HashMap<Address, u32, 4_096, ON_DEMAND> = HashMap::new();

/// Room that is not counted on: the kernel counts the entries of a large map in
/// batches of each CPU.
///
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/hashtab.c#L523>
const SPARE: usize = 65_536;

/// SHA-256 of the files that live images were run from, as far as it is known:
/// there is room for each image that [`crate::maps::IMAGES`] has.
#[btf_map]
pub(crate) static IMAGE_HASHES: HashMap<ImageId, [u8; 32], { IMAGES_MAX + SPARE }, ON_DEMAND> =
    HashMap::new();

/// What an image satisfies; what is not here is found out again.
#[btf_map]
pub(super) static SUBJECTS: LruHashMap<SubjectKey, Subject, 16_384> = LruHashMap::new();

/// What the images before one satisfy, and its parent: kept at fork and exec,
/// and by the agent of those that were there before the policy. There is room for
/// each image that [`crate::maps::IMAGES`] has, in each slot.
#[btf_map]
pub(super) static LINEAGES: HashMap<
    SubjectKey,
    Lineage,
    { SLOTS as usize * IMAGES_MAX + SPARE },
    ON_DEMAND,
> = HashMap::new();

/// A cgroup, for one policy.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct CgroupKey {
    pub(super) id: u64,
    pub(super) generation: u64,
}

/// What a cgroup satisfies; what is not here is found out again. (A cgroup of
/// the v2 hierarchy is never renamed.)
#[btf_map]
pub(super) static CGROUP_RULES: LruHashMap<CgroupKey, Bits, 4_096> = LruHashMap::new();

/// Decisions by `slot * (RULES_MAX + 1) + rule`; the last rule is the default.
#[btf_map]
pub(super) static HITS: PerCpuArray<u64, { SLOTS as usize * (RULES_MAX + 1) }> = PerCpuArray::new();

/// Acts that were denied: of their own ring, so that a flood of others hides
/// none of them.
#[btf_map]
pub(crate) static DENIALS: RingBuf<u8, { 1 << 20 }> = RingBuf::new();

/// Depth of a path inside its file system, and of a cgroup, that is followed.
pub(super) const DEPTH_MAX: usize = 32;

/// Longest name (`NAME_MAX`) and its NUL.
pub(super) const TEXT_MAX: usize = 256;

/// What is too large for the stack. A program can be preempted by another one
/// on its CPU: who takes one marks it taken.
#[repr(C)]
pub(super) struct Scratch {
    /// 1: taken.
    pub(super) taken: u64,
    /// Its place.
    pub(super) at: u32,
    pub(super) reserved: u32,
    /// What a name is looked for of: the address of a `struct file` or of a
    /// `struct kernfs_node`.
    pub(super) named: Kptr,
    pub(super) question: Question,
    /// Who acts: the current task, unless the agent asks about another. His
    /// image is in `key`, his cgroup in `cgroup_key`.
    pub(super) task: Kptr,
    /// Effective, `u32::MAX` where they cannot be read.
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// What the agent wants to be taken for so, instead of what is.
    pub(super) instead: Asked,
    /// Whose subject is found out.
    pub(super) key: SubjectKey,
    pub(super) hash: HashKey,
    pub(super) cgroup_key: CgroupKey,
    /// The file that image was run from.
    pub(super) exe_ino: u64,
    pub(super) exe_dev: u32,
    /// 1: that is certain.
    pub(super) exe_known: u32,
    /// 1: there is one.
    pub(super) has_file: u32,
    /// 1: its name is asked for, and can be; 1: it is known, or not asked for.
    pub(super) asks_name: u32,
    pub(super) path_known: u32,
    /// The same of its name in a container's root.
    pub(super) asks_root: u32,
    pub(super) root_known: u32,
    /// The directory that its names begin below; 0: the root of its file system.
    pub(super) top: Kptr,
    pub(super) judgement: Judgement,
    pub(super) progress: Progress,
    pub(super) denied: u32,
    pub(super) verdict: u32,
    pub(super) slot: u32,
    pub(super) now: u64,
    /// Through which a number goes that the verifier is to know nothing of: it
    /// would follow each value by itself.
    pub(super) choice: u64,
    pub(super) around: Bits,
    pub(super) fact: Key<Fact>,
    pub(super) subject: Subject,
    pub(super) lineage: Lineage,
    /// What a file's name satisfies.
    pub(super) path: Uses,
    /// What a cgroup satisfies.
    pub(super) cgroup: Bits,
    /// What the units it is in satisfy.
    pub(super) unit: Bits,
    /// What the container it is in satisfies, and that one's id.
    pub(super) container: Bits,
    pub(super) id: [u8; ID_LEN],
    pub(super) name: Name,
    /// A cgroup's name, as far as its length is looked for.
    pub(super) text: [u8; TEXT_MAX],
    /// Addresses of what lies above a file or a cgroup, the nearest first.
    pub(super) chain: [u64; DEPTH_MAX],
    pub(super) depth: u64,
    /// Not 0: something about the images before it is not known yet.
    pub(super) unsettled: u64,
    /// Not 0: a table had no room for something about it.
    pub(super) roomless: u64,
    /// Bytes of a name that are still to be matched.
    pub(super) left: u32,
}

pub(super) const SCRATCHES_MAX: u32 = 64;

#[btf_map]
pub(super) static SCRATCHES: Array<Scratch, { SCRATCHES_MAX as usize }> = Array::new();

/// Takes a scratch, if any of a few is free.
#[inline(always)]
pub(super) fn take() -> Option<&'static mut Scratch> {
    let at = procid_take();
    let scratch = scratch_at(at)?;
    scratch.at = at;
    scratch.task = Kptr::current();
    scratch.instead.given = 0;
    Some(scratch)
}

/// The place of a scratch that was free and is taken now; else one that there is
/// not. See [`super::ask`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_take() -> u32 {
    const TRIES: u32 = 8;
    // SAFETY: takes no argument.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    for index in 0..TRIES {
        let at = cpu.wrapping_mul(TRIES).wrapping_add(index) % SCRATCHES_MAX;
        let Some(scratch) = SCRATCHES.get_ptr_mut(at) else {
            break;
        };
        // SAFETY: a map value; only who sees it free goes on to use it.
        if unsafe { atomic::exchange_if(&raw mut (*scratch).taken, 0, 1) } == 0 {
            return at;
        }
    }
    u32::MAX
}

/// The one that a caller has taken.
#[inline(always)]
pub(super) fn scratch_at(at: u32) -> Option<&'static mut Scratch> {
    // SAFETY: a map value that its taker alone uses.
    SCRATCHES
        .get_ptr_mut(at)
        .map(|scratch| unsafe { &mut *scratch })
}

#[inline(always)]
pub(super) fn head_at(slot: u32) -> Option<&'static Head> {
    // SAFETY: a map value; what is in use is not written.
    HEADS.get_ptr(slot).map(|head| unsafe { &*head })
}

#[inline(always)]
pub(super) fn give_back(scratch: &mut Scratch) {
    // SAFETY: our own word.
    unsafe { core::ptr::write_volatile(&raw mut scratch.taken, 0) };
}

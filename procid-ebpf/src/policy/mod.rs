//! Policy: whether the current task may do what it is about to do.
//!
//! | file | holds |
//! | --- | --- |
//! | this one | the question and the verdict |
//! | [`subject`] | which rules an image and a cgroup satisfy |
//! | [`container`] | which container a cgroup is in |
//! | [`lineage`] | which the images before it satisfy |
//! | [`names`] | names of files and cgroups, in the tree of the policy's names |
//! | [`root`] | whether a file is in a container's root |
//! | [`asked`] | the same question, asked by the agent of any task |
//! | [`maps`] | the tables |

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use procid_common::{
    event::Loss,
    image::ImageId,
    policy::{
        Bits, Dimension, EXPIRIES_MAX, Epoch, Fact, Head, NO_RULE, RULES_MAX, SLOTS, WORDS, active,
        asked::given,
        decide::{Case, decide},
        flags, kind, role, transport, unknown, verdict,
    },
    socket::{
        Address, Attempt, Judged, SocketKind, SocketTag, V4_MAPPED,
        flags::{ACCEPTED, CONNECTED, KERNEL},
    },
};

use crate::{
    identity::{cgroup_of, image_of},
    kernel::{Kptr, Object, Typed, offset},
    maps::lost,
    socket::{
        AF_PACKET, IPPROTO_DCCP, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_MPTCP, IPPROTO_SCTP,
        IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, SOCK_RAW, is_any,
    },
};

pub(crate) mod asked;
mod container;
pub(crate) mod lineage;
pub(crate) mod maps;
mod names;
pub(crate) mod root;
pub(crate) mod subject;

use container::find_container;
use maps::{
    ACTIVE, DEADLINES, EPOCHS, FACTS, HEADS, HITS, OWN_ADDRESSES, Scratch, give_back, head_at,
    scratch_at, take,
};
use names::procid_cgroup_rules;
use subject::{find_out, procid_cgroup, procid_keep_cgroup, procid_keep_subject, procid_subject};

/// The words of a cgroup program: go on, or fail with `EPERM`.
#[inline(always)]
pub(crate) const fn cgroup_word(allowed: bool) -> i32 {
    allowed as i32
}

/// The word of an LSM program: go on, or `-EPERM`.
#[inline(always)]
pub(crate) const fn lsm_word(allowed: bool) -> i32 {
    if allowed { 0 } else { -1 }
}

/// What the current task is about to do.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Question {
    pub(crate) destination: Address,
    pub(crate) sk: Kptr,
    /// Since when what it belongs to is going on, nanoseconds since boot; 0: a
    /// new act.
    pub(crate) since_ns: u64,
    /// Index of [`role`].
    pub(crate) role: usize,
    /// Host order; 0: none.
    pub(crate) port: u32,
    pub(crate) socket: SocketKind,
}

/// What the policy says of it, as events carry it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Judgement {
    pub(crate) generation: u64,
    /// One of [`verdict`].
    pub(crate) verdict: u32,
    pub(crate) rule: u32,
    pub(crate) audit: u32,
    /// One of [`unknown`].
    pub(crate) unknown: u32,
    /// What it stands on.
    judged: Judged,
}

/// A judgement, kept off the stack; what it is kept in is given back when this
/// is dropped.
pub(crate) struct Judging {
    scratch: Option<&'static mut Scratch>,
    /// One of [`verdict`].
    verdict: u32,
    /// Where it is kept in nothing: one of [`unknown`].
    unknown: u32,
}

impl Judging {
    /// No policy.
    pub(crate) const NONE: Self = Self {
        scratch: None,
        verdict: verdict::ALLOW,
        unknown: unknown::NOTHING,
    };

    #[inline(always)]
    pub(crate) fn denies(&self) -> bool {
        self.verdict == verdict::DENY
    }

    /// Writes it into an event.
    #[inline(always)]
    pub(crate) fn tell(&self, event: &mut Attempt) {
        event.verdict = self.verdict;
        if let Some(scratch) = &self.scratch {
            let judgement = &scratch.judgement;
            event.generation = judgement.generation;
            event.rule = judgement.rule;
            event.audit = judgement.audit;
            event.unknown = judgement.unknown;
        } else {
            event.generation = active::generation(in_force());
            event.rule = NO_RULE;
            event.audit = NO_RULE;
            event.unknown = self.unknown;
        }
    }

    /// Keeps the verdict for the next send on flow `primary`. One that turns on
    /// what is not known yet is not kept.
    #[inline(always)]
    pub(crate) fn keep(&self, tag: &mut SocketTag) {
        tag.judged.word = 0;
        if let Some(scratch) = &self.scratch
            && scratch.judgement.unknown == 0
            && !self.denies()
        {
            tag.judged = scratch.judgement.judged;
        }
    }
}

impl Drop for Judging {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(scratch) = self.scratch.take() {
            give_back(scratch);
        }
    }
}

/// Whether the last verdict on flow `primary` stands for the current task.
#[inline(always)]
pub(crate) fn still_stands(tag: &SocketTag) -> bool {
    let word = in_force();
    let judged = &tag.judged;
    if word == 0 {
        return true;
    }
    let task = Typed::current();
    if judged.word != word || image_of(task) != Some(judged.image) {
        return false;
    }
    // SAFETY: takes no argument.
    if judged.until_ns != u64::MAX && unsafe { bpf_ktime_get_boot_ns() } >= judged.until_ns {
        return false;
    }
    if judged.asks & ASKS_OWNER != 0 && owner_of(task) != Some((judged.uid, judged.gid)) {
        return false;
    }
    judged.asks & flags::ASKS_CGROUP == 0 || cgroup_of(task) == judged.cgroup
}

const ASKS_OWNER: u32 =
    flags::ASKS_DIMENSION << Dimension::Uid as u32 | flags::ASKS_DIMENSION << Dimension::Gid as u32;

/// Effective uid and gid.
#[inline(always)]
fn owner_of<O: Object>(task: O) -> Option<(u32, u32)> {
    let cred = task.follow(offset!(task_cred))?;
    Some((
        cred.read(offset!(cred_euid))?,
        cred.read(offset!(cred_egid))?,
    ))
}

/// Who the current task is to the socket: `connects` when it is about to
/// connect it.
#[inline(always)]
pub(crate) fn role_in(tag: &SocketTag, connects: bool) -> usize {
    role_of(Typed::current(), tag, connects)
}

/// The same of any task.
#[inline(always)]
fn role_of<O: Object>(task: O, tag: &SocketTag, connects: bool) -> usize {
    if tag.flags & KERNEL != 0 {
        return role::KERNEL;
    }
    if tag.flags & ACCEPTED != 0 {
        return role::ACCEPTOR;
    }
    let opener = if tag.flags & CONNECTED != 0 {
        tag.connector
    } else {
        tag.creator
    };
    if connects || !opener.is_known() || image_of(task) == Some(opener) {
        role::OPENER
    } else {
        role::SPEAKER
    }
}

/// The policy in force; 0: none.
#[inline(always)]
fn in_force() -> u64 {
    ACTIVE.get_ptr(0).map_or(0, |word| {
        // SAFETY: one aligned word, which the agent replaces whole.
        unsafe { core::ptr::read_volatile(word) }
    })
}

/// Whether any policy is in force: a cheap first look.
#[inline(always)]
pub(crate) fn is_any_in_force() -> bool {
    in_force() != 0
}

/// Judges what the current task is about to do.
#[inline(always)]
pub(crate) fn judge(question: impl FnOnce() -> Question) -> Judging {
    if !is_any_in_force() {
        return Judging::NONE;
    }
    let Some(scratch) = take() else {
        lost(Loss::PolicyOverflow);
        return Judging {
            scratch: None,
            verdict: on_overflow(),
            unknown: unknown::ROOM,
        };
    };
    scratch.question = question();
    let at = scratch.at;
    procid_actor(at);
    let verdict = if procid_open(at) == 0 {
        scratch.verdict
    } else if ask(at, scratch.slot) {
        procid_close(at, scratch.slot)
    } else {
        lost(Loss::PolicyOverflow);
        scratch.judgement.unknown = unknown::ROOM;
        on_overflow()
    };
    Judging {
        scratch: Some(scratch),
        verdict,
        unknown: unknown::NOTHING,
    }
}

/// Notes who acts now. A function of its own: each way through it would be one
/// more through all that follows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_actor(at: u32) -> u32 {
    if let Some(scratch) = scratch_at(at) {
        acts(scratch, Typed::current());
    }
    1
}

/// Notes who acts: what every decision asks of him. (Of the current task they are
/// plain loads, and helper calls of any other.)
#[inline(always)]
fn acts<O: Object>(scratch: &mut Scratch, task: O) {
    scratch.key.image = image_of(task).unwrap_or(ImageId::UNKNOWN);
    let (uid, gid) = owner_of(task).unwrap_or((u32::MAX, u32::MAX));
    scratch.uid = uid;
    scratch.gid = gid;
    scratch.cgroup_key.id = cgroup_of(task);
    scratch.roomless = 0;
}

/// Asks every table. Each of the functions that are called is one of its own to
/// the verifier: it looks at it once, whatever calls it, and gives it a stack
/// frame of its own. Such a function takes numbers only. They are called one
/// after the other, and not by each other, because frames add up.
///
/// <https://docs.ebpf.io/linux/concepts/functions/>
#[inline(always)]
fn ask(at: u32, slot: u32) -> bool {
    if procid_subject(at, slot) == 0 {
        find_out(at, slot);
        procid_keep_subject(at);
    }
    ask_the_rest(at, slot)
}

/// Asks every table but those of the image.
#[inline(always)]
fn ask_the_rest(at: u32, slot: u32) -> bool {
    if procid_gather(at, slot) == 0 {
        return false;
    }
    for dimension in Dimension::ALL {
        if procid_value(at, slot, dimension as u32) != 0 {
            procid_and_value(at, slot);
        }
    }
    find_cgroup(at, slot) && procid_decide(at, slot) != 0
}

/// ANDs what the cgroup satisfies to `scratch.around`; false where that could not
/// be found out.
#[inline(always)]
fn find_cgroup(at: u32, slot: u32) -> bool {
    if procid_cgroup(at, slot) != 0 {
        return true;
    }
    let is_found = procid_cgroup_rules(at, slot) != 0 && find_container(at, slot);
    if is_found {
        procid_keep_cgroup(at, slot);
    }
    is_found
}

/// Finds the policy that acts, and puts its slot into the scratch; 0 where it
/// does not judge what is asked: then the verdict is there.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_open(at: u32) -> u32 {
    let Some(scratch) = scratch_at(at) else {
        return 0;
    };
    scratch.verdict = verdict::ALLOW;
    let judgement = &mut scratch.judgement;
    judgement.generation = 0;
    judgement.rule = NO_RULE;
    judgement.audit = NO_RULE;
    judgement.unknown = unknown::FACT; // not to be kept, until it is judged
    judgement.judged.word = 0;
    let word = in_force();
    if word == 0 {
        return 0;
    }
    // SAFETY: takes no argument.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let acting = fall_back(word, now);
    if acting == 0 {
        return 0;
    }
    let until_ns = deadline_of(active::slot(word));
    scratch.now = now;
    scratch.slot = active::slot(acting);
    judgement.generation = active::generation(acting);
    judgement.judged.word = word;
    judgement.judged.until_ns = if acting == word { until_ns } else { u64::MAX };
    let Some(head) = head_at(scratch.slot) else {
        return 0;
    };
    u32::from(!is_left_alone(&scratch.question, head))
}

/// Whether the policy leaves alone what is asked.
#[inline(always)]
fn is_left_alone(question: &Question, head: &Head) -> bool {
    (question.role == role::ACCEPTOR && head.flags & flags::ASKS_INGRESS == 0)
        || (head.flags & flags::LOOPBACK_ALLOW != 0 && is_own(&question.destination))
        || (head.flags & flags::ESTABLISHED_KEEP != 0
            && question.since_ns != 0
            && question.since_ns < head.applied_ns)
}

/// The verdict on what was decided.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_close(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return on_overflow();
    };
    // The tables may have been filled anew meanwhile: the agent clears the
    // generation first.
    // SAFETY: one aligned word.
    let generation = unsafe { core::ptr::read_volatile(&raw const head.generation) };
    if generation != scratch.judgement.generation {
        lost(Loss::PolicyOverflow);
        scratch.judgement.unknown = unknown::ROOM;
        return on_overflow();
    }
    count(slot, scratch.judgement.rule);
    if scratch.judgement.unknown == unknown::ROOM {
        lost(Loss::PolicyOverflow);
        return on_overflow();
    }
    scratch.judgement.judged.image = scratch.key.image;
    scratch.judgement.judged.asks = head.flags;
    outcome(scratch.denied != 0, head.flags)
}

/// The policy that acts: the one before, once the time to confirm is over.
#[inline(always)]
fn fall_back(word: u64, now: u64) -> u64 {
    let slot = active::slot(word);
    if now < deadline_of(slot) {
        return word;
    }
    match HEADS.get_ptr(slot) {
        // SAFETY: one aligned word of a map value.
        Some(head) => unsafe { (*head).fallback },
        None => word,
    }
}

/// `u64::MAX`: none.
#[inline(always)]
fn deadline_of(slot: u32) -> u64 {
    let deadline = DEADLINES.get_ptr(slot).map_or(0, |deadline| {
        // SAFETY: one aligned word, which the agent replaces whole.
        unsafe { core::ptr::read_volatile(deadline) }
    });
    if deadline == 0 { u64::MAX } else { deadline }
}

/// What the policy in force wants where it cannot be asked.
#[inline(always)]
fn on_overflow() -> u32 {
    let flags = match HEADS.get_ptr(active::slot(in_force())) {
        // SAFETY: one aligned word of a map value.
        Some(head) => unsafe { (*head).flags },
        None => 0,
    };
    outcome(flags & flags::OVERFLOW_DENY != 0, flags)
}

#[inline(always)]
fn outcome(deny: bool, flags: u32) -> u32 {
    if !deny {
        verdict::ALLOW
    } else if flags & flags::AUDIT != 0 {
        verdict::AUDIT
    } else {
        verdict::DENY
    }
}

/// Decides by what was gathered.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_decide(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 0;
    };
    let role = scratch.question.role;
    let is_judged_by_default = role != role::ACCEPTOR && role != role::KERNEL;
    let case = Case {
        head,
        default_deny: is_judged_by_default && head.flags & flags::DEFAULT_DENY != 0,
        around: &scratch.around,
        yes: &scratch.subject.yes,
        maybe: &scratch.subject.maybe,
    };
    let decision = decide(&case, &mut scratch.progress);
    scratch.denied = u32::from(decision.deny);
    scratch.judgement.rule = decision.rule;
    scratch.judgement.audit = decision.audit;
    scratch.judgement.unknown = match (decision.unknown, scratch.roomless) {
        (false, _) => unknown::NOTHING,
        (true, 0) => unknown::FACT,
        (true, _) => unknown::ROOM,
    };
    1
}

/// Gathers in `scratch.around` the rules in force now that the socket and the
/// role satisfy, or that do not ask.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_gather(at: u32, slot: u32) -> u32 {
    match (scratch_at(at), head_at(slot)) {
        (Some(scratch), Some(head)) => u32::from(gather(slot, head, scratch).is_some()),
        _ => 0,
    }
}

#[inline(always)]
fn gather(slot: u32, head: &'static Head, scratch: &mut Scratch) -> Option<()> {
    let epoch = epoch(slot, scratch.now)?;
    let judged = &mut scratch.judgement.judged;
    if epoch.until_ns < judged.until_ns {
        judged.until_ns = epoch.until_ns;
    }
    copy(&mut scratch.around, &epoch.live);
    let socket = scratch.question.socket;
    let transport = choice(&mut scratch.choice, transport_of(socket));
    and(scratch, head.transport.get(transport)?);
    let kind = choice(&mut scratch.choice, kind_of(socket));
    and(scratch, head.kind.get(kind)?);
    let role = scratch.question.role;
    and(scratch, head.role.get(role)?);
    Some(())
}

/// Puts the value of a [`Dimension`] into `scratch.fact`; 0 where no rule asks
/// for it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_value(at: u32, slot: u32, dimension: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 0;
    };
    if dimension >= Dimension::COUNT as u32 || head.flags & flags::ASKS_DIMENSION << dimension == 0
    {
        return 0;
    }
    let width = if dimension == Dimension::Destination as u32 {
        scratch.fact.data.value = scratch.question.destination;
        Dimension::Destination.width()
    } else if dimension == Dimension::Port as u32 {
        put_number(scratch, scratch.question.port << 16);
        Dimension::Port.width()
    } else if dimension == Dimension::SourcePort as u32 {
        let port = source_port(scratch);
        put_number(scratch, port << 16);
        Dimension::SourcePort.width()
    } else {
        let (uid, gid) = owner(scratch);
        scratch.judgement.judged.uid = uid;
        scratch.judgement.judged.gid = gid;
        let is_uid = dimension == Dimension::Uid as u32;
        put_number(scratch, if is_uid { uid } else { gid });
        Dimension::Uid.width()
    };
    // A packet socket's destination is no address, which no prefix has.
    let is_none =
        scratch.question.socket.family == AF_PACKET && dimension == Dimension::Destination as u32;
    scratch.fact.prefix_len = if is_none { 0 } else { Fact::HEAD + width };
    scratch.fact.data.slot = slot as u8;
    scratch.fact.data.dimension = dimension as u8;
    1
}

/// Effective uid and gid of who acts, or what is asked about instead.
#[inline(always)]
fn owner(scratch: &Scratch) -> (u32, u32) {
    let (uid, gid) = (scratch.uid, scratch.gid);
    let instead = &scratch.instead;
    (
        if instead.given & given::UID != 0 {
            instead.uid
        } else {
            uid
        },
        if instead.given & given::GID != 0 {
            instead.gid
        } else {
            gid
        },
    )
}

#[inline(always)]
fn source_port(scratch: &Scratch) -> u32 {
    if scratch.instead.given & given::SOURCE_PORT != 0 {
        return scratch.instead.source_port;
    }
    scratch.question.sk.sock_on_the_wire().sock_source().1
}

/// The first four bytes of a value.
#[inline(always)]
fn put_number(scratch: &mut Scratch, number: u32) {
    let [a, b, c, d] = number.to_be_bytes();
    scratch.fact.data.value = [0; 16];
    scratch.fact.data.value[0] = a;
    scratch.fact.data.value[1] = b;
    scratch.fact.data.value[2] = c;
    scratch.fact.data.value[3] = d;
}

/// ANDs the rules that the value satisfies, or that do not ask.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_and_value(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return 0;
    };
    let dimension = scratch.fact.data.dimension as usize;
    match FACTS.get(&scratch.fact) {
        Some(rules) => and(scratch, rules),
        None => {
            if let Some(rules) = head.unasked.get(dimension) {
                and(scratch, rules);
            }
        }
    }
    1
}

/// A number by way of memory: see [`Scratch::choice`].
#[inline(always)]
fn choice(by: &mut u64, number: usize) -> usize {
    // SAFETY: our own word.
    unsafe {
        core::ptr::write_volatile(by, number as u64);
        core::ptr::read_volatile(by) as usize
    }
}

#[inline(always)]
fn and(scratch: &mut Scratch, rules: &Bits) {
    let around = &mut scratch.around;
    written_out(|word| {
        let both = get(&around[word]) & get(&rules[word]);
        put(&mut around[word], both);
    });
}

#[inline(always)]
fn copy(to: &mut Bits, from: &Bits) {
    written_out(|word| put(&mut to[word], get(&from[word])));
}

/// Every word of [`Bits`], one after the other, for what every decision does: a
/// turn of a loop takes longer than the word.
#[inline(always)]
fn written_out(mut what: impl FnMut(usize)) {
    const { assert!(WORDS == 16) };
    what(0);
    what(1);
    what(2);
    what(3);
    what(4);
    what(5);
    what(6);
    what(7);
    what(8);
    what(9);
    what(10);
    what(11);
    what(12);
    what(13);
    what(14);
    what(15);
}

/// Reads a word now, and not with the others: there is no room on the stack for
/// all.
#[inline(always)]
fn get(from: &u64) -> u64 {
    // SAFETY: a plain word of a map.
    unsafe { core::ptr::read_volatile(from) }
}

/// Every word of [`Bits`], in a loop that stays one: unrolled, it would need
/// more stack than there is.
#[inline(always)]
fn each(mut what: impl FnMut(usize)) {
    let mut word = 0;
    while word < WORDS {
        what(word);
        // SAFETY: our own word; volatile so that the loop is not unrolled.
        word = unsafe { core::ptr::read_volatile(&raw const word) } + 1;
    }
}

/// Writes a word to memory, and not to where the compiler would keep it.
#[inline(always)]
fn put(to: &mut u64, value: u64) {
    // SAFETY: a plain word that is ours.
    unsafe { core::ptr::write_volatile(to, value) };
}

#[inline(always)]
fn count(slot: u32, rule: u32) {
    let default = RULES_MAX as u32;
    let index = slot * (default + 1) + if rule > default { default } else { rule };
    if let Some(count) = HITS.get_ptr_mut(index) {
        // SAFETY: this CPU's own slot; see `maps::lost`.
        unsafe { *count += 1 };
    }
}

/// The rules in force at this time.
#[inline(always)]
fn epoch(slot: u32, now: u64) -> Option<&'static Epoch> {
    let first = slot * EXPIRIES_MAX as u32;
    for index in 0..EXPIRIES_MAX as u32 {
        // SAFETY: a map value, which is not written while the slot is in use.
        let epoch = unsafe { &*EPOCHS.get_ptr(first + index)? };
        if now < epoch.until_ns {
            return Some(epoch);
        }
    }
    None
}

/// Index of [`Head::transport`].
#[inline(always)]
fn transport_of(socket: SocketKind) -> usize {
    match socket.protocol {
        IPPROTO_TCP | IPPROTO_MPTCP => transport::TCP,
        IPPROTO_UDP => transport::UDP,
        IPPROTO_UDPLITE => transport::UDPLITE,
        IPPROTO_ICMP => transport::ICMP,
        IPPROTO_ICMPV6 => transport::IPV6_ICMP,
        IPPROTO_SCTP => transport::SCTP,
        IPPROTO_DCCP => transport::DCCP,
        _ => transport::OTHER,
    }
}

/// Index of [`Head::kind`].
#[inline(always)]
fn kind_of(socket: SocketKind) -> usize {
    if socket.family == AF_PACKET {
        kind::PACKET
    } else if socket.sock_type == SOCK_RAW {
        kind::RAW
    } else {
        kind::OTHER
    }
}

/// Whether an address is this host's own.
#[inline(always)]
fn is_own(address: &Address) -> bool {
    const V6_LOOPBACK: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let is_v4 = address[..12] == V4_MAPPED;
    (is_v4 && address[12] == 127)
        || *address == V6_LOOPBACK
        || is_any(address)
        || OWN_ADDRESSES.get_ptr(*address).is_some()
}

const _: () = assert!(SLOTS <= 4);

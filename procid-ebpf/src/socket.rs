//! Socket facts and the socket tag.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_sk_storage_get},
};
use procid_common::{
    event::{Loss, kind},
    image::ImageId,
    offsets::ABSENT,
    socket::{
        Address, Attempt, DestinationKey, Hook, Outcome, SocketKind, SocketTag, V4_MAPPED,
        flags::{CREATOR_UNSEEN, IO_WORKER, KERNEL, KTHREAD, PENDING, PENDING_SOURCE, SEND},
    },
};

use crate::{
    identity::{PF_IO_WORKER, PF_KTHREAD, describe_acting, image_of, task_flags},
    kernel::{Kptr, is_set, offset, setting},
    maps::{CONNECTS, Connecting, DESTINATIONS, EVENTS, NO_WAKEUP, TAGS, emit, lost},
    process::header,
};

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
pub(crate) const SOCK_STREAM: u16 = 1;
pub(crate) const IPPROTO_TCP: u16 = 6;
pub(crate) const TCP_ESTABLISHED: u8 = 1;
pub(crate) const TCP_SYN_SENT: u8 = 2;
pub(crate) const TCP_CLOSE: u8 = 7;

/// A v4 address in network order, v4-mapped.
#[inline(always)]
pub(crate) fn mapped(v4: u32) -> Address {
    let [a, b, c, d] = v4.to_ne_bytes();
    let mut address = [0; 16];
    address[..12].copy_from_slice(&V4_MAPPED);
    address[12] = a;
    address[13] = b;
    address[14] = c;
    address[15] = d;
    address
}

/// Four words in network order, as the context of the v6 hooks has them.
#[inline(always)]
pub(crate) fn from_words(words: [u32; 4]) -> Address {
    let mut address = [0; 16];
    address[0..4].copy_from_slice(&words[0].to_ne_bytes());
    address[4..8].copy_from_slice(&words[1].to_ne_bytes());
    address[8..12].copy_from_slice(&words[2].to_ne_bytes());
    address[12..16].copy_from_slice(&words[3].to_ne_bytes());
    address
}

/// Reads of a `struct sock` by address.
impl Kptr {
    #[inline(always)]
    pub(crate) fn sock_family(self) -> u16 {
        self.read(offset!(sock_family)).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn sock_protocol(self) -> u16 {
        self.read(offset!(sock_protocol)).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn sock_state(self) -> u8 {
        self.read(offset!(sock_state)).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn sock_kind(self) -> SocketKind {
        SocketKind {
            family: self.sock_family(),
            sock_type: self.read(offset!(sock_type)).unwrap_or(0),
            protocol: self.sock_protocol(),
            reserved: 0,
        }
    }

    /// 0 where the kernel has given the socket no cookie yet.
    #[inline(always)]
    pub(crate) fn sock_cookie(self) -> u64 {
        self.read(offset!(sock_cookie)).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn sock_netns(self) -> u32 {
        self.follow(offset!(sock_net))
            .and_then(|net| net.read(offset!(net_inum)))
            .unwrap_or(0)
    }

    /// The address and port (host order) the socket has; zero where not bound.
    #[inline(always)]
    pub(crate) fn sock_source(self) -> (Address, u32) {
        let address = if self.sock_family() == AF_INET6 {
            self.read(offset!(sock_v6_rcv_saddr)).unwrap_or([0; 16])
        } else {
            match self.read::<u32>(offset!(sock_rcv_saddr)) {
                None | Some(0) => [0; 16],
                Some(v4) => mapped(v4),
            }
        };
        // A closing TCP socket has given its port back (skc_num is 0) and
        // keeps the number in inet_sport, in network order.
        let mut port = u32::from(self.read::<u16>(offset!(sock_num)).unwrap_or(0));
        if port == 0 {
            port = u32::from(u16::from_be(
                self.read::<u16>(offset!(inet_sport)).unwrap_or(0),
            ));
        }
        (address, port)
    }

    #[inline(always)]
    pub(crate) fn sock_destination(self) -> (Address, u32) {
        let address = if self.sock_family() == AF_INET6 {
            self.read(offset!(sock_v6_daddr)).unwrap_or([0; 16])
        } else {
            match self.read::<u32>(offset!(sock_daddr)) {
                None | Some(0) => [0; 16],
                Some(v4) => mapped(v4),
            }
        };
        let port = u16::from_be(self.read::<u16>(offset!(sock_dport)).unwrap_or(0));
        (address, u32::from(port))
    }

    /// Whether the kernel, not a process, made this socket. The subflows of an
    /// MPTCP connection carry the kernel's flag and are a process's all the
    /// same: their creation is part of its connect.
    #[inline(always)]
    fn sock_is_kernels(self) -> bool {
        if !self.bit(offset!(sock_kern)).unwrap_or(false) {
            return false;
        }
        let mptcp = offset!(tcp_is_mptcp);
        if mptcp != ABSENT as usize && self.sock_protocol() == IPPROTO_TCP {
            return self.read::<u8>(mptcp).unwrap_or(0) == 0;
        }
        true
    }
}

/// The tag of a socket, if it has one.
///
/// `sk` must be what the program's type lends the helper: a context's `sk` or
/// a BTF pointer.
#[inline(always)]
pub(crate) fn tag_of(sk: *mut c_void) -> Option<&'static mut SocketTag> {
    get_tag(sk, 0)
}

#[inline(always)]
fn get_tag(sk: *mut c_void, flags: u64) -> Option<&'static mut SocketTag> {
    // SAFETY: the verifier checks `sk`; the value lives as long as the socket,
    // which outlives the program's run. Programs on two CPUs can race on one
    // socket's tag: each field is a plain word and no decision hangs on two.
    unsafe {
        bpf_sk_storage_get(
            core::ptr::from_ref(&TAGS).cast_mut().cast(),
            sk,
            core::ptr::null_mut(),
            flags,
        )
        .cast::<SocketTag>()
        .as_mut()
    }
}

/// Tags a socket at its creation, before its owner can touch it.
#[inline(always)]
pub(crate) fn tag_new(sk: *mut c_void, cookie: u64) {
    let address = Kptr::of(sk);
    let Some(tag) = get_tag(sk, BPF_SK_STORAGE_GET_F_CREATE.into()) else {
        lost(Loss::TagMissing);
        return;
    };
    tag.creator = image_of(Kptr::current()).unwrap_or(ImageId::UNKNOWN);
    tag.cookie = cookie;
    tag.netns = address.sock_netns();
}

/// The tag of a socket that is about to be used; made now where the hooks are
/// younger than the socket, or the kernel made it.
#[inline(always)]
fn tag_or_late(sk: *mut c_void, cookie: u64) -> Option<&'static mut SocketTag> {
    if let Some(tag) = tag_of(sk) {
        return Some(tag);
    }
    let address = Kptr::of(sk);
    let tag = get_tag(sk, BPF_SK_STORAGE_GET_F_CREATE.into())?;
    tag.cookie = cookie;
    tag.netns = address.sock_netns();
    tag.flags = CREATOR_UNSEEN;
    if address.sock_is_kernels() {
        tag.flags |= KERNEL;
    }
    Some(tag)
}

/// What a hook saw of a connect or a datagram.
pub(crate) struct Act {
    pub(crate) hook: Hook,
    pub(crate) destination: Address,
    /// Host order.
    pub(crate) port: u32,
    pub(crate) socket: SocketKind,
    pub(crate) cookie: u64,
}

/// Records a connection attempt.
#[inline(always)]
pub(crate) fn connecting(sk: *mut c_void, act: &Act) {
    let Some(tag) = tag_or_late(sk, act.cookie) else {
        lost(Loss::TagMissing);
        attempt(sk, act, None, 0);
        return;
    };
    settle_previous(Kptr::of(sk), tag);
    tag.flow = tag.flow.wrapping_add(1);
    tag.flags = (tag.flags & !(PENDING_SOURCE | SEND)) | PENDING;
    tag.destination = act.destination;
    tag.port = act.port;
    if is_set(setting::SYS_EXIT) {
        let connect = Connecting {
            sk: sk as u64,
            cookie: act.cookie,
            flow: tag.flow,
            sock_type: u32::from(act.socket.sock_type),
        };
        if CONNECTS
            .insert(bpf_get_current_pid_tgid(), connect, 0)
            .is_err()
        {
            lost(Loss::ConnectsFull);
        }
    }
    attempt(sk, act, Some(tag), 0);
}

/// Records a datagram to a destination that is new to the socket.
#[inline(always)]
pub(crate) fn sending(sk: *mut c_void, act: &Act, source: Address) {
    let Some(tag) = tag_or_late(sk, act.cookie) else {
        lost(Loss::TagMissing);
        attempt(sk, act, None, SEND);
        return;
    };
    if tag.flow != 0 && tag.port == act.port && tag.destination == act.destination {
        return; // as the datagram before
    }
    let key = DestinationKey {
        cookie: act.cookie,
        destination: act.destination,
        port: act.port,
        reserved: 0,
    };
    if DESTINATIONS.get_ptr(key).is_some() {
        return;
    }
    settle_previous(Kptr::of(sk), tag);
    tag.flow = tag.flow.wrapping_add(1);
    tag.flags |= PENDING | PENDING_SOURCE | SEND;
    tag.destination = act.destination;
    tag.port = act.port;
    tag.source = source;
    if DESTINATIONS.insert(key, tag.flow, 0).is_err() {
        lost(Loss::DestinationsFull);
    }
    attempt(sk, act, Some(tag), SEND);
}

/// A socket that goes on to its next flow has finished the one before: where
/// its outcome is still open, the socket's own state tells it.
#[inline(always)]
fn settle_previous(sk: Kptr, tag: &mut SocketTag) {
    if tag.flags & PENDING == 0 || tag.flow == 0 {
        return;
    }
    let hook = Hook::SockRelease;
    if tag.flags & SEND == 0 && sk.sock_state() == TCP_ESTABLISHED {
        outcome_from_sock(sk, tag, 0, hook);
    } else {
        outcome(tag, [0; 16], 0, Outcome::ABANDONED, hook);
    }
}

#[inline(always)]
fn attempt(sk: *mut c_void, act: &Act, tag: Option<&SocketTag>, bits: u32) {
    let task = Kptr::current();
    let address = Kptr::of(sk);
    let (mut source, source_port) = address.sock_source();
    let mut flags = bits;
    let mut creator = ImageId::UNKNOWN;
    let mut flow = 0;
    let mut netns = 0;
    if let Some(tag) = tag {
        flags |= tag.flags & (KERNEL | CREATOR_UNSEEN);
        creator = tag.creator;
        flow = tag.flow;
        netns = tag.netns;
        if bits & SEND != 0 && tag.source != [0; 16] {
            source = tag.source;
        }
    } else {
        flags |= CREATOR_UNSEEN;
    }
    let task_flags = task_flags(task);
    if task_flags & PF_KTHREAD != 0 {
        flags |= KTHREAD;
    }
    if task_flags & PF_IO_WORKER != 0 {
        flags |= IO_WORKER;
    }
    let Some(image) = image_of(task) else {
        lost(Loss::Unreadable);
        return;
    };
    let Some(mut entry) = EVENTS.reserve_untyped::<Attempt>(0) else {
        lost(Loss::RingConnection);
        return;
    };
    // SAFETY: every field is written below before the entry is submitted; an
    // `Attempt` is plain data, valid in any state.
    let event = unsafe { entry.assume_init_mut() };
    event.header = header::<Attempt>(kind::ATTEMPT);
    event.image = image;
    event.creator = creator;
    event.cookie = act.cookie;
    event.socket = act.socket;
    event.destination = act.destination;
    event.source = source;
    event.destination_port = act.port;
    event.source_port = source_port;
    event.flow = flow;
    event.flags = flags;
    event.hook = act.hook as u32;
    event.netns = netns;
    if describe_acting(task, &mut event.actor).is_some() {
        entry.submit(NO_WAKEUP);
    } else {
        entry.discard(NO_WAKEUP);
        lost(Loss::Unreadable);
    }
}

/// Tells what became of the pending attempt; `error` as in [`Outcome::error`].
#[inline(always)]
pub(crate) fn outcome(
    tag: &mut SocketTag,
    source: Address,
    source_port: u32,
    error: i32,
    hook: Hook,
) {
    if error != Outcome::UNDECIDED {
        tag.flags &= !(PENDING | PENDING_SOURCE);
    }
    tell(tag.cookie, tag.flow, source, source_port, error, hook);
}

/// The same, with the source the socket has now.
#[inline(always)]
pub(crate) fn outcome_from_sock(sk: Kptr, tag: &mut SocketTag, error: i32, hook: Hook) {
    let (source, port) = sk.sock_source();
    outcome(tag, source, port, error, hook);
}

#[inline(always)]
pub(crate) fn tell(
    cookie: u64,
    flow: u32,
    source: Address,
    source_port: u32,
    error: i32,
    hook: Hook,
) {
    emit(
        &Outcome {
            header: header::<Outcome>(kind::OUTCOME),
            cookie,
            source,
            source_port,
            flow,
            error,
            hook: hook as u32,
        },
        Loss::RingConnection,
    );
}

//! The socket tag: made at a socket's creation, kept to its end.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_sk_storage_get, bpf_skc_to_mptcp_sock},
    },
};
use procid_common::{
    event::Loss,
    image::ImageId,
    socket::{
        Address, Counts, DestinationKey, DestinationState, Hook, SocketTag,
        flags::{
            ACCEPTED, CONNECTED, CREATOR_UNSEEN, KERNEL, PENDING, RECEIVED_UNKNOWN, SENT_UNKNOWN,
        },
    },
};

use crate::{
    attempt::{abandoned, closed, outcome_from_sock},
    identity::{PF_KTHREAD, current_image, task_flags},
    kernel::{Kptr, Typed},
    maps::{DESTINATIONS, TAGS, lost},
    socket::{IPPROTO_TCP, TCP_ESTABLISHED, counts, is_any},
};

/// The tag of a socket, if it has one.
///
/// `sk` must be what the program's type lends the helper: a context's `sk` or
/// a BTF pointer.
#[inline(always)]
pub(crate) fn tag_of(sk: *mut c_void) -> Option<&'static mut SocketTag> {
    get(sk, 0)
}

#[inline(always)]
fn get(sk: *mut c_void, flags: u64) -> Option<&'static mut SocketTag> {
    // SAFETY: the verifier checks `sk`; the value lives as long as the socket,
    // which outlives the program's run. Programs on two CPUs can race on one
    // socket's tag: each field is a plain word, and what must not be lost is
    // changed atomically.
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
    let Some(tag) = get(sk, BPF_SK_STORAGE_GET_F_CREATE.into()) else {
        lost(Loss::TagMissing);
        return;
    };
    tag.creator = current_image().unwrap_or(ImageId::UNKNOWN);
    tag.user = tag.creator;
    tag.cookie = cookie;
    tag.netns = address.sock_netns();
}

/// The tag of a socket that is about to be used; made now where the hooks are
/// younger than the socket, or the kernel made it.
#[inline(always)]
pub(crate) fn tag_or_late(sk: *mut c_void, cookie: u64) -> Option<&'static mut SocketTag> {
    if let Some(tag) = tag_of(sk) {
        return Some(tag);
    }
    let address = Kptr::of(sk);
    let tag = get(sk, BPF_SK_STORAGE_GET_F_CREATE.into())?;
    tag.cookie = cookie;
    tag.netns = address.sock_netns();
    tag.flags = CREATOR_UNSEEN | SENT_UNKNOWN | RECEIVED_UNKNOWN;
    // A socket that the kernel made inside a process's own call (SMC's TCP
    // socket) is that process's.
    if address.sock_is_kernels() && task_flags(Typed::current()) & PF_KTHREAD != 0 {
        tag.flags |= KERNEL;
    }
    Some(tag)
}

/// Tags a socket whose connection is older than the hooks.
#[inline(always)]
pub(crate) fn tag_found(sk: *mut c_void, cookie: u64) {
    if tag_of(sk).is_none()
        && let Some(tag) = tag_or_late(sk, cookie)
        && Kptr::of(sk).sock_state() == TCP_ESTABLISHED
    {
        tag.flags |= CONNECTED;
    }
}

/// Tags a socket as an earlier set of programs has, unless this one saw its
/// creation itself. A verdict of another set's policy does not stand.
#[inline(always)]
pub(crate) fn carry_tag(sk: *mut c_void, earlier: &SocketTag) {
    if let Some(tag) = get(sk, BPF_SK_STORAGE_GET_F_CREATE.into())
        && (tag.cookie == 0 || tag.flags & CREATOR_UNSEEN != 0)
    {
        *tag = *earlier;
        tag.judged.word = 0;
        tag.sender = 0;
        tag.receiver = 0;
    }
}

/// Tags the socket of a connection that has come in; accept(2) takes it later.
#[inline(always)]
pub(crate) fn tag_accepted(sk: *mut c_void, cookie: u64) {
    let address = Kptr::of(sk);
    if let Some(tag) = get(sk, BPF_SK_STORAGE_GET_F_CREATE.into()) {
        tag.cookie = cookie;
        tag.netns = address.sock_netns();
        tag.flags = ACCEPTED | CREATOR_UNSEEN | CONNECTED;
        tag.flow = 1;
        tag.primary = 1;
        // SAFETY: takes no argument.
        tag.since_ns = unsafe { bpf_ktime_get_boot_ns() };
    } else {
        lost(Loss::TagMissing);
    }
}

/// The MPTCP socket that the process holds, of a subflow that the kernel
/// connects for it; else the socket itself.
///
/// <https://github.com/torvalds/linux/blob/v6.12/net/mptcp/bpf.c#L15>
#[inline(always)]
pub(crate) fn process_side(sk: *mut c_void, is_subflow: bool) -> *mut c_void {
    if is_subflow {
        // SAFETY: the helper checks what the socket is; null where it is not.
        let whole: *mut c_void = unsafe { bpf_skc_to_mptcp_sock(sk) }.cast();
        if !whole.is_null() {
            return whole;
        }
    }
    sk
}

/// The key of a datagram destination of this socket.
#[inline(always)]
pub(crate) const fn key(cookie: u64, destination: Address, port: u32) -> DestinationKey {
    DestinationKey {
        cookie,
        destination,
        port,
        reserved: 0,
    }
}

/// A connect of a datagram socket can fail and leave what it was connected to:
/// whether it did not, the socket's own destination tells. To be called before
/// anything is done with `primary`.
#[inline(always)]
pub(crate) fn settle_redial(sk: Kptr, tag: &mut SocketTag) {
    if tag.redial == 0 {
        return;
    }
    let redial = tag.redial;
    tag.redial = 0;
    let (destination, port) = sk.sock_destination();
    let asked_any = is_any(&tag.redial_destination);
    let is_there = asked_any || destination == tag.redial_destination;
    // Protocols without ports keep whatever the caller gave as one.
    let is_port = tag.redial_port == 0 || port == tag.redial_port;
    if sk.sock_state() != TCP_ESTABLISHED || (tag.flags & CONNECTED != 0 && !(is_there && is_port))
    {
        if tag.flags & PENDING != 0 {
            tag.flags &= !PENDING;
            abandoned(tag.cookie, redial, Hook::Redial);
        }
        return;
    }
    if tag.flags & CONNECTED != 0 {
        closed(tag.cookie, tag.primary, Hook::Redial, counts(sk, tag));
    } else if tag.primary != 0 {
        // The first flow was to an address: its account goes on elsewhere.
        let account = DestinationState {
            sent: tag.sent,
            received: tag.received,
            flow: tag.primary,
            pending: 0,
        };
        let at = key(tag.cookie, tag.destination, tag.port);
        if DESTINATIONS.insert(at, account, 0).is_err() {
            lost(Loss::DestinationsFull);
        }
    }
    tag.primary = redial;
    tag.judged.word = 0;
    // SAFETY: takes no argument.
    tag.since_ns = unsafe { bpf_ktime_get_boot_ns() };
    tag.destination = tag.redial_destination;
    tag.port = tag.redial_port;
    tag.flags = tag.flags & !(SENT_UNKNOWN | RECEIVED_UNKNOWN) | CONNECTED;
    tag.sent = 0;
    tag.received = 0;
    if tag.flags & PENDING != 0 {
        tag.flags &= !PENDING;
        outcome_from_sock(sk, tag.cookie, redial, 0, Hook::Redial);
    }
}

/// The counts of a socket that keeps none.
pub(crate) const NOT_COUNTED: Counts = Counts {
    sent: 0,
    received: 0,
    flow: 0,
    flags: SENT_UNKNOWN | RECEIVED_UNKNOWN,
};

/// Whether this is TCP, plain or MPTCP: the kernel keeps its bytes and tells
/// its end.
#[inline(always)]
pub(crate) const fn is_stream(protocol: u16) -> bool {
    protocol == IPPROTO_TCP || protocol == crate::socket::IPPROTO_MPTCP
}

//! TCP data that are denied, and do not leave.
//!
//! Where no LSM hook can refuse a send, `tcp_sendmsg_locked` (6.16+) says who is
//! about to write to a connection, in his context and under the socket's lock.
//! Of an image that did not connect it and is denied, the stream's place is kept
//! in the tag, and no packet leaves with a byte of that place or behind it. The
//! call succeeds, and the connection stands still from then on: a stream has no
//! gaps.
//!
//! <https://github.com/torvalds/linux/blob/v6.17/net/ipv4/tcp.c#L1186>

use core::ffi::c_void;

use aya_ebpf::{
    btf_maps::Array,
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_map, btf_tracepoint},
    programs::{BtfTracePointContext, SkBuffContext},
};
use procid_common::{
    policy::role,
    socket::{
        Hook, SocketTag,
        flags::{ACCEPTED, CONNECTED, WITHHELD},
    },
};

use crate::{
    attempt::{speech, tell_denied},
    custody::is_watched,
    identity::{PF_KTHREAD, task_flags},
    kernel::{Kptr, Typed, offset},
    policy::{is_any_in_force, role_in, still_stands},
    socket::IPPROTO_TCP,
    tag::tag_of,
};

/// 1: something is withheld on some connection, perhaps an ended one.
#[btf_map]
static WITHHOLDS: Array<u32, 1> = Array::new();

#[btf_tracepoint(function = "tcp_sendmsg_locked")]
pub(crate) fn sendmsg_locked(ctx: BtfTracePointContext) -> i32 {
    if is_any_in_force() {
        writing(ctx.arg(0));
    }
    0
}

/// Called for each piece of one sendmsg(2).
#[inline(always)]
fn writing(sk: *mut c_void) {
    let Some(tag) = tag_of(sk) else {
        return;
    };
    // Nothing tells whether a connection older than the hooks has come in.
    if tag.flags & (CONNECTED | ACCEPTED) != CONNECTED
        || tag.since_ns == 0
        || role_in(tag, false) != role::SPEAKER
        || !is_watched()
        // It sends on behalf of those that have written before (kernel TLS).
        || task_flags(Typed::current()) & PF_KTHREAD != 0
        || still_stands(tag)
    {
        return;
    }
    let address = Kptr::of(sk);
    let (act, judging) = speech(address, tag, Hook::SendmsgLocked);
    if !judging.denies() {
        judging.keep(tag);
        return;
    }
    let me = bpf_get_current_pid_tgid();
    if tag.sender != me {
        tag.sender = me;
        tell_denied(address, tag, &act, &judging);
    }
    if tag.flags & WITHHELD == 0
        && let Some(place) = address.read(offset!(tcp_write_seq))
    {
        tag.withheld = place;
        tag.flags |= WITHHELD;
        remember(tag);
    }
}

/// Lets packets be looked at, where the tag withholds something.
#[inline(always)]
pub(crate) fn remember(tag: &SocketTag) {
    if tag.flags & WITHHELD != 0 {
        let _ = WITHHOLDS.set(0, 1, 0);
    }
}

/// The current thread's send is over: whether it was denied.
#[inline(always)]
pub(crate) fn was_denied(tag: &mut SocketTag) -> bool {
    let was_denied = tag.sender == bpf_get_current_pid_tgid();
    if was_denied {
        tag.sender = 0;
    }
    was_denied
}

/// Whether a packet of TCP carries what does not leave.
#[inline(always)]
pub(crate) fn is_withheld(ctx: &SkBuffContext, sk: *mut c_void) -> bool {
    let withholds = WITHHOLDS.get_ptr(0).is_some_and(|word| {
        // SAFETY: one plain word of a map value.
        unsafe { core::ptr::read_volatile(word) != 0 }
    });
    if !withholds {
        return false;
    }
    match tag_of(sk) {
        Some(tag) if tag.flags & WITHHELD != 0 => carries(ctx, tag.withheld).unwrap_or(true),
        _ => false,
    }
}

/// Whether a packet carries a byte of the stream from that place on. Of one with
/// extension headers that is not looked for.
#[inline(always)]
fn carries(ctx: &SkBuffContext, place: u32) -> Option<bool> {
    let first: u8 = ctx.load(0).ok()?;
    let (protocol, header): (u8, u32) = if first >> 4 == 4 {
        (ctx.load(9).ok()?, u32::from(first & 0xf) * 4)
    } else {
        (ctx.load(6).ok()?, 40)
    };
    if u16::from(protocol) != IPPROTO_TCP {
        return None;
    }
    let sequence = u32::from_be(ctx.load(header as usize + 4).ok()?);
    let words: u8 = ctx.load(header as usize + 12).ok()?;
    let headers = header + u32::from(words >> 4) * 4;
    let payload = ctx.len().saturating_sub(headers);
    let end = sequence.wrapping_add(payload);
    Some(payload > 0 && end.wrapping_sub(place) as i32 > 0)
}

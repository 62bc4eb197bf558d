//! What TCP itself says of a connection.
//!
//! Closing often runs in softirq context, in whatever process was interrupted:
//! only the socket's tag is read here, never the current task's identity.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_socket_cookie},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use procid_common::socket::{
    Hook, Outcome,
    flags::{CONNECTED, PENDING},
};

use crate::{
    attempt::{closed, outcome_from_sock, wired},
    kernel::{Kptr, offset},
    maps::CONNECTS,
    socket::{
        IPPROTO_MPTCP, TCP_CLOSE, TCP_ESTABLISHED, TCP_SYN_RECV, TCP_SYN_SENT, counts, is_any,
    },
    tag::{NOT_COUNTED, is_stream, tag_accepted, tag_of},
};

/// Every change of a TCP socket's state; `tcp_set_state` and
/// `inet_sk_state_store` call it after the change.
///
/// <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp.c#L2903>
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    if new != i32::from(TCP_ESTABLISHED) && new != i32::from(TCP_CLOSE) {
        return 0;
    }
    let address = Kptr::of(sk);
    if !is_stream(address.sock_protocol()) {
        return 0;
    }
    let Some(tag) = tag_of(sk) else {
        untagged(sk, address, old, new);
        return 0;
    };
    let flow = tag.primary;
    if new == i32::from(TCP_ESTABLISHED) {
        if tag.flags & PENDING != 0 {
            tag.flags &= !PENDING;
            if is_any(&tag.destination) {
                let (wire, _) = address.sock_on_the_wire().sock_destination();
                wired(tag, flow, tag.destination, wire, Hook::SetState);
            }
            outcome_from_sock(address, tag.cookie, flow, 0, Hook::SetState);
        }
        return 0;
    }
    if tag.flags & PENDING == 0 {
        if tag.flags & CONNECTED != 0 && old != i32::from(TCP_SYN_SENT) {
            closed(tag.cookie, flow, Hook::SetState, counts(address, tag));
        }
        tag.flags &= !CONNECTED;
        return 0;
    }
    tag.flags &= !CONNECTED;
    let error: i32 = address.read(offset!(sock_err)).unwrap_or(0);
    if error > 0 {
        tag.flags &= !PENDING;
        outcome_from_sock(address, tag.cookie, flow, error, Hook::SetState);
    } else if !connect_will_tell(tag.cookie) {
        tag.flags &= !PENDING;
        let abandoned = Outcome::ABANDONED;
        outcome_from_sock(address, tag.cookie, flow, abandoned, Hook::SetState);
    }
    0
}

/// A socket that nobody made while the hooks were on: it has come in, or is
/// older than the hooks and known by its cookie if at all.
#[inline(always)]
fn untagged(sk: *mut core::ffi::c_void, address: Kptr, old: i32, new: i32) {
    if new == i32::from(TCP_CLOSE) {
        let cookie = address.sock_cookie();
        if cookie != 0 {
            closed(cookie, 0, Hook::SetState, NOT_COUNTED);
        }
    } else if old == i32::from(TCP_SYN_RECV) || address.sock_protocol() == IPPROTO_MPTCP {
        // SAFETY: a BTF pointer of the hook's own socket.
        let cookie = unsafe { bpf_get_socket_cookie(sk) };
        tag_accepted(sk, cookie);
    }
}

/// Whether this socket's connect(2) is running in the current thread, so that
/// its return will name the error. (In softirq context the current thread is
/// anyone's, and does not hold this socket's cookie.)
#[inline(always)]
fn connect_will_tell(cookie: u64) -> bool {
    match CONNECTS.get_ptr(bpf_get_current_pid_tgid()) {
        // SAFETY: only the thread itself changes its entry.
        Some(connect) => unsafe { (*connect).cookie == cookie },
        None => false,
    }
}

/// A SYN that had no answer for a second: by now the kernel has chosen the
/// source, and the record of an unknown outcome can name it.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub(crate) fn retransmit(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    let address = Kptr::of(sk);
    if address.sock_state() != TCP_SYN_SENT {
        return 0;
    }
    if let Some(tag) = tag_of(sk)
        && tag.flags & PENDING != 0
    {
        let flow = tag.primary;
        let undecided = Outcome::UNDECIDED;
        outcome_from_sock(address, tag.cookie, flow, undecided, Hook::Retransmit);
    }
    0
}

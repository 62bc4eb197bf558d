//! What TCP itself says of a connection.
//!
//! Closing often runs in softirq context, in whatever process was interrupted:
//! only the socket's tag is read here, never the current task's identity.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use procid_common::{
    event::{Loss, kind},
    socket::{Close, Hook, Outcome, flags::PENDING},
};

use crate::{
    kernel::{Kptr, offset},
    maps::{CONNECTS, emit},
    process::header,
    socket::{IPPROTO_TCP, TCP_CLOSE, TCP_ESTABLISHED, TCP_SYN_SENT, outcome_from_sock, tag_of},
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
    if address.sock_protocol() != IPPROTO_TCP {
        return 0;
    }
    let Some(tag) = tag_of(sk) else {
        // Older than the hooks, or accepted: known by its cookie if at all.
        let cookie = address.sock_cookie();
        if new == i32::from(TCP_CLOSE) && cookie != 0 {
            closed(cookie, 0);
        }
        return 0;
    };
    if new == i32::from(TCP_ESTABLISHED) {
        if tag.flags & PENDING != 0 {
            outcome_from_sock(address, tag, 0, Hook::SetState);
        }
        return 0;
    }
    if tag.flags & PENDING == 0 {
        if tag.flow != 0 && old != i32::from(TCP_SYN_SENT) {
            closed(tag.cookie, tag.flow);
        }
        return 0;
    }
    let error: i32 = address.read(offset!(sock_err)).unwrap_or(0);
    if error > 0 {
        outcome_from_sock(address, tag, error, Hook::SetState);
    } else if !connect_will_tell(tag.cookie) {
        outcome_from_sock(address, tag, Outcome::ABANDONED, Hook::SetState);
    }
    0
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

#[inline(always)]
fn closed(cookie: u64, flow: u32) {
    emit(
        &Close {
            header: header::<Close>(kind::CLOSE),
            cookie,
            flow,
            hook: Hook::SetState as u32,
        },
        Loss::RingConnection,
    );
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
        outcome_from_sock(address, tag, Outcome::UNDECIDED, Hook::Retransmit);
    }
    0
}

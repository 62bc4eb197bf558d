//! The birth and the end of a socket.
//!
//! `cgroup/sock_create` runs at the end of `inet_create` for sockets that a
//! process makes (never for the kernel's own), before their descriptor exists:
//! the owner cannot have exhausted the socket's option memory yet, out of
//! which socket storage is paid. `cgroup/sock_release` runs in `inet_release`,
//! before the protocol's close, so that ports and addresses are still there.
//!
//! - <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/af_inet.c#L386>
//! - <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/af_inet.c#L412>

use aya_ebpf::{
    helpers::generated::bpf_get_socket_cookie,
    macros::{cgroup_sock, lsm},
    programs::{LsmContext, SockContext},
};
use procid_common::{
    event::{Loss, kind},
    socket::{
        Close, Hook, Outcome,
        flags::{PENDING, SEND},
    },
};

use crate::{
    connect::typed_sk,
    kernel::{Kptr, is_set, setting},
    maps::emit,
    process::header,
    socket::{
        AF_INET, AF_INET6, IPPROTO_TCP, TCP_CLOSE, TCP_ESTABLISHED, outcome, outcome_from_sock,
        tag_new, tag_of,
    },
};

/// A cgroup program's word for "go on".
const ALLOW: i32 = 1;

#[cgroup_sock(sock_create)]
pub(crate) fn sock_create(ctx: SockContext) -> i32 {
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock.cast()) };
    tag_new(ctx.sock.cast(), cookie);
    ALLOW
}

/// The LSM backend's place for the same.
#[lsm(hook = "socket_post_create")]
pub(crate) fn lsm_post_create(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(5);
    if before != 0 {
        return before;
    }
    let kern: i32 = ctx.arg(4);
    if kern == 0 && is_set(setting::LSM_RECORDS) {
        let socket: *const u8 = ctx.arg(0);
        if let Some(sk) = typed_sk(socket) {
            // SAFETY: a BTF pointer of the hook's own socket.
            let cookie = unsafe { bpf_get_socket_cookie(sk) };
            tag_new(sk, cookie);
        }
    }
    0
}

/// The LSM backend's view of a datagram socket's end: later than its release
/// (the last packet has left), and when its tag is gone already.
///
/// <https://github.com/torvalds/linux/blob/v6.12/net/core/sock.c#L2259>
#[lsm(hook = "sk_free_security")]
pub(crate) fn lsm_free(ctx: LsmContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    let address = Kptr::of(sk);
    let inet = matches!(address.sock_family(), AF_INET | AF_INET6);
    let cookie = address.sock_cookie();
    if is_set(setting::LSM_RECORDS) && inet && cookie != 0 && address.sock_protocol() != IPPROTO_TCP
    {
        closed(cookie, 0, Hook::LsmFree);
    }
    0
}

#[cgroup_sock(sock_release)]
pub(crate) fn sock_release(ctx: SockContext) -> i32 {
    release(ctx.sock.cast());
    ALLOW
}

#[inline(always)]
fn release(sk: *mut core::ffi::c_void) {
    let address = Kptr::of(sk);
    let tcp = address.sock_protocol() == IPPROTO_TCP;
    let Some(tag) = tag_of(sk) else {
        // Older than the hooks: the snapshot may know it by its cookie.
        let cookie = address.sock_cookie();
        if !tcp && cookie != 0 {
            closed(cookie, 0, Hook::SockRelease);
        }
        return;
    };
    if tag.flow == 0 {
        return;
    }
    let state = address.sock_state();
    // TCP tells its own end; only what never left CLOSE is told here.
    if tag.flags & PENDING != 0 && (!tcp || state == TCP_CLOSE) {
        if !tcp && tag.flags & SEND == 0 && state == TCP_ESTABLISHED {
            outcome_from_sock(address, tag, 0, Hook::SockRelease);
        } else {
            outcome(tag, [0; 16], 0, Outcome::ABANDONED, Hook::SockRelease);
        }
    }
    if !tcp {
        closed(tag.cookie, 0, Hook::SockRelease);
    } else if tag.flags & PENDING == 0 {
        // Only its descriptors have ended: the reader waits for the state
        // change, and falls back on this where none was seen.
        closed(tag.cookie, tag.flow, Hook::SockRelease);
    }
}

/// A flow of the socket has ended; 0: every one.
#[inline(always)]
fn closed(cookie: u64, flow: u32, hook: Hook) {
    emit(
        &Close {
            header: header::<Close>(kind::CLOSE),
            cookie,
            flow,
            hook: hook as u32,
        },
        Loss::RingConnection,
    );
}

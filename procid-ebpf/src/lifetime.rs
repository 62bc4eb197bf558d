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
use procid_common::socket::{
    Counts, Hook,
    flags::{CONNECTED, PENDING},
};

use crate::{
    attempt::{abandoned, closed},
    connect::typed_sk,
    custody::is_watched,
    kernel::{Kptr, is_set, setting},
    socket::{AF_INET, AF_INET6, AF_PACKET, TCP_CLOSE, counts},
    tag::{NOT_COUNTED, is_stream, settle_redial, tag_new, tag_of},
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
    let socket: *const u8 = ctx.arg(0);
    if kern == 0
        && let Some(sk) = typed_sk(socket)
    {
        let is_ours = match Kptr::of(sk).sock_family() {
            AF_PACKET => is_watched(),
            AF_INET | AF_INET6 => is_set(setting::LSM_RECORDS),
            _ => false,
        };
        if is_ours {
            // SAFETY: a BTF pointer of the hook's own socket.
            let cookie = unsafe { bpf_get_socket_cookie(sk) };
            tag_new(sk, cookie);
        }
    }
    0
}

/// The LSM backend's view of a datagram or packet socket's end: later than its release
/// (the last packet has left), and when its tag is gone already.
///
/// <https://github.com/torvalds/linux/blob/v6.12/net/core/sock.c#L2259>
#[lsm(hook = "sk_free_security")]
pub(crate) fn lsm_free(ctx: LsmContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    let address = Kptr::of(sk);
    let cookie = address.sock_cookie();
    if cookie == 0 {
        return 0;
    }
    match address.sock_family() {
        // Its account is not in its tag.
        AF_PACKET => closed(cookie, 0, Hook::LsmFree, Counts::default()),
        AF_INET | AF_INET6
            if is_set(setting::LSM_RECORDS) && !is_stream(address.sock_protocol()) =>
        {
            closed(cookie, 0, Hook::LsmFree, NOT_COUNTED);
        }
        _ => {}
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
    let is_stream = is_stream(address.sock_protocol());
    let hook = Hook::SockRelease;
    let Some(tag) = tag_of(sk) else {
        // Older than the hooks: the snapshot may know it by its cookie.
        let cookie = address.sock_cookie();
        if !is_stream && cookie != 0 {
            closed(cookie, 0, hook, NOT_COUNTED);
        }
        return;
    };
    settle_redial(address, tag);
    if tag.flow == 0 && tag.flags & CONNECTED == 0 {
        return;
    }
    let pending = tag.flags & PENDING != 0;
    if !is_stream {
        if pending {
            abandoned(tag.cookie, tag.primary, hook);
        }
        closed(tag.cookie, 0, hook, counts(address, tag));
    } else if !pending {
        // Only its descriptors have ended: the reader waits for the state
        // change, and falls back on this where none was seen.
        closed(tag.cookie, tag.primary, hook, NOT_COUNTED);
    } else if address.sock_state() == TCP_CLOSE {
        // TCP tells its own end; only what never left CLOSE is told here.
        abandoned(tag.cookie, tag.primary, hook);
    }
}

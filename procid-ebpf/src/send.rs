//! Datagrams with an address: where to, and where from.
//!
//! `cgroup/sendmsg4|6` run in `udp_sendmsg` for each message with an address,
//! after autobind and before the route is looked up: the destination and the
//! source port are known there, the source address is not. The packet itself
//! (`cgroup_skb/egress`) has it.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/udp.c#L1149>

use core::ffi::c_void;

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_socket_cookie},
    macros::{cgroup_sock_addr, lsm},
    programs::{LsmContext, SockAddrContext},
};
use procid_common::socket::{Address, Hook, flags::CONNECTED};

use crate::{
    attempt::{connecting, sending, speaking},
    bytes::begin_receive_by,
    connect::{act_of, lsm_act_of, lsm_tells, typed_sk, user_ip6},
    kernel::{Kptr, offset},
    policy::{cgroup_word, is_any_in_force, lsm_word},
    socket::{AF_INET, AF_INET6, AF_PACKET, SOCK_STREAM, TCP_CLOSE, mapped},
    tag::{is_stream, key, settle_redial, tag_of, tag_or_late},
};

/// A cgroup program's word for "go on".
const ALLOW: i32 = 1;

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let addr = unsafe { &*ctx.sock_addr };
    let source = match addr.msg_src_ip4 {
        0 => [0; 16],
        v4 => mapped(v4),
    };
    cgroup_word(match act_of(addr, Hook::Sendmsg4, mapped(addr.user_ip4)) {
        Some((sk, act)) => sending(sk, &act, source),
        None => true,
    })
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let addr = unsafe { &*ctx.sock_addr };
    cgroup_word(match act_of(addr, Hook::Sendmsg6, user_ip6(addr)) {
        Some((sk, act)) => sending(sk, &act, [0; 16]),
        None => true,
    })
}

/// The LSM backend's view of an addressed datagram; see `lsm_connect`. And,
/// where a policy is in force, every send on what is connected: of an image
/// that did not connect it, or under a policy that is newer.
#[lsm(hook = "socket_sendmsg")]
#[inline(always)]
pub(crate) fn lsm_sendmsg(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(3);
    if before != 0 {
        return before;
    }
    let socket: *const u8 = ctx.arg(0);
    let message: *const u8 = ctx.arg(1);
    lsm_word(lsm_sending(socket, Kptr::of(message)))
}

/// Datagrams received by who asks from whom they are.
///
/// <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/udp.c#L1975>
#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn recvmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let addr = unsafe { &*ctx.sock_addr };
    receiving(addr, mapped(addr.user_ip4));
    ALLOW
}

#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn recvmsg6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let addr = unsafe { &*ctx.sock_addr };
    receiving(addr, user_ip6(addr));
    ALLOW
}

#[inline(always)]
fn receiving(addr: &bpf_sock_addr, peer: Address) {
    // SAFETY: a field of the context, which the verifier rewrites.
    let sk = unsafe { addr.__bindgen_anon_1.sk };
    if sk.is_null() {
        return;
    }
    if let Some(tag) = tag_of(sk.cast()) {
        let port = u32::from(u16::from_be(addr.user_port as u16));
        let me = bpf_get_current_pid_tgid();
        if tag.primary != 0 && tag.port == port && tag.destination == peer {
            begin_receive_by(me, tag, None);
        } else {
            let from = key(tag.cookie, peer, port);
            begin_receive_by(me, tag, Some(&from));
        }
    }
}

/// sendmsg(2) is to connect first (Fast Open).
const MSG_FASTOPEN: u32 = 0x2000_0000;

#[inline(always)]
fn lsm_sending(socket: *const u8, message: Kptr) -> bool {
    let Some(sk) = typed_sk(socket) else {
        return true;
    };
    let at = Kptr::of(sk);
    let socket_kind = at.sock_kind();
    match socket_kind.family {
        AF_INET | AF_INET6 => {}
        AF_PACKET => return lsm_speaking(sk, at),
        _ => return true,
    }
    let address = match message.follow(offset!(msghdr_name)) {
        Some(address) if socket_kind.sock_type != SOCK_STREAM => address,
        Some(address)
            if is_stream(socket_kind.protocol)
                && at.sock_state() == TCP_CLOSE
                && message.read(offset!(msghdr_flags)).unwrap_or(0) & MSG_FASTOPEN != 0 =>
        {
            if !lsm_tells(socket_kind) {
                return true;
            }
            return match lsm_act_of(sk, Hook::LsmSendmsg, socket_kind, address) {
                Some(act) => connecting(sk, &act),
                None => true,
            };
        }
        _ => return lsm_speaking(sk, at),
    };
    if !lsm_tells(socket_kind) {
        return true;
    }
    match lsm_act_of(sk, Hook::LsmSendmsg, socket_kind, address) {
        Some(act) => sending(sk, &act, [0; 16]),
        None => true,
    }
}

/// A send without an address.
#[inline(always)]
fn lsm_speaking(sk: *mut c_void, at: Kptr) -> bool {
    if !is_any_in_force() {
        return true;
    }
    // SAFETY: a BTF pointer of the hook's own socket.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    match tag_or_late(sk, cookie) {
        Some(tag) => {
            settle_redial(at, tag);
            // A connection older than the hooks may have come in, and nothing
            // tells: it is left alone, so that no policy cuts the session that
            // applies it.
            if tag.since_ns == 0 && tag.flags & CONNECTED != 0 {
                return true;
            }
            speaking(at, tag, Hook::LsmSendmsg)
        }
        None => true,
    }
}

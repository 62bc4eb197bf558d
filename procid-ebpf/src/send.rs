//! Datagrams with an address: where to, and where from.
//!
//! `cgroup/sendmsg4|6` run in `udp_sendmsg` for each message with an address,
//! after autobind and before the route is looked up: the destination and the
//! source port are known there, the source address is not. The packet itself
//! (`cgroup_skb/egress`) has it.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/udp.c#L1149>

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::bpf_get_current_pid_tgid,
    macros::{cgroup_sock_addr, lsm},
    programs::{LsmContext, SockAddrContext},
};
use procid_common::socket::{Address, Hook};

use crate::{
    attempt::{connecting, sending},
    bytes::begin_receive_by,
    connect::{act_of, internet_sk, lsm_act_of, lsm_tells, user_ip6},
    kernel::{Kptr, offset},
    socket::{SOCK_STREAM, TCP_CLOSE, mapped},
    tag::{is_stream, key, tag_of},
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
    if let Some((sk, act)) = act_of(addr, Hook::Sendmsg4, mapped(addr.user_ip4)) {
        sending(sk, &act, source);
    }
    ALLOW
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let addr = unsafe { &*ctx.sock_addr };
    if let Some((sk, act)) = act_of(addr, Hook::Sendmsg6, user_ip6(addr)) {
        sending(sk, &act, [0; 16]);
    }
    ALLOW
}

/// The LSM backend's view of an addressed datagram; see `lsm_connect`.
#[lsm(hook = "socket_sendmsg")]
pub(crate) fn lsm_sendmsg(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(3);
    if before != 0 {
        return before;
    }
    let socket: *const u8 = ctx.arg(0);
    let message: *const u8 = ctx.arg(1);
    lsm_sending(socket, Kptr::of(message));
    0
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
fn lsm_sending(socket: *const u8, message: Kptr) {
    let Some(sk) = internet_sk(socket) else {
        return;
    };
    let at = Kptr::of(sk);
    let socket_kind = at.sock_kind();
    if !lsm_tells(socket_kind) {
        return;
    }
    let Some(address) = message.follow(offset!(msghdr_name)) else {
        return;
    };
    let Some(act) = lsm_act_of(sk, Hook::LsmSendmsg, socket_kind, address) else {
        return;
    };
    if socket_kind.sock_type != SOCK_STREAM {
        sending(sk, &act, [0; 16]);
    } else if is_stream(socket_kind.protocol)
        && at.sock_state() == TCP_CLOSE
        && message.read(offset!(msghdr_flags)).unwrap_or(0) & MSG_FASTOPEN != 0
    {
        connecting(sk, &act);
    }
}

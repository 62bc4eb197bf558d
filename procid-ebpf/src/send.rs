//! Datagrams: unconnected sends, their source and their outcome.
//!
//! `cgroup/sendmsg4|6` run in `udp_sendmsg` for each message with an address,
//! after autobind and before the route is looked up: the destination and the
//! source port are known there, the source address is not. The packet itself
//! (`cgroup_skb/egress`) has it.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/udp.c#L1149>

use aya_ebpf::{
    helpers::generated::bpf_sk_fullsock,
    macros::{btf_tracepoint, cgroup_skb, cgroup_sock_addr, lsm},
    programs::{BtfTracePointContext, LsmContext, SkBuffContext, SockAddrContext},
};
use procid_common::socket::{
    Address, Hook,
    flags::{PENDING, PENDING_SOURCE, SEND},
};

use crate::{
    connect::{act_of, lsm_act_of, typed_sk, user_ip6},
    kernel::{Kptr, is_set, offset, setting},
    socket::{SOCK_STREAM, mapped, outcome, outcome_from_sock, sending, tag_of},
};

/// A cgroup program's word for "go on".
const ALLOW: i32 = 1;
const IPPROTO_UDP: u32 = 17;

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
    if is_set(setting::LSM_RECORDS) {
        let socket: *const u8 = ctx.arg(0);
        let message: *const u8 = ctx.arg(1);
        lsm_sending(socket, Kptr::of(message));
    }
    0
}

#[inline(always)]
fn lsm_sending(socket: *const u8, message: Kptr) {
    let Some(sk) = typed_sk(socket) else { return };
    let socket_kind = Kptr::of(sk).sock_kind();
    if socket_kind.sock_type == SOCK_STREAM {
        return;
    }
    if let Some(address) = message.follow(offset!(msghdr_name))
        && let Some(act) = lsm_act_of(sk, Hook::LsmSendmsg, socket_kind, address)
    {
        sending(sk, &act, [0; 16]);
    }
}

/// The first packet of a flow whose source is not known yet: a datagram socket
/// that is not bound to an address learns it only from its route.
#[cgroup_skb]
pub(crate) fn egress(ctx: SkBuffContext) -> i32 {
    try_egress(&ctx);
    ALLOW
}

#[inline(always)]
fn try_egress(ctx: &SkBuffContext) -> Option<()> {
    // SAFETY: the context is valid for the program's run.
    let skb = unsafe { &*ctx.skb.skb };
    // SAFETY: a field of the context, which the verifier rewrites.
    let sk = unsafe { skb.__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: not null, as the helper asks.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        return None;
    }
    // SAFETY: not null; a field the verifier rewrites.
    if unsafe { (*sk).protocol } != IPPROTO_UDP {
        return None;
    }
    let tag = tag_of(sk.cast())?;
    if tag.flags & PENDING_SOURCE == 0 {
        return None;
    }
    let version: u8 = ctx.load(0).ok()?;
    let (source, destination, ports) = if version >> 4 == 4 {
        let source: u32 = ctx.load(12).ok()?;
        let destination: u32 = ctx.load(16).ok()?;
        (
            mapped(source),
            mapped(destination),
            usize::from(version & 0xf) * 4,
        )
    } else {
        let source: Address = ctx.load(8).ok()?;
        let destination: Address = ctx.load(24).ok()?;
        (source, destination, 40)
    };
    let source_port = u16::from_be(ctx.load::<u16>(ports).ok()?);
    let port = u16::from_be(ctx.load::<u16>(ports + 2).ok()?);
    if u32::from(port) != tag.port {
        return None;
    }
    // The unspecified address is put on the wire as the loopback's.
    let asked = tag.destination;
    if asked != destination && asked != mapped(0) && asked != [0; 16] {
        return None;
    }
    outcome(tag, source, u32::from(source_port), 0, Hook::Egress);
    Some(())
}

/// The return of a send, on every path that ends in `sock_sendmsg` (6.3+):
/// tells why a datagram was not sent.
///
/// <https://github.com/torvalds/linux/blob/v6.12/net/socket.c#L729>
#[btf_tracepoint(function = "sock_send_length")]
pub(crate) fn send_length(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    let ret: i32 = ctx.arg(1);
    if u32::from(Kptr::of(sk).sock_protocol()) != IPPROTO_UDP {
        return 0;
    }
    let Some(tag) = tag_of(sk) else { return 0 };
    if tag.flags & PENDING == 0 {
        return 0;
    }
    let address = Kptr::of(sk);
    if ret >= 0 {
        if tag.flags & SEND == 0 {
            outcome_from_sock(address, tag, 0, Hook::SendLength);
        } else {
            // The source address is unknown where no packet has shown it.
            let (_, port) = address.sock_source();
            let source = tag.source;
            outcome(tag, source, port, 0, Hook::SendLength);
        }
    } else if tag.flags & SEND != 0 {
        outcome_from_sock(address, tag, -ret, Hook::SendLength);
    }
    0
}

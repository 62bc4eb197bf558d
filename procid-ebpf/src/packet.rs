//! Packets: what only they can tell.
//!
//! On the way out, the source that the route chose for a datagram, the
//! destination of sockets whose sends no other hook of the cgroup sees (raw,
//! ping, connected UDP-Lite), and an address on the wire that is not the one
//! asked for. These packets are made inside sendmsg(2), in the context of its
//! caller; of TCP's this is not so, and only its headers are looked at.
//!
//! On the way in, whether a socket hears of one peer or of several, and DNS
//! answers (see [`answer`](crate::answer)).
//!
//! <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/ip_output.c#L317>

use core::ffi::c_void;

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_get_socket_cookie, bpf_sk_fullsock},
    },
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use procid_common::{
    answer::PORT,
    event::{Loss, kind},
    socket::{
        Address, Hook, SocketTag,
        flags::{ASKS_NAMES, CONNECTED, KERNEL, MANY_PEERS, OTHERS, PENDING, PENDING_SOURCE, SEND},
    },
};

use crate::{
    answer::{tell_datagram, tell_segment, was_asked},
    attempt::{
        Act, NOT_NEW, act_event, begin_send, closed, is_primary, next_flow, speaking, tell, wired,
    },
    bytes::{begin_send_by, is_noted},
    identity::{image_of, thread_of},
    kernel::{Kptr, Typed},
    maps::{ACTS, DESTINATIONS, lost},
    policy::{cgroup_word, is_any_in_force, judge, role_in, still_stands},
    socket::{
        IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, SOCK_RAW,
        TCP_ESTABLISHED, counts, is_any, mapped,
    },
    tag::{settle_redial, tag_of, tag_or_late},
    withhold::is_withheld,
};

/// A cgroup program's word for "go on".
const ALLOW: i32 = 1;

/// The ends of a packet.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ends {
    source: Address,
    destination: Address,
    /// Host order; 0 for protocols without ports.
    source_port: u32,
    port: u32,
    /// 1: it carries a source route, perhaps.
    routed: u32,
}

#[cgroup_skb]
#[inline(always)]
pub(crate) fn egress(ctx: SkBuffContext) -> i32 {
    cgroup_word(try_egress(&ctx).unwrap_or(true))
}

#[cgroup_skb]
pub(crate) fn ingress(ctx: SkBuffContext) -> i32 {
    let _ = try_ingress(&ctx);
    ALLOW
}

/// The socket of a packet, its type and its protocol.
#[inline(always)]
fn socket_of(ctx: &SkBuffContext) -> Option<(*mut c_void, u32, u16)> {
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
    // SAFETY: not null; fields the verifier rewrites.
    let (sock_type, protocol) = unsafe { ((*sk).type_, (*sk).protocol) };
    Some((sk.cast(), sock_type, protocol as u16))
}

/// Next headers that stand before a routing header, and itself.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

#[inline(always)]
fn routed(ctx: &SkBuffContext) -> Option<(u8, bool)> {
    let first: u8 = ctx.load(0).ok()?;
    let routed = if first >> 4 == 4 {
        first & 0xf > 5
    } else {
        matches!(
            ctx.load::<u8>(6).ok()?,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS
        )
    };
    Some((first, routed))
}

/// The verifier is to know nothing of how they were found: it would follow what
/// comes after once for each way.
#[inline(always)]
fn ends(ctx: &SkBuffContext, protocol: u16) -> Option<Ends> {
    let ends = find_ends(ctx, protocol)?;
    Kptr(&raw const ends as u64).read(0)
}

#[inline(always)]
fn find_ends(ctx: &SkBuffContext, protocol: u16) -> Option<Ends> {
    let (first, routed) = routed(ctx)?;
    let (source, destination, header) = if first >> 4 == 4 {
        let source: u32 = ctx.load(12).ok()?;
        let destination: u32 = ctx.load(16).ok()?;
        let header = usize::from(first & 0xf) * 4;
        (mapped(source), mapped(destination), header)
    } else {
        (ctx.load(8).ok()?, ctx.load(24).ok()?, 40)
    };
    let mut ends = Ends {
        source,
        destination,
        source_port: 0,
        port: 0,
        routed: u32::from(routed),
    };
    if protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE {
        if first >> 4 != 4 && routed {
            // The ports are behind headers of any length: the tag has them.
            return Some(ends);
        }
        ends.source_port = u32::from(u16::from_be(ctx.load::<u16>(header).ok()?));
        ends.port = u32::from(u16::from_be(ctx.load::<u16>(header + 2).ok()?));
    }
    Some(ends)
}

/// False: the packet is denied.
#[inline(always)]
fn try_egress(ctx: &SkBuffContext) -> Option<bool> {
    let (sk, sock_type, mut protocol) = socket_of(ctx)?;
    if sock_type == u32::from(SOCK_RAW) {
        protocol = 0; // no ports
    }
    match protocol {
        IPPROTO_TCP => {
            if is_withheld(ctx, sk) {
                return Some(false);
            }
            let (_, routed) = routed(ctx)?;
            if routed {
                let tag = tag_of(sk)?;
                let flow = tag.primary;
                tell_wire(tag, flow, tag.destination, &ends(ctx, protocol)?);
            }
            None
        }
        IPPROTO_UDP => {
            let tag = tag_of(sk)?;
            if tag.flags & PENDING_SOURCE != 0 {
                tell_source(tag, &ends(ctx, protocol)?);
            } else if tag.flags & CONNECTED != 0 && tag.wired != tag.primary {
                let (_, routed) = routed(ctx)?;
                if routed {
                    let flow = tag.primary;
                    tell_wire(tag, flow, tag.destination, &ends(ctx, protocol)?);
                }
            }
            is_any_in_force().then(|| speak_connected(sk, tag))
        }
        0 | IPPROTO_ICMP | IPPROTO_ICMPV6 | IPPROTO_UDPLITE => {
            Some(speak(ctx, sk, &ends(ctx, protocol)?))
        }
        // Others send in softirq context, in anyone's name.
        _ => None,
    }
}

/// The first datagram of a flow shows its source.
#[inline(always)]
fn tell_source(tag: &mut SocketTag, ends: &Ends) {
    let me = thread_of(Typed::current());
    let hook = Hook::Egress;
    if tag.sender == me {
        let flow = tag.primary;
        tell_wire(tag, flow, tag.destination, ends);
        if tag.flags & PENDING != 0 {
            tag.flags &= !(PENDING | PENDING_SOURCE);
            tell(tag.cookie, flow, ends.source, ends.source_port, 0, hook);
        }
        return;
    }
    if tag.flags & OTHERS == 0 {
        return;
    }
    let Some(noted) = ACTS.get_ptr(me) else {
        return;
    };
    // SAFETY: the entry is this thread's.
    let noted = unsafe { *noted };
    let Some(state) = DESTINATIONS.get_ptr_mut(noted) else {
        return;
    };
    // SAFETY: a map value; plain words.
    let state = unsafe { &mut *state };
    if noted.cookie == tag.cookie {
        tell_wire(tag, state.flow, noted.destination, ends);
        if state.pending != 0 {
            state.pending = 0;
            tag.flags &= !PENDING_SOURCE;
            tell(
                tag.cookie,
                state.flow,
                ends.source,
                ends.source_port,
                0,
                hook,
            );
        }
    }
}

/// A source route, or having asked for no address in particular, makes the
/// address on the wire another one than was asked for.
#[inline(always)]
fn tell_wire(tag: &mut SocketTag, flow: u32, asked: Address, ends: &Ends) {
    if ends.routed != 0 || is_any(&asked) {
        wired(tag, flow, asked, ends.destination, Hook::Egress);
    }
}

/// A datagram on a connected socket: with an address, it was judged by the hook
/// that saw that, and has left its note.
#[inline(always)]
fn speak_connected(sk: *mut c_void, tag: &mut SocketTag) -> bool {
    let address = Kptr::of(sk);
    settle_redial(address, tag);
    let me = thread_of(Typed::current());
    // Nothing tells whether a connection older than the hooks has come in.
    if tag.flags & CONNECTED == 0 || tag.since_ns == 0 || is_noted(tag, me) {
        return true;
    }
    speaking(address, tag, Hook::Egress)
}

/// A packet of a socket whose sends pass no other hook.
#[inline(always)]
fn speak(ctx: &SkBuffContext, sk: *mut c_void, ends: &Ends) -> bool {
    let address = Kptr::of(sk);
    // The kernel's own answers (ICMP errors, echo replies) are nobody's flow.
    if address.sock_is_kernels() {
        return true;
    }
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    let act = Act {
        hook: Hook::Egress,
        destination: ends.destination,
        port: ends.port,
        socket: address.sock_kind(),
        cookie,
    };
    let me = thread_of(Typed::current());
    let Some(tag) = tag_or_late(sk, cookie) else {
        lost(Loss::TagMissing);
        return true;
    };
    settle_redial(address, tag);
    let is_connected = address.sock_state() == TCP_ESTABLISHED;
    let is_told = if is_connected {
        tag.flags & CONNECTED != 0
            && (ends.routed != 0 || tag.destination == ends.destination)
            && tag.port == ends.port
    } else {
        is_primary(tag, &act)
    };
    if is_told && still_stands(tag) {
        begin_send_by(me, tag, None);
        return true;
    }
    let since_ns = if is_told { tag.since_ns.max(1) } else { 0 };
    let role = role_in(tag, is_connected && !is_told);
    let judging = judge(|| act.question(address, role, since_ns));
    let denied = judging.denies();
    let flow = if denied {
        if is_told { tag.primary } else { next_flow(tag) }
    } else if is_told {
        judging.keep(tag);
        begin_send_by(me, tag, None);
        return true;
    } else if is_connected {
        // Its connect(2) passed no hook: the first packet tells of it.
        begin_connected(address, tag, ends, cookie);
        judging.keep(tag);
        begin_send_by(me, tag, None);
        tag.primary
    } else {
        begin_send(me, tag, &act, &judging)
    };
    if flow == NOT_NEW {
        return true;
    }
    let bits = if is_connected && !is_told { 0 } else { SEND };
    let source = ends.source;
    let kind = kind::ATTEMPT;
    act_event(kind, address, &act, Some(tag), flow, bits, source, &judging);
    if !denied {
        tag.flags &= !(PENDING | PENDING_SOURCE);
        tell(cookie, flow, source, ends.source_port, 0, Hook::Egress);
    }
    !denied
}

/// Notes a connection that its first packet tells of.
#[inline(always)]
fn begin_connected(sk: Kptr, tag: &mut SocketTag, ends: &Ends, cookie: u64) {
    if tag.flags & CONNECTED != 0 {
        closed(cookie, tag.primary, Hook::Redial, counts(sk, tag));
    }
    tag.primary = next_flow(tag);
    tag.destination = ends.destination;
    tag.port = ends.port;
    tag.sent = 0;
    tag.received = 0;
    tag.flags |= CONNECTED;
    if let Some(image) = image_of(Typed::current()) {
        tag.connector = image;
        tag.user = image;
    }
    // SAFETY: takes no argument.
    tag.since_ns = unsafe { bpf_ktime_get_boot_ns() };
}

/// The port of the other end of a connected socket, network order; 0: there is
/// none.
#[inline(always)]
fn peer_port(sk: *mut c_void) -> u16 {
    // SAFETY: what `socket_of` found; a field that the verifier rewrites.
    unsafe { (*sk.cast::<bpf_sock>()).dst_port }
}

/// Whether a socket hears of one peer or of several: where it is not connected,
/// a receive that does not ask from whom is told apart by nothing else.
///
/// DNS answers: of what else comes in, the packet is not looked at for them.
#[inline(always)]
fn try_ingress(ctx: &SkBuffContext) -> Option<()> {
    const DNS: u16 = (PORT as u16).to_be();

    let (sk, sock_type, mut protocol) = socket_of(ctx)?;
    if sock_type == u32::from(SOCK_RAW) {
        protocol = 0; // no ports
    } else if protocol == IPPROTO_TCP {
        if peer_port(sk) == DNS {
            tell_segment(ctx, sk);
        }
        return None;
    }
    let is_servers = protocol == IPPROTO_UDP && peer_port(sk) == DNS;
    if is_servers {
        tell_datagram(ctx, sk);
    }
    let tag = tag_of(sk)?;
    if tag.flags & (CONNECTED | KERNEL) != 0 || tag.flags & (MANY_PEERS | ASKS_NAMES) == MANY_PEERS
    {
        return None;
    }
    let ends = ends(ctx, protocol)?;
    if tag.flags & ASKS_NAMES != 0
        && !is_servers
        && ends.source_port == PORT
        && was_asked(tag, &ends.source)
    {
        tell_datagram(ctx, sk);
    }
    if tag.flags & MANY_PEERS != 0 {
        return None;
    }
    if tag.peer == [0; 16] {
        tag.peer = ends.source;
        tag.peer_port = ends.source_port;
    } else if tag.peer != ends.source || tag.peer_port != ends.source_port {
        tag.flags |= MANY_PEERS;
    }
    None
}

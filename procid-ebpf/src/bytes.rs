//! What was sent and received: its outcome, its bytes, its user.
//!
//! `sock_send_length` and `sock_recv_length` (6.3+) fire at the end of every
//! `sock_sendmsg` and `sock_recvmsg`, whatever led there (write, sendfile,
//! io_uring), in the context of the thread that called. Where a kernel has
//! them not, the returns of `inet_sendmsg` and its kin tell the same.
//!
//! Which flow a datagram belongs to is known before: the hook that saw its
//! address leaves a note, in the tag where it is the socket's `primary` flow,
//! else in `ACTS` under the thread's id.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/net/socket.c#L720>

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_socket_cookie},
    macros::{btf_tracepoint, fexit},
    programs::{BtfTracePointContext, FExitContext},
};
use procid_common::{
    event::{Loss, kind},
    socket::{
        DESTINATIONS_PER_SOCKET, DestinationKey, DestinationState, Hook, SocketTag,
        flags::{CONNECTED, MANY_PEERS, OTHERS, PENDING, RECEIVED_UNKNOWN, SCANNER, SEND},
    },
};

use crate::{
    atomic,
    attempt::{act_event, act_of_sock, next_flow, outcome_from_sock, tell},
    connect::typed_sk,
    custody::{adopt, is_watched, remember_user, used, used_untagged},
    kernel::{Kptr, Object as _, Typed, offset},
    maps::{ACTS, DESTINATIONS, SCANS, lost},
    policy::Judging,
    socket::{AF_INET, AF_INET6, AF_PACKET},
    tag::{is_stream, key, settle_redial, tag_of, tag_or_late},
    withhold::was_denied,
};

/// Notes that thread `me` sends to `to`; `None`: on flow `primary`.
#[inline(always)]
pub(crate) fn begin_send_by(me: u64, tag: &mut SocketTag, to: Option<&DestinationKey>) {
    let slot = &raw mut tag.sender;
    begin(me, slot, tag, to);
}

/// The same of a receive.
#[inline(always)]
pub(crate) fn begin_receive_by(me: u64, tag: &mut SocketTag, from: Option<&DestinationKey>) {
    let slot = &raw mut tag.receiver;
    begin(me, slot, tag, from);
}

#[inline(always)]
fn begin(me: u64, slot: *mut u64, tag: &mut SocketTag, with: Option<&DestinationKey>) {
    let own;
    let with = match with {
        Some(with) => with,
        None if claim(slot, me) => return,
        None => {
            own = key(tag.cookie, tag.destination, tag.port);
            &own
        }
    };
    tag.flags |= OTHERS;
    if ACTS.insert(me, with, 0).is_err() {
        lost(Loss::ActsFull);
    }
}

/// Takes the tag's one note, unless another thread has it.
#[inline(always)]
fn claim(slot: *mut u64, me: u64) -> bool {
    // SAFETY: a field of a tag, aligned and alive; all who take it do so here.
    let owner = unsafe { atomic::exchange_if(slot, 0, me) };
    owner == 0 || owner == me
}

/// Whether thread `me` is inside a send to an address of its own.
#[inline(always)]
pub(crate) fn is_noted(tag: &SocketTag, me: u64) -> bool {
    if tag.sender == me {
        return true;
    }
    tag.flags & OTHERS != 0
        && ACTS.get_ptr(me).is_some_and(|noted| {
            // SAFETY: the entry is this thread's.
            unsafe { (*noted).cookie == tag.cookie }
        })
}

/// Whose bytes they are.
enum Account {
    /// Of a peer to which the socket has sent nothing yet.
    Stranger(DestinationKey),
    Primary,
    Other(DestinationKey, &'static mut DestinationState),
}

/// Reads the current thread's note and tears it up.
#[inline(always)]
fn end(slot: *mut u64, tag: &SocketTag) -> Option<Account> {
    let me = bpf_get_current_pid_tgid();
    // SAFETY: as in `claim`; only its owner clears it.
    unsafe {
        if core::ptr::read_volatile(slot) == me {
            core::ptr::write_volatile(slot, 0);
            return Some(Account::Primary);
        }
    }
    if tag.flags & OTHERS != 0
        && let Some(noted) = ACTS.get_ptr(me)
    {
        // SAFETY: the entry is this thread's.
        let noted = unsafe { *noted };
        let _ = ACTS.remove(me);
        if noted.cookie == tag.cookie {
            return Some(account(tag, &noted));
        }
    }
    None
}

/// The account of a destination.
#[inline(always)]
fn account(tag: &SocketTag, at: &DestinationKey) -> Account {
    if tag.primary != 0 && tag.port == at.port && tag.destination == at.destination {
        return Account::Primary;
    }
    match account_of(tag, at) {
        Some(other) => Account::Other(*at, other),
        None => Account::Stranger(*at),
    }
}

#[inline(always)]
fn add(to: *mut u64, bytes: u64) {
    // SAFETY: a counter in a map value, aligned and alive.
    unsafe { atomic::add(to, bytes) };
}

#[btf_tracepoint(function = "sock_send_length")]
pub(crate) fn send_length(ctx: BtfTracePointContext) -> i32 {
    sent(ctx.arg(0), ctx.arg(1), Hook::SendLength);
    0
}

#[btf_tracepoint(function = "sock_recv_length")]
pub(crate) fn receive_length(ctx: BtfTracePointContext) -> i32 {
    received(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// Stands in for the tracepoints on kernels before 6.3, as those below.
#[fexit(function = "inet_sendmsg")]
pub(crate) fn returned_sendmsg(ctx: FExitContext) -> i32 {
    if let Some(sk) = typed_sk(ctx.arg(0)) {
        sent(sk, ctx.arg(3), Hook::SendLength);
    }
    0
}

#[fexit(function = "inet6_sendmsg")]
pub(crate) fn returned_sendmsg6(ctx: FExitContext) -> i32 {
    if let Some(sk) = typed_sk(ctx.arg(0)) {
        sent(sk, ctx.arg(3), Hook::SendLength);
    }
    0
}

/// sendfile and splice, before 6.5.
#[fexit(function = "inet_sendpage")]
pub(crate) fn returned_sendpage(ctx: FExitContext) -> i32 {
    if let Some(sk) = typed_sk(ctx.arg(0)) {
        sent(sk, ctx.arg(5), Hook::SendLength);
    }
    0
}

#[fexit(function = "packet_sendmsg")]
pub(crate) fn returned_sendmsg_packet(ctx: FExitContext) -> i32 {
    if let Some(sk) = typed_sk(ctx.arg(0)) {
        sent(sk, ctx.arg(3), Hook::SendLength);
    }
    0
}

#[fexit(function = "inet_recvmsg")]
pub(crate) fn returned_recvmsg(ctx: FExitContext) -> i32 {
    if let Some(sk) = typed_sk(ctx.arg(0)) {
        received(sk, ctx.arg(4), ctx.arg(3));
    }
    0
}

#[fexit(function = "inet6_recvmsg")]
pub(crate) fn returned_recvmsg6(ctx: FExitContext) -> i32 {
    if let Some(sk) = typed_sk(ctx.arg(0)) {
        received(sk, ctx.arg(4), ctx.arg(3));
    }
    0
}

/// IPv6 raw and ping sockets, and DCCP.
#[fexit(function = "sock_common_recvmsg")]
pub(crate) fn returned_recvmsg_common(ctx: FExitContext) -> i32 {
    if let Some(sk) = typed_sk(ctx.arg(0)) {
        received(sk, ctx.arg(4), ctx.arg(3));
    }
    0
}

#[fexit(function = "packet_recvmsg")]
pub(crate) fn returned_recvmsg_packet(ctx: FExitContext) -> i32 {
    if let Some(sk) = typed_sk(ctx.arg(0)) {
        received(sk, ctx.arg(4), ctx.arg(3));
    }
    0
}

#[inline(always)]
fn sent(sk: *mut c_void, ret: i32, hook: Hook) {
    let socket = Typed::of(sk);
    let family: u16 = socket.read(offset!(sock_family)).unwrap_or(0);
    if family == AF_PACKET {
        packet_sent(sk, ret, hook);
        return;
    }
    if family != AF_INET && family != AF_INET6 {
        return;
    }
    let Some(tag) = tag_of(sk) else {
        if ret > 0 {
            used_untagged(sk, hook);
        }
        return;
    };
    let address = Kptr(sk as u64);
    if is_stream(socket.read(offset!(sock_protocol)).unwrap_or(0)) {
        // The kernel keeps the bytes, and state changes tell the outcome.
        if !was_denied(tag) && ret > 0 {
            let flow = tag.primary;
            used(address, tag, flow, hook);
        }
        return;
    }
    settle_redial(address, tag);
    let noted = end(&raw mut tag.sender, tag);
    let flow = match noted {
        Some(Account::Other(at, state)) => {
            if state.pending != 0 {
                state.pending = 0;
                outcome_of_first(address, tag.cookie, state.flow, ret, hook);
                if ret < 0 {
                    forget(&at);
                }
            }
            if ret > 0 {
                add(&raw mut state.sent, ret as u64);
            }
            state.flow
        }
        Some(Account::Stranger(_)) => return,
        None if tag.flags & CONNECTED == 0 => return,
        Some(Account::Primary) | None => {
            let flow = tag.primary;
            if tag.flags & (PENDING | CONNECTED) == PENDING {
                tag.flags &= !PENDING;
                outcome_of_first(address, tag.cookie, flow, ret, hook);
                if ret < 0 {
                    tag.primary = 0; // the next datagram is an attempt of its own
                }
            }
            if ret > 0 {
                add(&raw mut tag.sent, ret as u64);
            }
            flow
        }
    };
    if ret >= 0 {
        used(address, tag, flow, hook);
    }
}

/// What became of the first datagram of a flow. The source address is unknown
/// where no packet has shown it and the socket has none.
#[inline(always)]
fn outcome_of_first(sk: Kptr, cookie: u64, flow: u32, ret: i32, hook: Hook) {
    let error = if ret < 0 { -ret } else { 0 };
    outcome_from_sock(sk, cookie, flow, error, hook);
}

#[inline(always)]
fn forget(at: &DestinationKey) {
    let _ = DESTINATIONS.remove(at);
    let _ = SCANS.remove(at);
}

/// Flags of recvmsg(2) whose return is not payload that was taken.
const MSG_PEEK: i32 = 0x2;
const MSG_ERRQUEUE: i32 = 0x2000;

#[inline(always)]
fn received(sk: *mut c_void, ret: i32, flags: i32) {
    let socket = Typed::of(sk);
    let family: u16 = socket.read(offset!(sock_family)).unwrap_or(0);
    let taken = ret > 0 && flags & (MSG_PEEK | MSG_ERRQUEUE) == 0;
    if family == AF_PACKET {
        if taken {
            packet_received(sk, ret);
        }
        return;
    }
    if family != AF_INET && family != AF_INET6 {
        return;
    }
    if is_stream(socket.read(offset!(sock_protocol)).unwrap_or(0)) {
        return;
    }
    let Some(tag) = tag_of(sk) else { return };
    settle_redial(Kptr(sk as u64), tag);
    let noted = end(&raw mut tag.receiver, tag);
    if !taken {
        return;
    }
    let from = match noted {
        Some(from) => from,
        None if tag.flags & CONNECTED != 0 => Account::Primary,
        None if tag.flags & MANY_PEERS != 0 || tag.peer == [0; 16] => {
            tag.flags |= RECEIVED_UNKNOWN;
            return;
        }
        // Nobody asked from whom, but all that came has come from one peer.
        None => account(tag, &key(tag.cookie, tag.peer, tag.peer_port)),
    };
    match from {
        Account::Primary => add(&raw mut tag.received, ret as u64),
        Account::Other(_, state) => add(&raw mut state.received, ret as u64),
        // It is in the account when the socket answers.
        Account::Stranger(peer) => keep_account(
            tag,
            &peer,
            DestinationState {
                received: ret as u64,
                ..DestinationState::default()
            },
        ),
    }
}

/// Opens an account beside that of flow `primary`. A socket that has very many
/// has them where it makes nothing of other sockets forgotten.
#[inline(always)]
pub(crate) fn keep_account(tag: &mut SocketTag, at: &DestinationKey, state: DestinationState) {
    tag.destinations = tag.destinations.saturating_add(1);
    let kept = if tag.destinations > DESTINATIONS_PER_SOCKET {
        tag.flags |= SCANNER;
        SCANS.insert(at, state, 0)
    } else {
        DESTINATIONS.insert(at, state, 0)
    };
    if kept.is_err() {
        lost(Loss::DestinationsFull);
    }
}

/// The account of a destination that is not flow `primary`.
#[inline(always)]
pub(crate) fn account_of(
    tag: &SocketTag,
    at: &DestinationKey,
) -> Option<&'static mut DestinationState> {
    let state = match DESTINATIONS.get_ptr_mut(at) {
        None if tag.flags & SCANNER != 0 => SCANS.get_ptr_mut(at)?,
        other => other?,
    };
    // SAFETY: a map value; its counters are changed atomically.
    Some(unsafe { &mut *state })
}

/// The only flow of an AF_PACKET socket: it has no destination.
#[inline(always)]
fn packet_key(cookie: u64) -> DestinationKey {
    key(cookie, [0; 16], 0)
}

#[inline(always)]
fn packet_account(sk: *mut c_void) -> Option<(&'static mut SocketTag, *mut DestinationState)> {
    let tag = match tag_of(sk) {
        Some(tag) => tag,
        None if is_watched() => {
            // SAFETY: a BTF pointer of the hook's own socket.
            let cookie = unsafe { bpf_get_socket_cookie(sk) };
            let tag = tag_or_late(sk, cookie)?;
            adopt(Kptr(sk as u64), tag);
            tag
        }
        None => return None,
    };
    let at = packet_key(tag.cookie);
    if let Some(state) = DESTINATIONS.get_ptr_mut(at) {
        return Some((tag, state));
    }
    if DESTINATIONS
        .insert(at, DestinationState::default(), 0)
        .is_err()
    {
        lost(Loss::DestinationsFull);
    }
    let state = DESTINATIONS.get_ptr_mut(at)?;
    Some((tag, state))
}

/// A packet socket has no hook of its own: its first send is seen here, when
/// it is over. A ring's send returns the bytes of all frames it sent.
#[inline(always)]
fn packet_sent(sk: *mut c_void, ret: i32, hook: Hook) {
    let Some((tag, state)) = packet_account(sk) else {
        return;
    };
    let address = Kptr(sk as u64);
    // SAFETY: a map value; its counters are changed atomically.
    let state = unsafe { &mut *state };
    if state.flow == 0 {
        let flow = next_flow(tag);
        if ret >= 0 {
            state.flow = flow;
        }
        remember_user(tag);
        let act = act_of_sock(address, tag.cookie, hook);
        act_event(
            kind::ATTEMPT,
            address,
            &act,
            Some(tag),
            flow,
            SEND,
            [0; 16],
            &Judging::NONE,
        );
        let error = if ret < 0 { -ret } else { 0 };
        tell(tag.cookie, flow, [0; 16], 0, error, hook);
    }
    if ret > 0 {
        add(&raw mut state.sent, ret as u64);
        let flow = state.flow;
        used(address, tag, flow, hook);
    }
}

#[inline(always)]
fn packet_received(sk: *mut c_void, ret: i32) {
    if let Some((_, state)) = packet_account(sk) {
        // SAFETY: a map value; its counters are changed atomically.
        add(unsafe { &raw mut (*state).received }, ret as u64);
    }
}

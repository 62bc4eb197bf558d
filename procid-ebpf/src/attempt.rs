//! Attempts: what an image is about to do with a socket, and what became of it.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns};
use procid_common::{
    answer,
    event::{Loss, kind},
    image::ImageId,
    policy::role,
    socket::{
        Address, Attempt, Close, Counts, DestinationState, Hook, Outcome, SocketKind, SocketTag,
        flags::{
            ACCEPTED, ASKS_NAMES, CONNECTED, CREATOR_UNSEEN, IO_WORKER, KERNEL, KTHREAD, PENDING,
            PENDING_SOURCE, SEND, SUBFLOW,
        },
    },
};

use crate::{
    atomic,
    bytes::{account_of, begin_send_by, keep_account},
    custody::remember_user,
    identity::{PF_IO_WORKER, PF_KTHREAD, current_image, describe_acting, image_of, task_flags},
    kernel::{Kptr, Typed, is_set, setting},
    maps::{CONNECTS, Connecting, EVENTS, NO_WAKEUP, emit, lost},
    policy::{Judging, Question, judge, maps::DENIALS, role_in, still_stands},
    process::header,
    socket::{AF_INET, AF_INET6, IPPROTO_MPTCP},
    tag::{is_stream, key, settle_redial, tag_or_late},
};

/// What a hook saw of a connect or a datagram.
pub(crate) struct Act {
    pub(crate) hook: Hook,
    pub(crate) destination: Address,
    /// Host order.
    pub(crate) port: u32,
    pub(crate) socket: SocketKind,
    pub(crate) cookie: u64,
}

impl Act {
    /// `since_ns` as in [`Question`].
    #[inline(always)]
    pub(crate) fn question(&self, sk: Kptr, role: usize, since_ns: u64) -> Question {
        Question {
            destination: self.destination,
            port: self.port,
            sk,
            socket: self.socket,
            role,
            since_ns,
        }
    }
}

/// Judges a connection attempt and records it; false: it is denied.
#[inline(always)]
#[must_use]
pub(crate) fn connecting(sk: *mut c_void, act: &Act) -> bool {
    let address = Kptr::of(sk);
    let mut tag = tag_or_late(sk, act.cookie);
    // A further subflow of what is connected is the kernel's own doing.
    let is_subflow = act.socket.protocol == IPPROTO_MPTCP
        && tag
            .as_ref()
            .is_some_and(|tag| tag.flags & (CONNECTED | PENDING) == CONNECTED);
    let judging = if is_subflow {
        Judging::NONE
    } else {
        let role = tag.as_ref().map_or(role::OPENER, |tag| role_in(tag, true));
        judge(|| act.question(address, role, 0))
    };
    let mut flow = 0;
    if let Some(tag) = &mut tag {
        flow = if is_subflow || judging.denies() {
            next_flow(tag)
        } else {
            begin_connect(address, tag, act, &judging)
        };
    } else {
        lost(Loss::TagMissing);
    }
    let bits = if is_subflow { SUBFLOW } else { 0 };
    let kind = kind::ATTEMPT;
    act_event(
        kind,
        address,
        act,
        tag.as_deref(),
        flow,
        bits,
        [0; 16],
        &judging,
    );
    !judging.denies()
}

/// Notes a connect that goes on, and returns its flow.
#[inline(always)]
fn begin_connect(address: Kptr, tag: &mut SocketTag, act: &Act, judging: &Judging) -> u32 {
    if is_stream(act.socket.protocol) {
        if tag.flags & PENDING != 0 && tag.primary != 0 {
            // The connect before this one ended without a word of its state.
            abandoned(tag.cookie, tag.primary, Hook::Redial);
        }
    } else {
        settle_redial(address, tag);
    }
    let flow = next_flow(tag);
    tag.flags |= PENDING;
    if is_stream(act.socket.protocol) {
        tag.primary = flow;
        tag.destination = act.destination;
        tag.port = act.port;
        tag.flags |= CONNECTED;
        // SAFETY: takes no argument.
        tag.since_ns = unsafe { bpf_ktime_get_boot_ns() };
        judging.keep(tag);
    } else {
        tag.redial = flow;
        tag.redial_destination = act.destination;
        tag.redial_port = act.port;
    }
    tag.connector = current_image().unwrap_or(ImageId::UNKNOWN);
    tag.user = tag.connector;
    if is_set(setting::SYS_EXIT) {
        let connect = Connecting {
            sk: address.0,
            cookie: act.cookie,
            flow,
            sock_type: u32::from(act.socket.sock_type),
        };
        if CONNECTS
            .insert(bpf_get_current_pid_tgid(), connect, 0)
            .is_err()
        {
            lost(Loss::ConnectsFull);
        }
    }
    flow
}

/// Judges a datagram, and records one to a destination that is new to the
/// socket, and in any case remembers where this one goes; false: it is denied.
#[inline(always)]
#[must_use]
pub(crate) fn sending(sk: *mut c_void, act: &Act, source: Address) -> bool {
    let me = bpf_get_current_pid_tgid();
    let address = Kptr::of(sk);
    let mut tag = tag_or_late(sk, act.cookie);
    let mut role = role::OPENER;
    let mut since_ns = 0;
    if let Some(tag) = &mut tag {
        settle_redial(address, tag);
        if is_primary(tag, act) {
            if still_stands(tag) {
                begin_send_by(me, tag, None);
                return true;
            }
            since_ns = tag.since_ns.max(1);
        }
        role = role_in(tag, false);
    } else {
        lost(Loss::TagMissing);
    }
    let judging = judge(|| act.question(address, role, since_ns));
    let mut flow = 0;
    if let Some(tag) = &mut tag {
        flow = if judging.denies() {
            denied_flow(tag, act)
        } else {
            begin_send(me, tag, act, &judging)
        };
        if flow == NOT_NEW {
            return true;
        }
    }
    let kind = kind::ATTEMPT;
    act_event(
        kind,
        address,
        act,
        tag.as_deref(),
        flow,
        SEND,
        source,
        &judging,
    );
    !judging.denies()
}

/// Whether an act is of flow `primary`.
#[inline(always)]
pub(crate) fn is_primary(tag: &SocketTag, act: &Act) -> bool {
    tag.primary != 0 && tag.port == act.port && tag.destination == act.destination
}

/// The flow that a denied datagram is told of in.
#[inline(always)]
fn denied_flow(tag: &mut SocketTag, act: &Act) -> u32 {
    if is_primary(tag, act) {
        tag.primary
    } else {
        next_flow(tag)
    }
}

/// No flow: the one that there is has been told.
pub(crate) const NOT_NEW: u32 = u32::MAX;

/// Notes where a datagram of thread `me` goes, and returns its flow if that is
/// new, else [`NOT_NEW`].
#[inline(always)]
pub(crate) fn begin_send(me: u64, tag: &mut SocketTag, act: &Act, judging: &Judging) -> u32 {
    if is_primary(tag, act) {
        judging.keep(tag);
        begin_send_by(me, tag, None);
        return NOT_NEW;
    }
    let key = key(act.cookie, act.destination, act.port);
    let flow;
    if let Some(account) = account_of(tag, &key) {
        begin_send_by(me, tag, Some(&key));
        if account.flow != 0 {
            return NOT_NEW;
        }
        // It has heard from there, and answers now.
        flow = next_flow(tag);
        account.pending = 1;
        account.flow = flow;
    } else if tag.primary == 0 {
        flow = next_flow(tag);
        tag.primary = flow;
        tag.destination = act.destination;
        tag.port = act.port;
        tag.sent = 0;
        tag.received = 0;
        tag.flags |= PENDING;
        // SAFETY: takes no argument.
        tag.since_ns = unsafe { bpf_ktime_get_boot_ns() };
        judging.keep(tag);
        begin_send_by(me, tag, None);
    } else {
        flow = next_flow(tag);
        let account = DestinationState {
            flow,
            pending: 1,
            ..DestinationState::default()
        };
        keep_account(tag, &key, account);
        begin_send_by(me, tag, Some(&key));
    }
    tag.flags |= PENDING_SOURCE;
    if act.port == answer::PORT {
        tag.flags |= ASKS_NAMES;
    }
    remember_user(tag);
    flow
}

/// Judges a send on flow `primary` that passes no other hook; a denied one is
/// recorded. False: it is denied.
#[inline(always)]
#[must_use]
pub(crate) fn speaking(sk: Kptr, tag: &mut SocketTag, hook: Hook) -> bool {
    if still_stands(tag) {
        return true;
    }
    let (act, judging) = speech(sk, tag, hook);
    if judging.denies() {
        tell_denied(sk, tag, &act, &judging);
        return false;
    }
    judging.keep(tag);
    true
}

/// A send on flow `primary`, judged.
#[inline(always)]
pub(crate) fn speech(sk: Kptr, tag: &SocketTag, hook: Hook) -> (Act, Judging) {
    let mut act = act_of_sock(sk, tag.cookie, hook);
    // What was accepted was asked for by nobody here.
    if tag.primary != 0 && tag.flags & ACCEPTED == 0 {
        act.destination = tag.destination;
        act.port = tag.port;
    }
    let judging = judge(|| act.question(sk, role_in(tag, false), tag.since_ns.max(1)));
    (act, judging)
}

/// Records a send on flow `primary` that is denied.
#[inline(always)]
pub(crate) fn tell_denied(sk: Kptr, tag: &SocketTag, act: &Act, judging: &Judging) {
    let flow = tag.primary;
    act_event(
        kind::ATTEMPT,
        sk,
        act,
        Some(tag),
        flow,
        SEND,
        [0; 16],
        judging,
    );
}

/// Two threads that use one socket never get the same number.
#[inline(always)]
pub(crate) fn next_flow(tag: &mut SocketTag) -> u32 {
    // SAFETY: a field of a tag.
    unsafe { atomic::next(&raw mut tag.flow) as u32 }
}

/// What the socket itself says of its other end.
#[inline(always)]
pub(crate) fn act_of_sock(sk: Kptr, cookie: u64, hook: Hook) -> Act {
    let socket = sk.sock_kind();
    let (destination, port) = if socket.family == AF_INET || socket.family == AF_INET6 {
        sk.sock_on_the_wire().sock_destination()
    } else {
        ([0; 16], 0)
    };
    Act {
        hook,
        destination,
        port,
        socket,
        cookie,
    }
}

/// Tells of an act of the current task on a socket. `bits` go into the
/// event's flags; `source` where the message names one.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "a struct of them would be on the stack twice"
)]
pub(crate) fn act_event(
    kind: u32,
    sk: Kptr,
    act: &Act,
    tag: Option<&SocketTag>,
    flow: u32,
    bits: u32,
    source: Address,
    judging: &Judging,
) {
    let task = Typed::current();
    let task_flags = task_flags(task);
    let Some(image) = image_of(task) else {
        lost(Loss::Unreadable);
        return;
    };
    let (entry, cause) = if judging.denies() {
        let entry = DENIALS.reserve_untyped::<Attempt>(0);
        (entry, Loss::RingDenial)
    } else {
        let entry = EVENTS.reserve_untyped::<Attempt>(0);
        (entry, Loss::RingConnection)
    };
    let Some(mut entry) = entry else {
        lost(cause);
        return;
    };
    // SAFETY: every field is written below before the entry is submitted; an
    // `Attempt` is plain data, valid in any state.
    let event = unsafe { entry.assume_init_mut() };
    event.header = header::<Attempt>(kind);
    event.image = image;
    event.flags = bits;
    if task_flags & PF_KTHREAD != 0 {
        event.flags |= KTHREAD;
    }
    if task_flags & PF_IO_WORKER != 0 {
        event.flags |= IO_WORKER;
    }
    if let Some(tag) = tag {
        event.flags |= tag.flags & (KERNEL | CREATOR_UNSEEN);
        if bits & SUBFLOW == 0 {
            event.flags |= tag.flags & ACCEPTED;
        }
        event.creator = tag.creator;
        event.netns = tag.netns;
    } else {
        event.flags |= CREATOR_UNSEEN;
        event.creator = ImageId::UNKNOWN;
        event.netns = sk.sock_netns();
    }
    let (own, source_port) = match act.socket.family {
        AF_INET | AF_INET6 => sk.sock_on_the_wire().sock_source(),
        _ => ([0; 16], 0),
    };
    event.source = if source == [0; 16] { own } else { source };
    event.source_port = source_port;
    event.cookie = act.cookie;
    event.socket = act.socket;
    event.destination = act.destination;
    event.destination_port = act.port;
    event.flow = flow;
    event.hook = act.hook as u32;
    judging.tell(event);
    if describe_acting(task, &mut event.actor).is_some() {
        entry.submit(NO_WAKEUP);
    } else {
        entry.discard(NO_WAKEUP);
        lost(Loss::Unreadable);
    }
}

/// Tells what became of an attempt, with the source the socket has now;
/// `error` as in [`Outcome::error`].
#[inline(always)]
pub(crate) fn outcome_from_sock(sk: Kptr, cookie: u64, flow: u32, error: i32, hook: Hook) {
    let (source, port) = sk.sock_on_the_wire().sock_source();
    tell(cookie, flow, source, port, error, hook);
}

#[inline(always)]
pub(crate) fn tell(
    cookie: u64,
    flow: u32,
    source: Address,
    source_port: u32,
    error: i32,
    hook: Hook,
) {
    emit(
        &Outcome {
            header: header::<Outcome>(kind::OUTCOME),
            cookie,
            source,
            source_port,
            flow,
            error,
            hook: hook as u32,
        },
        Loss::RingConnection,
    );
}

/// Tells that an attempt ended and that its error is not known here.
#[inline(always)]
pub(crate) fn abandoned(cookie: u64, flow: u32, hook: Hook) {
    tell(cookie, flow, [0; 16], 0, Outcome::ABANDONED, hook);
}

/// Tells, once, that a flow's packets are not addressed to who was asked for.
#[inline(always)]
pub(crate) fn wired(tag: &mut SocketTag, flow: u32, asked: Address, wire: Address, hook: Hook) {
    if tag.wired == flow || asked == wire {
        return;
    }
    tag.wired = flow;
    emit(
        &Outcome {
            header: header::<Outcome>(kind::WIRE),
            cookie: tag.cookie,
            source: wire,
            source_port: 0,
            flow,
            error: 0,
            hook: hook as u32,
        },
        Loss::RingConnection,
    );
}

/// Tells that a flow of the socket has ended; 0: every one.
#[inline(always)]
pub(crate) fn closed(cookie: u64, flow: u32, hook: Hook, counts: Counts) {
    emit(
        &Close {
            header: header::<Close>(kind::CLOSE),
            cookie,
            flow,
            hook: hook as u32,
            counts,
        },
        Loss::RingConnection,
    );
}

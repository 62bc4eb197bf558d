//! Attempts: what an image is about to do with a socket, and what became of it.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use procid_common::{
    event::{Loss, kind},
    image::ImageId,
    socket::{
        Address, Attempt, Close, Counts, DestinationState, Hook, Outcome, SocketKind, SocketTag,
        flags::{
            ACCEPTED, CONNECTED, CREATOR_UNSEEN, IO_WORKER, KERNEL, KTHREAD, PENDING,
            PENDING_SOURCE, SEND, SUBFLOW,
        },
    },
};

use crate::{
    atomic,
    bytes::{account_of, begin_send_by, keep_account},
    custody::remember_user,
    identity::{PF_IO_WORKER, PF_KTHREAD, describe_acting, image_of, task_flags},
    kernel::{Kptr, is_set, setting},
    maps::{CONNECTS, Connecting, EVENTS, NO_WAKEUP, emit, lost},
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

/// Records a connection attempt.
#[inline(always)]
pub(crate) fn connecting(sk: *mut c_void, act: &Act) {
    let address = Kptr::of(sk);
    let Some(tag) = tag_or_late(sk, act.cookie) else {
        lost(Loss::TagMissing);
        act_event(kind::ATTEMPT, address, act, None, 0, 0, [0; 16]);
        return;
    };
    let task = Kptr::current();
    if act.socket.protocol == IPPROTO_MPTCP && tag.flags & (CONNECTED | PENDING) == CONNECTED {
        // A further subflow of what is connected: the kernel's own doing.
        let flow = next_flow(tag);
        act_event(
            kind::ATTEMPT,
            address,
            act,
            Some(tag),
            flow,
            SUBFLOW,
            [0; 16],
        );
        return;
    }
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
    } else {
        tag.redial = flow;
        tag.redial_destination = act.destination;
        tag.redial_port = act.port;
    }
    tag.connector = image_of(task).unwrap_or(ImageId::UNKNOWN);
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
    act_event(kind::ATTEMPT, address, act, Some(tag), flow, 0, [0; 16]);
}

/// Records a datagram to a destination that is new to the socket, and in any
/// case remembers where this one goes.
#[inline(always)]
pub(crate) fn sending(sk: *mut c_void, act: &Act, source: Address) {
    sending_by(bpf_get_current_pid_tgid(), sk, act, source);
}

/// The same for programs that cannot ask which thread (`me`) runs them.
#[inline(always)]
pub(crate) fn sending_by(me: u64, sk: *mut c_void, act: &Act, source: Address) {
    let address = Kptr::of(sk);
    let Some(tag) = tag_or_late(sk, act.cookie) else {
        lost(Loss::TagMissing);
        act_event(kind::ATTEMPT, address, act, None, 0, SEND, source);
        return;
    };
    settle_redial(address, tag);
    if tag.primary != 0 && tag.port == act.port && tag.destination == act.destination {
        begin_send_by(me, tag, None);
        return;
    }
    let key = key(act.cookie, act.destination, act.port);
    let flow;
    if let Some(account) = account_of(tag, &key) {
        begin_send_by(me, tag, Some(&key));
        if account.flow != 0 {
            return;
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
    remember_user(tag);
    act_event(kind::ATTEMPT, address, act, Some(tag), flow, SEND, source);
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
pub(crate) fn act_event(
    kind: u32,
    sk: Kptr,
    act: &Act,
    tag: Option<&SocketTag>,
    flow: u32,
    bits: u32,
    source: Address,
) {
    let task = Kptr::current();
    let task_flags = task_flags(task);
    let Some(image) = image_of(task) else {
        lost(Loss::Unreadable);
        return;
    };
    let Some(mut entry) = EVENTS.reserve_untyped::<Attempt>(0) else {
        lost(Loss::RingConnection);
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

//! Connection attempts.
//!
//! `cgroup/connect4|6` run in `inet_stream_connect` and `inet_dgram_connect`
//! before the protocol's own connect, in the caller's context, and see every
//! form of it: Fast Open, MPTCP subflows, io_uring, 32-bit calls. The source
//! port is not chosen yet there; `state` and the return of connect(2) tell it.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/af_inet.c#L666>

use core::ffi::c_void;

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_socket_cookie},
    macros::{cgroup_sock_addr, lsm, tracepoint},
    programs::{LsmContext, SockAddrContext, TracePointContext},
};
use procid_common::socket::{Address, Hook, SocketKind};

use crate::{
    attempt::{Act, connecting, tell},
    kernel::{Kptr, is_set, offset, setting},
    maps::CONNECTS,
    policy::{cgroup_word, lsm_word},
    socket::{
        AF_INET, AF_INET6, AF_UNSPEC, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDP, SOCK_RAW,
        SOCK_STREAM, from_words, mapped,
    },
    tag::{is_stream, process_side},
};

#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let addr = unsafe { &*ctx.sock_addr };
    cgroup_word(connect(addr, Hook::Connect4, mapped(addr.user_ip4)))
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let addr = unsafe { &*ctx.sock_addr };
    cgroup_word(connect(addr, Hook::Connect6, user_ip6(addr)))
}

/// An MPTCP socket connects through a subflow, a socket of the kernel's own:
/// the act is one of the socket that the process holds.
#[inline(always)]
fn connect(addr: &bpf_sock_addr, hook: Hook, destination: Address) -> bool {
    let Some((sk, mut act)) = act_of(addr, hook, destination) else {
        return true;
    };
    let is_subflow = Kptr::of(sk).sock_is_subflow();
    let whole = process_side(sk, is_subflow);
    if is_subflow {
        let whole = Kptr::of(whole);
        act.cookie = whole.sock_cookie();
        act.socket = whole.sock_kind();
    }
    connecting(whole, &act)
}

/// The verifier wants each word of the context read by itself.
#[inline(always)]
pub(crate) fn user_ip6(addr: &bpf_sock_addr) -> Address {
    let words = &raw const addr.user_ip6;
    let word = |index: usize| {
        // SAFETY: `index` is below 4; volatile so that reads are not merged.
        unsafe { core::ptr::read_volatile(words.cast::<u32>().add(index)) }
    };
    from_words([word(0), word(1), word(2), word(3)])
}

/// The socket and the act that the context of a socket address hook tells of.
#[inline(always)]
pub(crate) fn act_of(
    addr: &bpf_sock_addr,
    hook: Hook,
    destination: Address,
) -> Option<(*mut c_void, Act)> {
    // SAFETY: a field of the context, which the verifier rewrites.
    let sk = unsafe { addr.__bindgen_anon_1.sk };
    if sk.is_null() {
        return None;
    }
    let act = Act {
        hook,
        destination,
        port: u32::from(u16::from_be(addr.user_port as u16)),
        socket: SocketKind {
            family: addr.family as u16,
            sock_type: addr.type_ as u16,
            protocol: addr.protocol as u16,
            reserved: 0,
        },
        // SAFETY: the helper takes the program's own context.
        cookie: unsafe { bpf_get_socket_cookie(core::ptr::from_ref(addr).cast_mut().cast()) },
    };
    Some((sk.cast(), act))
}

/// The same of an LSM hook's socket and address.
#[inline(always)]
pub(crate) fn lsm_act_of(
    sk: *mut c_void,
    hook: Hook,
    socket: SocketKind,
    address: Kptr,
) -> Option<Act> {
    let (destination, mut port) = sockaddr(address, socket.family)?;
    if socket.sock_type == SOCK_RAW || matches!(socket.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6) {
        port = 0; // these protocols have none
    }
    Some(Act {
        hook,
        destination,
        port,
        socket,
        // SAFETY: a BTF pointer of the hook's own socket.
        cookie: unsafe { bpf_get_socket_cookie(sk) },
    })
}

/// The LSM backend's view of connect. Where cgroup hooks are attached too it
/// tells only of sockets whose connect passes none of them: it does not see
/// Fast Open, and sees an io_uring connect twice.
#[lsm(hook = "socket_connect")]
#[inline(always)]
pub(crate) fn lsm_connect(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(3);
    if before != 0 {
        return before;
    }
    let socket: *const u8 = ctx.arg(0);
    let address: *const u8 = ctx.arg(1);
    lsm_word(lsm_connecting(socket, Kptr::of(address)))
}

/// Whether the LSM hooks tell of this socket's acts.
#[inline(always)]
pub(crate) fn lsm_tells(socket: SocketKind) -> bool {
    is_set(setting::LSM_RECORDS)
        || socket.sock_type == SOCK_RAW
        || !(is_stream(socket.protocol)
            || matches!(socket.protocol, IPPROTO_UDP | IPPROTO_ICMP | IPPROTO_ICMPV6))
}

/// `SS_UNCONNECTED`; in any other state this is a second look at a connect in
/// progress, or one that will fail with `EISCONN`.
const SS_UNCONNECTED: u32 = 1;

#[inline(always)]
fn lsm_connecting(socket: *const u8, address: Kptr) -> bool {
    if address.read(0) == Some(AF_UNSPEC) {
        return true; // a disconnect
    }
    let Some(sk) = internet_sk(socket) else {
        return true;
    };
    let at = Kptr::of(sk);
    let socket_kind = at.sock_kind();
    if !lsm_tells(socket_kind) {
        return true;
    }
    let state: u32 = Kptr::of(socket).read(offset!(socket_state)).unwrap_or(0);
    if socket_kind.sock_type == SOCK_STREAM && state != SS_UNCONNECTED {
        return true;
    }
    match lsm_act_of(sk, Hook::LsmConnect, socket_kind, address) {
        Some(act) => connecting(sk, &act),
        None => true,
    }
}

/// `socket->sk` as a BTF pointer: a plain load, which keeps its type.
#[inline(always)]
pub(crate) fn typed_sk(socket: *const u8) -> Option<*mut c_void> {
    let at = offset!(socket_sk);
    // SAFETY: the verifier checks the load against the kernel's BTF.
    let sk = unsafe { *socket.add(at).cast::<*mut c_void>() };
    if sk.is_null() { None } else { Some(sk) }
}

/// The same of an internet socket; `None` for others.
#[inline(always)]
pub(crate) fn internet_sk(socket: *const u8) -> Option<*mut c_void> {
    let sk = typed_sk(socket)?;
    match Kptr::of(sk).sock_family() {
        AF_INET | AF_INET6 => Some(sk),
        _ => None,
    }
}

/// Reads a `struct sockaddr_in` or `sockaddr_in6` in kernel memory. An IPv4
/// socket takes an address without a family for one of its own.
#[inline(always)]
fn sockaddr(address: Kptr, of_socket: u16) -> Option<(Address, u32)> {
    let mut family: u16 = address.read(0)?;
    if family == AF_UNSPEC && of_socket == AF_INET {
        family = AF_INET;
    }
    let port = u32::from(u16::from_be(address.read(2)?));
    match family {
        AF_INET => Some((mapped(address.read(4)?), port)),
        AF_INET6 => Some((address.read(8)?, port)),
        _ => None,
    }
}

/// Errors that are not the end: the connect goes on, or is started again.
const EINTR: i64 = 4;
const EALREADY: i64 = 114;
const EINPROGRESS: i64 = 115;
/// First of the kernel's own restart codes, `ERESTARTSYS`.
const RESTARTS: i64 = 512;

/// `struct trace_event_raw_sys_exit`: 8 bytes of common fields, then
/// `long id; long ret`.
const SYS_EXIT_RET: usize = 16;

/// The return of connect(2): the outcome of what changes no TCP state (UDP,
/// a missing route, no free port), and the source port of a connected UDP
/// socket.
#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
pub(crate) fn sys_exit_connect(ctx: TracePointContext) -> u32 {
    let key = bpf_get_current_pid_tgid();
    let Some(entry) = CONNECTS.get_ptr(key) else {
        return 0;
    };
    // SAFETY: the entry belongs to the current thread.
    let connect = unsafe { *entry };
    let _ = CONNECTS.remove(key);
    // SAFETY: the offset is part of the tracepoint's format.
    let Ok(ret) = (unsafe { ctx.read_at::<i64>(SYS_EXIT_RET) }) else {
        return 0;
    };
    let error = -ret;
    if matches!(error, EINTR | EALREADY | EINPROGRESS) || error >= RESTARTS {
        return 0;
    }
    if error == 0 && connect.sock_type == u32::from(SOCK_STREAM) {
        return 0; // told by the state change
    }
    let sk = Kptr(connect.sk);
    // Another thread may have closed the socket meanwhile: its memory is read
    // only while it still is this socket.
    let (source, port) = if sk.sock_cookie() == connect.cookie {
        sk.sock_source()
    } else {
        ([0; 16], 0)
    };
    tell(
        connect.cookie,
        connect.flow,
        source,
        port,
        error as i32,
        Hook::SysExitConnect,
    );
    0
}

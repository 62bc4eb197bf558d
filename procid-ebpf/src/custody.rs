//! Who uses a socket that another image opened, and who took it from accept(2).

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_socket_cookie},
    macros::{lsm, tracepoint},
    programs::{LsmContext, TracePointContext},
};
use procid_common::{
    event::kind,
    image::ImageId,
    socket::{
        Hook, SocketTag,
        flags::{ACCEPTED, CONNECTED, CREATOR_UNSEEN, ENDED, RECEIVED_UNKNOWN, SENT_UNKNOWN},
    },
};

use crate::{
    attempt::{act_event, act_of_sock},
    identity::{PF_KTHREAD, current_image, task_flags},
    kernel::{Kptr, Object as _, Typed, WATCHED_CGROUP, WATCHED_LEVEL, offset},
    maps::{CREATORS, SPEAKERS, Speaker},
    policy::Judging,
    socket::{AF_INET, AF_INET6, AF_PACKET, TCP_CLOSE, TCP_ESTABLISHED},
    tag::{tag_accepted, tag_of, tag_or_late},
};

/// Whether the current task is in the cgroup that is watched. The hooks of a
/// cgroup ask this for themselves; tracepoints see the whole host.
#[inline(always)]
pub(crate) fn is_watched() -> bool {
    // SAFETY: reads of aligned statics, volatile as in `offset!`.
    let (level, cgroup) = unsafe {
        (
            core::ptr::read_volatile(&raw const WATCHED_LEVEL),
            core::ptr::read_volatile(&raw const WATCHED_CGROUP),
        )
    };
    // SAFETY: takes a plain number.
    level == 0 || unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) } == cgroup
}

/// The same of any task.
#[inline(always)]
pub(crate) fn is_task_watched(task: Kptr) -> bool {
    procid_is_watched(task.0) != 0
}

/// One of its own to the verifier; see [`crate::policy`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_is_watched(task: u64) -> u32 {
    // SAFETY: a read of an aligned static, volatile as in `offset!`.
    let level = unsafe { core::ptr::read_volatile(&raw const WATCHED_LEVEL) };
    u32::from(level == 0 || is_below_watched(Kptr(task)) == Some(true))
}

/// Whatever cannot be read ends it: else the verifier follows both ways from
/// every level.
#[inline(always)]
fn is_below_watched(task: Kptr) -> Option<bool> {
    const DEPTH_MAX: usize = 32;
    // SAFETY: as above.
    let watched = unsafe { core::ptr::read_volatile(&raw const WATCHED_CGROUP) };
    let mut node = task
        .follow(offset!(task_cgroups))?
        .follow(offset!(css_set_dfl_cgrp))?
        .follow(offset!(cgroup_kn))?;
    for _ in 0..DEPTH_MAX {
        if node.read::<u64>(offset!(kernfs_node_id))? == watched {
            return Some(true);
        }
        node = node.follow(offset!(kernfs_node_parent))?;
    }
    Some(false)
}

/// The current task has sent on flow `flow` of this socket: tells so where its
/// image is neither the opener nor told of before.
#[inline(always)]
pub(crate) fn used(sk: Kptr, tag: &mut SocketTag, flow: u32, hook: Hook) {
    let Some(image) = current_image() else { return };
    if image == tag.user {
        return;
    }
    let opener = if tag.flags & CONNECTED != 0 {
        tag.connector
    } else {
        tag.creator
    };
    if image == opener {
        tag.user = image;
        return;
    }
    // A kernel thread sends on behalf of the socket's own users.
    if task_flags(Typed::current()) & PF_KTHREAD != 0 {
        return;
    }
    // Sockets of other cgroups are tagged too where they were accepted or found.
    if tag.flags & (ACCEPTED | CREATOR_UNSEEN) != 0 && !is_watched() {
        return;
    }
    let is_new = remember(tag, image);
    tag.user = image;
    if is_new {
        let act = act_of_sock(sk, tag.cookie, hook);
        act_event(
            kind::USE,
            sk,
            &act,
            Some(tag),
            flow,
            0,
            [0; 16],
            &Judging::NONE,
        );
    }
}

/// The current task is told of as a user of this socket by another record.
#[inline(always)]
pub(crate) fn remember_user(tag: &mut SocketTag) {
    let Some(image) = current_image() else {
        return;
    };
    if image != tag.user {
        if image != tag.creator {
            remember(tag, image);
        }
        tag.user = image;
    }
}

/// Whether that image was not known as a user of this socket.
#[inline(always)]
fn remember(tag: &SocketTag, image: ImageId) -> bool {
    const NOEXIST: u64 = 1;
    let speaker = Speaker {
        cookie: tag.cookie,
        image,
    };
    SPEAKERS.insert(speaker, 1, NOEXIST).is_ok()
}

/// A send on a connected socket that no hook has seen before.
#[inline(always)]
pub(crate) fn used_untagged(sk: *mut c_void, hook: Hook) {
    let address = Kptr(sk as u64);
    if address.sock_state() != TCP_ESTABLISHED || !is_watched() {
        return;
    }
    // SAFETY: a BTF pointer of the hook's own socket.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    if let Some(tag) = tag_or_late(sk, cookie) {
        tag.flags |= CONNECTED;
        used(address, tag, 0, hook);
    }
}

/// The socket behind a descriptor of the current task, if it is one.
#[inline(always)]
fn socket_at(fd: i64) -> Option<Kptr> {
    let fdt = Typed::current()
        .follow(offset!(task_files))?
        .follow(offset!(files_fdt))?;
    let max: u32 = fdt.read(offset!(fdtable_max))?;
    if fd < 0 || fd >= i64::from(max) {
        return None;
    }
    let files: u64 = fdt.read(offset!(fdtable_fd))?;
    let file = Kptr(files).follow((fd as usize) * size_of::<u64>())?;
    let socket = file.follow(offset!(file_private))?;
    // Only a socket points back to the file that leads to it.
    (socket.follow(offset!(socket_file))? == file).then_some(socket)
}

/// Number of the socket's inode in sockfs.
#[inline(always)]
fn inode_of(socket: Kptr) -> Option<u64> {
    socket.read(offset!(socket_alloc_inode) + offset!(inode_ino))
}

/// `struct trace_event_raw_sys_exit`: 8 bytes of common fields, then
/// `long id; long ret`.
const SYS_EXIT_RET: usize = 16;

/// Who makes a packet socket: the cgroup hooks see internet sockets only.
#[tracepoint(category = "syscalls", name = "sys_exit_socket")]
pub(crate) fn sys_exit_socket(ctx: TracePointContext) -> u32 {
    let _ = try_exit_socket(&ctx);
    0
}

#[inline(always)]
fn try_exit_socket(ctx: &TracePointContext) -> Option<()> {
    // SAFETY: the offset is part of the tracepoint's format.
    let fd = unsafe { ctx.read_at::<i64>(SYS_EXIT_RET) }.ok()?;
    let socket = socket_at(fd)?;
    if socket.follow(offset!(socket_sk))?.sock_family() != AF_PACKET {
        return None;
    }
    CREATORS.insert(inode_of(socket)?, current_image()?, 0).ok()
}

/// Gives a tag that was made late the creator it has, where that was seen.
#[inline(always)]
pub(crate) fn adopt(sk: Kptr, tag: &mut SocketTag) {
    if let Some(socket) = sk.follow(offset!(sock_socket))
        && let Some(inode) = inode_of(socket)
        && let Some(creator) = CREATORS.get_ptr(inode)
    {
        // SAFETY: a map value, written once.
        tag.creator = unsafe { *creator };
        tag.user = tag.creator;
        tag.flags &= !(CREATOR_UNSEEN | SENT_UNKNOWN | RECEIVED_UNKNOWN);
    }
}

/// accept(2) has given the current task a connection. (io_uring leaves no
/// return of a system call: there `lsm/sock_graft` sees it.)
#[tracepoint(category = "syscalls", name = "sys_exit_accept")]
pub(crate) fn sys_exit_accept(ctx: TracePointContext) -> u32 {
    let _ = try_exit_accept(&ctx);
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_accept4")]
pub(crate) fn sys_exit_accept4(ctx: TracePointContext) -> u32 {
    let _ = try_exit_accept(&ctx);
    0
}

#[inline(always)]
fn try_exit_accept(ctx: &TracePointContext) -> Option<()> {
    // SAFETY: the offset is part of the tracepoint's format.
    let fd = unsafe { ctx.read_at::<i64>(SYS_EXIT_RET) }.ok()?;
    let sk = socket_at(fd)?.follow(offset!(socket_sk))?;
    // 0: the connection is older than the hooks, and has no tag.
    let cookie = sk.sock_cookie();
    if cookie != 0 && is_internet(sk) && is_watched() {
        accepted(sk, cookie, Hook::SysExitAccept);
    }
    Some(())
}

#[inline(always)]
fn is_internet(sk: Kptr) -> bool {
    matches!(sk.sock_family(), AF_INET | AF_INET6)
}

/// Every way of accept(2), io_uring's included, where there is BPF LSM.
///
/// <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/af_inet.c#L757>
#[lsm(hook = "sock_graft")]
pub(crate) fn lsm_graft(ctx: LsmContext) -> i32 {
    let sk: *mut c_void = ctx.arg(0);
    let address = Kptr::of(sk);
    // What a kernel thread accepts (a file server, SMC) is no process's.
    let is_kernels = task_flags(Typed::current()) & PF_KTHREAD != 0;
    if is_kernels || !is_internet(address) || !is_watched() {
        return 0;
    }
    if tag_of(sk).is_none() {
        // SCTP and DCCP tell of no connection that comes in, and TCP not yet
        // of one by Fast Open.
        // SAFETY: a BTF pointer of the hook's own socket.
        let cookie = unsafe { bpf_get_socket_cookie(sk) };
        tag_accepted(sk, cookie);
    }
    if let Some(tag) = tag_of(sk)
        && tag.flags & ACCEPTED != 0
    {
        accepted(address, tag.cookie, Hook::LsmGraft);
    }
    0
}

#[inline(always)]
fn accepted(sk: Kptr, cookie: u64, hook: Hook) {
    let act = act_of_sock(sk, cookie, hook);
    // One that was reset waits for accept(2) like any other, and its ports may be
    // those of a new connection by then.
    let ended = if sk.sock_state() == TCP_CLOSE {
        ENDED
    } else {
        0
    };
    act_event(
        kind::ACCEPT,
        sk,
        &act,
        None,
        1,
        ACCEPTED | ended,
        [0; 16],
        &Judging::NONE,
    );
}

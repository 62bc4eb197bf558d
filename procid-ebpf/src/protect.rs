//! What other processes, root's too, may not do to a protected agent.
//!
//! The programs are attached while the agent runs that asked for it, and
//! through descriptors of its own alone: the kernel detaches them when it
//! closes these, however the agent ends. So none of this stands in the way of
//! who comes after it, and "of a running agent" needs no clock and no good will.
//!
//! | denied to others | hook |
//! | --- | --- |
//! | signals that end or stop it | `task_kill`, `file_send_sigiotask` |
//! | limits whose excess ends it | `task_setrlimit` |
//! | tracing, its memory, its descriptors | `ptrace_access_check` |
//! | its maps, programs and links | `bpf`, `bpf_map`, `bpf_prog` |
//! | its pins | `inode_permission`, `inode_rename` |
//! | the mounts that lead to them | `sb_mount`, `move_mount`, `sb_umount` |

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_map, lsm},
    programs::LsmContext,
};
use procid_common::protect::{GUARDED_MAX, Guarded, Process, Protected, guarded};

use crate::kernel::{Kptr, Object, Typed, offset};

const EPERM: i32 = 1;

/// Who is protected.
#[btf_map]
static PROTECTED: Array<Protected, 1> = Array::new();

/// What of it.
#[btf_map]
static GUARDED: HashMap<Guarded, u32, GUARDED_MAX> = HashMap::new();

/// Who is protected, where somebody else acts.
#[inline(always)]
fn from_outside() -> Option<&'static Protected> {
    let protected = PROTECTED.get_ptr(0)?;
    // SAFETY: a map value, written by the agent before the programs are
    // attached.
    let protected = unsafe { &*protected };
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // A pid that was given to another comes after the programs' end.
    if protected.agent.tgid == 0 || protected.agent.tgid == tgid {
        return None;
    }
    Some(protected)
}

#[inline(always)]
fn is(task: Typed, process: &Process) -> bool {
    let tgid: u32 = task.read(offset!(task_tgid)).unwrap_or(0);
    if process.tgid == 0 || tgid != process.tgid {
        return false;
    }
    // The watchdog may have ended, and its pid been given to another.
    task.follow(offset!(task_group_leader))
        .and_then(|leader| leader.read(offset!(task_start_boottime)))
        .is_some_and(|start: u64| start == process.start_boottime)
}

/// Whether a task is one of those that are protected.
#[inline(always)]
fn is_one_of(task: Typed, protected: &Protected) -> bool {
    is(task, &protected.agent) || is(task, &protected.watchdog)
}

#[inline(always)]
fn is_guarded(kind: u32, place: u32, number: u64) -> bool {
    let object = Guarded {
        number,
        place,
        kind,
    };
    GUARDED.get_ptr(object).is_some()
}

#[inline(always)]
fn verdict(is_denied: bool) -> i32 {
    if is_denied { -EPERM } else { 0 }
}

/// Signals that neither end nor stop who does not ask for it. All others do:
/// that procid leaves SIGPIPE alone, say, is for procid to change.
#[inline(always)]
fn is_harmless(signal: i32, task: Typed, protected: &Protected) -> bool {
    /// x86-64 and most others:
    /// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/asm-generic/signal.h>
    const SIGHUP: i32 = 1;
    const SIGCHLD: i32 = 17;
    const SIGCONT: i32 = 18;
    const SIGURG: i32 = 23;
    const SIGWINCH: i32 = 28;
    match signal {
        // Asks whether the process is there.
        0 | SIGCHLD | SIGCONT | SIGURG | SIGWINCH => true,
        // The agent reads its policy again, and refuses a looser one.
        SIGHUP => is(task, &protected.agent),
        _ => false,
    }
}

/// kill(2), tgkill(2), rt_sigqueueinfo(2), pidfd_send_signal(2), process groups
/// and all processes: each signal that a process sends, once for each that it
/// is to reach. Not those of the kernel (a fault, the OOM killer, a terminal,
/// `cgroup.kill`), which are not asked about.
///
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/signal.c#L816>
#[lsm(hook = "task_kill")]
pub(crate) fn protect_kill(ctx: LsmContext) -> i32 {
    let task = Typed::of(ctx.arg::<*const u8>(0));
    let signal: i32 = ctx.arg(2);
    let Some(protected) = from_outside() else {
        return 0;
    };
    verdict(is_one_of(task, protected) && !is_harmless(signal, task, protected))
}

/// The signal of a file (`F_SETSIG`) to whoever was made its owner
/// (`F_SETOWN`): the kernel sends it, but a process chose both. It may come
/// from an interrupt, so that who acts says nothing; procid has no such file.
///
/// <https://github.com/torvalds/linux/blob/v6.12/fs/fcntl.c#L735>
#[lsm(hook = "file_send_sigiotask")]
pub(crate) fn protect_sigio(ctx: LsmContext) -> i32 {
    let task = Typed::of(ctx.arg::<*const u8>(0));
    let Some(protected) = PROTECTED.get_ptr(0) else {
        return 0;
    };
    // SAFETY: as in `from_outside`.
    verdict(is_one_of(task, unsafe { &*protected }))
}

/// prlimit(2): more CPU time than `RLIMIT_CPU` ends a process.
#[lsm(hook = "task_setrlimit")]
pub(crate) fn protect_limits(ctx: LsmContext) -> i32 {
    let task = Typed::of(ctx.arg::<*const u8>(0));
    let Some(protected) = from_outside() else {
        return 0;
    };
    let is_own = task.read(offset!(task_tgid)) == Some((bpf_get_current_pid_tgid() >> 32) as u32);
    verdict(!is_own && is_one_of(task, protected))
}

/// ptrace(2), process_vm_readv(2), pidfd_getfd(2) and `/proc/PID/mem` ask to
/// attach. What only looks (`ps`, links in `/proc/PID/fd`) asks to read, and
/// may. A process's own threads are not asked about.
///
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/ptrace.c#L278>
#[lsm(hook = "ptrace_access_check")]
pub(crate) fn protect_trace(ctx: LsmContext) -> i32 {
    /// <https://github.com/torvalds/linux/blob/v6.12/include/linux/ptrace.h#L60>
    const PTRACE_MODE_ATTACH: u32 = 2;
    let task = Typed::of(ctx.arg::<*const u8>(0));
    let mode: u32 = ctx.arg(1);
    if mode & PTRACE_MODE_ATTACH == 0 {
        return 0;
    }
    let Some(protected) = from_outside() else {
        return 0;
    };
    verdict(is_one_of(task, protected))
}

/// A descriptor of a link, which no hook of its own guards. `attr` is the
/// kernel's copy, which nobody changes after this.
///
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/syscall.c#L5679>
#[lsm(hook = "bpf")]
pub(crate) fn protect_links(ctx: LsmContext) -> i32 {
    const BPF_LINK_GET_FD_BY_ID: i32 = 30;
    let command: i32 = ctx.arg(0);
    if command != BPF_LINK_GET_FD_BY_ID || from_outside().is_none() {
        return 0;
    }
    let attr = Kptr::of(ctx.arg::<*const u8>(1));
    let id: u32 = attr.read(0).unwrap_or(0);
    verdict(is_guarded(guarded::LINK, 0, id.into()))
}

/// Every new descriptor of a map: by id, from a pin.
#[lsm(hook = "bpf_map")]
pub(crate) fn protect_maps(ctx: LsmContext) -> i32 {
    let map = Typed::of(ctx.arg::<*const u8>(0));
    if from_outside().is_none() {
        return 0;
    }
    let id: u32 = map.read(offset!(bpf_map_id)).unwrap_or(0);
    verdict(is_guarded(guarded::MAP, 0, id.into()))
}

/// The same of a program.
#[lsm(hook = "bpf_prog")]
pub(crate) fn protect_programs(ctx: LsmContext) -> i32 {
    let program = Typed::of(ctx.arg::<*const u8>(0));
    if from_outside().is_none() {
        return 0;
    }
    let id: u32 = program
        .follow(offset!(bpf_prog_aux))
        .and_then(|aux| aux.read(offset!(bpf_prog_aux_id)))
        .unwrap_or(0);
    verdict(is_guarded(guarded::PROGRAM, 0, id.into()))
}

/// The pins: their directory cannot be entered, so that none is opened
/// (`BPF_OBJ_GET`), removed, renamed or added to, and none of them opened by
/// who has a descriptor of it.
///
/// It runs for each component of every path on the host.
#[lsm(hook = "inode_permission")]
pub(crate) fn protect_pins(ctx: LsmContext) -> i32 {
    let inode = Typed::of(ctx.arg::<*const u8>(0));
    verdict(is_pin(inode, false))
}

/// The directories that the pins lie in keep their names.
#[lsm(hook = "inode_rename")]
pub(crate) fn protect_names(ctx: LsmContext) -> i32 {
    // What is renamed, and what is replaced or exchanged with it.
    let is_kept = |dentry: *const u8| {
        let inode = Typed::of(dentry).follow(offset!(dentry_inode));
        inode.is_some_and(|inode| is_pin(inode, true))
    };
    verdict(is_kept(ctx.arg(1)) || is_kept(ctx.arg(3)))
}

#[inline(always)]
fn is_pin(inode: Typed, by_name: bool) -> bool {
    let Some(protected) = PROTECTED.get_ptr(0) else {
        return false;
    };
    // SAFETY: as in `from_outside`.
    let bpffs = unsafe { (*protected).bpffs };
    let device: u32 = inode
        .follow(offset!(inode_sb))
        .and_then(|sb| sb.read(offset!(super_dev)))
        .unwrap_or(0);
    if bpffs == 0 || device != bpffs || from_outside().is_none() {
        return false;
    }
    let number: u64 = inode.read(offset!(inode_ino)).unwrap_or(0);
    is_guarded(guarded::CLOSED, device, number)
        || (by_name && is_guarded(guarded::NAMED, device, number))
}

/// mount(2): nothing is mounted over what leads to the pins. In the namespace
/// that has them there, nothing is moved by it either: the hook is not told
/// what is.
///
/// <https://github.com/torvalds/linux/blob/v6.12/fs/namespace.c#L3731>
#[lsm(hook = "sb_mount")]
pub(crate) fn protect_mount(ctx: LsmContext) -> i32 {
    /// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/mount.h>
    const MS_REMOUNT: u64 = 1 << 5;
    const MS_BIND: u64 = 1 << 12;
    const MS_MOVE: u64 = 1 << 13;
    const MS_PROPAGATION: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20;
    let path: *const u8 = ctx.arg(1);
    let flags: u64 = ctx.arg(3);
    let Some(protected) = from_outside() else {
        return 0;
    };
    // In the order in which the kernel looks at them.
    if flags & MS_REMOUNT != 0 || (flags & MS_BIND == 0 && flags & MS_PROPAGATION != 0) {
        return 0;
    }
    let path = Kptr::of(path);
    let is_moved = flags & (MS_BIND | MS_MOVE) == MS_MOVE && is_here(path, protected);
    verdict(is_moved || is_uncovered(path))
}

/// move_mount(2): the same, and the mounts themselves are not moved away.
#[lsm(hook = "move_mount")]
pub(crate) fn protect_move(ctx: LsmContext) -> i32 {
    let from = Kptr::of(ctx.arg::<*const u8>(0));
    let to = Kptr::of(ctx.arg::<*const u8>(1));
    if from_outside().is_none() {
        return 0;
    }
    let is_held = from.follow(offset!(path_mnt)).is_some_and(is_held);
    verdict(is_held || is_uncovered(to))
}

/// umount(2), of what holds the pins or what that is mounted in: taken away
/// lazily, it would take the pins with it.
#[lsm(hook = "sb_umount")]
pub(crate) fn protect_umount(ctx: LsmContext) -> i32 {
    let mount = Kptr::of(ctx.arg::<*const u8>(0));
    if from_outside().is_none() {
        return 0;
    }
    verdict(is_held(mount))
}

/// The `struct mount` around a `struct vfsmount`.
#[inline(always)]
fn mount_of(vfsmount: Kptr) -> Kptr {
    Kptr(vfsmount.0.wrapping_sub(offset!(mount_mnt) as u64))
}

#[inline(always)]
fn is_held(vfsmount: Kptr) -> bool {
    let id: u32 = mount_of(vfsmount).read(offset!(mount_id)).unwrap_or(0);
    is_guarded(guarded::MOUNT, 0, id.into())
}

/// Whether a `struct path` is of the agent's mount namespace.
#[inline(always)]
fn is_here(path: Kptr, protected: &Protected) -> bool {
    path.follow(offset!(path_mnt))
        .and_then(|mount| mount_of(mount).follow(offset!(mount_ns)))
        .and_then(|namespace| namespace.read(offset!(mnt_namespace_inum)))
        .is_some_and(|number: u32| number == protected.mntns)
}

/// Whether a `struct path` is a directory that nothing is mounted on: a root of
/// those mounts, or one on the way from there.
#[inline(always)]
fn is_uncovered(path: Kptr) -> bool {
    let (Some(mount), Some(dentry)) = (
        path.follow(offset!(path_mnt)),
        path.follow(offset!(path_dentry)),
    ) else {
        return false;
    };
    if mount.follow(offset!(vfsmount_root)) == Some(dentry) {
        return is_held(mount);
    }
    let id: u32 = mount_of(mount).read(offset!(mount_id)).unwrap_or(0);
    let number: Option<u64> = dentry
        .follow(offset!(dentry_inode))
        .and_then(|inode| inode.read(offset!(inode_ino)));
    number.is_some_and(|number| is_guarded(guarded::UNCOVERED, id, number))
}

//! Fork, exec and exit.
//!
//! `sched_wakeup_new` fires before a child first runs, `sched_process_exec` in
//! `exec_binprm` after the new image is in place and before it first runs, so
//! that an image's birth always precedes its acts in the ring.
//!
//! The kernel skips a program that would start on a CPU where a run of it has
//! not ended. Since 7.0 tracepoints can be preempted, so that another task's
//! exec may well fall into the run of this one's, and each exec until this one
//! goes on. (Holding preemption off inside the program only moves the switch
//! to its last instructions.) Fork is therefore seen where interrupts are off,
//! and exec and exit have a second program behind the first, which does what
//! that was not let do: on the tracefs side of the tracepoint, where the kernel
//! holds preemption off. [`IMAGES`] shows whether the first did it.
//!
//! - <https://github.com/torvalds/linux/blob/v6.12/kernel/sched/core.c#L4862>
//! - <https://github.com/torvalds/linux/blob/v6.12/fs/exec.c#L1796>
//! - <https://github.com/torvalds/linux/commit/a46023d5616ed3ed781e56ca93400eb9490e3646>
//! - <https://github.com/torvalds/linux/commit/16718274ee75d24a21b10ebc8998c48cc14a656a>

use aya_ebpf::{
    bindings::BPF_RB_AVAIL_DATA,
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns,
        generated::{bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_ringbuf_query},
    },
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use aya_log_ebpf::warn;
use procid_common::{
    event::{Header, Loss, Twice, kind},
    image::{Directory, FileState, ImageId, ImageRecord, flags, known},
    process::{ARGS_MAX, Exec, Exit, Fork, PATH_MAX, SCRIPT_MAX, hashed},
};

use crate::{
    file::{directory_at, facts_of, write_name, write_path},
    identity::{PF_KTHREAD, current_image, describe_actor, image_of, superusers_mntns, task_flags},
    kernel::{Kptr, Object, Typed, is_set, offset, setting},
    maps::{
        EVENTS, EXEC_SCRATCH, ExecScratch, FORK_SCRATCH, IMAGES, IMAGES_REFUSED, KNOWN_FILES,
        MEASURED, NO_WAKEUP, RING_FULLISH, SCRIPTS, WAKE_UP, emit, lost, not_repeated, repeated,
    },
    policy::{
        lineage::{forget, inherit},
        maps::IMAGE_HASHES,
    },
};

/// `SIGNAL_GROUP_EXIT`: the group was ended as a whole and
/// `group_exit_code` holds why.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/sched/signal.h#L255>
const SIGNAL_GROUP_EXIT: u32 = 0x4;

/// Which of a hook's two programs runs, and which scratch slot is its own.
#[derive(Clone, Copy, PartialEq)]
enum Run {
    First = 0,
    Second = 1,
}

/// Whether the first program has not come to the current task's exec, or exit.
/// Counts that.
#[inline(always)]
fn is_left_to_second(hook: Twice) -> bool {
    let Some(id) = image_of(Typed::current()) else {
        return false;
    };
    let is_left = IMAGES.get_ptr(id).is_some() == (hook == Twice::Exit);
    if is_left {
        repeated(hook);
    }
    is_left
}

#[btf_tracepoint(function = "sched_wakeup_new")]
pub(crate) fn process_fork(ctx: BtfTracePointContext) -> i32 {
    if try_fork(Typed::of(ctx.arg::<*const u8>(0))).is_none() {
        lost(Loss::Unreadable);
        warn!(&ctx, "fork: the child's task could not be read");
    }
    0
}

#[inline(always)]
fn try_fork(child: Typed) -> Option<()> {
    let pid: u32 = child.read(offset!(task_pid))?;
    let tgid: u32 = child.read(offset!(task_tgid))?;
    if pid != tgid {
        return Some(()); // a thread
    }
    let fork = FORK_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: as in `try_exec`.
    let fork = unsafe { &mut *fork };
    fork.header = header::<Fork>(kind::FORK);
    let image = &mut fork.image;
    image.id = image_of(child)?;
    image.parent = current_image()?;
    image.previous = ImageId::UNKNOWN;
    let (image_id, image_parent) = (image.id, image.parent);
    image.exe = FileState::default();
    image.fs_magic = 0;
    image.mntns = 0;
    image.flags = flags::FORKED | flags::NO_EXE;
    if task_flags(child) & PF_KTHREAD != 0 {
        image.flags |= flags::KTHREAD;
    } else if let Some(from) = IMAGES.get_ptr(image.parent) {
        // SAFETY: the parent is running this program, so that its entry is
        // not removed meanwhile.
        let from = unsafe { &*from };
        image.exe = from.exe;
        image.fs_magic = from.fs_magic;
        image.mntns = from.mntns;
        image.flags = flags::FORKED
            | (from.flags & (flags::DELETED | flags::MEMFD | flags::OVERLAY | flags::NO_EXE));
    }
    describe_actor(child, &mut fork.actor)?;
    remember(&fork.image);
    if let Some(hash) = IMAGE_HASHES.get_ptr(image_parent) {
        // SAFETY: a map value, written once.
        remember_hash(image_id, unsafe { &*hash });
    }
    inherit(image_parent, image_id, true);
    emit::<Fork>(fork, Loss::RingProcess);
    Some(())
}

#[btf_tracepoint(function = "sched_process_exec")]
pub(crate) fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let bprm = Typed::of(ctx.arg::<*const u8>(2));
    if try_exec(Some(bprm), Run::First).is_none() {
        lost(Loss::Unreadable);
        warn!(&ctx, "exec: the new image could not be read");
    }
    0
}

/// Is not told of a script.
#[tracepoint(category = "sched", name = "sched_process_exec")]
pub(crate) fn process_exec_again(ctx: TracePointContext) -> u32 {
    if is_left_to_second(Twice::Exec) && try_exec(None, Run::Second).is_none() {
        lost(Loss::Unreadable);
        warn!(&ctx, "exec: the new image could not be read");
    }
    0
}

#[inline(always)]
fn try_exec(bprm: Option<Typed>, run: Run) -> Option<()> {
    let task = Typed::current();
    let scratch = EXEC_SCRATCH.get_ptr_mut(run as u32)?;
    // SAFETY: this program's own slot on this CPU; a program that would run
    // inside another run of itself on the same CPU is skipped (and counted) by
    // the kernel.
    let scratch = unsafe { &mut *scratch };
    let id = image_of(task)?;
    // Every exec raises self_exec_id by one, and all threads of a group share
    // the value: the image before this one is known from this one.
    let previous = ImageId {
        self_exec_id: id.self_exec_id.wrapping_sub(1),
        ..id
    };
    // Who watched the tracepoint first decides which program is called first.
    let done = IMAGES.get_ptr(id);
    let parent = match done.or(IMAGES.get_ptr(previous)) {
        // SAFETY: only this process's own fork, exec and exit touch the entry.
        Some(record) => unsafe { (*record).parent },
        None => ImageId::UNKNOWN,
    };
    scratch.event.image = ImageRecord {
        id,
        parent,
        previous,
        exe: FileState::default(),
        fs_magic: 0,
        flags: 0,
        mntns: 0,
        reserved: 0,
    };
    let measured_by = bpf_get_current_pid_tgid();
    scratch.event.hashed = hashed::NO;
    if let Some(hash) = MEASURED.get_ptr(measured_by) {
        // SAFETY: the entry is this task's, written earlier in this exec.
        scratch.event.sha256 = unsafe { *hash };
        scratch.event.hashed = hashed::KERNEL;
        let _ = MEASURED.remove(measured_by);
    } else {
        scratch.event.sha256 = [0; 32];
    }
    describe(task, scratch, kind::EXEC)?;
    if let Some(bprm) = bprm {
        describe_script(bprm, scratch)?;
    }
    if done.is_some() {
        not_repeated(Twice::Exec);
        if scratch.event.script_len != 0 {
            output_exec(scratch, WAKE_UP); // which the second could not tell
        }
        return Some(());
    }
    let wake_up = if is_known(scratch) {
        scratch.event.image.flags |= flags::FILE_KNOWN;
        if ring_bytes() > RING_FULLISH {
            WAKE_UP
        } else {
            NO_WAKEUP
        }
    } else {
        WAKE_UP
    };
    let _ = IMAGES.remove(previous);
    remember(&scratch.event.image);
    if scratch.event.hashed != hashed::NO {
        remember_hash(id, &scratch.event.sha256);
    } else if let Some(known) = KNOWN_FILES.get_ptr(scratch.event.image.exe) {
        // SAFETY: a map value, written whole by the agent.
        let known = unsafe { &*known };
        if known.gated != 0 {
            scratch.event.sha256 = known.sha256;
            scratch.event.hashed = hashed::GATED;
        }
        remember_hash(id, &known.sha256);
    }
    inherit(previous, id, false);
    forget(previous);
    output_exec(scratch, wake_up);
    Some(())
}

/// Bytes in the ring that wait for the reader.
#[inline(always)]
fn ring_bytes() -> u64 {
    let ring = core::ptr::from_ref(&EVENTS).cast_mut().cast();
    // SAFETY: the address of the map, which the loader puts in its place.
    unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into()) }
}

/// Whether the agent can do without the process: to open its file, or to find
/// its script, which a process of a few milliseconds takes with it.
#[inline(always)]
fn is_known(scratch: &ExecScratch) -> bool {
    let event = &scratch.event;
    if event.script_len != 0 {
        return false;
    }
    match KNOWN_FILES.get_ptr(event.image.exe) {
        // SAFETY: a map value, written whole by the agent.
        Some(known) if unsafe { (*known).kind } == known::INTERPRETER => {
            !is_set(setting::ARGS) || runs_command(scratch)
        }
        Some(_) => true,
        None => false,
    }
}

/// Whether the first argument is `-c`: the commonest way by far in which a
/// shell runs no script. Looks no farther than that.
#[inline(always)]
fn runs_command(scratch: &ExecScratch) -> bool {
    /// Longest own name that is passed over.
    const NAME_MAX: usize = 32;
    // SAFETY: a plain read of our own word.
    let path_len = unsafe { core::ptr::read_volatile(&raw const scratch.event.path_len) } as usize;
    if path_len > PATH_MAX || scratch.event.args_len == 0 {
        return false;
    }
    // What lies behind shorter arguments is of an earlier exec: a wrong answer
    // makes the agent late, no more.
    // SAFETY: ARGS_MAX bytes, more than are looked at, follow the longest path.
    let at = |index: usize| unsafe {
        *(&raw const scratch.bytes)
            .cast::<u8>()
            .add(path_len)
            .add(index)
    };
    for index in 0..NAME_MAX {
        if at(index) == 0 {
            return at(index + 1) == b'-' && at(index + 2) == b'c';
        }
    }
    false
}

/// Fills in what the task's memory says of its image: the file, its path, the
/// arguments. Leaves `image.id`, `parent` and `previous` alone.
#[inline(always)]
pub(crate) fn describe<O: Object>(task: O, scratch: &mut ExecScratch, row: u32) -> Option<()> {
    let event = &mut scratch.event;
    describe_actor(task, &mut event.actor)?;
    event.image.mntns = superusers_mntns(task);
    event.path_len = 0;
    event.args_len = 0;
    event.script_len = 0;
    event.script = FileState::default();
    event.script_fs_magic = 0;
    event.script_flags = 0;
    let fs = task.follow(offset!(task_fs));
    event.root = fs.map_or(Directory::default(), |fs| {
        directory_at(fs, offset!(fs_root))
    });
    event.cwd = fs.map_or(Directory::default(), |fs| directory_at(fs, offset!(fs_pwd)));
    let bytes = (&raw mut scratch.bytes).cast::<u8>();
    if let Some(mm) = task.follow(offset!(task_mm)) {
        if let Some(exe) = mm.follow(offset!(mm_exe_file))
            && let Some(facts) = facts_of(exe)
        {
            event.image.exe = facts.state;
            event.image.fs_magic = facts.fs_magic;
            event.image.flags |= facts.flags;
            event.image.flags |= if facts.flags & flags::MEMFD != 0 {
                // In no mount namespace: its name is all there is.
                write_name(exe.address(), bytes, &mut event.path_len)
            } else if let Some(fs) = fs {
                let root = fs.address().add(offset!(fs_root));
                write_path(exe.address(), root, bytes, &mut event.path_len)
            } else {
                flags::PATH_UNREACHABLE
            };
        } else {
            event.image.flags |= flags::NO_EXE;
        }
        if row == kind::EXEC && is_set(setting::ARGS) {
            // SAFETY: a plain read of our own word.
            let path_len = unsafe { core::ptr::read_volatile(&raw const event.path_len) } as usize;
            if path_len > PATH_MAX {
                return None;
            }
            // SAFETY: `path_len` ≤ PATH_MAX, and the buffer has ARGS_MAX
            // bytes and more after that.
            let (len, bits) = read_args(mm, unsafe { bytes.add(path_len) });
            event.args_len = len as u32;
            event.image.flags |= bits;
        }
    } else {
        event.image.flags |= flags::NO_EXE;
        if task_flags(task) & PF_KTHREAD != 0 {
            event.image.flags |= flags::KTHREAD;
        }
    }
    event.header = Header {
        kind: row,
        len: size_of::<Exec>() as u32 + event.path_len + event.args_len,
        // SAFETY: takes no argument.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
    };
    Some(())
}

/// Appends the path of the script, where the file given to execve(2) is not
/// the one that runs: `interp` has then been replaced, by `#!` or binfmt_misc.
///
/// <https://github.com/torvalds/linux/blob/v6.12/fs/binfmt_script.c#L141>
#[inline(always)]
fn describe_script(bprm: Typed, scratch: &mut ExecScratch) -> Option<()> {
    let filename: u64 = bprm.read(offset!(bprm_filename))?;
    let interp: u64 = bprm.read(offset!(bprm_interp))?;
    if filename == interp {
        return Some(());
    }
    let event = &mut scratch.event;
    // SAFETY: plain reads of our own words.
    let (path_len, args_len) = unsafe {
        (
            core::ptr::read_volatile(&raw const event.path_len) as usize,
            core::ptr::read_volatile(&raw const event.args_len) as usize,
        )
    };
    if path_len > PATH_MAX || args_len > ARGS_MAX {
        return None;
    }
    // SAFETY: the buffer has SCRIPT_MAX bytes behind the longest path and
    // arguments; the helper handles a bad source.
    let copied = unsafe {
        let to = (&raw mut scratch.bytes)
            .cast::<u8>()
            .add(path_len)
            .add(args_len);
        bpf_probe_read_kernel_str(to.cast(), SCRIPT_MAX as u32, filename as *const _)
    };
    // With the NUL at its end.
    if copied > 1 && copied <= SCRIPT_MAX as i64 {
        event.script_len = copied as u32 - 1;
        event.header.len += event.script_len;
    }
    if let Some(seen) = SCRIPTS.get_ptr(Kptr::current().0) {
        // SAFETY: the entry is this task's, written earlier in this exec.
        let seen = unsafe { &*seen };
        event.script = seen.state;
        event.script_fs_magic = seen.fs_magic;
        event.script_flags = seen.flags;
    }
    Some(())
}

/// Copies the command line of the current task, which has not yet run a single
/// instruction of its new image and so cannot have changed it.
#[inline(always)]
fn read_args<O: Object>(mm: O, to: *mut u8) -> (usize, u32) {
    let start: u64 = mm.read(offset!(mm_arg_start)).unwrap_or(0);
    let end: u64 = mm.read(offset!(mm_arg_end)).unwrap_or(0);
    let all = end.wrapping_sub(start);
    if start == 0 || end < start {
        return (0, flags::ARGS_UNREADABLE);
    }
    let (len, bits) = if all > ARGS_MAX as u64 {
        (ARGS_MAX, flags::ARGS_TRUNCATED)
    } else {
        (all as usize, 0)
    };
    if len == 0 {
        return (0, 0);
    }
    // SAFETY: the caller gives ARGS_MAX bytes of room; the helper handles a
    // bad source.
    let copied = unsafe { bpf_probe_read_user(to.cast(), len as u32, start as *const _) };
    if copied == 0 {
        (len, bits)
    } else {
        (0, flags::ARGS_UNREADABLE)
    }
}

#[inline(always)]
fn output_exec(scratch: &ExecScratch, wake_up: u64) {
    let len = scratch.event.header.len as usize;
    if len > size_of::<ExecScratch>() {
        lost(Loss::Unreadable);
        return;
    }
    // SAFETY: `len` bytes from the start of the scratch slot are inside it.
    let bytes =
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(scratch).cast::<u8>(), len) };
    if EVENTS.output_untyped::<[u8]>(bytes, wake_up).is_err() {
        lost(Loss::RingProcess);
    }
}

#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn process_exit(ctx: BtfTracePointContext) -> i32 {
    if try_exit().is_none() {
        lost(Loss::Unreadable);
        warn!(&ctx, "exit: the task could not be read");
    }
    0
}

#[tracepoint(category = "sched", name = "sched_process_exit")]
pub(crate) fn process_exit_again(ctx: TracePointContext) -> u32 {
    if group_is_dead() == Some(true) && is_left_to_second(Twice::Exit) && try_exit().is_none() {
        lost(Loss::Unreadable);
        warn!(&ctx, "exit: the task could not be read");
    }
    0
}

/// The tracepoint fires for every thread, for the leader perhaps first;
/// `signal->live` has been counted down before it (`do_exit`), so that 0 says
/// the group is dead. Two threads that end at once may both read 0: the reader
/// takes the first.
///
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/exit.c#L896>
#[inline(always)]
fn group_is_dead() -> Option<bool> {
    let signal = Typed::current().follow(offset!(task_signal))?;
    let live: i32 = signal.read(offset!(signal_live))?;
    Some(live == 0)
}

#[inline(always)]
fn try_exit() -> Option<()> {
    if !group_is_dead()? {
        return Some(());
    }
    let task = Typed::current();
    let signal = task.follow(offset!(task_signal))?;
    let id = image_of(task)?;
    let signal_flags: u32 = signal.read(offset!(signal_flags))?;
    // Both are read: one load at a place chosen by the flag would be one load
    // of two types.
    let group_exit_code: u32 = signal.read(offset!(signal_group_exit_code))?;
    let exit_code: u32 = task.read(offset!(task_exit_code))?;
    let status = if signal_flags & SIGNAL_GROUP_EXIT != 0 {
        group_exit_code
    } else {
        exit_code
    };
    let _ = IMAGES.remove(id);
    forget(id);
    emit(
        &Exit {
            header: header::<Exit>(kind::EXIT),
            id,
            status,
            reserved: 0,
        },
        Loss::RingProcess,
    );
    Some(())
}

#[inline(always)]
fn remember_hash(image: ImageId, sha256: &[u8; 32]) {
    if IMAGES.get_ptr(image).is_some() && IMAGE_HASHES.insert(image, sha256, 0).is_err() {
        lost(Loss::PolicyOverflow);
    }
}

#[inline(always)]
fn remember(image: &ImageRecord) {
    if IMAGES.insert(image.id, image, 0).is_err() {
        refused();
    }
}

/// [`IMAGES`] has no room for an image.
#[inline(always)]
pub(crate) fn refused() {
    lost(Loss::ImagesFull);
    if let Some(refused) = IMAGES_REFUSED.get_ptr_mut(0) {
        // SAFETY: a map value, that is only ever set to this.
        unsafe { core::ptr::write_volatile(refused, 1) };
    }
}

#[inline(always)]
pub(crate) fn header<T>(kind: u32) -> Header {
    Header {
        kind,
        len: size_of::<T>() as u32,
        // SAFETY: takes no argument.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
    }
}

//! Iterators: what existed before the hooks, and the state of a file.
//!
//! Each writes rows in the layout of events to its seq file.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_seq_write, bpf_sock_from_file,
};
use procid_common::{
    event::{Header, kind},
    image::{FileState, ImageId, ImageRecord, flags},
    socket::{Close, FileRow, SocketRow, SocketTag},
};

use crate::{
    connect::{internet_sk, typed_sk},
    file::facts_of,
    identity::{exe_file, image_of},
    kernel::{Kptr, offset},
    maps::{ExecScratch, IMAGES, TASK_SCRATCH},
    policy::{lineage::find, root::is_opened_in},
    process::{describe, refused},
    socket::counts,
    tag::{carry_tag, tag_found, tag_of},
    withhold::remember,
};

/// `struct bpf_iter__task`: the pointers are BTF pointers or null.
#[repr(C)]
pub(crate) struct TaskContext {
    pub(crate) meta: *const *mut c_void,
    pub(crate) task: *const u8,
}

/// `struct bpf_iter__task_file`.
#[repr(C)]
pub(crate) struct TaskFileContext {
    pub(crate) meta: *const *mut c_void,
    pub(crate) task: *const u8,
    fd: u32,
    _pad: u32,
    pub(crate) file: *mut c_void,
}

/// Every process, as an image: the leader's row, or the rows of its threads
/// where the leader has exited and only they still hold the memory.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub(crate) extern "C" fn iterate_tasks(ctx: *const TaskContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let ctx = unsafe { &*ctx };
    if ctx.task.is_null() {
        return 0;
    }
    let _ = try_task(ctx.meta, Kptr::of(ctx.task));
    0
}

#[inline(always)]
fn try_task(meta: *const *mut c_void, task: Kptr) -> Option<()> {
    let Some(id) = speaks_for(task) else {
        return Some(());
    };
    let scratch = TASK_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: this CPU's own slot, which no other program uses; the agent runs
    // one snapshot at a time.
    let scratch = unsafe { &mut *scratch };
    let (parent, bits) = parent_of(task);
    scratch.event.image = ImageRecord {
        id,
        parent,
        previous: ImageId::UNKNOWN,
        exe: FileState::default(),
        fs_magic: 0,
        flags: flags::SNAPSHOT | bits,
        mntns: 0,
        reserved: 0,
    };
    scratch.event.sha256 = [0; 32];
    scratch.event.hashed = 0;
    describe(task, scratch, kind::TASK_ROW)?;
    let image = &mut scratch.event.image;
    // It may have called exec in another namespace than it is in now.
    if !exe_file(task).is_some_and(|file| is_opened_in(file, image.mntns)) {
        image.mntns = 0;
    }
    // The hooks may have seen this image already: theirs stands (BPF_NOEXIST).
    if IMAGES.insert(id, &scratch.event.image, 1).is_err() && IMAGES.get_ptr(id).is_none() {
        refused();
    }
    let len = scratch.event.header.len as usize;
    if len > size_of::<ExecScratch>() {
        return None;
    }
    write(meta, core::ptr::from_ref(scratch).cast(), len);
    Some(())
}

/// What every process's image satisfies of the rules that ask for ancestors.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub(crate) extern "C" fn iterate_lineages(ctx: *const TaskContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let ctx = unsafe { &*ctx };
    if ctx.task.is_null() {
        return 0;
    }
    let task = Kptr::of(ctx.task);
    if let Some(image) = speaks_for(task) {
        find(image, task);
    }
    0
}

/// The image of a process, from the one of its threads that stands for it.
#[inline(always)]
fn speaks_for(task: Kptr) -> Option<ImageId> {
    let pid: u32 = task.read(offset!(task_pid))?;
    let tgid: u32 = task.read(offset!(task_tgid))?;
    let signal = task.follow(offset!(task_signal))?;
    let live: i32 = signal.read(offset!(signal_live))?;
    if live == 0 {
        return None; // a zombie
    }
    if pid != tgid {
        let leader = task.follow(offset!(task_group_leader))?;
        if leader.follow(offset!(task_mm)).is_some() {
            return None; // the leader speaks for its threads
        }
    }
    image_of(task)
}

/// The image that forked this process, if that can still be told.
///
/// `parent_exec_id` is the forker's `self_exec_id` at the fork. When the
/// forker has died the kernel names a reaper instead: init, or a subreaper.
#[inline(always)]
fn parent_of(task: Kptr) -> (ImageId, u32) {
    let unsure = (ImageId::UNKNOWN, flags::PARENT_UNSURE);
    let Some(parent) = task.follow(offset!(task_real_parent)) else {
        return unsure;
    };
    let Some(id) = image_of(parent) else {
        return unsure;
    };
    let forked_at: u64 = task.read(offset!(task_parent_exec_id)).unwrap_or(u64::MAX);
    let reaper = parent
        .follow(offset!(task_signal))
        .and_then(|signal| signal.bit(offset!(signal_is_child_subreaper)))
        .unwrap_or(true);
    if id.tgid == 1 && forked_at == id.self_exec_id {
        // What init has adopted was forked by an image that had called exec
        // since init forked it, or that runs init's own file.
        return (ImageId::UNKNOWN, flags::PARENT_UNSURE | flags::BY_INIT);
    }
    if id.tgid <= 1 || reaper || forked_at != id.self_exec_id {
        return unsure;
    }
    (id, 0)
}

/// Every descriptor of every process that is an internet socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) extern "C" fn iterate_sockets(ctx: *const TaskFileContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let ctx = unsafe { &*ctx };
    if ctx.task.is_null() || ctx.file.is_null() {
        return 0;
    }
    // SAFETY: not null, as the helper asks.
    let socket = unsafe { bpf_sock_from_file(ctx.file.cast()) }.cast::<u8>();
    if socket.is_null() {
        return 0;
    }
    let Some(sk) = internet_sk(socket) else {
        return 0;
    };
    let Some(image) = image_of(Kptr::of(ctx.task)) else {
        return 0;
    };
    let at = Kptr::of(sk);
    // SAFETY: a BTF pointer; the helper gives the socket a cookie where it
    // has none yet, so that its close will be recognised.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    tag_found(sk, cookie);
    let (destination, destination_port) = at.sock_destination();
    let (source, source_port) = at.sock_source();
    let inode = Kptr::of(ctx.file)
        .follow(offset!(file_inode))
        .and_then(|inode| inode.read(offset!(inode_ino)))
        .unwrap_or(0);
    let row = SocketRow {
        header: row_header::<SocketRow>(kind::SOCKET_ROW),
        image,
        cookie,
        socket: at.sock_kind(),
        destination,
        source,
        destination_port,
        source_port,
        state: u32::from(at.sock_state()),
        netns: at.sock_netns(),
        inode,
        fd: ctx.fd,
        reserved: 0,
    };
    write(ctx.meta, (&raw const row).cast(), size_of::<SocketRow>());
    0
}

/// `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
pub(crate) struct StorageContext {
    meta: *const *mut c_void,
    map: *const c_void,
    sk: *mut c_void,
    value: *const SocketTag,
}

/// What every socket that has a tag has sent and received so far.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub(crate) extern "C" fn iterate_counts(ctx: *const StorageContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let ctx = unsafe { &*ctx };
    // SAFETY: a field of the context. The verifier remembers of a register that
    // it is not null, not of the field: hence one read.
    let sk = unsafe { core::ptr::read_volatile(&raw const ctx.sk) };
    if sk.is_null() || ctx.value.is_null() {
        return 0;
    }
    // SAFETY: not null; a tag, which lives as long as the iterator is at it.
    write_counts(ctx.meta, Kptr(sk as u64), unsafe { &*ctx.value });
    0
}

/// The same of every descriptor that is a socket with a tag, where the kernel
/// lends no iterator over tags: see `kernel::iterators`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) extern "C" fn iterate_held_counts(ctx: *const TaskFileContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let ctx = unsafe { &*ctx };
    if ctx.task.is_null() || ctx.file.is_null() {
        return 0;
    }
    // SAFETY: not null, as the helper asks.
    let socket = unsafe { bpf_sock_from_file(ctx.file.cast()) }.cast::<u8>();
    if socket.is_null() {
        return 0;
    }
    if let Some(sk) = typed_sk(socket)
        && let Some(tag) = tag_of(sk)
    {
        write_counts(ctx.meta, Kptr::of(sk), tag);
    }
    0
}

#[inline(always)]
fn write_counts(meta: *const *mut c_void, sk: Kptr, tag: &SocketTag) {
    let row = Close {
        header: row_header::<Close>(kind::COUNTS_ROW),
        cookie: tag.cookie,
        flow: tag.primary,
        hook: 0,
        counts: counts(sk, tag),
    };
    write(meta, (&raw const row).cast(), size_of::<Close>());
}

/// Takes over the tag of every socket that an earlier set of programs tagged:
/// it saw the socket's creation, which this one did not. What this set has seen
/// of such a socket meanwhile, that one has seen too.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub(crate) extern "C" fn carry_tags(ctx: *const StorageContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let ctx = unsafe { &*ctx };
    // SAFETY: as in `iterate_counts`.
    let sk = unsafe { core::ptr::read_volatile(&raw const ctx.sk) };
    if sk.is_null() || ctx.value.is_null() {
        return 0;
    }
    // SAFETY: not null; a tag of the same layout, which the loader saw to.
    let tag = unsafe { &*ctx.value };
    carry_tag(sk, tag);
    remember(tag);
    0
}

/// The state of the inode behind each descriptor of the thread the iterator
/// was made for: what the exec hook would see of that file now.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) extern "C" fn iterate_files(ctx: *const TaskFileContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let ctx = unsafe { &*ctx };
    if ctx.task.is_null() || ctx.file.is_null() {
        return 0;
    }
    let Some(facts) = facts_of(Kptr::of(ctx.file)) else {
        return 0;
    };
    let row = FileRow {
        header: row_header::<FileRow>(kind::FILE_ROW),
        file: facts.state,
        fs_magic: facts.fs_magic,
        flags: facts.flags,
        fd: ctx.fd,
        tid: Kptr::of(ctx.task).read(offset!(task_pid)).unwrap_or(0),
    };
    write(ctx.meta, (&raw const row).cast(), size_of::<FileRow>());
    0
}

#[inline(always)]
pub(crate) fn row_header<T>(kind: u32) -> Header {
    Header {
        kind,
        len: size_of::<T>() as u32,
        // SAFETY: takes no argument.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
    }
}

/// Writes to the iterator's seq file; a full buffer makes the kernel call the
/// program again for the same object.
#[inline(always)]
pub(crate) fn write(meta: *const *mut c_void, data: *const c_void, len: usize) {
    // SAFETY: `meta->seq` is the first member of `struct bpf_iter_meta`; the
    // verifier checks the load and the length.
    unsafe {
        let seq = *meta;
        bpf_seq_write(seq.cast(), data.cast_mut(), len as u32);
    }
}

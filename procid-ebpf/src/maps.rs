//! The maps, and the counting of what they could not take.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use procid_common::{
    event::{Loss, Twice},
    image::{FileState, ImageId, ImageRecord, KnownFile},
    process::{ARGS_MAX, Exec, Fork, PATH_MAX, SCRIPT_MAX},
    socket::{DestinationKey, DestinationState, SocketTag},
};

use crate::file::FileFacts;

/// Bytes past [`PATH_MAX`] that one more component may need.
pub(crate) const NAME_SLACK: usize = 256;

/// Every event. One ring, so that what one process does is read in the order
/// it did it: its exec before its connects. At 30,000 connects a second it
/// holds what happens in 0.8 s.
#[btf_map]
pub(crate) static EVENTS: RingBuf<u8, { 8 << 20 }> = RingBuf::new();

pub(crate) const IMAGES_MAX: usize = 65_536;

/// Live images.
#[btf_map]
pub(crate) static IMAGES: HashMap<ImageId, ImageRecord, IMAGES_MAX> = HashMap::new();

/// Not 0: [`IMAGES`] has had no room for an image. One that is not there may be
/// it, and what its process says of its file is then not taken for true.
#[btf_map]
pub(crate) static IMAGES_REFUSED: Array<u32, 1> = Array::new();

/// What procid knows of a socket, freed with it.
#[btf_map]
pub(crate) static TAGS: SkStorage<SocketTag> = SkStorage::new();

/// Datagram destinations that have had their record, beside the first one of
/// each socket, which is in its tag.
#[btf_map]
pub(crate) static DESTINATIONS: LruHashMap<DestinationKey, DestinationState, 65_536> =
    LruHashMap::new();

/// The same of sockets that have very many: a scan makes nothing else forgotten.
#[btf_map]
pub(crate) static SCANS: LruHashMap<DestinationKey, DestinationState, 16_384> = LruHashMap::new();

/// Where the datagram that a thread (`pid_tgid`) is sending or receiving goes
/// to or comes from, where its socket's tag does not say so.
#[btf_map]
pub(crate) static ACTS: LruHashMap<u64, DestinationKey, 16_384> = LruHashMap::new();

/// An image that uses a socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Speaker {
    pub(crate) cookie: u64,
    pub(crate) image: ImageId,
}

/// Users of sockets that have been told of.
#[btf_map]
pub(crate) static SPEAKERS: LruHashMap<Speaker, u32, 65_536> = LruHashMap::new();

/// Who made a packet socket, by the number of its inode in sockfs.
#[btf_map]
pub(crate) static CREATORS: LruHashMap<u64, ImageId, 4_096> = LruHashMap::new();

/// A connect(2) whose outcome its return will tell.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Connecting {
    /// Address of the `struct sock`; used only while its cookie is `cookie`.
    pub(crate) sk: u64,
    pub(crate) cookie: u64,
    pub(crate) flow: u32,
    pub(crate) sock_type: u32,
}

/// Connects in progress, by `pid_tgid`. An io_uring connect leaves no return:
/// hence LRU.
#[btf_map]
pub(crate) static CONNECTS: LruHashMap<u64, Connecting, 16_384> = LruHashMap::new();

/// SHA-256 that IMA computed inside the exec of a task (`pid_tgid`), on its
/// way to the exec event.
#[btf_map]
pub(crate) static MEASURED: LruHashMap<u64, [u8; 32], 4_096> = LruHashMap::new();

/// SHA-256 that IMA computed, by state of the inode.
#[btf_map]
pub(crate) static MEASUREMENTS: LruHashMap<FileState, [u8; 32], 8_192> = LruHashMap::new();

/// States of files whose hash the agent has in its cache, or is given by the
/// kernel: it need not be woken to open them. It puts in none that was
/// unsettled.
#[btf_map]
pub(crate) static KNOWN_FILES: LruHashMap<FileState, KnownFile, 8_192> = LruHashMap::new();

/// The file that execve(2) was given, by the address of the task, on its way
/// to the exec event, should it be a script.
#[btf_map]
pub(crate) static SCRIPTS: LruHashMap<u64, FileFacts, 4_096> = LruHashMap::new();

/// An exec event is too large for the stack and of variable length.
#[repr(C)]
pub(crate) struct ExecScratch {
    pub(crate) event: Exec,
    pub(crate) bytes: [u8; PATH_MAX + NAME_SLACK + ARGS_MAX + SCRIPT_MAX],
}

/// A fork event on its way: its image is also kept in [`IMAGES`].
#[btf_map]
pub(crate) static FORK_SCRATCH: PerCpuArray<Fork, 1> = PerCpuArray::new();

/// A slot for each of the two programs.
#[btf_map]
pub(crate) static EXEC_SCRATCH: PerCpuArray<ExecScratch, 2> = PerCpuArray::new();

/// The task iterator's: it can be preempted by an exec on its CPU.
#[btf_map]
pub(crate) static TASK_SCRATCH: PerCpuArray<ExecScratch, 1> = PerCpuArray::new();

/// Realtime minus boottime in nanoseconds, refreshed by the agent; 0: unknown.
#[btf_map]
pub(crate) static CLOCK: Array<u64, 1> = Array::new();

/// What was lost, by [`Loss`].
#[btf_map]
pub(crate) static LOSSES: PerCpuArray<u64, { Loss::ALL.len() }> = PerCpuArray::new();

/// How often a second program did what the first was not let do, by [`Twice`].
#[btf_map]
pub(crate) static REPEATS: PerCpuArray<u64, { Twice::ALL.len() }> = PerCpuArray::new();

/// Counts one act of a second program.
#[inline(always)]
pub(crate) fn repeated(hook: Twice) {
    if let Some(count) = REPEATS.get_ptr_mut(hook as u32) {
        // SAFETY: this CPU's own slot, of a program that does not run inside
        // itself.
        unsafe { *count += 1 };
    }
}

/// Takes that back: the first program has come after all.
#[inline(always)]
pub(crate) fn not_repeated(hook: Twice) {
    if let Some(count) = REPEATS.get_ptr_mut(hook as u32) {
        // SAFETY: as in `repeated`. The same call of the tracepoint counted it,
        // on another CPU perhaps: their sum is right.
        unsafe { *count = (*count).wrapping_sub(1) };
    }
}

/// Counts one loss.
#[inline(always)]
pub(crate) fn lost(cause: Loss) {
    if let Some(count) = LOSSES.get_ptr_mut(cause as u32) {
        // SAFETY: this CPU's own slot, and programs do not preempt each other
        // inside this statement in a way that could tear a u64; a rare lost
        // increment would need a nested tracepoint on the same CPU.
        unsafe { *count += 1 };
    }
}

/// Leave the reader asleep: it looks again soon enough for connections.
pub(crate) const NO_WAKEUP: u64 = BPF_RB_NO_WAKEUP as u64;
/// Wake the reader at once: the image may be gone in two milliseconds, and its
/// file should be opened while it runs. It costs an interrupt that the CPU
/// sends to itself, which in a virtual machine is ten times all the rest.
pub(crate) const WAKE_UP: u64 = BPF_RB_FORCE_WAKEUP as u64;
/// Bytes in the ring beyond which the reader should not sleep on.
pub(crate) const RING_FULLISH: u64 = 2 << 20;

/// Writes one event of fixed size, or counts its loss.
#[inline(always)]
pub(crate) fn emit<T>(event: &T, cause: Loss) {
    if EVENTS.output_untyped::<T>(event, NO_WAKEUP).is_err() {
        lost(cause);
    }
}

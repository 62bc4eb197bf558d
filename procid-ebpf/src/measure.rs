//! SHA-256 computed by the kernel inside exec, and the file it was given.
//!
//! `bprm_committed_creds` runs in `begin_new_exec` when `bprm->file` is the
//! file that is about to be mapped; `bpf_ima_file_hash` hashes it there, with
//! or without an IMA policy. The hash waits in a map for
//! `sched_process_exec`, later in the same exec.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/fs/exec.c#L1448>

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, generated::bpf_ima_file_hash},
    macros::lsm,
    programs::LsmContext,
};
use procid_common::image::FileState;

use crate::{
    file::facts_of,
    kernel::{Kptr, Object as _, Typed, offset},
    maps::{CLOCK, MEASURED, MEASUREMENTS, SCRIPTS},
};

/// `HASH_ALGO_SHA256`:
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/hash_info.h#L21>
const HASH_ALGO_SHA256: i64 = 4;

/// A file changed less than this long ago may change again without its ctime
/// showing it (a tick is at most 10 ms; the rest is for a clock that was set).
const SETTLED_NS: u64 = 1_000_000_000;

#[lsm(hook = "bprm_committed_creds", sleepable)]
pub(crate) fn measure(ctx: LsmContext) -> i32 {
    let bprm: *const u8 = ctx.arg(0);
    let at = offset!(bprm_file);
    // SAFETY: the verifier checks the load against the kernel's BTF.
    let file = unsafe { *bprm.add(at).cast::<*mut u8>() };
    let key = bpf_get_current_pid_tgid();
    let _ = MEASURED.remove(key);
    let Some(facts) = facts_of(Kptr::of(file)) else {
        return 0;
    };
    let settled = is_settled(&facts.state);
    if settled && let Some(hash) = MEASUREMENTS.get_ptr(facts.state) {
        // SAFETY: the value is only ever replaced whole by an equal one.
        let _ = MEASURED.insert(key, unsafe { &*hash }, 0);
        return 0;
    }
    let mut hash = [0_u8; 64];
    // SAFETY: `file` is a BTF pointer, `hash` has room for the longest digest.
    let algorithm = unsafe { bpf_ima_file_hash(file.cast(), hash.as_mut_ptr().cast(), 64) };
    if algorithm != HASH_ALGO_SHA256 {
        return 0;
    }
    let mut sha256 = [0_u8; 32];
    sha256.copy_from_slice(&hash[..32]);
    let _ = MEASURED.insert(key, sha256, 0);
    if settled {
        let _ = MEASUREMENTS.insert(facts.state, sha256, 0);
    }
    0
}

/// Keeps the state of the file that execve(2) was given, before the kernel
/// turns from a script to its interpreter, whose file comes in a later call.
///
/// <https://github.com/torvalds/linux/blob/v6.12/fs/exec.c#L1748>
#[lsm(hook = "bprm_check_security")]
pub(crate) fn look_at_script(ctx: LsmContext) -> i32 {
    let bprm = Typed::of(ctx.arg::<*const u8>(0));
    let filename: u64 = bprm.read(offset!(bprm_filename)).unwrap_or(0);
    let interp: u64 = bprm.read(offset!(bprm_interp)).unwrap_or(0);
    if filename != interp {
        return 0;
    }
    let key = Kptr::current().0;
    let kept = match bprm.follow(offset!(bprm_file)).and_then(facts_of) {
        Some(facts) => SCRIPTS.insert(key, &facts, 0).is_ok(),
        None => false,
    };
    if !kept {
        let _ = SCRIPTS.remove(key);
    }
    0
}

#[inline(always)]
fn is_settled(file: &FileState) -> bool {
    // SAFETY: the value is one aligned word.
    let offset = CLOCK.get_ptr(0).map_or(0, |offset| unsafe { *offset });
    if offset == 0 || file.ctime_sec < 0 {
        return false;
    }
    // SAFETY: takes no argument.
    let now = unsafe { bpf_ktime_get_boot_ns() }.wrapping_add(offset);
    let changed = (file.ctime_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(u64::from(file.ctime_nsec));
    now > changed && now - changed > SETTLED_NS
}

//! When are two sights of one inode state sights of one content?
//!
//! An exec was seen with the inode in state K ([`FileState`]: device, inode,
//! generation, size, mtime, ctime); later the file is read and is in state K
//! again. The hash of what was read is the hash of what ran only if no write
//! can have come between without changing K.
//!
//! Every write changes ctime, before it changes data, to the time of the write
//! (`file_update_time`, called by every file system's write path and, for a
//! shared mapping, by the first store to a page, `page_mkwrite`). Nobody but
//! the kernel sets it. And at an exec no writer exists: the kernel refuses to
//! run a file that is open or mapped for writing (`deny_write_access`,
//! ETXTBSY), so that every write after the exec starts with a new ctime. What
//! remains is the clock: ctime comes from the kernel's coarse clock, which
//! advances once a tick (`clock_getres(CLOCK_REALTIME_COARSE)`, 4 ms at
//! HZ=250). A write in the same tick as the last change leaves ctime as it was.
//!
//! So let *stable* be the time from which a write certainly gets another ctime
//! than K's: ctime, plus one tick of the coarser of clock and file system, plus
//! [`MARGIN_NS`] for a coarse clock that lags (a virtual CPU that was not
//! scheduled to advance it).
//!
//! 1. A read counts only if it starts at *stable* or later and finds K before
//!    and after.
//! 2. The exec is settled, that is: what such a read finds is what ran, if
//!    - it came at *stable* or later; or
//!    - the flag `CTIME_QUERIED` was up at exec: with multigrain timestamps
//!      the next write gets a ctime of its own even within the tick
//!      (<https://docs.kernel.org/filesystems/multigrain-ts.html>); or
//!    - the image was still alive at *stable*: a running executable cannot be
//!      written ([`Rules::write_denied`]), so no write fell into the tick.
//! 3. Else the hash is `none`, unsettled.
//!
//! An image that was found running (snapshot) ran its file for an unknown time
//! before state K was seen. It is settled if its *process* started at *stable*
//! or later, or if it was alive at *stable*, for it has denied writes
//! since its exec, before the look and after.
//!
//! A hash found under K for one settled exec holds for every other settled
//! exec of K, earlier or later, so the cache keeps settled ones only. (A read
//! that no settled exec stands behind proves less: a writer with a mapping
//! already dirtied may store again without a new ctime.)
//!
//! Being alive proves nothing on overlayfs, where the lower or upper file can
//! be written past the overlay's inode, nor on kernels that do not refuse
//! writes to running executables (6.11 to 6.12.1:
//! <https://git.kernel.org/torvalds/c/3b832035387f>).
//!
//! Exec times are of the boot clock, ctimes of the wall clock. Their distance
//! is sampled when a request arrives and again when it is judged, and the
//! lesser is used, so that a step of the wall clock in between makes an exec
//! look older than it was, never younger. Whoever may set the clock, write to
//! the block device or patch the kernel is outside of this proof.

use procid_common::image::{FileState, flags};
use rustix::time::{ClockId, clock_getres, clock_gettime};

use super::Request;

/// Added to a tick: how far the coarse clock is allowed to lag.
pub const MARGIN_NS: i64 = 10_000_000;

/// Time stamps of a file system that keeps less than nanoseconds: FAT counts
/// in 2 s, ext4 with small inodes in 1 s, exFAT in 10 ms.
const COARSE_FS_NS: i64 = 2_000_000_000;
const COARSE_FS_STEP_NS: u32 = 10_000_000;

/// What holds on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Resolution of the coarse clock, nanoseconds.
    pub tick_ns: i64,
    /// Whether this kernel refuses to open a running executable for writing.
    pub write_denied: bool,
}

/// What is known of the content that an exec saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What a read at *stable* or later finds is what ran.
    Settled,
    /// It is so if the image lives at this time, nanoseconds since boot.
    IfAliveAt(u64),
    /// It can never be told.
    Unsettled,
}

impl Rules {
    /// Asks this host.
    pub fn of_this_host() -> Self {
        let tick = clock_getres(ClockId::RealtimeCoarse);
        Self {
            tick_ns: nanoseconds(tick.tv_sec, tick.tv_nsec),
            write_denied: writes_to_executables_are_denied(),
        }
    }

    /// The time from which on a write gets another ctime than `file` has:
    /// nanoseconds since the epoch.
    pub fn stable_ns(&self, file: &FileState) -> i64 {
        let of_fs = if file.ctime_nsec.is_multiple_of(COARSE_FS_STEP_NS) {
            COARSE_FS_NS
        } else {
            0
        };
        nanoseconds(file.ctime_sec, i64::from(file.ctime_nsec))
            .saturating_add(self.tick_ns.max(of_fs))
            .saturating_add(MARGIN_NS)
    }

    /// The earliest time, in nanoseconds since boot, at which a read may start.
    pub fn read_from_ns(&self, request: &Request, offset: Offset) -> u64 {
        if request.flags & flags::CTIME_QUERIED != 0 {
            return 0;
        }
        offset.to_boot(self.stable_ns(&request.file))
    }

    /// Judges one exec; `offset` is the least seen since it was told of.
    pub fn judge(&self, request: &Request, offset: Offset) -> Standing {
        let ran_since = if request.snapshot {
            request.id.start_boottime
        } else {
            request.exec_ns
        };
        let queried = request.flags & flags::CTIME_QUERIED != 0;
        if queried && !request.snapshot {
            return Standing::Settled;
        }
        let stable = self.stable_ns(&request.file);
        if offset.to_real(ran_since) >= stable {
            return Standing::Settled;
        }
        if !self.write_denied || request.flags & flags::OVERLAY != 0 {
            return Standing::Unsettled;
        }
        Standing::IfAliveAt(offset.to_boot(stable).max(request.exec_ns))
    }
}

/// Wall clock less boot clock, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(pub i64);

impl Offset {
    /// The distance now. The wall clock is read first: being interrupted between
    /// the two makes the distance smaller, which is the safe side.
    pub fn now() -> Self {
        let real = clock_gettime(ClockId::Realtime);
        let boot = i64::try_from(boot_now_ns()).unwrap_or(i64::MAX);
        Self(nanoseconds(real.tv_sec, real.tv_nsec).saturating_sub(boot))
    }

    pub const fn to_real(self, boot_ns: u64) -> i64 {
        self.0.saturating_add_unsigned(boot_ns)
    }

    /// A wall clock time before the boot becomes 0.
    pub const fn to_boot(self, real_ns: i64) -> u64 {
        let boot = real_ns.saturating_sub(self.0);
        if boot < 0 { 0 } else { boot.unsigned_abs() }
    }
}

/// Nanoseconds since boot, suspend included: the clock of the kernel's events.
pub fn boot_now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(nanoseconds(now.tv_sec, now.tv_nsec)).unwrap_or(0)
}

const fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// Tries to open this program's own file for writing (and writes nothing).
/// Any answer but ETXTBSY (a read-only file system, no permission) leaves it
/// unknown, which counts as no.
fn writes_to_executables_are_denied() -> bool {
    use rustix::fs::{Mode, OFlags, open};

    let write = OFlags::WRONLY | OFlags::CLOEXEC;
    matches!(
        open("/proc/self/exe", write, Mode::empty()),
        Err(rustix::io::Errno::TXTBSY)
    )
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;

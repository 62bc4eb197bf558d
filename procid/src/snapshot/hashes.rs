//! SHA-256 of the files that processes run, as /proc leads to them.

use std::{
    collections::HashMap, fmt, os::fd::AsFd, sync::atomic::AtomicBool, thread, time::Duration,
};

use procid_common::image::{FileState, ImageId};
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    param::clock_ticks_per_second,
};

use super::holders::{Holder, start_ticks};
use crate::identity::{
    hash::{
        FileHash, Grade, Inspect, Missing, Request,
        open::{is_running, is_untrusted},
        pool::Config,
        read::{self, sha256},
        settle::{Offset, Rules, Standing, boot_now_ns},
        statx::Statx,
    },
    quiet,
};

/// Longest that one file is waited for until its ctime is stable.
const WAIT_MAX_NS: u64 = 3_000_000_000;

/// The file a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executable {
    /// Its inode, as stat(2) tells it; `None` where it cannot be looked at.
    pub file: Option<FileState>,
    pub hash: FileHash,
}

/// Hashes what holders run; each inode state once.
///
/// The exec was not seen. What is read now is what runs because a running
/// executable cannot be written, or because its inode has not changed since the
/// process started (see [`crate::identity::hash::settle`]); and it is what
/// *this* process runs because the process is asked again after the read.
pub struct Hasher {
    rules: Rules,
    known: HashMap<FileState, [u8; 32]>,
    buffer: Vec<u8>,
}

impl Hasher {
    pub fn new() -> Self {
        Self {
            rules: Rules::of_this_host(),
            known: HashMap::new(),
            buffer: vec![0; read::CHUNK],
        }
    }

    pub fn executable(&mut self, holder: &Holder) -> Executable {
        let mut executable = Executable {
            file: None,
            hash: FileHash::None(Missing::Unreadable),
        };
        executable.hash = match self.hash(holder, &mut executable.file) {
            Ok(sha256) => FileHash::Known {
                sha256,
                grade: Grade::Verified,
            },
            Err(missing) => FileHash::None(missing),
        };
        executable
    }

    fn hash(&mut self, holder: &Holder, seen: &mut Option<FileState>) -> Result<[u8; 32], Missing> {
        let link = format!("/proc/{}/exe", holder.pid);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = open(link, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::SRCH => Missing::Gone,
            _ => Missing::Unreadable,
        })?;
        if quiet::is_foreign(&fd, holder.pid) {
            return Err(Missing::UntrustedFs);
        }
        let now = Statx.inspect(fd.as_fd()).map_err(|_| Missing::Unreadable)?;
        *seen = Some(now.file);
        if is_untrusted(now.fs_magic) {
            return Err(Missing::UntrustedFs);
        }
        if now.file.size > Config::default().size_max {
            return Err(Missing::TooLarge);
        }
        let request = Request {
            id: ImageId {
                start_boottime: start_ns(holder),
                tgid: holder.pid,
                ..ImageId::UNKNOWN
            },
            file: now.file,
            fs_magic: now.fs_magic,
            flags: now.flags,
            path: None,
            mntns: 0,
            exec_ns: boot_now_ns(),
            snapshot: true,
        };
        let offset = Offset::now();
        let read_from_ns = match self.rules.judge(&request, offset) {
            Standing::Settled => self.rules.read_from_ns(&request, offset),
            Standing::IfAliveAt(at_ns) => at_ns,
            Standing::Unsettled => return Err(Missing::Unsettled),
        };
        wait_until(read_from_ns)?;
        let sha256 = match self.known.get(&now.file) {
            Some(sha256) => *sha256,
            None => sha256(
                &Statx,
                &fd,
                &now.file,
                &mut self.buffer,
                &AtomicBool::new(false),
            )?,
        };
        if !is_running(&Statx, &request) || start_ticks(holder.pid) != Some(holder.start_ticks) {
            return Err(Missing::Gone);
        }
        self.known.insert(now.file, sha256);
        Ok(sha256)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("rules", &self.rules)
            .field("known", &self.known.len())
            .finish_non_exhaustive()
    }
}

/// Start of a process, nanoseconds since boot, rounded down to a clock tick.
pub(super) fn start_ns(holder: &Holder) -> u64 {
    let tick_ns = 1_000_000_000 / clock_ticks_per_second().max(1);
    holder.start_ticks.saturating_mul(tick_ns)
}

fn wait_until(boot_ns: u64) -> Result<(), Missing> {
    let wait_ns = boot_ns.saturating_sub(boot_now_ns());
    if wait_ns > WAIT_MAX_NS {
        return Err(Missing::Unsettled);
    }
    thread::sleep(Duration::from_nanos(wait_ns));
    Ok(())
}

//! An open file, hashed, its state checked before and after.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use procid_common::image::FileState;
use rustix::fs::{Advice, Mode, OFlags, fadvise, open};
use sha2::{Digest, Sha256};

use super::{Inspect, Missing};

/// Bytes read at once; each thread has one buffer of this size and no more.
pub const CHUNK: usize = 256 << 10;

/// SHA-256 of the file behind an `O_PATH` descriptor, which must be in the
/// state `file` after the read as it was before.
///
/// # Errors
///
/// Changed, unreadable; pending when `stop` was raised.
pub fn sha256(
    inspector: &dyn Inspect,
    path_fd: &OwnedFd,
    file: &FileState,
    buffer: &mut [u8],
    stop: &AtomicBool,
) -> Result<[u8; 32], Missing> {
    // NONBLOCK: a lease held on the file fails the open instead of blocking it.
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let link = format!("/proc/self/fd/{}", path_fd.as_raw_fd());
    let fd = open(link, flags, Mode::empty()).map_err(|_| Missing::Unreadable)?;
    // Only speed hangs on it.
    let _ = fadvise(&fd, 0, None, Advice::Sequential);

    let mut reader = File::from(fd);
    let mut hasher = Sha256::new();
    let mut total = 0_u64;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Missing::Pending);
        }
        match reader.read(buffer) {
            Ok(0) => break,
            Ok(len) => {
                total += len as u64;
                hasher.update(&buffer[..len]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Err(Missing::Unreadable),
        }
        if total > file.size {
            return Err(Missing::Changed);
        }
    }
    let after = inspector
        .inspect(reader.as_fd())
        .map_err(|_| Missing::Unreadable)?;
    if total != file.size || after.file != *file {
        return Err(Missing::Changed);
    }
    Ok(hasher.finalize().into())
}

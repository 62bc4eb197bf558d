//! The thread that finds scripts and hashes them.
//!
//! A script's name is anybody's, and what it leads through may answer late. So
//! scripts have a thread of their own, and no executable waits for it.
//!
//! Grades:
//! - `verified`: the LSM hook saw the inode that execve(2) was given, and the
//!   file found is that inode, in that state, before and after the read.
//! - `named`: nobody saw what the interpreter read. It is the file that the
//!   name led to when it was looked for, and that file has not changed since
//!   before the exec. A directory or a link on the way may have.
//!
//! Both want the exec to lie past the file's *stable* time (see
//! [`settle`](crate::identity::hash::settle)): a script, unlike a running
//! executable, can be written while it runs.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::AtomicBool,
        mpsc::{Receiver, Sender, SyncSender, sync_channel},
    },
    thread,
};

use procid_common::image::{FileState, ImageId, flags};
use rustix::fs::{FileType, fstat};

use super::{Found, Request, find};
use crate::identity::hash::{
    FileHash, Grade, Inspect, Inspected, Missing,
    cache::Cache,
    handle,
    open::is_untrusted,
    read::{self, sha256},
    settle::{Offset, Rules},
};

/// Most scripts that wait.
const QUEUE_MAX: usize = 4096;
/// Bytes of the largest script that is read.
const SIZE_MAX: u64 = 64 << 20;
/// File systems without content of their own, whose reads may block or act:
/// proc, sysfs, tracefs, debugfs, securityfs, configfs, cgroup, cgroup2, bpf.
const PSEUDO_FS: [u32; 9] = [
    0x9fa0,
    0x6265_6572,
    0x7472_6163,
    0x6462_6720,
    0x7363_6673,
    0x6265_6570,
    0x0027_e0eb,
    0x6367_7270,
    0xcafe_4a11,
];

/// Finds and hashes scripts. Dropping it lets its thread end in its own time.
#[derive(Debug)]
pub struct Reader(SyncSender<(Request, Offset)>);

impl Reader {
    /// Starts the thread; the ids of images whose script is settled come by
    /// the channel.
    pub fn new(inspector: Arc<dyn Inspect>, settled: Sender<ImageId>) -> Self {
        let (sender, requests) = sync_channel(QUEUE_MAX);
        let worker = Worker {
            inspector,
            rules: Rules::of_this_host(),
            cache: Cache::default(),
            buffer: Vec::new(),
        };
        if let Err(error) = thread::Builder::new()
            .name("procid-script".to_owned())
            .spawn(move || worker.work(&requests, &settled))
        {
            tracing::error!(%error, "no thread for scripts");
        }
        Self(sender)
    }

    /// Asks for a script. One too many stays unknown, for the reason pending.
    pub fn submit(&self, request: Request) {
        let script = Arc::clone(&request.script);
        if self.0.try_send((request, Offset::now())).is_err() {
            script.settle(Found::nothing(Missing::Pending));
        }
    }
}

struct Worker {
    inspector: Arc<dyn Inspect>,
    rules: Rules,
    /// Only of files read when their state was stable.
    cache: Cache,
    buffer: Vec<u8>,
}

impl Worker {
    fn work(mut self, requests: &Receiver<(Request, Offset)>, settled: &Sender<ImageId>) {
        while let Ok((request, offset)) = requests.recv() {
            let found = self.look(&request, offset).unwrap_or_else(Found::nothing);
            request.script.settle(found);
            if settled.send(request.place.id).is_err() {
                return;
            }
        }
    }

    /// Finds the file; fails where there is none to tell of.
    fn look(&mut self, request: &Request, offset: Offset) -> Result<Found, Missing> {
        let (fd, now) = self.open(request)?;
        let hash = self
            .hash(request, offset, &fd, &now)
            .unwrap_or_else(FileHash::None);
        Ok(Found {
            file: Some(now.file),
            hash,
        })
    }

    fn open(&self, request: &Request) -> Result<(OwnedFd, Inspected), Missing> {
        let inspect = |fd: OwnedFd| {
            let now = self.inspector.inspect(fd.as_fd());
            now.map(|now| (fd, now)).map_err(|_| Missing::Unreadable)
        };
        let named = find::open(&*self.inspector, request).and_then(inspect);
        let Some(seen) = &request.place.seen else {
            return named;
        };
        if let Ok((_, now)) = &named
            && is_inode(&now.file, &seen.file)
        {
            return named;
        }
        let by_number = handle::open_inode(&seen.file, seen.fs_magic).map_err(|_| Missing::Gone)?;
        let (fd, now) = inspect(by_number)?;
        if is_inode(&now.file, &seen.file) {
            Ok((fd, now))
        } else {
            Err(Missing::Gone)
        }
    }

    fn hash(
        &mut self,
        request: &Request,
        offset: Offset,
        fd: &OwnedFd,
        now: &Inspected,
    ) -> Result<FileHash, Missing> {
        if is_untrusted(now.fs_magic) {
            return Err(Missing::UntrustedFs);
        }
        if PSEUDO_FS.contains(&now.fs_magic) || !is_regular(fd) {
            return Err(Missing::Unreadable);
        }
        if now.file.size > SIZE_MAX {
            return Err(Missing::TooLarge);
        }
        let grade = self.grade(request, offset.min(Offset::now()), now)?;
        let sha256 = self.read(fd, &now.file)?;
        Ok(FileHash::Known { sha256, grade })
    }

    /// The grade that a read of this file earns, should it find the file in
    /// the same state afterwards.
    fn grade(&self, request: &Request, offset: Offset, now: &Inspected) -> Result<Grade, Missing> {
        let place = &request.place;
        let from = offset.to_real(place.from_ns);
        let stable = self.rules.stable_ns(&now.file);
        match &place.seen {
            Some(seen) if seen.file != now.file => Err(Missing::Changed),
            Some(seen) if seen.flags & flags::CTIME_QUERIED != 0 => Ok(Grade::Verified),
            Some(_) if from >= stable => Ok(Grade::Verified),
            None if from >= stable => Ok(Grade::Named),
            _ if from < ctime_ns(&now.file) => Err(Missing::Changed),
            _ => Err(Missing::Unsettled),
        }
    }

    fn read(&mut self, fd: &OwnedFd, file: &FileState) -> Result<[u8; 32], Missing> {
        if let Some(sha256) = self.cache.get(file) {
            return Ok(sha256);
        }
        self.buffer.resize(read::CHUNK, 0);
        let stop = AtomicBool::new(false);
        let sha256 = sha256(&*self.inspector, fd, file, &mut self.buffer, &stop)?;
        self.cache.put(*file, sha256);
        Ok(sha256)
    }
}

fn is_inode(a: &FileState, b: &FileState) -> bool {
    (a.dev, a.ino, a.generation) == (b.dev, b.ino, b.generation)
}

fn is_regular(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
}

fn ctime_ns(file: &FileState) -> i64 {
    file.ctime_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(file.ctime_nsec))
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;

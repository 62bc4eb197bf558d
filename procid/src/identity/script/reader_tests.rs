//! Real files and processes; the state of an inode comes from statx here, from
//! the kernel side's iterator in the agent.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
    process::{Child, Command},
    sync::{OnceLock, mpsc},
    time::Duration,
};

use procid_common::image::Directory;
use rustix::fs::{CWD, Mode, OFlags, mknodat, open};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::identity::{
    hash::{settle::boot_now_ns, statx::Statx},
    script::{Place, Script},
};

const SETTLING: Duration = Duration::from_millis(60);
const CONTENT: &[u8] = b"echo\n";

fn state(path: &Path) -> Inspected {
    let fd = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("a file");
    Statx.inspect(fd.as_fd()).expect("a state")
}

fn directory(path: &Path) -> Directory {
    let FileState { ino, dev, .. } = state(path).file;
    Directory {
        ino,
        dev,
        generation: 0,
    }
}

/// A child that sleeps in a directory, killed when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn inside(cwd: &Path) -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("1000").current_dir(cwd).spawn().expect("sleep"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may have been ended by the test.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn place(tgid: u32, cwd: &Path) -> Place {
    let mntns = rustix::fs::stat("/proc/self/ns/mnt").expect("a namespace");
    Place {
        id: ImageId {
            start_boottime: 1,
            self_exec_id: 1,
            tgid,
            reserved: 0,
        },
        root: directory(Path::new("/")),
        cwd: directory(cwd),
        mntns: u32::try_from(mntns.st_ino).expect("small"),
        seen: None,
        from_ns: boot_now_ns(),
    }
}

fn ask(path: impl AsRef<Path>, place: Place) -> Found {
    let script = Arc::new(Script {
        path: path.as_ref().as_os_str().as_bytes().to_vec(),
        found: OnceLock::new(),
    });
    let (sender, settled) = mpsc::channel();
    let reader = Reader::new(Arc::new(Statx), sender);
    reader.submit(Request {
        script: Arc::clone(&script),
        place,
    });
    let id = settled.recv_timeout(Duration::from_secs(10));
    assert_eq!(id.expect("an answer"), place.id);
    script.found()
}

fn known(grade: Grade) -> FileHash {
    FileHash::Known {
        sha256: Sha256::digest(CONTENT).into(),
        grade,
    }
}

/// A directory with `x.sh` in it, left alone long enough.
fn bench() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("x.sh"), CONTENT).expect("written");
    thread::sleep(SETTLING);
    dir
}

#[test]
fn names_lead_from_the_process_to_its_script() {
    let dir = bench();
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).expect("a directory");
    symlink(dir.path().join("x.sh"), inner.join("absolute")).expect("a link");
    symlink("../x.sh", inner.join("relative")).expect("a link");
    let process = Sleeper::inside(&inner);
    let place = place(process.0.id(), &inner);
    let absolute = dir.path().join("x.sh");
    for name in [
        absolute.as_path(),
        Path::new("../x.sh"),
        Path::new("absolute"),
        Path::new("relative"),
        Path::new("./../inner//relative"),
    ] {
        let found = ask(name, place);
        assert_eq!(found.hash, known(Grade::Named), "{}", name.display());
        assert_eq!(found.file, Some(state(&absolute).file));
    }
}

#[test]
fn an_absolute_name_is_found_after_the_process_has_ended() {
    let dir = bench();
    let gone = place(u32::MAX, dir.path());
    let found = ask(dir.path().join("x.sh"), gone);
    assert_eq!(found.hash, known(Grade::Named));
    let elsewhere = Place { mntns: 1, ..gone };
    for path in [dir.path().join("x.sh"), "x.sh".into()] {
        assert_eq!(ask(path, elsewhere), Found::nothing(Missing::Gone));
    }
}

#[test]
fn a_process_that_went_elsewhere_misleads_nobody() {
    let dir = bench();
    let other = bench();
    let process = Sleeper::inside(other.path());
    let place = place(process.0.id(), dir.path());
    // Found by the number of the directory, where its file system has such.
    let found = ask("x.sh", place);
    if found != Found::nothing(Missing::Gone) {
        assert_eq!(found.file, Some(state(&dir.path().join("x.sh")).file));
    }
    let unknown = Place {
        cwd: Directory::default(),
        ..place
    };
    assert_eq!(ask("x.sh", unknown), Found::nothing(Missing::Gone));
}

#[test]
fn a_script_changed_since_is_not_claimed() {
    let dir = bench();
    let path = dir.path().join("x.sh");
    let place = place(u32::MAX, dir.path());
    thread::sleep(SETTLING);
    fs::write(&path, "other\n").expect("written");
    assert_eq!(ask(&path, place).hash, FileHash::None(Missing::Changed));
    fs::remove_file(&path).expect("removed");
    assert_eq!(ask(&path, place), Found::nothing(Missing::Gone));
}

#[test]
fn a_script_of_the_same_moment_is_unsettled() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("x.sh");
    fs::write(&path, CONTENT).expect("written");
    let mut place = place(u32::MAX, dir.path());
    let offset = Offset::now();
    place.from_ns = offset.to_boot(ctime_ns(&state(&path).file) + 1_000_000);
    assert_eq!(ask(&path, place).hash, FileHash::None(Missing::Unsettled));
}

#[test]
fn the_inode_that_the_kernel_saw_is_verified() {
    let dir = bench();
    let path = dir.path().join("x.sh");
    let mut place = place(u32::MAX, dir.path());
    place.seen = Some(state(&path));
    assert_eq!(ask(&path, place).hash, known(Grade::Verified));
    fs::write(&path, CONTENT).expect("written");
    assert_eq!(ask(&path, place).hash, FileHash::None(Missing::Changed));
    let new = dir.path().join("new");
    fs::write(&new, CONTENT).expect("written");
    fs::rename(&new, &path).expect("renamed");
    assert_eq!(ask(&path, place).hash, FileHash::None(Missing::Gone));
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let dir = bench();
    let fifo = dir.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).expect("a FIFO");
    thread::sleep(SETTLING);
    let place = place(std::process::id(), dir.path());
    for path in [fifo.as_path(), dir.path(), Path::new("/dev/zero")] {
        let hash = ask(path, place).hash;
        assert_eq!(hash, FileHash::None(Missing::Unreadable), "{path:?}");
    }
    let hash = ask("/proc/sys/kernel/ostype", place).hash;
    assert_eq!(hash, FileHash::None(Missing::Unreadable));
    // The agent's own, were it not for the rule against magic links.
    assert_eq!(ask("/proc/self/exe", place), Found::nothing(Missing::Gone));
}

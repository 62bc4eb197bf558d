use std::{
    fs::{self, File},
    io,
    os::fd::BorrowedFd,
    sync::mpsc::{Receiver, channel},
};

use super::*;
use crate::identity::hash::statx::Statx;
use sha2::{Digest as _, Sha256};

const LIMIT: Duration = Duration::from_secs(20);

/// What a pool did, in order.
#[derive(Debug, PartialEq, Eq)]
enum Did {
    Published([u8; 32]),
    Allowed(u64),
}

struct Setting {
    pool: Pool,
    did: Receiver<Did>,
    directory: tempfile::TempDir,
}

impl Setting {
    fn new(inspect: impl Inspect + 'static, patience: Duration) -> Self {
        let (sender, did) = channel();
        let published = sender.clone();
        let bounds = Bounds {
            threads: 2,
            patience,
            size_max: 1 << 20,
        };
        let pool = Pool::new(
            bounds,
            Arc::new(inspect),
            Box::new(move |_, sha256, _| published.send(Did::Published(*sha256)).unwrap()),
            Box::new(move |number| sender.send(Did::Allowed(number)).unwrap()),
        );
        Self {
            pool: pool.unwrap(),
            did,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn write(&self, content: &[u8]) -> std::path::PathBuf {
        let path = self.directory.path().join("file");
        fs::write(&path, content).unwrap();
        path
    }

    fn take(&self, number: u64, path: &std::path::Path) {
        let file = File::open(path).unwrap();
        self.pool.intake().take(number, file.into());
    }

    fn next(&self) -> Did {
        self.did.recv_timeout(LIMIT).unwrap()
    }

    fn tally(&self) -> [u64; 4] {
        let tally = self.pool.tally();
        [
            &tally.hashed,
            &tally.cached,
            &tally.skipped,
            &tally.unproven,
        ]
        .map(|counter| counter.load(Ordering::Relaxed))
    }
}

fn sha256_of(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

#[test]
fn a_hash_is_published_before_the_execution_goes_on_and_again_each_time() {
    let setting = Setting::new(Statx, LIMIT);
    let path = setting.write(b"one");
    for number in [1, 2] {
        setting.take(number, &path);
        assert_eq!(setting.next(), Did::Published(sha256_of(b"one")));
        assert_eq!(setting.next(), Did::Allowed(number));
    }
    assert_eq!(setting.tally(), [1, 1, 0, 0]);
    setting.write(b"two");
    setting.take(3, &path);
    assert_eq!(setting.next(), Did::Published(sha256_of(b"two")));
    assert_eq!(setting.next(), Did::Allowed(3));
}

/// A read that starts before that could miss a write that leaves no trace.
#[test]
fn no_read_starts_before_the_ctime_is_stable() {
    let setting = Setting::new(Statx, LIMIT);
    let path = setting.write(b"fresh");
    let state = Statx.inspect(File::open(&path).unwrap().as_fd()).unwrap();
    setting.take(1, &path);
    assert_eq!(setting.next(), Did::Published(sha256_of(b"fresh")));
    let stable = Rules::of_this_host().stable_ns(&state.file);
    assert!(Offset::now().to_real(boot_now_ns()) >= stable);
}

#[test]
fn executions_of_one_state_share_one_read() {
    let setting = Setting::new(Statx, LIMIT);
    let path = setting.write(b"shared");
    (1..=16).for_each(|number| setting.take(number, &path));
    let mut allowed = Vec::new();
    while allowed.len() < 16 {
        match setting.next() {
            Did::Published(sha256) => assert_eq!(sha256, sha256_of(b"shared")),
            Did::Allowed(number) => allowed.push(number),
        }
    }
    allowed.sort_unstable();
    assert_eq!(allowed, (1..=16).collect::<Vec<_>>());
    assert_eq!(setting.tally()[0], 1);
}

#[test]
fn a_file_with_a_writer_waits_for_it_to_close() {
    let setting = Setting::new(Statx, LIMIT);
    let path = setting.write(b"written");
    let writer = File::options().append(true).open(&path).unwrap();
    setting.take(1, &path);
    assert!(
        setting
            .did
            .recv_timeout(Duration::from_millis(100))
            .is_err()
    );
    drop(writer);
    assert_eq!(setting.next(), Did::Published(sha256_of(b"written")));
    assert_eq!(setting.next(), Did::Allowed(1));
}

#[test]
fn a_writer_that_stays_leaves_the_file_without_a_hash() {
    let setting = Setting::new(Statx, Duration::from_millis(100));
    let path = setting.write(b"written");
    let writer = File::options().append(true).open(&path).unwrap();
    setting.take(1, &path);
    assert_eq!(setting.next(), Did::Allowed(1));
    assert_eq!(setting.tally(), [0, 0, 0, 1]);
    drop(writer);
}

#[test]
fn a_large_file_is_not_read() {
    let setting = Setting::new(Statx, LIMIT);
    let path = setting.write(b"");
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(10 << 30)
        .unwrap();
    setting.take(1, &path);
    assert_eq!(setting.next(), Did::Allowed(1));
    assert_eq!(setting.tally(), [0, 0, 1, 0]);
}

/// Tells another state at each look.
struct Restless(AtomicU64);

impl Inspect for Restless {
    fn inspect(&self, fd: BorrowedFd<'_>) -> io::Result<Inspected> {
        let mut seen = Statx.inspect(fd)?;
        seen.file.mtime_sec += self.0.fetch_add(1, Ordering::Relaxed).cast_signed();
        Ok(seen)
    }
}

#[test]
fn what_changes_while_it_is_read_has_no_hash() {
    let setting = Setting::new(Restless(AtomicU64::new(0)), LIMIT);
    let path = setting.write(b"changing");
    setting.take(1, &path);
    assert_eq!(setting.next(), Did::Allowed(1));
    assert_eq!(setting.tally(), [0, 0, 0, 1]);
}

/// On a file system of an untrusted kind.
struct Foreign;

impl Inspect for Foreign {
    fn inspect(&self, fd: BorrowedFd<'_>) -> io::Result<Inspected> {
        let fs_magic = 0x6573_5546;
        Ok(Inspected {
            fs_magic,
            ..Statx.inspect(fd)?
        })
    }
}

#[test]
fn an_untrusted_file_system_is_not_read() {
    let setting = Setting::new(Foreign, LIMIT);
    setting.take(1, &setting.write(b"foreign"));
    assert_eq!(setting.next(), Did::Allowed(1));
    assert_eq!(setting.tally(), [0, 0, 1, 0]);
}

/// A ctime far in the future, of a clock that was set back: nobody waits for it.
struct Ahead;

impl Inspect for Ahead {
    fn inspect(&self, fd: BorrowedFd<'_>) -> io::Result<Inspected> {
        let mut seen = Statx.inspect(fd)?;
        seen.file.ctime_sec += 3600;
        Ok(seen)
    }
}

#[test]
fn a_ctime_in_the_future_is_not_waited_for() {
    let setting = Setting::new(Ahead, Duration::from_millis(200));
    setting.take(1, &setting.write(b"tomorrow"));
    let start = Instant::now();
    assert_eq!(setting.next(), Did::Allowed(1));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(setting.tally(), [0, 0, 0, 1]);
}

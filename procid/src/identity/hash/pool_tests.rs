//! Real files and processes; the state of an inode comes from statx here, from
//! the kernel side's iterator in the agent.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::Instant,
};

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, mknodat, utimensat};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::identity::hash::statx::Statx;

struct Bench {
    dir: TempDir,
    pool: Pool,
    answers: Receiver<Answer>,
}

impl Bench {
    fn new() -> Self {
        Self::with_config(Config::default())
    }

    fn with_config(config: Config) -> Self {
        let (sender, answers) = mpsc::channel();
        Self {
            dir: tempfile::tempdir().expect("a scratch directory"),
            pool: Pool::with_config(Arc::new(Statx), config, sender),
            answers,
        }
    }

    /// A copy of sleep(1), with `note` appended to tell it from others.
    fn program(&self, name: &str, note: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let mut content = fs::read("/usr/bin/sleep").expect("sleep(1)");
        content.extend_from_slice(note.as_bytes());
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        path
    }

    /// The same, of an age at which its ctime is stable.
    fn settled_program(&self, name: &str, note: &str) -> PathBuf {
        let path = self.program(name, note);
        thread::sleep(Duration::from_millis(40));
        path
    }

    fn ask(&self, request: Request) -> FileHash {
        let id = request.id;
        self.pool.submit(request);
        self.answer(id)
    }

    fn answer(&self, id: ImageId) -> FileHash {
        let answer = self
            .answers
            .recv_timeout(Duration::from_secs(10))
            .expect("an answer");
        assert_eq!(answer.id, id);
        answer.hash
    }
}

/// A child that sleeps, killed when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn start(path: &Path) -> Self {
        // Another test's fork may hold this file open for writing for a moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match Command::new(path).arg("1000").stdin(Stdio::null()).spawn() {
                Ok(child) => return Self(child),
                Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {
                    assert!(Instant::now() < deadline, "{error}");
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    fn request(&self, path: &Path) -> Request {
        request(self.0.id(), path)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn own_mntns() -> u32 {
    let stat = rustix::fs::stat("/proc/self/ns/mnt").expect("/proc");
    u32::try_from(stat.st_ino).expect("32 bits")
}

fn state_of(path: &Path) -> FileState {
    let fd = rustix::fs::open(path, rustix::fs::OFlags::PATH, Mode::empty()).expect("open");
    Statx.inspect(fd.as_fd()).expect("statx").file
}

/// What the exec of `path` by `tgid` would ask, were it executed now.
fn request(tgid: u32, path: &Path) -> Request {
    Request {
        id: ImageId {
            start_boottime: boot_now_ns(),
            self_exec_id: 1,
            tgid,
            reserved: 0,
        },
        file: state_of(path),
        // One whose inodes have no handles: those have tests of their own.
        fs_magic: 0,
        flags: 0,
        path: Some(path.as_os_str().as_bytes().into()),
        mntns: own_mntns(),
        exec_ns: boot_now_ns(),
        snapshot: false,
    }
}

/// A pid that no process has.
const NOBODY: u32 = 0x7fff_fff0;

fn known(content: &[u8]) -> FileHash {
    verified(Sha256::digest(content).into())
}

fn none(missing: Missing) -> FileHash {
    FileHash::None(missing)
}

#[test]
fn a_running_image_is_hashed_and_then_remembered() {
    let bench = Bench::new();
    let path = bench.settled_program("a", "1");
    let expected = known(&fs::read(&path).expect("read"));
    let sleeper = Sleeper::start(&path);
    let request = sleeper.request(&path);
    assert_eq!(bench.pool.lookup(&request), None);
    assert_eq!(bench.ask(request.clone()), expected);
    drop(sleeper);
    fs::remove_file(&path).expect("removed");
    assert_eq!(bench.pool.lookup(&request), Some(expected));
    assert_eq!(bench.pool.queue_len(), 0);
}

#[test]
fn an_image_that_is_gone_is_hashed_by_its_path() {
    let bench = Bench::new();
    let path = bench.settled_program("a", "1");
    let expected = known(&fs::read(&path).expect("read"));
    assert_eq!(bench.ask(request(NOBODY, &path)), expected);
}

#[test]
fn a_pid_that_runs_another_file_is_passed_over() {
    let bench = Bench::new();
    let (ran, other) = (bench.program("a", "1"), bench.settled_program("b", "2"));
    let expected = known(&fs::read(&ran).expect("read"));
    let sleeper = Sleeper::start(&other);
    assert_eq!(bench.ask(request(sleeper.0.id(), &ran)), expected);
}

#[test]
fn a_deleted_file_is_gone_with_its_process() {
    let bench = Bench::new();
    let path = bench.settled_program("a", "1");
    let request = request(NOBODY, &path);
    fs::remove_file(&path).expect("removed");
    assert_eq!(bench.ask(request), none(Missing::Gone));
}

#[test]
fn a_file_renamed_over_is_gone_with_its_process_and_changed_while_it_runs() {
    let bench = Bench::new();
    let path = bench.settled_program("a", "1");
    let sleeper = Sleeper::start(&path);
    let running = sleeper.request(&path);
    let ended = request(NOBODY, &path);
    fs::rename(bench.program("b", "2"), &path).expect("renamed");
    thread::sleep(Duration::from_millis(40));
    assert_eq!(bench.ask(ended), none(Missing::Gone));
    // Losing its name changed the inode's ctime, and a state that is not that
    // of the exec earns no grade.
    assert_eq!(bench.ask(running), none(Missing::Changed));
}

#[test]
fn a_file_without_a_name_is_hashed_while_it_runs() {
    let bench = Bench::new();
    let path = bench.settled_program("a", "1");
    let expected = known(&fs::read(&path).expect("read"));
    let sleeper = Sleeper::start(&path);
    fs::remove_file(&path).expect("removed");
    thread::sleep(Duration::from_millis(40));
    let exe = PathBuf::from(format!("/proc/{}/exe", sleeper.0.id()));
    let mut request = sleeper.request(&exe);
    request.flags = flags::DELETED;
    request.path = Some(path.as_os_str().as_bytes().into());
    assert_eq!(bench.ask(request.clone()), expected);
    // Another file of that name is never even looked at.
    let mut ended = request;
    ended.id.tgid = NOBODY;
    ended.file.ino += 1;
    bench.program("a", "2");
    assert_eq!(bench.ask(ended), none(Missing::Gone));
}

#[test]
fn a_rewrite_with_restored_mtime_is_seen() {
    let bench = Bench::new();
    let path = bench.settled_program("a", "1");
    let request = request(NOBODY, &path);
    let before = request.file;
    bench.program("a", "2");
    let mtime = Timespec {
        tv_sec: before.mtime_sec,
        tv_nsec: i64::from(before.mtime_nsec),
    };
    let times = Timestamps {
        last_access: mtime,
        last_modification: mtime,
    };
    utimensat(CWD, &path, &times, AtFlags::empty()).expect("mtime restored");
    let after = state_of(&path);
    assert_eq!(
        (before.size, before.mtime_sec, before.mtime_nsec, before.ino),
        (after.size, after.mtime_sec, after.mtime_nsec, after.ino)
    );
    assert_eq!(bench.ask(request), none(Missing::Changed));
}

#[test]
fn a_fresh_file_that_ended_at_once_is_unsettled() {
    let bench = Bench::new();
    let path = bench.program("a", "1");
    let request = request(NOBODY, &path);
    let id = request.id;
    bench.pool.submit(request.clone());
    bench.pool.exited(id, request.exec_ns + 1);
    assert_eq!(bench.answer(id), none(Missing::Unsettled));
    // Nor is what was read then kept for others.
    assert_eq!(bench.pool.shared.state().cache.get(&request.file), None);
}

#[test]
fn a_fresh_file_is_settled_by_a_late_end() {
    let bench = Bench::new();
    let path = bench.program("a", "1");
    let expected = known(&fs::read(&path).expect("read"));
    let request = request(NOBODY, &path);
    let id = request.id;
    let ended_ns = request.exec_ns + 1_000_000_000;
    bench.pool.submit(request);
    bench.pool.exited(id, ended_ns);
    assert_eq!(bench.answer(id), expected);
}

#[test]
fn a_fresh_file_is_settled_by_running_on() {
    let bench = Bench::new();
    let path = bench.program("a", "1");
    let expected = known(&fs::read(&path).expect("read"));
    let sleeper = Sleeper::start(&path);
    let mut request = sleeper.request(&path);
    // As if the exec had followed the change within the tick.
    request.exec_ns = 1;
    let id = request.id;
    bench.pool.submit(request);
    assert!(
        bench
            .answers
            .recv_timeout(Duration::from_millis(300))
            .is_err(),
        "its end may not have been told yet"
    );
    assert_eq!(bench.pool.queue_len(), 1);
    bench.pool.caught_up(boot_now_ns());
    assert_eq!(bench.answer(id), expected);
}

#[test]
fn a_found_image_is_verified_as_it_runs() {
    let bench = Bench::new();
    let path = bench.program("a", "1");
    let expected = known(&fs::read(&path).expect("read"));
    let sleeper = Sleeper::start(&path);
    let mut request = sleeper.request(&path);
    request.snapshot = true;
    let id = request.id;
    bench.pool.submit(request);
    thread::sleep(Duration::from_millis(100));
    bench.pool.caught_up(boot_now_ns());
    assert_eq!(bench.answer(id), expected);
}

#[test]
fn what_is_known_without_opening_is_answered_at_once() {
    let bench = Bench::with_config(Config {
        size_max: 10,
        ..Config::default()
    });
    let path = bench.program("a", "1");
    let plain = request(NOBODY, &path);
    let fuse = Request {
        fs_magic: 0x6573_5546,
        ..plain.clone()
    };
    let kernel = Request {
        flags: flags::KTHREAD,
        ..plain.clone()
    };
    for (request, missing) in [
        (plain, Missing::TooLarge),
        (fuse, Missing::UntrustedFs),
        (kernel, Missing::NoFile),
    ] {
        assert_eq!(bench.pool.lookup(&request), Some(none(missing)));
        assert_eq!(bench.ask(request), none(missing));
    }
}

#[test]
fn questions_of_one_state_share_one_read_and_each_gets_its_answer() {
    let bench = Bench::new();
    let path = bench.settled_program("a", "1");
    let expected = known(&fs::read(&path).expect("read"));
    let mut wanted = HashSet::new();
    for number in 0..500 {
        let mut request = request(NOBODY, &path);
        request.id.self_exec_id = number;
        wanted.insert(request.id);
        bench.pool.submit(request.clone());
        bench.pool.submit(request);
    }
    while !wanted.is_empty() {
        let answer = bench
            .answers
            .recv_timeout(Duration::from_secs(10))
            .expect("an answer");
        assert_eq!(answer.hash, expected);
        // A question asked again after its answer is answered again.
        wanted.remove(&answer.id);
    }
}

#[test]
fn a_full_queue_says_pending_and_counts() {
    let bench = Bench::with_config(Config {
        queue_max: 0,
        ..Config::default()
    });
    let path = bench.settled_program("a", "1");
    assert_eq!(bench.ask(request(NOBODY, &path)), none(Missing::Pending));
    assert_eq!(bench.pool.refused(), 1);
}

#[test]
fn nothing_that_took_the_files_name_is_opened() {
    let bench = Bench::new();
    let path = bench.settled_program("a", "1");
    let request = |number| {
        let mut request = request(NOBODY, &path);
        request.id.self_exec_id = number;
        request
    };
    let (fifo, link, mut below) = (request(1), request(2), request(3));
    below.path = Some(path.join("below").as_os_str().as_bytes().into());
    // The inode lives on, so that no other gets its number: statx does not tell
    // the generation that would keep them apart.
    fs::rename(&path, bench.dir.path().join("kept")).expect("renamed");

    mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
    assert_eq!(bench.ask(fifo), none(Missing::Gone));

    fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink("/dev/watchdog", &path).expect("a link");
    assert_eq!(bench.ask(link), none(Missing::Gone));

    fs::remove_file(&path).expect("removed");
    bench.program("a", "2");
    assert_eq!(bench.ask(below), none(Missing::Gone));
}

#[test]
fn another_mount_namespace_is_entered_by_its_members() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making a mount namespace takes root");
        return;
    }
    let bench = Bench::new();
    // Two files of one path: ours, and that of the other namespace's tmpfs.
    let ours = bench.settled_program("a", "ours");
    let theirs = bench.dir.path().join("stage");
    fs::create_dir(&theirs).expect("a directory");
    let script = format!(
        "mount -t tmpfs none {dir} && cp /usr/bin/sleep {dir}/a && printf theirs >> {dir}/a \
         && sleep 0.1 && echo ready && exec sleep 1000",
        dir = bench.dir.path().display()
    );
    let mut member = Command::new("unshare");
    member
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    let mut member = Sleeper(member.spawn().expect("unshare(1)"));
    let mut line = String::new();
    let stdout = member.0.stdout.take().expect("piped");
    io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line).expect("read");
    assert_eq!(line, "ready\n");

    let inside = format!("/proc/{}/root{}", member.0.id(), ours.display());
    let content = fs::read(&inside).expect("read");
    assert!(content.ends_with(b"theirs"));
    let mut asked = request(NOBODY, Path::new(&inside));
    asked.path = Some(ours.as_os_str().as_bytes().into());
    let mntns = rustix::fs::stat(format!("/proc/{}/ns/mnt", member.0.id())).expect("/proc");
    asked.mntns = u32::try_from(mntns.st_ino).expect("32 bits");
    assert_ne!(asked.mntns, own_mntns());
    assert_eq!(bench.ask(asked), known(&content));
}

#[test]
fn a_memfd_is_hashed_while_it_runs_and_gone_after() {
    use std::{io::Write, os::fd::AsRawFd};

    let bench = Bench::new();
    let content = fs::read("/usr/bin/sleep").expect("sleep(1)");
    let name = CString::new("ghost").expect("no NUL");
    let memfd = rustix::fs::memfd_create(&name, rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    let mut file = fs::File::from(memfd);
    file.write_all(&content).expect("written");
    // Executed through a descriptor that cannot write, or ETXTBSY.
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let read_only = rustix::fs::open(
        &link,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        Mode::empty(),
    )
    .expect("reopened");
    drop(file);
    thread::sleep(Duration::from_millis(40));
    let sleeper = Sleeper::start(Path::new(&format!(
        "/proc/self/fd/{}",
        read_only.as_raw_fd()
    )));
    drop(read_only);

    let exe = PathBuf::from(format!("/proc/{}/exe", sleeper.0.id()));
    let mut request = sleeper.request(&exe);
    request.flags = flags::MEMFD | flags::DELETED;
    request.path = Some(b"/memfd:ghost".as_slice().into());
    let mut ended = request.clone();
    ended.id.tgid = NOBODY;
    ended.file.ino += 1;
    assert_eq!(bench.ask(request), known(&content));
    assert_eq!(bench.ask(ended), none(Missing::Gone));
}

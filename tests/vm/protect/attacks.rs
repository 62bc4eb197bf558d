//! What another process of root's may try with an agent and what it holds. Each
//! undoes what it has done, so that the next finds the agent as it was.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    os::unix::{ffi::OsStrExt as _, net::UnixStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use procid_tests::cgroup::PINS;
use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags, fsconfig_create, fsmount, fsopen, mount, mount_bind, mount_move, move_mount,
        open_tree, unmount,
    },
    process::{
        Pid, PidfdFlags, PidfdGetfdFlags, Resource, getrlimit, pidfd_getfd, pidfd_open, prlimit,
    },
};

/// Commands of bpf(2):
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h#L922>
mod command {
    pub(super) const MAP_CREATE: libc::c_int = 0;
    pub(super) const OBJ_PIN: libc::c_int = 6;
    pub(super) const OBJ_GET: libc::c_int = 7;
    pub(super) const PROG_GET_FD_BY_ID: libc::c_int = 13;
    pub(super) const MAP_GET_FD_BY_ID: libc::c_int = 14;
    pub(super) const LINK_GET_FD_BY_ID: libc::c_int = 30;
    pub(super) const LINK_DETACH: libc::c_int = 34;
}

pub(super) const BPFFS: &str = "/sys/fs/bpf";

pub(super) struct Target {
    pub(super) pid: Pid,
    /// Its directory of pins.
    pub(super) pins: PathBuf,
}

/// What came of it, for each object it was tried with.
pub(super) type Results = Vec<io::Result<()>>;

pub(super) type Attack = (&'static str, fn(&Target) -> Results);

/// What one process may do to another's memory and descriptors.
pub(super) const TRACES: &[Attack] = &[
    ("ptrace", |target| vec![trace(target.pid)]),
    ("/proc/PID/mem", |target| {
        let path = format!("/proc/{}/mem", target.pid);
        vec![File::open(path).map(drop)]
    }),
    ("process_vm_readv", |target| vec![read_memory(target.pid)]),
    ("pidfd_getfd", |target| {
        let take = || {
            let pidfd = pidfd_open(target.pid, PidfdFlags::empty())?;
            pidfd_getfd(&pidfd, 0, PidfdGetfdFlags::empty()).map(drop)
        };
        vec![take().map_err(io::Error::from)]
    }),
];

pub(super) const ATTACKS: &[Attack] = &[
    ("prlimit", |target| {
        let now = getrlimit(Resource::Cpu);
        let set = prlimit(Some(target.pid), Resource::Cpu, now);
        vec![set.map(drop).map_err(io::Error::from)]
    }),
    ("maps by id", |target| {
        of_each(target, "map_id", command::MAP_GET_FD_BY_ID)
    }),
    ("programs by id", |target| {
        of_each(target, "prog_id", command::PROG_GET_FD_BY_ID)
    }),
    ("links by id", |target| {
        of_each(target, "link_id", command::LINK_GET_FD_BY_ID)
    }),
    ("a pinned map", |target| {
        vec![open_pin(&target.pins.join("maps/ACTIVE")).map(drop)]
    }),
    ("a pinned link", |target| {
        vec![open_pin(&target.pins.join("links/connect4")).map(drop)]
    }),
    ("the names of pins", |target| {
        vec![fs::read_dir(&target.pins).map(drop)]
    }),
    ("a pin more", |target| vec![add_pin(&target.pins)]),
    ("renaming pins", |target| {
        let own = target.pins.with_file_name("elsewhere");
        let inside = target.pins.join("links/elsewhere");
        vec![
            there_and_back(&target.pins, &own),
            there_and_back(Path::new(PINS), Path::new("/sys/fs/bpf/elsewhere")),
            there_and_back(&target.pins.join("links/connect4"), &inside),
        ]
    }),
    ("mounting over pins", |target| {
        let places = [&target.pins, Path::new(PINS), Path::new(BPFFS)];
        let above = [Path::new("/sys/fs"), Path::new("/sys")];
        let over = places.into_iter().chain(above);
        over.map(mount_over).collect()
    }),
    ("binding over pins", |_| {
        let bind = || {
            mount_bind("/tmp", BPFFS)?;
            unmount(BPFFS, UnmountFlags::empty())
        };
        vec![bind().map_err(io::Error::from)]
    }),
    ("moving a mount over pins", |_| vec![move_over(BPFFS)]),
    ("moving their file system away", |_| {
        let elsewhere = tempfile::tempdir().unwrap();
        let old = || {
            mount_move(BPFFS, elsewhere.path())?;
            mount_move(elsewhere.path(), BPFFS)
        };
        let new = || {
            let tree = open_tree(CWD, BPFFS, OpenTreeFlags::empty())?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(tree.as_fd(), "", CWD, elsewhere.path(), flags)?;
            mount_move(elsewhere.path(), BPFFS)
        };
        vec![
            old().map_err(io::Error::from),
            new().map_err(io::Error::from),
        ]
    }),
];

/// Those that cannot be undone, in the order in which each leaves the next
/// something to do.
pub(super) const LASTING: &[Attack] = &[
    ("detaching a link", |target| {
        let link = open_pin(&target.pins.join("links/connect4"));
        let detach = |link: OwnedFd| bpf(command::LINK_DETACH, &fd(&link)).map(drop);
        vec![link.and_then(detach)]
    }),
    ("removing a pin", |target| {
        vec![fs::remove_file(target.pins.join("links/connect4"))]
    }),
    ("removing the pins", |target| {
        vec![fs::remove_dir_all(&target.pins)]
    }),
    ("unmounting their file system", |_| {
        let gone = unmount(BPFFS, UnmountFlags::DETACH);
        vec![gone.map_err(io::Error::from)]
    }),
];

/// A way to send a signal.
type Send = fn(Pid, i32) -> io::Result<()>;

/// Ways to send a signal to a process that leads a group of its own.
pub(super) const SENDS: [(&str, Send); 5] = [
    ("kill", |pid, signal| {
        // SAFETY: takes no pointer.
        done(unsafe { libc::kill(raw(pid), signal) }.into())
    }),
    ("kill of a group", |pid, signal| {
        // SAFETY: takes no pointer.
        done(unsafe { libc::kill(-raw(pid), signal) }.into())
    }),
    ("tgkill", |pid, signal| {
        // SAFETY: takes no pointer.
        done(unsafe { libc::syscall(libc::SYS_tgkill, raw(pid), raw(pid), signal) })
    }),
    ("sigqueue", |pid, signal| {
        let value = libc::sigval {
            sival_ptr: std::ptr::null_mut(),
        };
        // SAFETY: the value is passed on, not followed.
        done(unsafe { libc::sigqueue(raw(pid), signal, value) }.into())
    }),
    ("pidfd_send_signal", |pid, signal| {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: without information the kernel makes its own.
        done(unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                pidfd.as_raw_fd(),
                signal,
                none,
                0,
            )
        })
    }),
];

/// Has the kernel send a signal of a file, and says whether it came: nobody is
/// told.
pub(super) fn signal_of_a_file(pid: Pid, signal: i32, came: impl Fn() -> bool) -> bool {
    let (one, mut other) = UnixStream::pair().unwrap();
    let set = |command, value: libc::c_int| {
        // SAFETY: these commands take numbers.
        done(unsafe { libc::fcntl(one.as_raw_fd(), command, value) }.into()).unwrap();
    };
    /// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/asm-generic/fcntl.h#L79>
    const F_SETSIG: libc::c_int = 10;
    set(libc::F_SETOWN, raw(pid));
    set(F_SETSIG, signal);
    set(libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK);
    io::Write::write_all(&mut other, b"x").unwrap();
    for _ in 0..100 {
        if came() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// A map of somebody else's: made, found by its id, pinned, opened, renamed and
/// removed.
pub(super) fn use_another_map() -> io::Result<()> {
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    let mut attr = [0; ATTR_WORDS];
    attr[..4].copy_from_slice(&[BPF_MAP_TYPE_ARRAY, 4, 4, 1]);
    let map = bpf_fd(command::MAP_CREATE, &attr)?;
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let id = ids_in(&facts, "map_id").next().unwrap();
    bpf_fd(command::MAP_GET_FD_BY_ID, &of_id(id))?;
    let (path, other) = (
        Path::new(BPFFS).join("others"),
        Path::new(BPFFS).join("others-2"),
    );
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = of_path(&name);
    attr[2] = map.as_raw_fd().cast_unsigned();
    bpf(command::OBJ_PIN, &attr)?;
    open_pin(&path)?;
    fs::rename(&path, &other)?;
    fs::remove_file(&other)
}

const ATTR_WORDS: usize = 32;

/// `union bpf_attr`, or the beginning of it.
type Attr = [u32; ATTR_WORDS];

fn halves(word: u64) -> [u32; 2] {
    let bytes = word.to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    [half(0), half(4)]
}

/// The arm that begins with an id.
fn of_id(id: u32) -> Attr {
    let mut attr = [0; ATTR_WORDS];
    attr[0] = id;
    attr
}

fn fd(of: &OwnedFd) -> Attr {
    of_id(of.as_raw_fd().cast_unsigned())
}

/// The arm that begins with a path, which has to outlive it.
fn of_path(path: &CString) -> Attr {
    let mut attr = [0; ATTR_WORDS];
    attr[..2].copy_from_slice(&halves(path.as_ptr() as u64));
    attr
}

fn bpf(command: libc::c_int, attr: &Attr) -> io::Result<libc::c_int> {
    // SAFETY: `attr` is an initialised arm of `union bpf_attr` of the size given.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of::<Attr>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::c_int::try_from(answer).unwrap())
}

fn bpf_fd(command: libc::c_int, attr: &Attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: these commands answer with a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf_fd(command::OBJ_GET, &of_path(&path))
}

fn ids_in<'a>(facts: &'a str, key: &'a str) -> impl Iterator<Item = u32> + 'a {
    facts.lines().filter_map(move |line| {
        let (found, id) = line.split_once(':')?;
        (found == key).then(|| id.trim().parse().unwrap())
    })
}

/// Opens every object of a kind that the agent has a descriptor of.
fn of_each(target: &Target, key: &str, command: libc::c_int) -> Results {
    let facts = fs::read_dir(format!("/proc/{}/fdinfo", target.pid)).unwrap();
    let facts = facts.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
    let ids: Vec<u32> = facts
        .flat_map(|facts| ids_in(&facts, key).collect::<Vec<_>>())
        .collect();
    assert!(ids.len() > 10, "{key}: {ids:?}");
    let open = |id| bpf_fd(command, &of_id(id)).map(drop);
    ids.into_iter().map(open).collect()
}

fn add_pin(pins: &Path) -> io::Result<()> {
    let path = pins.join("maps/more");
    fs::create_dir(&path)?;
    fs::remove_dir(&path)
}

fn there_and_back(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    fs::rename(to, from)
}

fn mount_over(place: &Path) -> io::Result<()> {
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), None)?;
    Ok(unmount(place, UnmountFlags::empty())?)
}

/// By the calls that util-linux uses now.
fn move_over(place: &str) -> io::Result<()> {
    let context = fsopen("tmpfs", FsOpenFlags::empty())?;
    fsconfig_create(context.as_fd())?;
    let flags = (FsMountFlags::empty(), MountAttrFlags::empty());
    let mounted = fsmount(context.as_fd(), flags.0, flags.1)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mounted.as_fd(), "", CWD, place, flags)?;
    drop((mounted, context));
    Ok(unmount(place, UnmountFlags::empty())?)
}

fn trace(pid: Pid) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: attaching takes no pointer.
    done(unsafe { libc::ptrace(libc::PTRACE_ATTACH, raw(pid), none, none) })?;
    let mut status = 0;
    // SAFETY: `status` is a place for it; detaching takes no pointer.
    unsafe {
        libc::waitpid(raw(pid), &raw mut status, libc::__WALL);
        done(libc::ptrace(libc::PTRACE_DETACH, raw(pid), none, none))
    }
}

fn read_memory(pid: Pid) -> io::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let start = maps.split_once('-').unwrap().0;
    let mut byte = 0_u8;
    let local = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let remote = libc::iovec {
        iov_base: usize::from_str_radix(start, 16).unwrap() as *mut _,
        iov_len: 1,
    };
    // SAFETY: one byte is written to `byte`; the kernel checks the other address.
    done(
        unsafe { libc::process_vm_readv(raw(pid), &raw const local, 1, &raw const remote, 1, 0) }
            as _,
    )
}

fn raw(pid: Pid) -> libc::pid_t {
    pid.as_raw_nonzero().get()
}

fn done(answer: i64) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

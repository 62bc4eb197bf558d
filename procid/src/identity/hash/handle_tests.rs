//! Real inodes, on the file system that holds the scratch directory; the
//! generation comes from the kernel's own handle of the inode.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use procid_common::image::ImageId;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::identity::hash::{
    Inspect, Inspected, Missing, Request, open::Opener, read::sha256, statx::Statx,
};

/// The handle that the kernel makes of an inode.
fn kernels_handle(fd: BorrowedFd<'_>) -> io::Result<Handle> {
    let mut handle = Handle {
        bytes: 12,
        kind: 0,
        id: [0; 12],
    };
    let mut mount_id = 0;
    // SAFETY: `Handle` is laid out as `struct file_handle`, with room for the
    // `bytes` it tells of; the kernel writes to it and to `mount_id` during the
    // call only. `fd` is open.
    let result = unsafe {
        libc::name_to_handle_at(
            fd.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(handle)
}

/// statx, and the generation that it does not tell.
struct WithGeneration;

impl Inspect for WithGeneration {
    fn inspect(&self, fd: BorrowedFd<'_>) -> io::Result<Inspected> {
        let mut inspected = Statx.inspect(fd)?;
        let handle = kernels_handle(fd)?;
        let of_handle = &handle.id[handle.bytes as usize - 4..handle.bytes as usize];
        inspected.file.generation = u32::from_ne_bytes(of_handle.try_into().expect("four bytes"));
        Ok(inspected)
    }
}

/// A directory `dir` with a file `a` in it.
struct Scratch {
    root: TempDir,
    inspected: Inspected,
}

const CONTENT: &[u8] = b"what ran";

impl Scratch {
    /// `None`, having said why: handles cannot be opened here.
    fn new() -> Option<Self> {
        let root = tempfile::tempdir().expect("a scratch directory");
        fs::create_dir(root.path().join("dir")).expect("a directory");
        let path = root.path().join("dir/a");
        fs::write(&path, CONTENT).expect("written");
        // A later change gets another ctime.
        thread::sleep(Duration::from_millis(40));
        let fd = open(&path, OFlags::PATH, Mode::empty()).expect("open");
        let fs_magic = Statx.inspect(fd.as_fd()).expect("statx").fs_magic;
        if ![EXT, XFS].contains(&fs_magic) {
            eprintln!("skipped: the scratch directory's file system is {fs_magic:#x}");
            return None;
        }
        let inspected = WithGeneration.inspect(fd.as_fd()).expect("a handle");
        match open_inode(&inspected.file, fs_magic) {
            Ok(_) => Some(Self { root, inspected }),
            Err(Errno::PERM) => {
                eprintln!("skipped: opening a handle takes CAP_DAC_READ_SEARCH");
                None
            }
            Err(errno) => panic!("the file is there: {errno}"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// What the exec of a process that is gone, as its mount namespace is,
    /// would ask.
    fn request(&self) -> Request {
        Request {
            id: ImageId {
                start_boottime: 1,
                self_exec_id: 1,
                tgid: 0x7fff_fff0,
                reserved: 0,
            },
            file: self.inspected.file,
            fs_magic: self.inspected.fs_magic,
            flags: 0,
            path: Some(self.path("dir/a").as_os_str().as_bytes().into()),
            mntns: 1,
            exec_ns: 1,
            snapshot: false,
        }
    }

    fn open(&self) -> Result<OwnedFd, Missing> {
        open_request(&self.request())
    }
}

fn open_request(request: &Request) -> Result<OwnedFd, Missing> {
    Opener::of_this_process().open(&WithGeneration, request)
}

fn content_of(fd: &OwnedFd, file: &FileState) -> Result<[u8; 32], Missing> {
    let mut buffer = [0; 64];
    sha256(
        &WithGeneration,
        fd,
        file,
        &mut buffer,
        &AtomicBool::new(false),
    )
}

#[test]
fn a_handle_is_made_as_the_kernel_makes_it() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let fd = open(scratch.path("dir/a"), OFlags::PATH, Mode::empty()).expect("open");
    let FileState {
        ino, generation, ..
    } = scratch.inspected.file;
    assert_eq!(
        Handle::new(scratch.inspected.fs_magic, ino, generation),
        Some(kernels_handle(fd.as_fd()).expect("a handle"))
    );
}

#[test]
fn a_file_that_no_path_leads_to_any_more_is_hashed() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    // A new name of the directory leaves the file's own state as it was.
    fs::rename(scratch.path("dir"), scratch.path("moved")).expect("renamed");
    let expected = <sha2::Sha256 as sha2::Digest>::digest(CONTENT);
    let fd = scratch.open().expect("found");
    assert_eq!(
        content_of(&fd, &scratch.inspected.file),
        Ok(expected.into())
    );
}

#[test]
fn a_file_renamed_itself_is_changed() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    fs::rename(scratch.path("dir/a"), scratch.path("dir/b")).expect("renamed");
    assert_eq!(scratch.open().err(), Some(Missing::Changed));
}

#[test]
fn a_deleted_file_is_gone() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    fs::remove_file(scratch.path("dir/a")).expect("removed");
    let file = &scratch.inspected.file;
    // Another test's fork may hold the descriptor that looked, for a moment.
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Ok(fd) = open_inode(file, scratch.inspected.fs_magic) {
        drop(fd);
        assert!(Instant::now() < deadline, "the inode lives on");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(
        open_inode(file, scratch.inspected.fs_magic).err(),
        Some(Errno::STALE)
    );
    assert_eq!(scratch.open().err(), Some(Missing::Gone));
}

#[test]
fn another_generation_is_gone() {
    let Some(scratch) = Scratch::new() else {
        return;
    };
    let mut request = scratch.request();
    request.file.generation = request.file.generation.wrapping_add(1).max(1);
    assert_eq!(
        open_inode(&request.file, request.fs_magic).err(),
        Some(Errno::STALE)
    );
    assert_eq!(open_request(&request).err(), Some(Missing::Gone));
    // What ext4 takes for any generation is not taken for that of the file.
    request.file.generation = 0;
    assert_ne!(scratch.inspected.file.generation, 0, "one in 2^32");
    assert_eq!(open_request(&request).err(), Some(Missing::Gone));
}

#[test]
fn what_has_no_handle_is_refused() {
    let file = FileState {
        dev: u32::MAX,
        ino: 12,
        ..FileState::default()
    };
    let tmpfs = 0x0102_1994;
    assert_eq!(open_inode(&file, tmpfs).err(), Some(Errno::OPNOTSUPP));
    assert_eq!(open_inode(&file, EXT).err(), Some(Errno::NODEV));
    assert_eq!(Handle::new(EXT, 1 << 32, 1), None);
}

#[test]
fn a_line_of_mountinfo_is_read() {
    let line = b"36 35 98:1048575 /mnt\\0401 /a\\040b\\134 rw,noatime master:1 - ext3 /dev/root rw";
    let mount = Mount {
        id: 36,
        major: 98,
        minor: 1_048_575,
        point: "/a b\\".into(),
    };
    assert_eq!(Mount::parse(line), Some(mount));
    for line in [
        "",
        "36",
        "36 35 98 / /a rw",
        "36 35 98:0 /",
        "x 35 98:0 / /a",
    ] {
        assert_eq!(Mount::parse(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn a_mount_that_is_covered_is_passed_over() {
    let root = |id| Mount {
        id,
        major: 0,
        minor: 0,
        point: Path::new("/").into(),
    };
    let wanted = StatxFlags::MNT_ID;
    let stat = statx(rustix::fs::CWD, c"/", AtFlags::empty(), wanted).expect("statx");
    assert!(root(stat.stx_mnt_id).open().is_some());
    assert!(root(stat.stx_mnt_id + 1).open().is_none());
}

proptest! {
    #[test]
    fn a_path_is_read_as_the_kernel_writes_it(path: Vec<u8>) {
        let mut field = Vec::new();
        for &byte in &path {
            if b" \t\n\\#".contains(&byte) {
                field.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            } else {
                field.push(byte);
            }
        }
        prop_assert_eq!(unescape(&field), path);
    }

    #[test]
    fn no_line_of_mountinfo_is_too_odd(line: Vec<u8>) {
        Mount::parse(&line);
    }
}

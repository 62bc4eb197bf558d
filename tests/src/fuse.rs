//! A FUSE file system whose server stops answering when it is told to.

use std::{
    any::Any,
    ffi::OsStr,
    fmt, fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, Request, Session, SessionACL,
};
use rustix::mount::{UnmountFlags, unmount};

/// Nothing is remembered: each look is a question to the server.
const TTL: Duration = Duration::ZERO;
const FIRST_FILE: u64 = 2;
/// What is mounted, in mount tables: with the number of the test run's process.
const NAME: &str = "procid-test-";

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    Everything,
    /// All but what opens and reads files.
    NoContent,
    Nothing,
}

/// A mounted FUSE file system; all that waits for it gets an error when it is
/// dropped.
pub struct Fuse {
    place: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

struct Shared {
    files: Vec<(String, Vec<u8>)>,
    mood: AtomicU8,
    /// Questions without an answer.
    held: Mutex<Vec<Box<dyn Any + Send>>>,
    /// How many of them there are, by what they are about.
    about_content: AtomicUsize,
    others: AtomicUsize,
    /// The processes that asked them.
    askers: Mutex<Vec<u32>>,
}

struct Server(Arc<Shared>);

impl Fuse {
    /// Mounts one with these files, all executable, at a directory.
    ///
    /// # Panics
    ///
    /// When it cannot be mounted.
    #[must_use]
    pub fn mount(place: &Path, files: Vec<(String, Vec<u8>)>) -> Self {
        remove_leftovers();
        let shared = Arc::new(Shared {
            files,
            mood: AtomicU8::new(Mood::Everything as u8),
            held: Mutex::default(),
            about_content: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            askers: Mutex::default(),
        });
        let mut config = Config::default();
        config.acl = SessionACL::All;
        let name = format!("{NAME}{}", std::process::id());
        config.mount_options = vec![MountOption::FSName(name)];
        let session = Session::new(Server(Arc::clone(&shared)), place, &config)
            .and_then(Session::spawn)
            .expect("FUSE can be mounted");
        Self {
            place: place.to_owned(),
            shared,
            session: Some(session),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    pub fn answers(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Questions that got no answer: about content, and others.
    pub fn unanswered(&self) -> (usize, usize) {
        let read = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (read(&self.shared.about_content), read(&self.shared.others))
    }

    /// Who asked them.
    pub fn askers(&self) -> Vec<u32> {
        let askers = self.shared.askers.lock();
        askers.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // The server too might be asked by what follows.
        self.answers(Mood::Everything);
        // Aborts the connection, although it is in use.
        let _busy = unmount(&self.place, UnmountFlags::FORCE);
        let _gone = unmount(&self.place, UnmountFlags::DETACH);
        self.shared.held().clear();
        self.session = None;
    }
}

impl fmt::Debug for Fuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fuse")
            .field("place", &self.place)
            .field("unanswered", &self.unanswered())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Any + Send>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self, ino: INodeNo) -> Option<&[u8]> {
        let index = u64::from(ino).checked_sub(FIRST_FILE)?;
        let (_, content) = self.files.get(usize::try_from(index).ok()?)?;
        Some(content)
    }

    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match self.content(ino) {
            Some(content) => (FileType::RegularFile, content.len() as u64),
            None if ino == INodeNo::ROOT => (FileType::Directory, 0),
            None => return None,
        };
        Some(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Server {
    /// The reply, if there is to be one.
    fn metadata<R: Send + 'static>(&self, request: &Request, reply: R) -> Option<R> {
        self.unless(Mood::Nothing, &self.0.others, request, reply)
    }

    fn content<R: Send + 'static>(&self, request: &Request, reply: R) -> Option<R> {
        self.unless(Mood::NoContent, &self.0.about_content, request, reply)
    }

    fn unless<R: Send + 'static>(
        &self,
        mood: Mood,
        counter: &AtomicUsize,
        request: &Request,
        reply: R,
    ) -> Option<R> {
        if self.0.mood.load(Ordering::SeqCst) < mood as u8 {
            return Some(reply);
        }
        let askers = self.0.askers.lock();
        let mut askers = askers.unwrap_or_else(PoisonError::into_inner);
        askers.push(process_of(request.pid()));
        drop(askers);
        // Dropped, it would be an error.
        self.0.held().push(Box::new(reply));
        counter.fetch_add(1, Ordering::SeqCst);
        None
    }
}

/// Unmounts what test runs that were killed have left.
fn remove_leftovers() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let run = fields.next().and_then(|name| name.strip_prefix(NAME));
        if let (Some(run), Some(point)) = (run, fields.next())
            && !Path::new("/proc").join(run).exists()
        {
            let _gone = unmount(point, UnmountFlags::DETACH);
        }
    }
}

/// The process of a thread, which is what the kernel tells.
fn process_of(thread: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let mut lines = status.lines();
    let told = lines.find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    told.unwrap_or(thread)
}

impl Filesystem for Server {
    fn lookup(&self, request: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some(reply) = self.metadata(request, reply) else {
            return;
        };
        let files = &self.0.files;
        let index = files
            .iter()
            .position(|(file, _)| file.as_bytes() == name.as_bytes());
        let ino = index.map(|index| INodeNo(index as u64 + FIRST_FILE));
        match ino.and_then(|ino| self.0.attributes(ino)) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let Some(reply) = self.metadata(request, reply) else {
            return;
        };
        match self.0.attributes(ino) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        if let Some(reply) = self.metadata(request, reply) {
            reply.statfs(0, 0, 0, 0, 0, 512, 255, 0);
        }
    }

    fn open(&self, request: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if let Some(reply) = self.content(request, reply) {
            reply.opened(FileHandle(0), FopenFlags::empty());
        }
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(reply) = self.content(request, reply) else {
            return;
        };
        let Some(content) = self.0.content(ino) else {
            return reply.error(Errno::ENOENT);
        };
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(content.len());
        let to = from.saturating_add(size as usize).min(content.len());
        reply.data(&content[from..to]);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

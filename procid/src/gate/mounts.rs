//! Which file systems a gate stands before.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, open, openat2, statx,
};

use crate::identity::hash::handle::unescape;

/// Mounts as the host's first process has them.
const HOST_MOUNTS: &str = "/proc/1/mountinfo";
const HOST_ROOT: &str = "/proc/1/root";

/// File systems whose content this kernel alone controls. Of a file system
/// that is not named here it is not known, and none of it is touched: to look
/// at it may wait for another host or process.
const LOCAL: [&[u8]; 33] = [
    b"bcachefs",
    b"btrfs",
    b"cramfs",
    b"devtmpfs",
    b"ecryptfs",
    b"erofs",
    b"exfat",
    b"ext2",
    b"ext3",
    b"ext4",
    b"f2fs",
    b"hfs",
    b"hfsplus",
    b"iso9660",
    b"jffs2",
    b"jfs",
    b"minix",
    b"msdos",
    b"nilfs2",
    b"ntfs3",
    b"overlay",
    b"ramfs",
    b"reiserfs",
    b"romfs",
    b"rootfs",
    b"squashfs",
    b"tmpfs",
    b"ubifs",
    b"udf",
    b"ufs",
    b"vfat",
    b"xfs",
    b"zfs",
];

/// File systems without files that could be executed.
const NO_PROGRAMS: [&[u8]; 21] = [
    b"autofs",
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"debugfs",
    b"devpts",
    b"efivarfs",
    b"fusectl",
    b"hugetlbfs",
    b"mqueue",
    b"nsfs",
    b"proc",
    b"pstore",
    b"resctrl",
    b"rpc_pipefs",
    b"securityfs",
    b"selinuxfs",
    b"sysfs",
    b"tracefs",
];

/// The file systems of a gate.
#[derive(Clone, Debug)]
pub enum Marks {
    /// Every local one that the host's first process sees, also when it is
    /// mounted later.
    Host,
    /// Only those mounted at these places, once.
    Only(Vec<PathBuf>),
}

/// A descriptor on each file system to mark, and how many others there are
/// that programs could be run from.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) places: Vec<OwnedFd>,
    pub(super) unmarked: u64,
}

impl Marks {
    /// Finds the places to mark now.
    ///
    /// # Errors
    ///
    /// A mount table that cannot be read, a place of [`Self::Only`] that is not
    /// a mount point.
    pub(super) fn places(&self) -> io::Result<Places> {
        match self {
            Self::Host => of_host(),
            Self::Only(paths) => Ok(Places {
                places: paths
                    .iter()
                    .map(|path| mount_point(path))
                    .collect::<Result<_, _>>()?,
                unmarked: 0,
            }),
        }
    }

    /// What becomes readable for `POLLPRI` when there may be new places.
    ///
    /// # Errors
    ///
    /// Of open(2).
    pub(super) fn changes(&self) -> io::Result<Option<File>> {
        match self {
            Self::Host => File::open(HOST_MOUNTS)
                .map(Some)
                .map_err(|error| explain(HOST_MOUNTS, error)),
            Self::Only(_) => Ok(None),
        }
    }
}

fn explain(path: &str, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("cannot read {path}: {error}"))
}

/// Opens a place that a file system is mounted at. Anything else is refused:
/// marking it would hold up every program on the file system around it.
fn mount_point(path: &Path) -> io::Result<OwnedFd> {
    let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| explain(&path.display().to_string(), error))?;
    let stat = statx(&place, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        let message = format!("no file system is mounted at {}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(place)
}

fn of_host() -> io::Result<Places> {
    let table = fs::read(HOST_MOUNTS).map_err(|error| explain(HOST_MOUNTS, error))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(HOST_ROOT, flags, Mode::empty()).map_err(|error| explain(HOST_ROOT, error))?;
    let mounts = Mounts::parse(&table);
    let mut found = Places {
        unmarked: mounts.unmarkable().len() as u64,
        ..Places::default()
    };
    for device in mounts.local() {
        match device.iter().find_map(|mount| mount.open(root.as_fd())) {
            Some(place) => found.places.push(place),
            None => found.unmarked += 1,
        }
    }
    Ok(found)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Local,
    NoPrograms,
    /// Others, and whatever is mounted below them: the way there leads
    /// through a file system that may not answer.
    Foreign,
}

/// A line of
/// [/proc/PID/mountinfo](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html).
#[derive(Debug)]
struct Mount<'a> {
    id: u64,
    parent: u64,
    device: &'a [u8],
    point: PathBuf,
    kind: Kind,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
        let mut fields = line.split(|byte| *byte == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let device = fields.next()?;
        let point = OsString::from_vec(unescape(fields.nth(1)?)).into();
        let fs_type = fields.skip_while(|field| *field != b"-").nth(1)?;
        let kind = if LOCAL.contains(&fs_type) {
            Kind::Local
        } else if NO_PROGRAMS.contains(&fs_type) {
            Kind::NoPrograms
        } else {
            Kind::Foreign
        };
        Some(Self {
            id,
            parent,
            device,
            point,
            kind,
        })
    }

    /// The mount point, unless another mount covers it.
    fn open(&self, root: BorrowedFd<'_>) -> Option<OwnedFd> {
        let place = openat2(
            root,
            &self.point,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS,
        )
        .ok()?;
        // DONT_SYNC: what covers it may be a file system that does not answer.
        let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = statx(&place, c"", at, StatxFlags::MNT_ID).ok()?;
        (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 && stat.stx_mnt_id == self.id)
            .then_some(place)
    }
}

/// A mount table.
#[derive(Debug)]
struct Mounts<'a>(Vec<Mount<'a>>);

impl<'a> Mounts<'a> {
    fn parse(table: &'a [u8]) -> Self {
        let lines = table.split(|byte| *byte == b'\n');
        Self(lines.filter_map(Mount::parse).collect())
    }

    /// Mounts reached through no foreign file system, those of a device together.
    fn local(&self) -> Vec<Vec<&Mount<'a>>> {
        let foreign = self.below_foreign();
        let mut devices: Vec<Vec<&Mount<'a>>> = Vec::new();
        let mut places = HashMap::new();
        for mount in &self.0 {
            if mount.kind == Kind::Local && !foreign.contains(&mount.id) {
                let place = *places.entry(mount.device).or_insert_with(|| {
                    devices.push(Vec::new());
                    devices.len() - 1
                });
                devices[place].push(mount);
            }
        }
        devices
    }

    /// Devices that programs could be run from and that are not to be marked.
    fn unmarkable(&self) -> HashSet<&'a [u8]> {
        let foreign = self.below_foreign();
        let reached =
            |mount: &&Mount<'_>| mount.kind == Kind::Local && !foreign.contains(&mount.id);
        let marked: HashSet<_> = self
            .0
            .iter()
            .filter(reached)
            .map(|mount| mount.device)
            .collect();
        let others = self.0.iter().filter(|mount| mount.kind != Kind::NoPrograms);
        let others = others.map(|mount| mount.device);
        others.filter(|device| !marked.contains(device)).collect()
    }

    /// Foreign mounts and all below them.
    fn below_foreign(&self) -> HashSet<u64> {
        let mut foreign: HashSet<u64> = self
            .0
            .iter()
            .filter(|mount| mount.kind == Kind::Foreign)
            .map(|mount| mount.id)
            .collect();
        // The table lists a mount after the one it is on, unless that was
        // moved: so until nothing is added.
        loop {
            let before = foreign.len();
            for mount in &self.0 {
                if foreign.contains(&mount.parent) {
                    foreign.insert(mount.id);
                }
            }
            if foreign.len() == before {
                return foreign;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 31 0:40 / /net/local\\040one rw - tmpfs tmpfs rw
31 21 0:39 / /net rw - nfs4 server:/ rw
22 21 0:5 / /proc rw - proc proc rw
23 21 254:0 /var /mnt/var rw - ext4 /dev/vda rw
24 21 0:41 / /merged rw,nosuid shared:3 master:2 - overlay overlay rw,lowerdir=/a:/b
25 21 0:42 / /home/me/f rw - fuse.sshfs me@there: rw
26 21 0:43 / /new rw - futurefs none rw
27 31 254:0 /opt /net/opt rw - ext4 /dev/vda rw
nonsense
";

    fn points<'a>(mounts: impl IntoIterator<Item = &'a &'a Mount<'a>>) -> Vec<&'a str> {
        mounts
            .into_iter()
            .map(|mount| mount.point.to_str().unwrap())
            .collect()
    }

    #[test]
    fn local_file_systems_are_found_once_each() {
        let mounts = Mounts::parse(TABLE);
        let local = mounts.local();
        let local: Vec<_> = local.iter().map(points).collect();
        assert_eq!(local, [vec!["/", "/mnt/var"], vec!["/merged"]]);
    }

    #[test]
    fn what_is_foreign_or_lies_below_it_is_counted_and_left_alone() {
        let mounts = Mounts::parse(TABLE);
        let mut devices: Vec<_> = mounts.unmarkable().into_iter().collect();
        devices.sort_unstable();
        assert_eq!(devices, [b"0:39", b"0:40", b"0:42", b"0:43"]);
    }

    #[test]
    fn a_place_that_is_not_a_mount_point_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = Marks::Only(vec![directory.path().to_owned()])
            .places()
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        let proc = Marks::Only(vec!["/proc".into()]).places().unwrap();
        assert_eq!(proc.places.len(), 1);
    }

    #[test]
    fn a_mount_that_is_covered_is_not_taken_for_the_one_that_covers_it() {
        let root = open("/", OFlags::PATH, Mode::empty()).unwrap();
        let table = fs::read("/proc/self/mountinfo").unwrap();
        let mounts = Mounts::parse(&table);
        let mount = mounts
            .0
            .iter()
            .find(|mount| mount.open(root.as_fd()).is_some())
            .unwrap();
        let other = Mount {
            id: mount.id + 1_000_000,
            parent: mount.parent,
            device: mount.device,
            point: mount.point.clone(),
            kind: mount.kind,
        };
        assert!(other.open(root.as_fd()).is_none());
    }
}

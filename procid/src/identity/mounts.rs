//! A mount table, and which of its file systems answer by themselves.
//!
//! Foreign are those whose content comes from another host or process (FUSE,
//! network file systems), or may: they answer when they like. So are those that
//! lie on one, as an overlay of a container whose image is fetched when it is
//! read, and the way to whatever is mounted below one.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};

use super::hash::handle::unescape;

mod layers;

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
pub struct Mount<'a> {
    id: u64,
    parent: u64,
    device: &'a [u8],
    point: PathBuf,
    kind: Kind,
    /// What it lies on; `None`: that is not told.
    layers: Option<Vec<PathBuf>>,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
        let mut fields = line.split(|byte| *byte == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let device = fields.next()?;
        let point = OsString::from_vec(unescape(fields.nth(1)?)).into();
        let mut fields = fields.skip_while(|field| *field != b"-");
        let fs_type = fields.nth(1)?;
        let source = fields.next().unwrap_or_default();
        let options = fields.next().unwrap_or_default();
        let layers = match fs_type {
            b"overlay" => layers::of_overlay(options),
            b"ecryptfs" => Some(vec![OsString::from_vec(unescape(source)).into()]),
            _ => Some(Vec::new()),
        };
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
            layers,
        })
    }

    fn is_root(&self) -> bool {
        self.point == Path::new("/")
    }

    /// The mount point, unless another mount covers it.
    pub fn open(&self, root: BorrowedFd<'_>) -> Option<OwnedFd> {
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
pub struct Mounts<'a>(Vec<Mount<'a>>);

impl<'a> Mounts<'a> {
    pub fn parse(table: &'a [u8]) -> Self {
        let lines = table.split(|byte| *byte == b'\n');
        let mut mounts = Self(lines.filter_map(Mount::parse).collect());
        while let Some(index) = mounts.lies_on_foreign() {
            mounts.0[index].kind = Kind::Foreign;
        }
        mounts
    }

    /// A file system whose files are those of a foreign one: to open one asks
    /// for the other. Where it is not told what it lies on, it may be any that
    /// there is.
    fn lies_on_foreign(&self) -> Option<usize> {
        let foreign = self.foreign();
        self.0.iter().position(|mount| {
            let is_foreign = |layer: &PathBuf| {
                let below = self.at(layer);
                below.is_some_and(|below| below.id != mount.id && foreign.contains(&below.id))
            };
            mount.kind != Kind::Foreign
                && !mount.is_root()
                && match &mount.layers {
                    Some(layers) => layers.iter().any(is_foreign),
                    None => !foreign.is_empty(),
                }
        })
    }

    /// The mount that a path without symbolic links leads to.
    fn at(&self, path: &Path) -> Option<&Mount<'a>> {
        path.ancestors()
            .find_map(|point| self.0.iter().rfind(|mount| mount.point == point))
    }

    /// Whether a path without symbolic links leads through a foreign one.
    pub fn is_foreign(&self, path: &Path) -> bool {
        let foreign = self.foreign();
        self.at(path)
            .is_some_and(|mount| foreign.contains(&mount.id))
    }

    /// Whether the files of the mount of that number are foreign, whatever it
    /// is mounted below; `None`: there is no such mount.
    pub fn has_foreign_files(&self, id: u64) -> Option<bool> {
        let mount = self.0.iter().find(|mount| mount.id == id)?;
        Some(mount.kind == Kind::Foreign)
    }

    /// Whether the mount of that number is foreign, or lies below one that is.
    pub fn is_foreign_mount(&self, id: u64) -> bool {
        self.foreign().contains(&id)
    }

    /// Mounts reached through no foreign file system, those of a device together.
    pub fn local(&self) -> Vec<Vec<&Mount<'a>>> {
        let foreign = self.foreign();
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
    pub fn unmarkable(&self) -> HashSet<&'a [u8]> {
        let foreign = self.foreign();
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

    /// Where foreign ones are mounted, but for the root.
    pub fn foreign_points(&self) -> Vec<PathBuf> {
        let foreign = self.apart();
        let mounts = self.0.iter();
        mounts
            .filter(|mount| foreign.contains(&mount.id))
            .map(|mount| mount.point.clone())
            .collect()
    }

    /// Foreign mounts and all below them, by their numbers.
    fn foreign(&self) -> HashSet<u64> {
        self.and_below(|mount| mount.kind == Kind::Foreign)
    }

    /// The same without the root: when that does not answer, nothing does.
    pub fn apart(&self) -> HashSet<u64> {
        self.and_below(|mount| mount.kind == Kind::Foreign && !mount.is_root())
    }

    fn and_below(&self, is_one: impl Fn(&Mount<'_>) -> bool) -> HashSet<u64> {
        let mounts = self.0.iter();
        let mut found: HashSet<u64> = mounts
            .filter(|mount| is_one(mount))
            .map(|mount| mount.id)
            .collect();
        // The table lists a mount after the one it is on, unless that was
        // moved: so until nothing is added.
        loop {
            let before = found.len();
            for mount in &self.0 {
                if found.contains(&mount.parent) {
                    found.insert(mount.id);
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd};

    use rustix::fs::open;

    use super::*;

    const TABLE: &[u8] = b"\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 31 0:40 / /net/local\\040one rw - tmpfs tmpfs rw
31 21 0:39 / /net rw - nfs4 server:/ rw
22 21 0:5 / /proc rw - proc proc rw
23 21 254:0 /var /mnt/var rw - ext4 /dev/vda rw
24 21 0:41 / /merged rw,nosuid shared:3 master:2 - overlay overlay rw,lowerdir=/a:/b,upperdir=/mnt/var/u
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

    /// A lazily pulled image of a container is one, and a stack of such.
    #[test]
    fn what_lies_on_a_foreign_file_system_is_foreign() {
        let table = |options: &str| {
            format!(
                "50 21 0:50 / /c rw - overlay overlay rw,{options}\n\
                 51 21 0:51 / /d rw - overlay overlay rw,lowerdir=/a:/c/x,upperdir=/u\n"
            )
        };
        let marked = |options: &str| {
            let table = [TABLE, table(options).as_bytes()].concat();
            let mounts = Mounts::parse(&table);
            let is_local = |point: &str| {
                let local = mounts.local();
                local.iter().any(|device| points(device) == [point])
            };
            assert!(is_local("/merged"));
            assert_eq!(is_local("/c"), is_local("/d"), "{options}");
            is_local("/c")
        };
        assert!(marked("lowerdir=/a:/b"));
        assert!(marked("lowerdir=/homes/me/f"));
        for options in [
            "lowerdir=/a:/home/me/f/1:/b",
            "upperdir=/net/opt/u,lowerdir=/a",
            "lowerdir+=/a,datadir+=/home/me/f",
            "lowerdir=/a,lowerdir=/net/local\\040one",
            "lowerdir=l/A:l/B",
            "",
        ] {
            assert!(!marked(options), "{options}");
        }
    }

    #[test]
    fn a_root_that_is_foreign_is_walked_and_not_marked() {
        let table = b"1 0 0:20 / / rw - 9p host rw\n2 1 0:21 / /net rw - nfs server:/ rw\n";
        let mounts = Mounts::parse(table);
        assert!(mounts.local().is_empty());
        assert_eq!(mounts.apart(), [2].into());
        assert_eq!(mounts.foreign_points(), [Path::new("/net")]);
    }

    #[test]
    fn where_a_path_leads_through_a_foreign_file_system() {
        let mounts = Mounts::parse(TABLE);
        let foreign = ["/net", "/net/opt/x", "/home/me/f/x"];
        assert!(
            foreign
                .iter()
                .all(|path| mounts.is_foreign(Path::new(path)))
        );
        let others = ["/", "/network", "/merged/net", "/proc/1"];
        assert!(!others.iter().any(|path| mounts.is_foreign(Path::new(path))));
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
            layers: None,
        };
        assert!(other.open(root.as_fd()).is_none());
    }
}

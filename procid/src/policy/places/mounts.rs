//! Which mounts a mount namespace shows, and where in their file systems a path
//! leads.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsString,
    io,
    ops::Bound,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
    str,
};

use super::Place;
use crate::identity::hash::handle::unescape;

/// How the kernel marks a path of a directory that was removed.
const DELETED: &[u8] = b"//deleted";

/// The mounts that a path can lead to, by mount point. One that a later mount
/// covers, or that lies below one that is covered, is not among them.
#[derive(Debug)]
pub(super) struct Mounts(BTreeMap<PathBuf, Mount>);

/// A line of
/// [/proc/PID/mountinfo](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html).
#[derive(Debug)]
struct Mount {
    id: u64,
    parent: u64,
    dev: u32,
    /// What of the file system is mounted; `None`: nothing with a path.
    root: Option<Vec<OsString>>,
    point: PathBuf,
}

impl Mounts {
    /// # Errors
    ///
    /// A line that is not understood, or no mount at `/`.
    pub(super) fn parse(text: &[u8]) -> io::Result<Self> {
        let mut mounts = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let mount = Mount::parse(line).ok_or_else(|| {
                let line = String::from_utf8_lossy(line);
                invalid(format!("mountinfo has a line that is no mount: {line}"))
            })?;
            mounts.push(mount);
        }
        let walk = Walk::new(&mounts).ok_or_else(|| invalid("mountinfo has no mount at /"))?;
        let shown: Vec<bool> = (0..mounts.len())
            .map(|index| walk.to(&mounts[index].point) == index)
            .collect();
        let shown = mounts.into_iter().zip(shown).filter(|(_, shown)| *shown);
        Ok(Self(
            shown
                .map(|(mount, _)| (mount.point.clone(), mount))
                .collect(),
        ))
    }

    /// Where an absolute path without symbolic links leads.
    ///
    /// # Errors
    ///
    /// To something that has no path inside its file system.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let (mount, rest) = path
            .ancestors()
            .find_map(|point| Some((self.0.get(point)?, path.strip_prefix(point).ok()?)))
            .ok_or_else(|| invalid("the path is below no mount"))?;
        let mut place = mount.place().ok_or_else(|| {
            invalid("what is mounted there is a removed directory, or has no path")
        })?;
        place.names.extend(rest.iter().map(ToOwned::to_owned));
        Ok(place)
    }

    /// What is mounted below a directory.
    pub(super) fn below(&self, dir: &Path) -> Vec<Place> {
        self.0
            .range::<Path, _>((Bound::Excluded(dir), Bound::Unbounded))
            .take_while(|(point, _)| point.starts_with(dir))
            .filter_map(|(_, mount)| mount.place())
            .collect()
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut text = || str::from_utf8(fields.next()?).ok();
        let id = text()?.parse().ok()?;
        let parent = text()?.parse().ok()?;
        let (major, minor) = text()?.split_once(':')?;
        let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
        let root = unescape(fields.next()?);
        let point = unescape(fields.next()?);
        Some(Self {
            id,
            parent,
            dev: major << 20 | minor,
            root: names(&root),
            point: OsString::from_vec(point).into(),
        })
    }

    fn place(&self) -> Option<Place> {
        Some(Place {
            dev: self.dev,
            names: self.root.clone()?,
        })
    }
}

/// The names of a mount's root. There are none where it is not a path
/// (`net:[4026531840]` of nsfs), is outside of what the reader sees (`/..` of
/// cgroups), or was removed.
fn names(root: &[u8]) -> Option<Vec<OsString>> {
    if !root.starts_with(b"/") || root.ends_with(DELETED) {
        return None;
    }
    let mut names = Vec::new();
    for part in Path::new(std::ffi::OsStr::from_bytes(root)).components() {
        match part {
            Component::RootDir => {}
            Component::Normal(name) => names.push(name.to_owned()),
            _ => return None,
        }
    }
    Some(names)
}

/// Goes the way that the kernel goes
/// ([`follow_mount_rcu`](https://github.com/torvalds/linux/blob/v6.12/fs/namei.c)):
/// from mount to mount, and at each mount point to the one on top.
struct Walk<'a> {
    mounts: &'a [Mount],
    root: usize,
    /// By the id of the mount that it is mounted on, and the mount point.
    upon: HashMap<(u64, &'a Path), usize>,
}

impl<'a> Walk<'a> {
    fn new(mounts: &'a [Mount]) -> Option<Self> {
        let ids: HashSet<u64> = mounts.iter().map(|mount| mount.id).collect();
        // Absolute paths begin in the root mount of process 1. What is mounted
        // over `/` later is not entered.
        let root = mounts.iter().rposition(|mount| {
            mount.point == Path::new("/")
                && (mount.parent == mount.id || !ids.contains(&mount.parent))
        })?;
        let upon = mounts
            .iter()
            .enumerate()
            .filter(|(_, mount)| !mount.point.as_os_str().as_bytes().ends_with(DELETED))
            .map(|(index, mount)| ((mount.parent, mount.point.as_path()), index))
            .collect();
        Some(Self { mounts, root, upon })
    }

    /// The mount that a path leads to.
    fn to(&self, path: &Path) -> usize {
        let mut here = self.root;
        let mut prefixes: Vec<_> = path.ancestors().collect();
        prefixes.pop();
        for point in prefixes.into_iter().rev() {
            // Mounts on mounts end; this does too if what was read is not so.
            for _ in 0..self.mounts.len() {
                match self.upon.get(&(self.mounts[here].id, point)) {
                    Some(top) => here = *top,
                    None => break,
                }
            }
        }
        here
    }
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines of mountinfo from `id parent dev root point`.
    fn mounts(lines: &[&str]) -> Mounts {
        let text: String = lines
            .iter()
            .map(|line| format!("{line} rw,relatime shared:1 - ext4 /dev/x rw\n"))
            .collect();
        Mounts::parse(text.as_bytes()).unwrap()
    }

    fn place(mounts: &Mounts, path: &str) -> String {
        show(&mounts.place(Path::new(path)).unwrap())
    }

    fn show(place: &Place) -> String {
        let names: Vec<_> = place
            .names
            .iter()
            .map(|name| name.to_str().unwrap())
            .collect();
        format!(
            "{}:{} /{}",
            place.dev >> 20,
            place.dev & 0xf_ffff,
            names.join("/")
        )
    }

    #[test]
    fn the_longest_mount_point_holds_the_path() {
        let mounts = mounts(&[
            "22 1 8:1 / /",
            "23 22 8:2 / /usr",
            "24 23 0:44 / /usr/local",
            "25 22 0:5 / /proc",
        ]);
        assert_eq!(place(&mounts, "/bin/sh"), "8:1 /bin/sh");
        assert_eq!(place(&mounts, "/usr/bin/sh"), "8:2 /bin/sh");
        assert_eq!(place(&mounts, "/usr/local/bin/x"), "0:44 /bin/x");
        assert_eq!(place(&mounts, "/usr/locale/x"), "8:2 /locale/x");
        assert_eq!(place(&mounts, "/usr/local"), "0:44 /");
        assert_eq!(place(&mounts, "/"), "8:1 /");
    }

    #[test]
    fn the_root_of_a_mount_goes_before_the_rest() {
        let mounts = mounts(&[
            "22 1 0:30 /@root /",
            "23 22 0:30 /@home/of\\040all /home",
            "24 22 8:1 /etc/hosts /run/hosts",
        ]);
        assert_eq!(place(&mounts, "/usr/bin/x"), "0:30 /@root/usr/bin/x");
        assert_eq!(place(&mounts, "/home/a"), "0:30 /@home/of all/a");
        assert_eq!(place(&mounts, "/run/hosts"), "8:1 /etc/hosts");
    }

    #[test]
    fn a_covered_mount_does_not_count() {
        // On the mount itself, on the same directory, and over its parent.
        let on_itself = mounts(&["1 1 8:1 / /", "2 1 8:2 / /a", "3 2 8:3 / /a"]);
        assert_eq!(place(&on_itself, "/a/x"), "8:3 /x");
        let on_the_directory = mounts(&["1 0 8:1 / /", "2 1 8:2 / /a", "3 1 8:3 / /a"]);
        assert_eq!(place(&on_the_directory, "/a/x"), "8:3 /x");
        let over_the_parent = mounts(&["1 0 8:1 / /", "2 1 8:2 / /a/b", "3 1 8:3 / /a"]);
        assert_eq!(place(&over_the_parent, "/a/b/x"), "8:3 /b/x");
        assert_eq!(over_the_parent.below(Path::new("/")).len(), 1);
        // What is mounted on a mount that is covered.
        let below_a_covered = mounts(&[
            "1 0 8:1 / /",
            "2 1 8:2 / /a",
            "3 2 8:4 / /a/b",
            "4 2 8:3 / /a",
        ]);
        assert_eq!(place(&below_a_covered, "/a/b/x"), "8:3 /b/x");
        // The order of lines says nothing where the parent does.
        let parent_last = mounts(&["1 0 8:1 / /", "3 2 8:3 / /a/b", "2 1 8:2 / /a"]);
        assert_eq!(place(&parent_last, "/a/b/x"), "8:3 /x");
    }

    #[test]
    fn what_is_mounted_over_the_root_is_not_entered() {
        let mounts = mounts(&["22 1 8:1 / /", "30 22 8:9 / /"]);
        assert_eq!(place(&mounts, "/bin/sh"), "8:1 /bin/sh");
    }

    #[test]
    fn mounts_below_a_directory_are_those_that_are_seen() {
        let mounts = mounts(&[
            "22 1 8:1 / /",
            "23 22 8:2 / /opt",
            "24 23 8:3 /sub /opt/a/b",
            "25 23 8:4 / /opt/a",
            "26 25 8:5 / /opt/a/c",
            "27 22 8:6 / /optional",
            "28 22 0:4 net:[4026531840] /opt/netns",
            "29 23 0:4 net:[4026531840] /opt/netns",
        ]);
        let below = |dir: &str| -> Vec<_> {
            let places = mounts.below(Path::new(dir));
            places.iter().map(show).collect()
        };
        assert_eq!(below("/opt"), ["8:4 /", "8:5 /"]);
        assert_eq!(below("/opt/a"), ["8:5 /"]);
        assert_eq!(below("/opt/x"), [""; 0]);
        assert_eq!(below("/"), ["8:2 /", "8:4 /", "8:5 /", "8:6 /"]);
        assert!(mounts.place(Path::new("/opt/netns")).is_err());
    }

    #[test]
    fn removed_directories_have_no_place() {
        let mounts = mounts(&[
            "22 1 8:1 / /",
            "23 22 8:1 /gone//deleted /mnt",
            "24 22 8:2 / /here//deleted",
        ]);
        assert!(mounts.place(Path::new("/mnt/x")).is_err());
        assert_eq!(place(&mounts, "/here/deleted"), "8:1 /here/deleted");
    }

    #[test]
    fn what_is_no_mountinfo_is_refused() {
        assert!(Mounts::parse(b"").is_err());
        assert!(Mounts::parse(b"22 1 8 / / rw - x x rw\n").is_err());
        assert!(Mounts::parse(b"22 1 8:1 / /mnt rw - x x rw\n").is_err());
    }

    proptest! {
        #[test]
        fn no_tree_of_mounts_is_too_odd(
            tree in prop::collection::vec((0_u64..6, 0_u64..6, "(/[ab]){1,3}"), 0..12),
            path in "(/[ab]){0,4}",
        ) {
            let mut text = String::from("9 8 8:1 / / rw - ext4 x rw\n");
            for (id, parent, point) in tree {
                text += &format!("{id} {} 8:2 / {point} rw - ext4 x rw\n", [9, parent][usize::from(parent > 1)]);
            }
            let mounts = Mounts::parse(text.as_bytes()).unwrap();
            let path = format!("/{path}");
            prop_assert!(mounts.place(Path::new(&path)).is_ok());
        }
    }
}

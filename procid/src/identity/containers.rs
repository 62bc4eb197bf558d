//! Which container a cgroup is in: the id that its runtime has written into the
//! name of the cgroup, or of one above it.
//!
//! Only the superuser's cgroups count, and the outermost of them, as in the
//! programs: whoever may make cgroups may name them as he likes.

use std::{
    fmt, fs, io,
    num::NonZero,
    os::unix::{ffi::OsStrExt, ffi::OsStringExt, fs::MetadataExt},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use lru::LruCache;
use procid_common::policy::container::id_in;

use super::hash::handle::unescape;

/// Cgroups whose container is remembered.
const KNOWN_MAX: NonZero<usize> = NonZero::new(4_096).expect("not 0");

/// Finds the container of a cgroup; the kernel, but for tests.
pub trait Cgroups: fmt::Debug + Send {
    /// The id of the container that the cgroup of this id is in.
    ///
    /// # Errors
    ///
    /// There is no such cgroup (any more), or it cannot be looked at.
    fn container(&self, cgroup: u64) -> io::Result<Option<String>>;
}

/// What is known of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Within {
    /// The id, 64 hexadecimal digits.
    Container(Arc<str>),
    NoContainer,
    /// It was gone before it was looked at, or could not be.
    Unknown,
}

/// The containers of cgroups, by the cgroup's id.
#[derive(Debug)]
pub struct Containers {
    cgroups: Box<dyn Cgroups>,
    known: LruCache<u64, Within>,
}

impl Containers {
    pub fn new(cgroups: Box<dyn Cgroups>) -> Self {
        Self {
            cgroups,
            known: LruCache::new(KNOWN_MAX),
        }
    }

    /// Looks at a cgroup, if it was not looked at before: soon, because it may
    /// be removed with its last process. 0 is none.
    pub fn learn(&mut self, cgroup: u64) -> &Within {
        let cgroups = &self.cgroups;
        self.known
            .get_or_insert(cgroup, || match cgroups.container(cgroup) {
                _ if cgroup == 0 => Within::NoContainer,
                Ok(Some(id)) => Within::Container(id.into()),
                Ok(None) => Within::NoContainer,
                Err(error) => {
                    tracing::debug!(cgroup, %error, "a cgroup could not be looked at");
                    Within::Unknown
                }
            })
    }

    /// What was learned of a cgroup.
    pub fn get(&self, cgroup: u64) -> &Within {
        self.known.peek(&cgroup).unwrap_or(&Within::Unknown)
    }
}

/// Where cgroup v2 is mounted: hybrid hosts have it beside the v1 controllers.
pub fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let path = fields.nth(4)?;
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        let path = std::ffi::OsString::from_vec(unescape(path));
        (kind == b"cgroup2").then(|| PathBuf::from(path))
    })
}

/// The container that a cgroup is in, which is named from `hierarchy`.
///
/// # Errors
///
/// A cgroup that is named by an id cannot be looked at.
pub fn container_of(hierarchy: &Path, cgroup: &Path) -> io::Result<Option<String>> {
    let mut path = hierarchy.to_owned();
    for part in cgroup.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        path.push(name);
        if let Some(id) = id_in(name.as_bytes())
            && fs::symlink_metadata(&path)?.uid() == 0
        {
            return Ok(Some(id.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Cgroup 1 is in a container, 2 is in none, others cannot be looked at.
    #[derive(Debug, Default)]
    struct Asked(Arc<Mutex<Vec<u64>>>);

    impl Cgroups for Asked {
        fn container(&self, cgroup: u64) -> io::Result<Option<String>> {
            self.0.lock().unwrap().push(cgroup);
            match cgroup {
                1 => Ok(Some("id".to_owned())),
                2 => Ok(None),
                _ => Err(io::Error::from(io::ErrorKind::NotFound)),
            }
        }
    }

    #[test]
    fn a_cgroup_is_looked_at_once() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut containers = Containers::new(Box::new(Asked(Arc::clone(&asked))));
        assert_eq!(containers.get(1), &Within::Unknown);
        for _ in 0..2 {
            assert_eq!(containers.learn(1), &Within::Container("id".into()));
            assert_eq!(containers.learn(2), &Within::NoContainer);
            assert_eq!(containers.learn(3), &Within::Unknown);
        }
        assert_eq!(containers.get(1), &Within::Container("id".into()));
        assert_eq!(*asked.lock().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn directories_of_others_are_no_containers() {
        let root = tempfile::tempdir().unwrap();
        let (outer, inner) = ("a".repeat(64), "b".repeat(64));
        let path = Path::new("/system.slice")
            .join(format!("docker-{outer}.scope"))
            .join(&inner);
        let here = root.path().join(path.strip_prefix("/").unwrap());
        fs::create_dir_all(&here).unwrap();
        let is_root = fs::metadata(&here).unwrap().uid() == 0;
        let found = |path: &Path| container_of(root.path(), path).unwrap();
        assert_eq!(found(&path), is_root.then(|| outer.clone()));
        assert_eq!(found(Path::new("/system.slice")), None);
        assert_eq!(found(Path::new("/")), None);
        if is_root {
            let nobody = Some(65_534);
            std::os::unix::fs::chown(here.parent().unwrap(), nobody, None).unwrap();
            assert_eq!(found(&path), Some(inner));
        }
        let gone = Path::new("/gone").join(outer);
        assert!(container_of(root.path(), &gone).is_err());
    }
}

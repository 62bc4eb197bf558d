//! What the host calls users: the names of /etc/passwd.
//!
//! The ids in records are those of the initial user namespace, so that the
//! host's names are the right ones; a container may call them otherwise. The
//! file is read directly, as for the API's accounts: names that only a directory
//! server knows are unknown.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
};

use crate::records::escape::escape;

/// The host's file.
pub const PASSWD: &str = "/etc/passwd";
/// Longest file that is read, bytes.
const READ_MAX: u64 = 4 << 20;

/// How one state of the file is told from another.
type Stamp = (u64, u64, i64, i64);

/// The names of users by uid.
#[derive(Debug)]
pub struct Users {
    file: PathBuf,
    stamp: Option<Stamp>,
    names: HashMap<u32, Arc<str>>,
}

impl Users {
    /// Of that file, which need not exist.
    pub fn of(file: PathBuf) -> Self {
        let mut users = Self {
            file,
            stamp: None,
            names: HashMap::new(),
        };
        users.refresh();
        users
    }

    /// Reads the file again where it has changed.
    pub fn refresh(&mut self) {
        if let Err(error) = self.read() {
            tracing::debug!(%error, "users have no names");
            self.stamp = None;
            self.names.clear();
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let it = fs::metadata(&self.file)?;
        let stamp = (it.ino(), it.len(), it.mtime(), it.mtime_nsec());
        if self.stamp == Some(stamp) {
            return Ok(());
        }
        let mut text = Vec::new();
        File::open(&self.file)?
            .take(READ_MAX)
            .read_to_end(&mut text)?;
        self.names.clear();
        for line in text.split(|byte| *byte == b'\n') {
            let mut fields = line.split(|byte| *byte == b':');
            let (name, uid) = (fields.next(), fields.nth(1));
            let uid = uid.and_then(|uid| std::str::from_utf8(uid).ok()?.parse().ok());
            if let (Some(name), Some(uid)) = (name, uid)
                && !name.is_empty()
            {
                // Of several names the first, as getpwuid(3) gives it.
                let escaped = || escape(name).into();
                self.names.entry(uid).or_insert_with(escaped);
            }
        }
        self.stamp = Some(stamp);
        Ok(())
    }

    pub fn name(&self, uid: u32) -> Option<&Arc<str>> {
        self.names.get(&uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwd");
        fs::write(
            &file,
            b"root:x:0:0::/:/sh\ntoor:x:0:0::/:/sh\n:x:7:\nbad\nevil\x1b:x:8:8:\n+::::\n"
                as &[u8],
        )
        .unwrap();
        let mut users = Users::of(file.clone());
        let name = |users: &Users, uid| users.name(uid).map(|name| name.to_string());
        assert_eq!(name(&users, 0).as_deref(), Some("root"));
        assert_eq!(name(&users, 8).as_deref(), Some("evil\\x1b"));
        assert_eq!(name(&users, 7), None);
        fs::write(&file, b"admin:x:0:0::/:/sh\n").unwrap();
        users.refresh();
        assert_eq!(name(&users, 0).as_deref(), Some("admin"));
        assert_eq!(name(&users, 8), None);
        fs::remove_file(&file).unwrap();
        users.refresh();
        assert_eq!(name(&users, 0), None);
    }

    #[test]
    fn the_hosts_superuser_has_a_name() {
        let users = Users::of(PASSWD.into());
        assert_eq!(users.name(0).map(AsRef::as_ref), Some("root"));
    }
}

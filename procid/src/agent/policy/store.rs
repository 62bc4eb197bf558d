//! What outlives the agent: the policy last applied and confirmed, and the
//! temporary rules, in the state directory.
//!
//! A file is written beside the old one and takes its place once the kernel
//! has taken what it says, whole or not at all.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{Now, blocks::Blocks};

const POLICY: &str = "policy.toml";
const BLOCKS: &str = "blocks.json";

/// Why something is not kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    pub const fn new(state_dir: PathBuf) -> Self {
        Self {
            directory: state_dir,
        }
    }

    pub(super) fn policy_path(&self) -> PathBuf {
        self.directory.join(POLICY)
    }

    /// Text of the policy kept, if there is one.
    pub(super) fn policy(&self) -> Result<Option<String>, String> {
        let path = self.policy_path();
        let text = read(&path)?.map(String::from_utf8).transpose();
        text.map_err(|error| {
            format!(
                "{} is not text ({error}); remove it, or start with --policy FILE",
                path.display()
            )
        })
    }

    /// The temporary rules kept, those that have expired included.
    pub(super) fn blocks(&self, now: Now) -> Result<Blocks, String> {
        let path = self.directory.join(BLOCKS);
        let Some(json) = read(&path)? else {
            return Ok(Blocks::default());
        };
        Blocks::of_json(&json, now).map_err(|error| {
            format!(
                "{}: {error}; mend it, or remove it and with it all temporary rules",
                path.display()
            )
        })
    }

    pub(super) fn stage_policy(&self, text: &str) -> Result<Kept, StoreError> {
        stage(self.policy_path(), text.as_bytes())
    }

    pub(super) fn stage_blocks(&self, blocks: &Blocks, now: Now) -> Result<Kept, StoreError> {
        let path = self.directory.join(BLOCKS);
        match blocks.to_json(now) {
            Ok(json) => stage(path, &json),
            Err(error) => Err(StoreError {
                path,
                source: error.into(),
            }),
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!(
            "cannot read {}: {error}; mend that, or give another --state-dir",
            path.display()
        )),
    }
}

/// A file that is written and not in its place yet; dropped, it never is.
#[derive(Debug)]
#[must_use]
pub(super) struct Kept {
    path: PathBuf,
    new: PathBuf,
}

fn stage(path: PathBuf, bytes: &[u8]) -> Result<Kept, StoreError> {
    let mut new = path.clone().into_os_string();
    new.push(".new");
    let kept = Kept {
        path,
        new: new.into(),
    };
    let write = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&kept.new)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(kept),
        Err(source) => Err(StoreError {
            path: kept.new.clone(),
            source,
        }),
    }
}

impl Kept {
    /// Puts it in its place, for good.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        let done = || {
            fs::rename(&self.new, &self.path)?;
            match self.path.parent() {
                Some(directory) => File::open(directory)?.sync_all(),
                None => Ok(()),
            }
        };
        done().map_err(|source| StoreError {
            path: self.path.clone(),
            source,
        })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Nothing is there any more once it is in its place.
        let _gone = fs::remove_file(&self.new);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::identity::hash::settle::Offset;

    const NOW: Now = Now {
        boot_ns: 1_000,
        clock: Offset(0),
    };

    #[test]
    fn a_file_takes_its_place_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().to_owned());
        assert_eq!(store.policy().unwrap(), None);
        assert_eq!(store.blocks(NOW).unwrap(), Blocks::default());
        store.stage_policy("one").unwrap().commit().unwrap();
        assert_eq!(store.policy().unwrap().as_deref(), Some("one"));
        drop(store.stage_policy("two").unwrap());
        assert_eq!(store.policy().unwrap().as_deref(), Some("one"));
        let names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["policy.toml"]);
        let mode = fs::metadata(store.policy_path()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn what_somebody_else_wrote_is_named_and_left() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().to_owned());
        fs::write(store.policy_path(), b"\xff").unwrap();
        let error = store.policy().unwrap_err();
        assert!(error.contains("policy.toml is not text"), "{error}");
        let path = directory.path().join(BLOCKS);
        for content in ["[]", "{\"last\":1,\"blocks\":[{}]}", "{\"last\":1,"] {
            fs::write(&path, content).unwrap();
            let error = store.blocks(NOW).unwrap_err();
            assert!(error.contains("blocks.json: "), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        let nowhere = Store::new(directory.path().join("no/where"));
        let error = nowhere.stage_policy("").unwrap_err().to_string();
        assert!(error.starts_with("cannot write"), "{error}");
    }
}

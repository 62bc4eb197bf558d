//! Copies of this program: other files, so that each is another executable.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use tempfile::TempDir;

/// A directory that every user may search, removed when dropped.
#[derive(Debug)]
pub(crate) struct Copies(TempDir);

impl Copies {
    pub(crate) fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("procid-test-").tempdir()?;
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        Ok(Self(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A copy under that name, followed by the name, which the loader ignores
    /// and the hash does not.
    pub(crate) fn copy(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        copy_to(&path)?;
        Ok(path)
    }

    /// An empty directory of that name.
    pub(crate) fn directory(&self, name: &str) -> Result<String> {
        let path = self.path().join(name);
        fs::create_dir(&path)?;
        path.into_os_string()
            .into_string()
            .map_err(|path| anyhow::anyhow!("{}: an odd path", path.display()))
    }

    /// A program to start: a new copy as a user of sockets.
    pub(crate) fn user(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.copy(name)?);
        command.arg("hand-user");
        Ok(command)
    }
}

pub(crate) fn copy_to(path: &Path) -> Result<()> {
    let mut copy = OpenOptions::new().write(true).create_new(true).open(path)?;
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    copy.write_all(path.as_os_str().as_encoded_bytes())?;
    copy.set_permissions(Permissions::from_mode(0o755))?;
    Ok(())
}

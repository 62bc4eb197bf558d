//! Files that tests run: copies of the test program, each with a hash of its
//! own.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::truth::FileId;

/// A directory that every user may search, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
}

impl Scratch {
    /// # Panics
    ///
    /// When no directory can be made.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("procid-test-")
            .tempdir()
            .expect("a temporary directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("chmod");
        Self { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A directory inside.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn directory(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path().join(name.as_ref());
        fs::create_dir(&path).expect("a directory");
        path
    }

    /// A copy of the test program under that name.
    pub fn program(&self, name: impl AsRef<OsStr>) -> Image {
        Image::copy_to(&self.path().join(name.as_ref()))
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// An executable file and the facts that records must tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub path: PathBuf,
    pub file: FileId,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

impl Image {
    /// A file as it is.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let content = fs::read(path).expect("an executable can be read");
        Self {
            path: path.to_owned(),
            file: FileId::of(path).expect("an executable can be looked at"),
            sha256: hex(&Sha256::digest(content)),
        }
    }

    /// Copies the test program to `path`, followed by the path itself, which
    /// the loader ignores and the hash does not.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    #[must_use]
    pub fn copy_to(path: &Path) -> Self {
        fs::copy(test_program(), path).expect("the test program can be copied");
        OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|mut copy| copy.write_all(path.as_os_str().as_encoded_bytes()))
            .expect("the copy can be appended to");
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("chmod");
        Self::of(path)
    }
}

/// The program whose connections the tests look for: `$PROCID_TESTPROG`.
///
/// # Panics
///
/// When the variable is not set.
pub fn test_program() -> PathBuf {
    binary("PROCID_TESTPROG")
}

/// The program under test: `$PROCID_BIN`.
///
/// # Panics
///
/// When the variable is not set.
pub fn procid() -> PathBuf {
    binary("PROCID_BIN")
}

fn binary(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set; 'cargo xtask test' sets it"))
        .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

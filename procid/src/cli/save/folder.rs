//! The directory made for it, into which nothing is written twice.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write as _},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::fs::{Mode, OFlags, mkdir, open, openat};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Bytes that are copied at a time.
const PIECE: usize = 256 * 1024;

/// A directory of this user alone; what is written goes into this directory,
/// wherever somebody moves it.
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// A file in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Saved {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

impl Folder {
    /// # Errors
    ///
    /// It exists, or cannot be made.
    pub fn make(path: &Path) -> io::Result<Self> {
        mkdir(path, Mode::RWXU)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty())?))
    }

    /// # Errors
    ///
    /// Of writing.
    pub fn put(&self, name: &str, bytes: &[u8]) -> io::Result<Saved> {
        let mut from = bytes;
        self.copy(name, &mut from)
    }

    /// Copies all of `from`, and hashes what was copied.
    ///
    /// # Errors
    ///
    /// Of reading and writing.
    pub fn copy(&self, name: &str, from: &mut impl Read) -> io::Result<Saved> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(openat(&self.0, OsStr::new(name), flags, mode)?);
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE];
        let mut bytes = 0;
        loop {
            let length = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let part = piece.get(..length).unwrap_or_default();
            file.write_all(part)?;
            hash.update(part);
            bytes += length as u64;
        }
        file.sync_all()?;
        let digest = hash.finalize();
        Ok(Saved {
            name: name.to_owned(),
            bytes,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// Nothing more is written: it is to survive a loss of power.
    ///
    /// # Errors
    ///
    /// Of writing.
    pub fn finish(self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn what_is_written_is_its_owners_and_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("case");
        let folder = Folder::make(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o700);
        let saved = folder.put("a", b"abc").unwrap();
        assert_eq!(mode(&path.join("a")), 0o600);
        assert_eq!(saved.bytes, 3);
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(saved.sha256, known);
        let again = folder.put("a", b"d").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(path.join("a")).unwrap(), b"abc");
        let exists = Folder::make(&path).unwrap_err();
        assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);
        folder.finish().unwrap();
    }
}

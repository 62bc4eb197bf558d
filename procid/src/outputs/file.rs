//! A file of records, one a line, that is put aside when it is large enough.
//!
//! `PATH` is renamed to `PATH.1`, that one to `PATH.2`, and so on; the last one
//! goes. No record stands in two files: what was written of one when a disk was
//! full is taken out again. Where something else renames or removes the file,
//! as logrotate(8) does, a new one is begun by itself: no signal is needed.
//!
//! The thread that writes has no capabilities: the directory has to be one that
//! the agent's user may write without them.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    queue::{Line, Tally},
    worker::{Sink, Trouble},
};

/// Command lines hold secrets.
const MODE: u32 = 0o600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A file that would become larger is put aside first, bytes.
    pub size: u64,
    /// Files kept aside.
    pub keep: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Rotating {
    path: PathBuf,
    limits: Limits,
    file: Option<File>,
    /// The file ends inside a record.
    is_torn: bool,
    /// Lines that are written at once.
    buffer: Vec<u8>,
}

impl Rotating {
    /// # Errors
    ///
    /// The file cannot be opened, or is another process's.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, Trouble> {
        let mut rotating = Self {
            path: path.to_owned(),
            limits,
            file: None,
            is_torn: false,
            buffer: Vec::new(),
        };
        rotating.current()?;
        Ok(rotating)
    }

    /// The file that has the name, and its length.
    fn current(&mut self) -> Result<(&File, u64), Trouble> {
        let open = |error| trouble("open", &self.path, error);
        let named = match fs::symlink_metadata(&self.path) {
            Ok(named) => Some((named.dev(), named.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(open(error)),
        };
        let is_named = |file: &File| {
            let own = file.metadata()?;
            Ok(named == Some((own.dev(), own.ino())))
        };
        let kept = match self.file.take() {
            Some(file) if is_named(&file).map_err(open)? => file,
            _ => {
                let (file, is_torn) = create(&self.path).map_err(open)?;
                self.is_torn = is_torn;
                file
            }
        };
        let length = kept.metadata().map_err(open)?.len();
        Ok((self.file.insert(kept), length))
    }

    /// Puts the file aside; the next [`Self::current`] begins another.
    fn rotate(&mut self) -> Result<(), Trouble> {
        self.file = None;
        for number in (1..self.limits.keep).rev() {
            let (from, to) = (self.aside(number), self.aside(number + 1));
            match fs::rename(&from, to) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(trouble("rename", &from, error));
                }
                _ => {}
            }
        }
        fs::rename(&self.path, self.aside(1)).map_err(|error| trouble("rename", &self.path, error))
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }

    /// Appends whole lines.
    fn append(&mut self, lines: &[Line], tally: &mut Tally) -> Result<(), Trouble> {
        let Some(file) = &mut self.file else {
            return Err(trouble("write", &self.path, ErrorKind::NotFound.into()));
        };
        self.buffer.clear();
        let before = usize::from(self.is_torn);
        if self.is_torn {
            self.buffer.push(b'\n');
        }
        for line in lines {
            self.buffer.extend_from_slice(line);
        }
        let (written, failure) = write(file, &self.buffer);
        if failure.is_none() {
            self.is_torn = false;
            tally.written += lines.len() as u64;
            return Ok(());
        }
        let mut whole = 0;
        for line in lines {
            if before + whole + line.len() > written {
                break;
            }
            whole += line.len();
            tally.written += 1;
        }
        if written >= before {
            self.is_torn = false;
            let piece = (written - before - whole) as u64;
            self.is_torn = piece > 0 && take_back(file, piece).is_err();
        }
        match failure {
            Some(error) => Err(trouble("write", &self.path, error)),
            None => Ok(()),
        }
    }
}

impl Sink for Rotating {
    fn write(&mut self, lines: &[Line], tally: &mut Tally) -> Result<(), Trouble> {
        let mut rest = lines;
        while let Some(first) = rest.first() {
            let limit = self.limits.size;
            let (_, mut length) = self.current()?;
            if length > 0 && length + first.len() as u64 > limit {
                self.rotate()?;
                (_, length) = self.current()?;
            }
            let fit = rest.iter().skip(1).take_while(|line| {
                length += line.len() as u64;
                length + first.len() as u64 <= limit
            });
            let count = 1 + fit.count();
            self.append(&rest[..count], tally)?;
            rest = &rest[count..];
        }
        Ok(())
    }
}

fn trouble(what: &'static str, path: &Path, source: io::Error) -> Trouble {
    Trouble {
        what,
        place: path.display().to_string(),
        source,
    }
}

/// Opens or makes the file, which is procid's alone; says whether it ends inside
/// a record, as after a power loss.
fn create(path: &Path) -> io::Result<(File, bool)> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(MODE)
        // A pipe would hold the agent up; a link may lead anywhere.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(io::Error::other("another process has locked it"));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if metadata.mode() & 0o7777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    let mut last = [b'\n'];
    if let Some(at) = metadata.len().checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    Ok((file, last != [b'\n']))
}

/// Writes as much as can be: how much it was, and why it was not all.
fn write(file: &mut File, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

/// Takes the last bytes away. Someone may have cut the file meanwhile: it is not
/// made longer.
fn take_back(file: &File, piece: u64) -> io::Result<()> {
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(piece))
}

#[cfg(test)]
mod tests;

//! Where the API listens: one agent a socket.
//!
//! A lock beside the socket tells a running agent from what a killed one left:
//! the kernel drops the lock with its holder, the file of the socket stays.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use super::{access, accounts};

/// Mode of the socket: its owner and the group.
const MODE: u32 = 0o660;
/// Longest path a Unix socket can have: `sun_path` without its last zero
/// ([unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)).
const LONGEST: usize = 107;

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another agent answers on {0}; stop it, or give this one another --socket")]
    Taken(PathBuf),
    #[error("{0} exists and is not a socket; remove it, or give another --socket")]
    NotASocket(PathBuf),
    #[error(
        "{0} is longer than the {LONGEST} bytes a socket's path can have; give another --socket"
    )]
    TooLong(PathBuf),
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// A listening socket; dropping it removes its file.
#[derive(Debug)]
pub struct Bound {
    listener: Option<UnixListener>,
    path: PathBuf,
    /// Held for as long as the socket is ours.
    _lock: File,
}

impl Bound {
    /// The listener, non-blocking; can be taken once.
    pub fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Listens on `path` with mode 0660, group `procid` where there is one. What a
/// killed agent left there is replaced. Makes the last directory of the path
/// (0755) when it is missing.
///
/// # Errors
///
/// Another agent listens there, something else is there, or the system refuses.
pub fn bind(path: &Path) -> Result<Bound, BindError> {
    if path.as_os_str().len() > LONGEST {
        return Err(BindError::TooLong(path.to_owned()));
    }
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        make_directory(directory)?;
    }
    let lock = lock(path)?;
    clear(path)?;
    let listener = UnixListener::bind(path).map_err(io_error("listen on", path))?;
    let bound = Bound {
        listener: Some(listener),
        path: path.to_owned(),
        _lock: lock,
    };
    if let Ok(Some(group)) = accounts::group(access::GROUP) {
        chown(path, None, Some(group.gid)).map_err(io_error("give the group procid", path))?;
    }
    // The file is the caller's alone until here: see the umask in `cli::run`.
    fs::set_permissions(path, Permissions::from_mode(MODE))
        .map_err(io_error("set the mode of", path))?;
    if let Some(listener) = &bound.listener {
        listener
            .set_nonblocking(true)
            .map_err(io_error("listen on", path))?;
    }
    Ok(bound)
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    let path = path.to_owned();
    move |source| BindError::Io { what, path, source }
}

fn make_directory(directory: &Path) -> Result<(), BindError> {
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        // Whatever the umask is, the group has to come through to the socket.
        Ok(()) => fs::set_permissions(directory, Permissions::from_mode(0o755))
            .map_err(io_error("set the mode of", directory)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io_error("make the directory", directory)(error)),
    }
}

fn lock(path: &Path) -> Result<File, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&name)
        .map_err(io_error("open", &name))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BindError::Taken(path.to_owned())),
        Err(error) => Err(io_error("lock", &name)(error.into())),
    }
}

/// Removes a socket that nobody listens on.
fn clear(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("look at", path)(error)),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::Taken(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io_error("remove the stale socket", path))
        }
        Err(error) => Err(io_error("connect to", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/s");
        let bound = bind(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        assert!(matches!(bind(&path), Err(BindError::Taken(_))));
        drop(bound);
        assert!(!path.exists());
        drop(bind(&path).unwrap());
    }

    #[test]
    fn a_socket_that_a_killed_agent_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let mut bound = bind(&path).unwrap();
        let _listener = bound.take().unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_socket_of_another_program_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _other = UnixListener::bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::Taken(_))));
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let long = directory.path().join("x".repeat(120));
        assert!(matches!(bind(&long), Err(BindError::TooLong(_))));
    }
}

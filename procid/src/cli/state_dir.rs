//! The directory where the agent keeps its state.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

use rustix::fs::Access;

use super::failure::Failure;

/// Makes the directory (0700) where it is missing, and refuses one that others
/// can write to. One that others can look into draws a warning: the files in
/// it are 0600, and a directory that somebody else chose is left as it is.
/// Parents are not made, so that a typing error makes no tree.
///
/// # Errors
///
/// Exit code 2 for a path that is no directory of our own, 3 for one that may
/// not be written.
pub fn prepare(path: &Path) -> Result<(), Failure> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failure(path, "make", &error)),
    }
    let there = fs::metadata(path).map_err(|error| failure(path, "look at", &error))?;
    let at = path.display();
    if !there.is_dir() {
        return Err(Failure::usage(format!(
            "--state-dir {at} is not a directory; give another"
        )));
    }
    let own_uid = rustix::process::geteuid().as_raw();
    if there.uid() != own_uid {
        return Err(Failure::usage(format!(
            "--state-dir {at} belongs to uid {}, not to uid {own_uid}; give another",
            there.uid()
        )));
    }
    let mode = there.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(Failure::usage(format!(
            "--state-dir {at} can be written by others (mode {mode:o}); 'chmod 700 {at}', or give another"
        )));
    }
    if mode & 0o055 != 0 {
        tracing::warn!("--state-dir {at} can be looked into by others (mode {mode:o})");
    }
    rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| failure(path, "write to", &error.into()))
}

fn failure(path: &Path, what: &str, error: &io::Error) -> Failure {
    let message = format!(
        "cannot {what} --state-dir {}: {error}; give another, or make it by hand (mode 0700)",
        path.display()
    );
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Failure::refused(message),
        _ => Failure::usage(message),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::failure::Code;

    #[test]
    fn it_is_made_for_its_owner_alone_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        prepare(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        prepare(&path).unwrap();
    }

    #[test]
    fn what_is_not_ours_alone_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        assert_eq!(prepare(&path.join("below")).unwrap_err().code, Code::Usage);
        fs::write(&path, "").unwrap();
        let failure = prepare(&path).unwrap_err();
        assert!(failure.message.contains("is not a directory"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        let failure = prepare(&path).unwrap_err();
        assert!(failure.message.contains("mode 1777"), "{failure:?}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o1777);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        prepare(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn what_may_not_be_written_is_a_refusal() {
        // sysfs takes no directories, not even from root.
        let failure = prepare(Path::new("/sys/procid")).unwrap_err();
        assert_eq!(failure.code, Code::Refused, "{failure:?}");
    }
}

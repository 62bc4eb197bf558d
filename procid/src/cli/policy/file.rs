//! A policy's file, read.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use crate::agent::settings::{POLICY_BYTES, PolicyFile};

/// Reads a policy: a regular file of text that is not too long.
///
/// # Errors
///
/// One sentence that names the file.
pub fn read(path: &Path) -> Result<PolicyFile, String> {
    let at = path.display();
    let failed = |error: io::Error| format!("cannot read {at}: {error}");
    // Not blocking: a named pipe has no writer yet.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options()
        .read(true)
        .custom_flags(nonblock)
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{at} is not a regular file; name a policy's file"));
    }
    let text = text_of(file, &at.to_string())?;
    Ok(PolicyFile {
        path: path.to_owned(),
        text,
    })
}

/// Reads FILE; `-` is stdin. Returns its name in messages, and its text.
///
/// # Errors
///
/// One sentence that names the file.
pub(super) fn read_or_stdin(path: &Path) -> Result<(String, String), String> {
    if path == Path::new("-") {
        let name = "<stdin>".to_owned();
        let text = text_of(io::stdin().lock(), &name)?;
        return Ok((name, text));
    }
    let PolicyFile { path, text } = read(path)?;
    Ok((path.display().to_string(), text))
}

fn text_of(source: impl Read, at: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    source
        .take(POLICY_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read {at}: {error}"))?;
    if bytes.len() > POLICY_BYTES {
        return Err(format!(
            "{at} is longer than a policy can be ({POLICY_BYTES} bytes); shorten it"
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{at}:{line}: not UTF-8; save the file as UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_policy_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.toml");
        let error = || read(&path).unwrap_err();
        assert!(error().contains("cannot read"), "{}", error());
        std::fs::write(&path, b"a\nb\xff").unwrap();
        assert!(error().contains("p.toml:2: not UTF-8"), "{}", error());
        std::fs::write(&path, vec![b'#'; POLICY_BYTES + 1]).unwrap();
        assert!(error().contains("longer"), "{}", error());
        assert!(read(directory.path()).is_err());
        std::fs::write(&path, "mode = \"audit\"").unwrap();
        assert_eq!(read(&path).unwrap().text, "mode = \"audit\"");
    }

    #[test]
    fn a_pipe_without_a_writer_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
        assert!(read(&path).unwrap_err().contains("not a regular file"));
    }
}

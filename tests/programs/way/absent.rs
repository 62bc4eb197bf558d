//! What a kernel does not have, and the errno that proves it.

use std::fmt;

use anyhow::Error;
use procid_tests::way::Unsupported;
use rustix::io::Errno;

/// The errnos that say "no such thing" rather than "not like this".
const NAMES: [(Errno, &str); 8] = [
    (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
    (Errno::PROTONOSUPPORT, "EPROTONOSUPPORT"),
    (Errno::SOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
    (Errno::NOPROTOOPT, "ENOPROTOOPT"),
    (Errno::NOSYS, "ENOSYS"),
    (Errno::NOENT, "ENOENT"),
    (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (Errno::INVAL, "EINVAL"),
];

/// Ends a way that this kernel lacks.
#[derive(Debug)]
pub(crate) struct Absent(String);

impl Absent {
    pub(crate) fn line(&self) -> Unsupported {
        Unsupported {
            unsupported: self.0.clone(),
        }
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Absent {}

/// The kernel lacks what the sentence says, as a feature's flag shows.
pub(crate) fn absent(sentence: impl Into<String>) -> Error {
    Absent(sentence.into()).into()
}

/// `error`, read as the absence of `what` if it is one of `proofs`.
pub(crate) fn lacking(what: &str, error: Errno, proofs: &[Errno]) -> Error {
    let name = NAMES.iter().find(|(errno, _)| *errno == error);
    match name {
        Some((_, name)) if proofs.contains(&error) => absent(format!("no {what} ({name})")),
        _ => Error::new(error).context(what.to_string()),
    }
}

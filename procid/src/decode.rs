//! Ring-buffer bytes, checked for length and kind, viewed as events.

use procid_common::{
    answer::Answer,
    event::{Header, kind},
    policy::asked::{AskedRow, OpenRow},
    process::{Actor, Exec, Exit, Fork},
    socket::{Attempt, Close, FileRow, Outcome, SocketRow},
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// One event of the kernel side.
#[derive(Clone, Debug)]
pub enum Event {
    Fork(Fork),
    /// A live exec.
    Exec(ExecFacts),
    /// A process that was running before the hooks were.
    TaskRow(ExecFacts),
    Exit(Exit),
    Attempt(Attempt),
    Outcome(Outcome),
    Close(Close),
    Use(Attempt),
    Accept(Attempt),
    Wire(Outcome),
    CountsRow(Close),
    SocketRow(SocketRow),
    FileRow(FileRow),
    AskedRow(Box<AskedRow>),
    OpenRow(OpenRow),
    Answer(Box<Answer>),
}

impl Event {
    /// Who acted, of events that tell it.
    pub const fn actor(&self) -> Option<&Actor> {
        match self {
            Self::Fork(fork) => Some(&fork.actor),
            Self::Exec(facts) | Self::TaskRow(facts) => Some(&facts.event.actor),
            Self::Attempt(attempt) | Self::Use(attempt) | Self::Accept(attempt) => {
                Some(&attempt.actor)
            }
            Self::Exit(_)
            | Self::Outcome(_)
            | Self::Close(_)
            | Self::Wire(_)
            | Self::CountsRow(_)
            | Self::SocketRow(_)
            | Self::FileRow(_)
            | Self::AskedRow(_)
            | Self::OpenRow(_)
            | Self::Answer(_) => None,
        }
    }
}

/// An exec event with the variable part cut into its pieces.
#[derive(Clone, Debug)]
pub struct ExecFacts {
    pub event: Exec,
    /// Absolute path in the process's own root, as raw bytes; `None` when the
    /// kernel side could not follow it.
    pub path: Option<Vec<u8>>,
    /// Arguments as raw bytes; `None` when they could not be read.
    pub args: Option<Vec<Vec<u8>>>,
    /// Path of the script, as it was given to execve(2), where the kernel ran
    /// an interpreter of it.
    pub script: Option<Vec<u8>>,
}

/// Why bytes are not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{have} bytes are too few for an event of {want}")]
    Short { have: usize, want: usize },
    #[error("event kind {0:#x} is not known")]
    Kind(u32),
    #[error("the header says {header} bytes, the record has {have}")]
    Length { header: u32, have: usize },
    #[error("the lengths inside an exec event overrun it")]
    Overrun,
}

fn view<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    T::read_from_prefix(bytes).map_err(|_| DecodeError::Short {
        have: bytes.len(),
        want: size_of::<T>(),
    })
}

/// When an event happened, nanoseconds since boot; 0 where bytes are no event.
pub fn time_of(bytes: &[u8]) -> u64 {
    view::<Header>(bytes).map_or(0, |(header, _)| header.boot_ns)
}

/// Decodes one event.
///
/// # Errors
///
/// Bytes that are too short, of a kind that is not known, or whose inner
/// lengths do not fit.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let (header, _) = view::<Header>(bytes)?;
    if usize::try_from(header.len) != Ok(bytes.len()) {
        return Err(DecodeError::Length {
            header: header.len,
            have: bytes.len(),
        });
    }
    Ok(match header.kind {
        kind::FORK => Event::Fork(view(bytes)?.0),
        kind::EXEC => Event::Exec(exec(bytes)?),
        kind::TASK_ROW => Event::TaskRow(exec(bytes)?),
        kind::EXIT => Event::Exit(view(bytes)?.0),
        kind::ATTEMPT => Event::Attempt(view(bytes)?.0),
        kind::OUTCOME => Event::Outcome(view(bytes)?.0),
        kind::CLOSE => Event::Close(view(bytes)?.0),
        kind::USE => Event::Use(view(bytes)?.0),
        kind::ACCEPT => Event::Accept(view(bytes)?.0),
        kind::WIRE => Event::Wire(view(bytes)?.0),
        kind::COUNTS_ROW => Event::CountsRow(view(bytes)?.0),
        kind::SOCKET_ROW => Event::SocketRow(view(bytes)?.0),
        kind::FILE_ROW => Event::FileRow(view(bytes)?.0),
        kind::ASKED_ROW => Event::AskedRow(Box::new(view(bytes)?.0)),
        kind::OPEN_ROW => Event::OpenRow(view(bytes)?.0),
        kind::ANSWER => Event::Answer(Box::new(view(bytes)?.0)),
        other => return Err(DecodeError::Kind(other)),
    })
}

fn exec(bytes: &[u8]) -> Result<ExecFacts, DecodeError> {
    use procid_common::image::flags;

    let (event, rest) = view::<Exec>(bytes)?;
    let path_len = event.path_len as usize;
    let args_len = event.args_len as usize;
    let script_len = event.script_len as usize;
    let path = rest.get(..path_len).ok_or(DecodeError::Overrun)?;
    let args = rest
        .get(path_len..)
        .and_then(|rest| rest.get(..args_len))
        .ok_or(DecodeError::Overrun)?;
    let script = rest
        .get(path_len + args_len..)
        .and_then(|rest| rest.get(..script_len))
        .ok_or(DecodeError::Overrun)?;
    let unknown_path = flags::NO_EXE | flags::PATH_TRUNCATED | flags::PATH_UNREACHABLE;
    let path = if event.image.flags & unknown_path != 0 || path.is_empty() {
        None
    } else {
        Some(join_path(path)?)
    };
    let args = if event.image.flags & flags::ARGS_UNREADABLE != 0 {
        None
    } else {
        Some(split_args(args))
    };
    Ok(ExecFacts {
        event,
        path,
        args,
        script: (!script.is_empty()).then(|| script.to_vec()),
    })
}

/// Turns components, leaf first, each behind its length, into a path.
fn join_path(mut bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut components = Vec::new();
    while let Some((&len, rest)) = bytes.split_first() {
        let name = rest.get(..usize::from(len)).ok_or(DecodeError::Overrun)?;
        components.push(name);
        bytes = &rest[usize::from(len)..];
    }
    let mut path = Vec::new();
    for name in components.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    Ok(path)
}

pub(crate) fn split_args(bytes: &[u8]) -> Vec<Vec<u8>> {
    if bytes.is_empty() {
        return Vec::new();
    }
    // The last argument has no NUL where the command line was cut.
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    bytes.split(|&b| b == 0).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests;

//! Exit codes, and the one sentence that goes with them.

use std::{io, process::ExitCode};

/// Exit codes: fixed, scripts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Done = 0,
    /// Nothing matched, or a check failed.
    Nothing = 1,
    /// Bad usage or input.
    Usage = 2,
    /// Not permitted, or not supported here.
    Refused = 3,
    /// No agent answers.
    NoAgent = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// A command that did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// One sentence that names the place and the remedy; empty: say nothing.
    pub message: String,
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Code::Refused, message)
    }

    pub fn nothing(message: impl Into<String>) -> Self {
        Self::new(Code::Nothing, message)
    }

    pub fn no_agent(message: impl Into<String>) -> Self {
        Self::new(Code::NoAgent, message)
    }

    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// What a failed write to stdout means: a reader that has had enough
    /// (`| head`) is a success.
    #[must_use]
    pub fn of_stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Code::Done, "")
        } else {
            Self::refused(format!("cannot write to stdout: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_a_success_and_a_full_disk_is_not() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::of_stdout(&pipe).code, Code::Done);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::of_stdout(&full).code, Code::Refused);
    }
}

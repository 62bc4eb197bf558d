//! Why a policy cannot be compiled.

use std::{fmt, io, path::PathBuf, sync::Arc};

use procid_common::policy::{EXPIRIES_MAX, RULES_MAX};

use crate::policy::Rule;

/// The last epoch has no end.
pub(super) const EXPIRIES: usize = EXPIRIES_MAX - 1;

/// Why a policy cannot be compiled on this host.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("the policy has {0} rules, and {RULES_MAX} is the most; merge some or remove them")]
    Rules(usize),
    #[error(
        "rules of the policy expire at {0} different times, and {EXPIRIES} is the most; let some \
         expire together or remove those that have expired"
    )]
    Expiries(usize),
    #[error(
        "{rule} asks for an executable in a container's root, which cannot be told from the \
         host's ({reason}); run procid as root, with CAP_SYS_PTRACE, or ask for its hash instead"
    )]
    Root { rule: RuleName, reason: io::Error },
    #[error(
        "{rule} names {path}, which cannot be looked up on this host ({reason}); name another \
         path or make this one readable for root",
        path = path.display()
    )]
    Path {
        rule: RuleName,
        path: PathBuf,
        reason: io::Error,
    },
    #[error(
        "{rule} asks for an inode of device {major}:{minor}, which no device can have; take the \
         numbers from /proc/self/mountinfo"
    )]
    Device {
        rule: RuleName,
        major: u32,
        minor: u32,
    },
}

/// A rule and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    pub name: Arc<str>,
    /// As of [`Rule::line`].
    pub line: usize,
}

impl fmt::Display for RuleName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "rule {:?}", self.name)?;
        if self.line != 0 {
            write!(out, " (line {})", self.line)?;
        }
        Ok(())
    }
}

impl From<&Rule> for RuleName {
    fn from(rule: &Rule) -> Self {
        Self {
            name: Arc::clone(&rule.name),
            line: rule.line,
        }
    }
}

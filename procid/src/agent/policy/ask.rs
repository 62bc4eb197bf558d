//! What is asked of the [`Manager`](super::Manager), and its answers: the bodies
//! of the API, too.

use serde::{Deserialize, Serialize};

use super::open::Denied;

/// A change, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Apply(Apply),
    /// The file that the agent was started with, read again.
    Reload(Apply),
    Confirm,
    Revert,
    Block(BlockRequest),
    Unblock(Unblock),
}

impl Change {
    /// The word for it in records.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Reload(_) => "reload",
            Self::Confirm => "confirm",
            Self::Revert => "revert",
            Self::Block(_) => "block",
            Self::Unblock(_) => "unblock",
        }
    }
}

/// Who asks for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The other end of the API's socket; `pid` where it can be told.
    Peer { pid: Option<u32>, uid: u32 },
    /// The agent itself, at its start.
    Agent,
    /// Who sent SIGHUP.
    Signal,
    /// Nobody: a deadline passed.
    Clock,
}

/// `POST /v1/policy/apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Apply {
    pub text: String,
    /// What messages call it.
    pub file: String,
    /// Say what would happen, change nothing.
    pub dry_run: bool,
    /// Refuse what this host cannot enforce in full.
    pub strict: bool,
    /// Revert unless it is confirmed within this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_seconds: Option<u64>,
    /// Say which open connections it denies: the caller closes them.
    pub cut: bool,
}

/// `POST /v1/block`: exactly one of the first three says who is blocked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// `process.entity_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// Address or CIDR; absent: everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    pub for_seconds: u64,
    pub reason: String,
}

/// `POST /v1/unblock`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unblock {
    pub name: String,
}

/// What is in force after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changed {
    /// 0: no policy, or a dry run.
    pub generation: u64,
    /// Of the policy's file; absent: no policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Temporary ones included.
    pub rules: usize,
    /// RFC 3339: reverted then, unless it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<String>,
    /// Name of the temporary rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// RFC 3339, of the temporary rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What the caller should know, a sentence each.
    pub warnings: Vec<String>,
    /// Open connections that the policy denies, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<Denied>,
    /// Open connections of which it is not certain, which stay open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undecided: Option<usize>,
    /// Images that run, and whose hash the policy asks for and is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhashed: Vec<Unhashed>,
}

/// An image without a hash: a rule that turns on it is decided by `unknown_hash`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unhashed {
    pub pid: u32,
    pub entity_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// As `procid.hash.reason`.
    pub reason: String,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The policy, or what was asked, is no good; a line for each mistake.
    #[error("{0}")]
    Input(String),
    /// There is nothing to confirm, to revert, to unblock, or something is in
    /// the way.
    #[error("{0}")]
    State(String),
    /// The host cannot do it.
    #[error("{0}")]
    Unsupported(String),
}

/// The policy part of `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyStatus {
    /// 0: no policy.
    pub generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Where it was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// `enforce` or `audit`.
    pub mode: String,
    /// `allow` or `deny`.
    pub default: String,
    /// Temporary ones included.
    pub rules: usize,
    /// Temporary ones.
    pub blocks: usize,
    /// Other processes are kept from the agent.
    pub protected: bool,
    /// Why not, where the policy asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unprotected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
}

/// The policy in force waits to be confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pending {
    /// RFC 3339.
    pub confirm_by: String,
    /// SHA-256 of the policy before; absent: there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub falls_back_to: Option<String>,
}

/// `GET /v1/policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shown {
    #[serde(flatten)]
    pub status: PolicyStatus,
    /// In order.
    #[serde(rename = "rule")]
    pub rules: Vec<ShownRule>,
    /// Decisions that no rule made.
    pub default_hits: u64,
    /// Text of the file; absent: there are temporary rules only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShownRule {
    pub name: String,
    /// `allow`, `deny` or `audit`.
    pub action: String,
    /// Of the file; absent: a temporary rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Decisions it made since it came into force.
    pub hits: u64,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Of a temporary rule: who is blocked, to where, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

//! Questions to the running agent.
//!
//! One thread owns all the agent knows; [`Handle`] sends it questions, so that
//! no lock stands between the ring buffer and its reader.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::policy::{
    ask::{Caller, Change, Changed, PolicyStatus, Refusal, Shown},
    explain::{Explain, Explained},
};
use crate::{
    flow::Query,
    records::{Record, Uncovered},
};

/// A question on its way to the agent's thread.
#[derive(Debug)]
pub enum Question {
    /// Connections that match, oldest first, the last record being the
    /// coverage record.
    Who(Box<Query>, oneshot::Sender<Vec<Record>>),
    Status(oneshot::Sender<Status>),
    /// The image of that entity id.
    Process(String, oneshot::Sender<Option<Record>>),
    /// A change of the policy, by a caller who may make it.
    Change(
        Box<Change>,
        Caller,
        oneshot::Sender<Result<Changed, Refusal>>,
    ),
    /// Which rule decides for a process and a destination.
    Explain(Box<Explain>, oneshot::Sender<Result<Explained, Refusal>>),
    /// The policy in force.
    Policy(oneshot::Sender<Result<Shown, Refusal>>),
}

/// The agent no longer runs.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the agent has stopped")]
pub struct Stopped;

#[derive(Clone, Debug)]
pub struct Handle {
    questions: mpsc::Sender<Question>,
}

impl Handle {
    pub fn new(questions: mpsc::Sender<Question>) -> Self {
        Self { questions }
    }

    async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, Stopped> {
        let (sender, answer) = oneshot::channel();
        self.questions
            .send(make(sender))
            .await
            .map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// # Errors
    ///
    /// The agent has stopped.
    pub async fn who(&self, query: Query) -> Result<Vec<Record>, Stopped> {
        self.ask(|sender| Question::Who(Box::new(query), sender))
            .await
    }

    /// # Errors
    ///
    /// The agent has stopped.
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.ask(Question::Status).await
    }

    /// # Errors
    ///
    /// The agent has stopped.
    pub async fn change(
        &self,
        change: Change,
        caller: Caller,
    ) -> Result<Result<Changed, Refusal>, Stopped> {
        self.ask(|sender| Question::Change(Box::new(change), caller, sender))
            .await
    }

    /// # Errors
    ///
    /// The agent has stopped.
    pub async fn explain(&self, request: Explain) -> Result<Result<Explained, Refusal>, Stopped> {
        self.ask(|sender| Question::Explain(Box::new(request), sender))
            .await
    }

    /// # Errors
    ///
    /// The agent has stopped.
    pub async fn policy(&self) -> Result<Result<Shown, Refusal>, Stopped> {
        self.ask(Question::Policy).await
    }

    /// # Errors
    ///
    /// The agent has stopped.
    pub async fn process(&self, entity_id: String) -> Result<Option<Record>, Stopped> {
        self.ask(|sender| Question::Process(entity_id, sender))
            .await
    }
}

/// One hook: what it is for and whether it is attached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HookStatus {
    /// `cgroup/connect4`.
    pub name: String,
    /// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
    pub program_type: String,
    /// What it gives.
    pub gives: String,
    /// What is lost without it.
    pub without: String,
    pub attached: bool,
    /// Why not, where it is not.
    pub reason: Option<String>,
    /// Not attached, and this kernel could be expected to allow it: the agent
    /// is degraded. (An older kernel's missing tracepoint is not: it is listed
    /// under `uncovered` only.)
    pub missed: bool,
}

/// `procid status`, and `/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Every hook wanted is attached and nothing was lost.
    pub healthy: bool,
    /// Why not, one clear sentence each.
    pub degraded: Vec<String>,
    pub version: String,
    pub pid: u32,
    /// RFC 3339.
    pub since: String,
    /// `cgroup`, `lsm` or `lsm+cgroup`.
    pub backend: String,
    pub hooks: Vec<HookStatus>,
    pub uncovered: Vec<Uncovered>,
    /// Records emitted so far.
    pub emitted: u64,
    /// Records lost so far, by cause.
    pub lost: BTreeMap<String, u64>,
    /// Entries in use and capacity, by map or table.
    pub fill: BTreeMap<String, Fill>,
    pub hash_queue: usize,
    /// 0: no policy.
    pub policy_generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// Capabilities kept after attaching.
    pub capabilities: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    pub used: u64,
    pub capacity: u64,
}

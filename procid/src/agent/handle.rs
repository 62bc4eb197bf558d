//! Questions to the running agent.
//!
//! One thread owns all the agent knows; [`Handle`] sends it questions, so that
//! no lock stands between the ring buffer and its reader.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{
    policy::{
        ask::{Caller, Change, Changed, PolicyStatus, Refusal, Shown},
        explain::{Explain, Explained},
    },
    recall::join,
    stream::Stream,
};
use crate::{
    flow::Query,
    gate, history, outputs,
    records::{Coverage, Gap, Record, Uncovered},
};

/// Longest wait until what memory has forgotten is in the history.
const WRITE_TIME: Duration = Duration::from_secs(2);

/// A question on its way to the agent's thread.
#[derive(Debug)]
pub enum Question {
    /// Connections that match, of those in memory.
    Who(Box<Query>, oneshot::Sender<Memory>),
    /// Those that are open and match, oldest first, the last record being the
    /// coverage record.
    Connections(Box<Query>, oneshot::Sender<Vec<Record>>),
    Status(oneshot::Sender<Status>),
    /// The images that run now, oldest first, the last record being the coverage
    /// record.
    Processes(oneshot::Sender<Vec<Record>>),
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

/// What memory answers to `who`.
#[derive(Debug, Default)]
pub struct Memory {
    /// Oldest first.
    pub records: Vec<Record>,
    pub coverage: Coverage,
    /// The run that answers: its `agent.ephemeral_id`.
    pub run: String,
    /// What ended then or before may be forgotten; nanoseconds since boot.
    pub forgotten_ns: u64,
    /// Told when history has all that was known then; `None`: none is kept.
    pub written: Option<oneshot::Receiver<()>>,
    /// What history misses now.
    pub gap: Option<Gap>,
}

/// The agent no longer runs.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the agent has stopped")]
pub struct Stopped;

/// Ends the sleep of the agent's thread, which waits for this descriptor too.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// # Errors
    ///
    /// Of eventfd(2).
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(eventfd(0, flags)?)))
    }

    /// Each call is an event; nobody reads their number.
    fn wake(&self) {
        // It fails only once 2^64 - 1 were told: then the sleep ends by itself.
        let _asleep = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[derive(Clone, Debug)]
pub struct Handle {
    questions: mpsc::Sender<Question>,
    waker: Option<Waker>,
    stream: Stream,
    /// Where history is; one question at a time is read from it.
    state_dir: Option<Arc<Mutex<PathBuf>>>,
}

impl Handle {
    /// To whom waits for questions and nothing else, and emits nothing.
    pub fn new(questions: mpsc::Sender<Question>) -> Self {
        Self {
            questions,
            waker: None,
            stream: Stream::of_nothing(),
            state_dir: None,
        }
    }

    /// To whom is to be woken for a question.
    pub fn waking(questions: mpsc::Sender<Question>, waker: Waker) -> Self {
        Self {
            waker: Some(waker),
            ..Self::new(questions)
        }
    }

    /// To one whose records are these.
    #[must_use]
    pub fn with_stream(self, stream: Stream) -> Self {
        Self { stream, ..self }
    }

    /// Answers from the history in that state directory too.
    #[must_use]
    pub fn with_history(self, state_dir: PathBuf) -> Self {
        Self {
            state_dir: Some(Arc::new(Mutex::new(state_dir))),
            ..self
        }
    }

    /// The records as they are emitted.
    pub fn stream(&self) -> &Stream {
        &self.stream
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
        if let Some(waker) = &self.waker {
            waker.wake();
        }
        answer.await.map_err(|_| Stopped)
    }

    /// Connections that match, in memory and in history, the last record being
    /// the coverage record.
    ///
    /// # Errors
    ///
    /// The agent has stopped.
    pub async fn who(&self, query: Query) -> Result<Vec<Record>, Stopped> {
        let mut memory = self
            .ask(|sender| Question::Who(Box::new(query.clone()), sender))
            .await?;
        let (Some(state_dir), Some(written)) = (&self.state_dir, memory.written.take()) else {
            return Ok(join::memory_alone(&query, memory));
        };
        // What is not written in time is a gap that memory has told of.
        let _late = tokio::time::timeout(WRITE_TIME, written).await;
        let state_dir = Arc::clone(state_dir).lock_owned().await;
        tokio::task::spawn_blocking(move || join::join(&state_dir, &query, memory))
            .await
            .map_err(|_| Stopped)
    }

    /// # Errors
    ///
    /// The agent has stopped.
    pub async fn connections(&self, query: Query) -> Result<Vec<Record>, Stopped> {
        self.ask(|sender| Question::Connections(Box::new(query), sender))
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
    pub async fn processes(&self) -> Result<Vec<Record>, Stopped> {
        self.ask(Question::Processes).await
    }

    /// The image of that name, as history knows it where memory has forgotten it.
    ///
    /// # Errors
    ///
    /// The agent has stopped.
    pub async fn process(&self, entity_id: String) -> Result<Option<Record>, Stopped> {
        let known = self
            .ask(|sender| Question::Process(entity_id.clone(), sender))
            .await?;
        let (None, Some(state_dir), Ok(entity)) = (&known, &self.state_dir, entity_id.parse())
        else {
            return Ok(known);
        };
        let state_dir = Arc::clone(state_dir).lock_owned().await;
        tokio::task::spawn_blocking(move || join::image(&state_dir, entity))
            .await
            .map_err(|_| Stopped)
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
    /// The same by action.
    pub actions: BTreeMap<String, u64>,
    /// Records lost so far, by cause.
    pub lost: BTreeMap<String, u64>,
    /// DNS answers that reached this host.
    pub answers: AnswerCounts,
    /// Entries in use and capacity, by map or table.
    pub fill: BTreeMap<String, Fill>,
    pub hash_queue: usize,
    /// 0: no policy.
    pub policy_generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// Absent: there is none, or none is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_gate: Option<GateStatus>,
    /// Absent: none is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<history::State>,
    /// Beside stdout.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputStatus>,
    /// Capabilities kept after attaching.
    pub capabilities: Vec<String>,
}

/// DNS answers that reached this host, and were looked at, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerCounts {
    pub read: u64,
    /// Those of them that could not be read, or not to their end.
    pub unreadable: u64,
}

/// The gate that hashes programs before they run: what it has done since the
/// agent began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateStatus {
    /// It holds programs up now, because a policy asks for hashes.
    pub stands: bool,
    /// Executions that asked; an interpreter or a loader asks for itself.
    pub executions: u64,
    /// Files read, hashed and told to the programs.
    pub hashed: u64,
    /// Executions of files hashed before.
    pub cached: u64,
    /// Let go on without a hash, by reason: too large or on a file system that
    /// is not trusted; with a writer, or changed meanwhile; not answered in time;
    /// too many at once.
    pub skipped: u64,
    pub unproven: u64,
    pub timed_out: u64,
    pub passed: u64,
    /// Times that the kernel's queue was full, and asked about nothing.
    pub overflows: u64,
    /// Executions denied by the kernel, which could not open their file.
    pub unopened: u64,
    /// File systems with programs that it does not stand before.
    pub unmarked: u64,
}

impl GateStatus {
    pub const fn of(stands: bool, counts: &gate::Counts) -> Self {
        Self {
            stands,
            executions: counts.events,
            hashed: counts.hashed,
            cached: counts.cached,
            skipped: counts.skipped,
            unproven: counts.unproven,
            timed_out: counts.timed_out,
            passed: counts.passed,
            overflows: counts.overflows,
            unopened: counts.unopened,
            unmarked: counts.unmarked,
        }
    }
}

/// An output beside stdout: what it was given since the agent began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputStatus {
    /// `file`, `journald`, `syslog`; with a number where there are several.
    pub name: String,
    /// As `--output` names it, without options.
    pub to: String,
    pub written: u64,
    /// Of those written, how many without some of their fields.
    pub shortened: u64,
    /// Records that wait.
    pub waiting: u64,
    /// Records lost, by cause.
    pub lost: BTreeMap<String, u64>,
    /// Why nothing can be written at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl OutputStatus {
    pub fn of(standing: outputs::Standing) -> Self {
        let outputs::Standing { name, to, fate } = standing;
        let lost = fate.lost.into_iter();
        Self {
            name,
            to,
            written: fate.written,
            shortened: fate.shortened,
            waiting: fate.waiting,
            lost: lost
                .map(|(cause, count)| (cause.to_owned(), count))
                .collect(),
            trouble: fate.trouble,
        }
    }

    /// Why its readers see less than there is, one sentence each.
    pub fn wrong(&self) -> impl Iterator<Item = String> {
        let name = &self.name;
        let trouble = self.trouble.as_ref();
        let trouble = trouble.map(|trouble| format!("output {name}: {trouble}"));
        let lost = self.lost.iter();
        let lost = lost.map(move |(cause, count)| format!("output {name}: {count} lost: {cause}"));
        trouble.into_iter().chain(lost)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    pub used: u64,
    pub capacity: u64,
}

#[cfg(test)]
mod tests {
    use rustix::event::epoll;

    use super::*;

    #[test]
    fn every_question_ends_a_sleep_though_nobody_reads_the_waker() {
        let waker = Waker::new().unwrap();
        let sleeper = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&sleeper, &waker, epoll::EventData::new_u64(0), flags).unwrap();
        let (ask, _questions) = mpsc::channel(4);
        let handle = Handle::waking(ask, waker);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap();
        for _ in 0..3 {
            // Nobody answers: it is asked and given up.
            let asked = async {
                tokio::select! {
                    biased;
                    answer = handle.status() => drop(answer),
                    () = std::future::ready(()) => {}
                }
            };
            runtime.block_on(asked);
            let mut events = [epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }; 2];
            let none = rustix::event::Timespec::default();
            assert_eq!(epoll::wait(&sleeper, &mut events, Some(&none)), Ok(1));
            assert_eq!(epoll::wait(&sleeper, &mut events, Some(&none)), Ok(0));
        }
    }
}

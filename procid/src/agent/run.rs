//! The loop: ring buffer in, records out, questions in between.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use procid_common::image::{FileState, ImageId, KnownFile, flags, known};
use tokio::sync::mpsc;

use super::{
    clock::{Clock, sample},
    engine::{Engine, Setup, Work},
    handle::{GateStatus, Handle, OutputStatus, Question, Status, Waker},
    origin::{Origin, OriginError},
    policy::{Manager, ask::Refusal},
    settings::{PolicyFile, Settings},
    stop::Stop,
    stream::stream,
};
use crate::{
    conntrack,
    decode::{DecodeError, Event, decode, time_of},
    identity::{
        context::{
            pods::{self, Pods},
            users::{self, Users},
        },
        entity::boot_id,
        hash::{Answer, FileHash, pool::Pool, settle::boot_now_ns},
        script::{interpreters::runs_scripts, reader::Reader},
    },
    kernel::{AttachError, Kernel, Options, Report, Ring, heap},
    outputs::{self, Outputs},
};
use gate::Guard;
use govern::Waiting;
use names::Reading;
use output::Output;
use past::Past;

mod gate;
mod govern;
mod names;
mod output;
mod past;
mod toolchain;

/// Longest sleep, which the birth of an image ends, and a question: how late a
/// connection, an overdue outcome or a hash may be seen.
const WAIT: Duration = Duration::from_millis(20);
/// The same where little is to be awaited.
const SHORT_WAIT: Duration = Duration::from_millis(1);
/// Most events of one round, so that records and answers are not put off.
const ROUND_MAX: usize = 4096;
/// Most questions that wait, and that one round answers.
const QUESTIONS_MAX: usize = 16;
/// Loss counters and clocks are read this often, nanoseconds.
const LOOK_EVERY_NS: u64 = 1_000_000_000;
/// Longest reading of the ring at the end, when its writers do not stop.
const LAST_DRAIN_NS: u64 = 1_000_000_000;
/// Events take their place in the ring before they take the time: so much later
/// than another one, none stands before it.
const OUT_OF_ORDER_NS: u64 = 20_000_000;
/// Cause of loss: bytes in the ring that are no event.
const UNDECODABLE: &str = "undecodable";

/// Why the agent could not run, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("cannot read the boot id: {0}")]
    BootId(io::Error),
    #[error("cannot read what exists already: {0}")]
    Snapshot(io::Error),
    #[error("cannot read events: {0}")]
    Ring(io::Error),
    #[error("cannot start: {0}")]
    Ready(io::Error),
    #[error("cannot write records: {0}")]
    Output(io::Error),
    #[error("--output: {0}")]
    Outputs(#[from] outputs::worker::Trouble),
    #[error(transparent)]
    Policy(Refusal),
}

/// Runs the agent until `stop` is set, writing records to `out` and to the
/// settings' outputs.
///
/// `on_attached` is called once, when all hooks are attached and before any
/// thread is made, which is when privileges can be given up; it says which
/// capabilities are kept. `on_ready` is called once, when what existed before
/// was taken in.
///
/// A reader that closes the pipe ends it as `stop` does, without its last
/// records. All hooks are detached on return; where a policy is in force, only
/// after such an end, and unless the settings say that it is to be kept.
///
/// # Errors
///
/// One sentence: what could not be attached, read or written.
pub fn run(
    settings: &Settings,
    out: impl Write,
    on_attached: impl FnOnce() -> io::Result<Vec<String>>,
    on_ready: impl FnOnce(Handle) -> io::Result<()>,
    stop: Arc<Stop>,
) -> Result<(), RunError> {
    let boot_id = boot_id().map_err(RunError::BootId)?;
    let origin = Origin::of_this_host(&boot_id, &settings.state_dir)?;
    let outputs = outputs::open(&settings.outputs)?;
    let mut kernel = Kernel::attach(&Options {
        cgroup: settings.cgroup.clone(),
        backend: settings.backend,
        args: settings.args,
    })?;
    let ring = kernel
        .take_ring()
        .ok_or_else(|| RunError::Ring(io::Error::other("the ring is taken")))?;
    let denials = kernel
        .take_denials()
        .ok_or_else(|| RunError::Ring(io::Error::other("the ring of denials is taken")))?;
    let dns = kernel
        .take_answers()
        .ok_or_else(|| RunError::Ring(io::Error::other("the ring of DNS answers is taken")))?;
    let gate = Guard::new(&settings.exec_gate, &kernel);
    let capabilities = on_attached().map_err(RunError::Ready)?;
    let outputs = outputs.start().map_err(RunError::Ready)?;
    let accounts = kernel.take_accounts()?;
    let (tap, stream) = stream(origin.clone());
    let engine = Engine::new(Setup {
        boot_id,
        origin,
        args: settings.args,
        clock: Clock::of_this_host(),
        now_ns: boot_now_ns(),
        update_every: settings.update_every,
        accounts,
        cgroups: Kernel::cgroups(),
        keeps_history: settings.history.is_some(),
        pods: Pods::at(pods::LOGS.into()),
        users: Users::of(users::PASSWD.into()),
        netns: own_netns(),
    });
    let manager = govern::manager(&mut kernel, &settings.state_dir);
    let (answer, answers) = channel();
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(4));
    let pool = Pool::new(kernel.inspector(), threads, answer);
    let (script, read_scripts) = channel();
    let scripts = Reader::new(kernel.inspector(), script);
    let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
    let waker = Waker::new().map_err(RunError::Ready)?;
    ring.also_wake(waker.as_fd()).map_err(RunError::Ready)?;
    let agent = Agent {
        kernel,
        ring,
        denials,
        dns,
        denied: Vec::new(),
        engine,
        manager,
        gate,
        conntrack: conntrack::Table::default(),
        pool,
        scripts,
        read_scripts,
        answers,
        questions,
        changes: VecDeque::new(),
        out: Output::new(out, settings.json, tap),
        outputs,
        past: Past::new(settings),
        capabilities,
        undecodable: 0,
        look_due_ns: 0,
        refresh_due_ns: 0,
        keep: settings.keep,
        pins_wrong: Vec::new(),
        has_hashed: false,
        stop,
    };
    let mut handle = Handle::waking(ask, waker).with_stream(stream);
    if settings.history.is_some() {
        handle = handle.with_history(settings.state_dir.clone());
    }
    match agent.run(settings.policy.as_ref(), || on_ready(handle)) {
        Err(RunError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

struct Agent<W> {
    kernel: Kernel,
    ring: Ring,
    denials: Ring,
    /// DNS answers.
    dns: Ring,
    /// Denied acts, and when, that wait until all that happened before them is
    /// read.
    denied: Vec<(u64, Event)>,
    engine: Engine,
    /// Where there is none, why.
    manager: Result<Manager, String>,
    gate: Guard,
    conntrack: conntrack::Table,
    pool: Pool,
    scripts: Reader,
    read_scripts: Receiver<ImageId>,
    answers: Receiver<Answer>,
    questions: mpsc::Receiver<Question>,
    /// Policies that are still to be put in force, in order.
    changes: VecDeque<Waiting>,
    out: Output<W>,
    past: Past,
    /// Beside `out`.
    outputs: Outputs,
    capabilities: Vec<String>,
    undecodable: u64,
    look_due_ns: u64,
    refresh_due_ns: u64,
    /// The policy stays in force after a clean stop.
    keep: bool,
    /// What was not well with pins at the last look.
    pins_wrong: Vec<String>,
    /// Hashes have become known since the programs were told what ancestors
    /// satisfy.
    has_hashed: bool,
    stop: Arc<Stop>,
}

impl<W: Write> Agent<W> {
    fn run(
        mut self,
        policy: Option<&PolicyFile>,
        on_ready: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), RunError> {
        let done = self.watch(policy, on_ready);
        self.outputs.finish();
        // An agent that fails leaves what it enforces, as one that is killed.
        if matches!(&done, Err(RunError::Output(error)) if error.kind() == ErrorKind::BrokenPipe) {
            self.end_policy();
        }
        done
    }

    fn watch(
        &mut self,
        policy: Option<&PolicyFile>,
        on_ready: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), RunError> {
        self.start()?;
        self.start_policy(policy)?;
        on_ready().map_err(RunError::Ready)?;
        while !self.stop.is_wanted() {
            if self.round()? < ROUND_MAX {
                self.ring.wait(WAIT).map_err(RunError::Ring)?;
            }
        }
        self.finish()
    }

    /// Takes in what exists, and what happened since the hooks are attached.
    fn start(&mut self) -> Result<(), RunError> {
        let (rows, held) = snapshot(&self.kernel, &mut self.ring)?;
        let (held, broken): (Vec<_>, Vec<_>) = held.into_iter().partition(Result::is_ok);
        self.undecodable += broken.len() as u64;
        self.engine.tick(boot_now_ns());
        self.engine
            .start(rows, held.into_iter().flatten().collect());
        self.engine.ready(self.kernel.report());
        self.past.begin(self.engine.run());
        heap::give_back();
        self.settle()
    }

    /// Events, hashes, records, questions; says how many events there were.
    fn round(&mut self) -> Result<usize, RunError> {
        let now_ns = boot_now_ns();
        let events = self.drain();
        if events < ROUND_MAX {
            // The ring was found empty after this time.
            self.pool.caught_up(now_ns);
        }
        if now_ns >= self.look_due_ns {
            self.look_due_ns = now_ns + LOOK_EVERY_NS;
            self.kernel.tend();
            self.engine.clock_is(sample());
            self.kernel.tend();
            self.conntrack.look();
            self.engine.look_up_again();
            self.losses();
            self.policy_deadlines();
            self.look_at_pins();
            if self.engine.wants_counts() {
                let at_ns = boot_now_ns();
                let rows = self.counts();
                self.engine.counts(rows, at_ns);
            }
        }
        self.settle()?;
        self.settle_lineages();
        for _ in 0..QUESTIONS_MAX {
            let Ok(question) = self.questions.try_recv() else {
                break;
            };
            // What happened before the question belongs into the answer.
            self.drain();
            self.settle()?;
            self.answer(question);
        }
        self.make_changes();
        Ok(events)
    }

    /// Reads events, and says how many there were: fewer than [`ROUND_MAX`]
    /// where both rings were found empty.
    fn drain(&mut self) -> usize {
        let denials = self.read_denials();
        let Self {
            ring, dns, engine, ..
        } = self;
        let mut reading = Reading::default();
        reading.answers(dns, engine);
        let mut events = 0;
        let mut read_to_ns = 0;
        while events < ROUND_MAX {
            let mut event = None;
            let is_one = ring.read(|bytes| {
                read_to_ns = read_to_ns.max(time_of(bytes));
                event = Some(decode(bytes));
            });
            if !is_one {
                break;
            }
            events += 1;
            match event {
                Some(Ok(event)) => {
                    if matches!(event, Event::Attempt(_)) {
                        // What came before it is told first.
                        reading.answers(dns, engine);
                    }
                    engine.event(event);
                }
                Some(Err(error)) => {
                    tracing::warn!("the ring holds what is no event: {error}");
                    self.undecodable += 1;
                }
                None => {}
            }
        }
        self.undecodable += reading.undecodable;
        // Where the ring was found empty, images that were denied are known; in a
        // flood, which does not let it become empty, once it is read that far.
        let until_ns = match events {
            ROUND_MAX => read_to_ns.saturating_sub(OUT_OF_ORDER_NS),
            _ => u64::MAX,
        };
        for (_, event) in self.denied.extract_if(.., |(at_ns, _)| *at_ns <= until_ns) {
            engine.event(event);
        }
        events.max(denials)
    }

    fn read_denials(&mut self) -> usize {
        let mut denials = 0;
        while self.denied.len() < ROUND_MAX {
            let (mut at_ns, mut event) = (0, None);
            let is_one = self.denials.read(|bytes| {
                at_ns = time_of(bytes);
                event = Some(decode(bytes));
            });
            if !is_one {
                break;
            }
            denials += 1;
            match event {
                Some(Ok(event)) => self.denied.push((at_ns, event)),
                Some(Err(error)) => {
                    tracing::warn!("the ring of denials holds what is no event: {error}");
                    self.undecodable += 1;
                }
                None => {}
            }
        }
        denials
    }

    /// Hands on questions about files and their answers, then writes what is
    /// ready to be told.
    fn settle(&mut self) -> Result<(), RunError> {
        while let Ok(answer) = self.answers.try_recv() {
            self.engine.hash(answer);
        }
        while let Some(work) = self.engine.next_work() {
            match work {
                Work::Hash(request) => match self.pool.lookup(&request) {
                    Some(hash) => {
                        self.engine.hash(Answer {
                            id: request.id,
                            hash,
                        });
                    }
                    None => self.pool.submit(request),
                },
                Work::Given(file, sha256, path) => {
                    let path = path.as_deref();
                    self.tell_known(&file, sha256, path);
                }
                Work::Settled(request, sha256) => {
                    let kept = self.pool.lookup(&request);
                    let is_kept = matches!(kept, Some(FileHash::Known { sha256: kept, .. }) if kept == sha256);
                    if is_kept && request.flags & flags::FILE_KNOWN == 0 {
                        let path = request.path.as_deref();
                        self.tell_known(&request.file, sha256, path);
                    }
                }
                Work::Hashed(id, sha256) => {
                    self.has_hashed = true;
                    self.kernel.is_hashed(&id, sha256);
                }
                Work::Script(request) => self.scripts.submit(*request),
                Work::Ended(id, at_ns) => {
                    self.kernel.has_ended(&id);
                    self.pool.exited(id, at_ns);
                }
            }
        }
        while let Ok(id) = self.read_scripts.try_recv() {
            self.engine.script(&id);
        }
        self.engine.tick(boot_now_ns());
        self.translate();
        while let Some(record) = self.engine.next_record() {
            self.outputs.put(&record).map_err(RunError::Output)?;
            self.out.put(&record).map_err(RunError::Output)?;
        }
        self.outputs.wake();
        self.past.take(&mut self.engine);
        self.out.flush().map_err(RunError::Output)
    }

    /// Looks up how connections are translated that there is something to tell of.
    fn translate(&mut self) {
        let wanted = self.engine.untranslated();
        let tuples: Vec<conntrack::Tuple> = wanted.iter().map(|one| one.tuple).collect();
        for (one, answer) in wanted.iter().zip(self.conntrack.ask(&tuples)) {
            self.engine.translated(one, answer);
        }
    }

    fn tell_known(&self, file: &FileState, sha256: [u8; 32], path: Option<&[u8]>) {
        let kind = if path.is_some_and(runs_scripts) {
            known::INTERPRETER
        } else {
            known::PLAIN
        };
        let known = KnownFile {
            sha256,
            kind,
            gated: 0,
        };
        self.kernel.known_files().tell(file, known);
    }

    fn counts(&self) -> Vec<Event> {
        self.kernel.counts().unwrap_or_else(|error| {
            tracing::warn!("what sockets have sent so far cannot be read: {error}");
            Vec::new()
        })
    }

    /// What is told of open connections is as it is now, or was a second ago.
    fn refresh(&mut self) {
        let now_ns = boot_now_ns();
        if now_ns >= self.refresh_due_ns {
            self.refresh_due_ns = now_ns + LOOK_EVERY_NS;
            let rows = self.counts();
            self.engine.refresh(rows);
        }
    }

    fn losses(&mut self) {
        let mut totals = self.kernel.losses();
        totals.insert(UNDECODABLE, self.undecodable);
        self.engine.losses(totals);
        self.engine.output_losses(self.outputs.losses());
    }

    /// The last events, the last records.
    fn finish(&mut self) -> Result<(), RunError> {
        self.end_policy();
        let until_ns = boot_now_ns() + LAST_DRAIN_NS;
        while self.drain() == ROUND_MAX && boot_now_ns() < until_ns {
            self.settle()?;
        }
        // What happened before them may still be in a ring that does not end.
        for (_, event) in self.denied.drain(..) {
            self.engine.event(event);
        }
        self.engine.tick(boot_now_ns());
        let rows = self.counts();
        self.engine.finish(rows);
        self.losses();
        self.settle()?;
        // The engine waits for hashes a bounded time.
        while self.engine.is_waiting() {
            thread::sleep(SHORT_WAIT);
            self.settle()?;
        }
        self.past.end();
        Ok(())
    }

    fn answer(&mut self, question: Question) {
        // Who asked may have gone meanwhile.
        match question {
            Question::Who(query, sender) => {
                let mut memory = self.engine.memory(&query);
                self.past.join(&mut memory);
                let _gone = sender.send(memory);
            }
            Question::Connections(query, sender) => {
                self.refresh();
                let _gone = sender.send(self.engine.connections(&query));
            }
            Question::Processes(sender) => {
                let _gone = sender.send(self.engine.processes());
            }
            Question::Process(entity_id, sender) => {
                let _gone = sender.send(self.engine.process(&entity_id));
            }
            Question::Change(change, caller, sender) => self.put_off(change, caller, sender),
            Question::Explain(request, sender) => {
                let _gone = sender.send(self.explain(&request));
            }
            Question::Policy(sender) => {
                let _gone = sender.send(self.show());
            }
            Question::Status(sender) => {
                let _gone = sender.send(self.status());
            }
        }
    }

    fn status(&self) -> Status {
        let mut status = self.engine.status();
        status.hooks.clone_from(&self.kernel.report().hooks);
        status.hash_queue = self.pool.queue_len();
        status.capabilities.clone_from(&self.capabilities);
        status.degraded = degraded(self.kernel.report(), &status);
        status.degraded.extend(self.kernel.pins_wrong());
        status.degraded.extend(self.gate.wrong());
        status
            .degraded
            .extend(self.conntrack.trouble().map(str::to_owned));
        status.exec_gate = self
            .gate
            .counts()
            .map(|(stands, counts)| GateStatus::of(stands, &counts));
        status.history = self.past.state();
        let trouble = status
            .history
            .as_ref()
            .and_then(|past| past.trouble.clone());
        status.degraded.extend(trouble);
        let outputs = self.outputs.standings().into_iter();
        status.outputs = outputs.map(OutputStatus::of).collect();
        let wrong = status.outputs.iter().flat_map(OutputStatus::wrong);
        status.degraded.extend(wrong);
        self.put_policy_status(&mut status);
        status.healthy = status.degraded.is_empty();
        status
    }
}

/// Inode of the network namespace that this process is in; 0: not known, and no
/// socket's.
fn own_netns() -> u32 {
    let netns = rustix::fs::stat("/proc/self/ns/net").ok();
    netns.map_or(0, |netns| u32::try_from(netns.st_ino).unwrap_or(0))
}

/// Reads what exists while events are held back, so that the ring does not
/// fill meanwhile.
#[expect(clippy::type_complexity, reason = "rows and events, told apart")]
fn snapshot(
    kernel: &Kernel,
    ring: &mut Ring,
) -> Result<(Vec<Event>, Vec<Result<Event, DecodeError>>), RunError> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let held = scope.spawn(|| -> io::Result<_> {
            let mut held = Vec::new();
            loop {
                let is_last = done.load(Ordering::Acquire);
                while ring.read(|bytes| held.push(decode(bytes))) {}
                if is_last {
                    return Ok(held);
                }
                ring.wait(SHORT_WAIT)?;
            }
        });
        let rows = kernel.snapshot();
        done.store(true, Ordering::Release);
        let held = held
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((
            rows.map_err(RunError::Snapshot)?,
            held.map_err(RunError::Ring)?,
        ))
    })
}

/// Why the agent sees less than it should, one sentence each.
fn degraded(report: &Report, status: &Status) -> Vec<String> {
    let missing = report.hooks.iter().filter(|hook| hook.missed).map(|hook| {
        let reason = hook.reason.as_deref().unwrap_or("no reason given");
        format!("{} is not attached: {reason}", hook.name)
    });
    let lost = status
        .lost
        .iter()
        .map(|(cause, count)| format!("{count} lost: {cause}"));
    missing.chain(lost).collect()
}

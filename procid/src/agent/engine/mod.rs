//! The one owner of all the agent knows: events in, records out.
//!
//! | module | holds |
//! | --- | --- |
//! | [`queue`] | records on their way out, and the wait for hashes |
//! | [`start`] | what existed before the hooks, joined with what they saw since |
//! | [`answers`] | what is known, to who asks |
//! | [`chain`] | from one connection to the next, through processes |
//! | [`callers`] | who changes the policy, and whom a rule is to name |
//! | [`past`] | what history is told |
//! | [`login`] | where a login came from |
//! | [`nat`] | what network address translation makes of connections' ends |
//! | [`domains`] | what destinations were called |
//!
//! It needs no kernel and knows no thread: it is told events, hashes and the
//! time; it hands out records ([`Engine::next_record`]) and what it wants to
//! know of files ([`Engine::next_work`]).

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    num::NonZero,
    sync::Arc,
    time::Duration,
};

use procid_common::{
    image::{FileState, ImageId, flags},
    policy::verdict,
    process::{Exit, Fork},
    socket::{Attempt, Close, Counts, Hook},
};

use super::{
    clock::Clock,
    origin::Origin,
    policy::Generations,
    render::{Frame, Ready, Renderer, Telling},
    settings::Args,
};
use crate::{
    agent::policy::family::family,
    connections::{Accounts, Connections, Denied, Key, News, Outcome},
    decode::{Event, ExecFacts},
    history::Fact,
    identity::{
        containers::Cgroups,
        context::{self, Contexts, pods::Pods, users::Users},
        entity::BootId,
        hash::{Answer, FileHash, Grade, Missing, Request, settle::Offset},
        image::{Image, Provenance},
        images::Images,
        script,
    },
    kernel::Report,
    names::Names,
    policy::lineage::Family,
    records::{Record, User},
};
use nat::Translations;
use past::Tell;
use queue::{Item, Queue};

mod answers;
mod callers;
mod chain;
mod domains;
mod login;
mod nat;
mod past;
mod queue;
mod start;
#[cfg(test)]
mod tests;

pub use answers::ANSWER_MAX;
pub use nat::Untranslated;
pub use queue::HOLD_NS;

/// Cause of loss: an open connection was forgotten for want of room.
const CONNECTIONS_EVICTED: &str = "connections-evicted";
/// Cause of loss: an image was forgotten, or never kept, for want of room.
const IMAGES_EVICTED: &str = "images-evicted";

/// Ended images are looked through this often, nanoseconds.
const RETIRE_EVERY_NS: u64 = 1_000_000_000;
/// While packet sockets are open, it is looked this often whether they still
/// are, nanoseconds.
const SWEEP_EVERY_NS: u64 = 2_000_000_000;

/// What the engine asks of the hash pool, in order.
#[derive(Debug)]
pub enum Work {
    Hash(Request),
    Script(Box<script::Request>),
    /// The kernel itself gave the hash of that file, at that path.
    Given(FileState, [u8; 32], Option<Arc<[u8]>>),
    /// A question was answered with that hash: where the pool keeps it, the
    /// kernel side is to know it too.
    Settled(Request, [u8; 32]),
    /// The file that live image was run from has that hash.
    Hashed(ImageId, [u8; 32]),
    /// That image ended at that time, nanoseconds since boot.
    Ended(ImageId, u64),
}

/// What one run of the agent is given.
#[derive(Debug)]
pub struct Setup {
    pub boot_id: BootId,
    pub origin: Origin,
    pub args: Args,
    pub clock: Clock,
    /// Now, nanoseconds since boot.
    pub now_ns: u64,
    /// How often what lives on is told of.
    pub update_every: Duration,
    pub accounts: Box<dyn Accounts>,
    pub cgroups: Box<dyn Cgroups>,
    /// What is known is told to history too.
    pub keeps_history: bool,
    pub pods: Pods,
    pub users: Users,
    /// Inode of the network namespace whose translations are looked up.
    pub netns: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Engine {
    frame: Frame,
    images: Images,
    connections: Connections,
    translations: Translations,
    names: Names,
    contexts: Contexts,
    users: Users,
    queue: Queue,
    work: VecDeque<Work>,
    /// `None`: no history is kept.
    facts: Option<VecDeque<Fact>>,
    /// Images whose records said that the hash was pending, by the image in
    /// whose name it was asked for.
    told_pending: HashMap<ImageId, Vec<ImageId>>,
    ready: Ready,
    /// Since when the hooks are attached, nanoseconds since boot.
    since_ns: u64,
    now_ns: u64,
    retire_due_ns: u64,
    accounts: Box<dyn Accounts>,
    update_every_ns: u64,
    update_due_ns: u64,
    sweep_due_ns: u64,
    emitted: u64,
    /// The same by action.
    actions: BTreeMap<String, u64>,
    /// Totals by cause, as the kernel side and the run loop count them.
    lost: BTreeMap<String, u64>,
    /// Totals that `loss` records have told.
    told_lost: BTreeMap<String, u64>,
}

impl Engine {
    pub fn new(setup: Setup) -> Self {
        Self::with_connections(setup, Connections::default())
    }

    fn with_connections(setup: Setup, connections: Connections) -> Self {
        let update_every_ns = u64::try_from(setup.update_every.as_nanos()).unwrap_or(u64::MAX);
        Self {
            accounts: setup.accounts,
            update_every_ns,
            update_due_ns: setup.now_ns.saturating_add(update_every_ns),
            sweep_due_ns: setup.now_ns,
            images: Images::new(setup.boot_id),
            frame: Frame {
                boot_id: setup.boot_id,
                origin: setup.origin,
                args: setup.args,
                clock: setup.clock,
                rules: Generations::default(),
            },
            connections,
            translations: Translations::new(setup.netns),
            names: Names::default(),
            contexts: Contexts::new(setup.cgroups, setup.pods),
            users: setup.users,
            queue: Queue::default(),
            work: VecDeque::new(),
            facts: setup.keeps_history.then(VecDeque::new),
            told_pending: HashMap::new(),
            ready: Ready::default(),
            since_ns: setup.now_ns,
            now_ns: setup.now_ns,
            retire_due_ns: setup.now_ns,
            emitted: 0,
            actions: BTreeMap::new(),
            lost: BTreeMap::new(),
            told_lost: BTreeMap::new(),
        }
    }

    /// Everything is attached, and what existed before was taken in.
    pub fn ready(&mut self, report: &Report) {
        self.ready = Ready {
            backend: report.backend.clone(),
            hooks: report
                .hooks
                .iter()
                .filter(|hook| hook.attached)
                .map(|hook| hook.name.clone())
                .collect(),
            uncovered: report.uncovered.clone(),
        };
        self.push(Item::Ready(Box::new(self.ready.clone())), self.now_ns);
    }

    /// The images that are known now.
    pub fn family(&self) -> Family {
        family(&self.images)
    }

    /// Takes in one event of the kernel side.
    pub fn event(&mut self, event: Event) {
        if let Some(actor) = event.actor() {
            self.contexts.learn(actor.cgroup);
        }
        match event {
            Event::Fork(fork) => self.fork(&fork, None),
            Event::Exec(facts) => self.exec(facts),
            Event::Exit(exit) => self.exit(&exit),
            Event::Attempt(attempt) if attempt.verdict == verdict::DENY => {
                match self.connections.denied(&attempt) {
                    Denied::Flow(key) => {
                        self.put_domain(key);
                        self.hold_images(key);
                    }
                    Denied::Use(key) => self.hold(Some(key), &attempt.image),
                    Denied::Told => {}
                }
            }
            Event::Attempt(attempt) => self.attempt(&attempt),
            Event::Outcome(outcome) => {
                self.connections.outcome(&outcome);
                self.amend(&outcome);
            }
            Event::Close(close) => self.connections.close(&close, &mut *self.accounts),
            Event::Use(event) => {
                let key = self.connections.used(&event);
                self.hold(key, &event.image);
            }
            Event::Accept(event) => {
                let key = self.connections.accept(&event);
                self.hold(key, &event.image);
            }
            Event::Wire(event) => {
                self.connections.wire(&event);
                self.amend(&event);
            }
            Event::Answer(answer) => self.names.learn(&answer),
            // Rows belong to the start; file rows are the inspector's.
            Event::TaskRow(_)
            | Event::SocketRow(_)
            | Event::FileRow(_)
            | Event::CountsRow(_)
            | Event::AskedRow(_)
            | Event::OpenRow(_) => {}
        }
        let amended = self.images.amended();
        self.tell_amended(&amended);
        self.take_news();
    }

    /// Takes in the end of a [`Work::Hash`].
    pub fn hash(&mut self, answer: Answer) {
        let changed = self.images.set_hash(&answer.id, answer.hash);
        self.tell_amended(&changed);
        if let FileHash::Known { sha256, .. } = answer.hash {
            let live = |id: &ImageId| self.images.get(id).is_some_and(|i| i.ended_ns.is_none());
            let live = changed.into_iter().filter(live);
            self.work.extend(live.map(|id| Work::Hashed(id, sha256)));
            let question = self.images.get(&answer.id).and_then(Image::question);
            self.work
                .extend(question.map(|question| Work::Settled(question, sha256)));
        }
        if answer.hash == FileHash::None(Missing::Pending) {
            return;
        }
        for id in self.told_pending.remove(&answer.id).unwrap_or_default() {
            self.push(Item::Hash(id), self.now_ns);
        }
    }

    /// Takes in the end of a [`Work::Script`].
    pub fn script(&mut self, id: &ImageId) {
        if self
            .images
            .get(id)
            .is_some_and(|image| image.hash.is_pending())
        {
            // The answer to come is told with the script.
            return;
        }
        for id in self.told_pending.remove(id).unwrap_or_default() {
            self.push(Item::Hash(id), self.now_ns);
        }
    }

    /// Takes in how much was lost so far, by cause, as the kernel side and the
    /// run loop count it; tells what is new in a `loss` record.
    pub fn losses(&mut self, totals: impl IntoIterator<Item = (&'static str, u64)>) {
        let own = [
            (CONNECTIONS_EVICTED, self.connections.evicted()),
            (IMAGES_EVICTED, self.images.evicted()),
        ];
        let totals = totals.into_iter().chain(own);
        let totals = totals.filter(|(_, total)| *total > 0);
        let totals: Vec<_> = totals.map(|(cause, n)| (cause.to_owned(), n)).collect();
        self.lost.extend(totals.iter().cloned());
        self.tell_losses(totals);
    }

    /// Takes in how much outputs lost so far, as [`Self::losses`] does; what is
    /// known, and so an answer, lacks nothing of it.
    pub fn output_losses(&mut self, totals: Vec<(String, u64)>) {
        self.tell_losses(totals);
    }

    fn tell_losses(&mut self, totals: Vec<(String, u64)>) {
        let mut grown = BTreeMap::new();
        for (cause, total) in totals {
            let told = self.told_lost.get(&cause).copied().unwrap_or(0);
            if total > told {
                grown.insert(cause.clone(), total - told);
                self.told_lost.insert(cause, total);
            }
        }
        if !grown.is_empty() {
            self.push(Item::Loss(grown), self.now_ns);
        }
    }

    /// Tells the engine the time, nanoseconds since boot. Attempts whose
    /// outcome is overdue are told, what is no longer needed is forgotten.
    pub fn tick(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.connections.tick(now_ns);
        self.take_news();
        if now_ns >= self.retire_due_ns {
            self.retire_due_ns = now_ns.saturating_add(RETIRE_EVERY_NS);
            self.images.retire(now_ns);
            self.users.refresh();
            let images = &self.images;
            self.told_pending
                .retain(|root, _| images.get(root).is_some());
        }
    }

    /// Whether the engine wants to know what all sockets have counted so far.
    pub fn wants_counts(&self) -> bool {
        self.now_ns >= self.update_due_ns
            || (self.connections.has_packets() && self.now_ns >= self.sweep_due_ns)
    }

    /// Takes in what all live sockets had counted at `at_ns` or later, and tells
    /// of those that have lived long enough since they were told of.
    pub fn counts(&mut self, rows: impl IntoIterator<Item = Event>, at_ns: u64) {
        let is_update = self.now_ns >= self.update_due_ns;
        let before_ns = self.now_ns.saturating_sub(self.update_every_ns);
        let there = self.take_counts(rows, is_update.then_some(before_ns));
        if is_update {
            self.update_due_ns = self.now_ns.saturating_add(self.update_every_ns);
        }
        self.sweep_due_ns = self.now_ns.saturating_add(SWEEP_EVERY_NS);
        self.connections
            .end_gone(|cookie| there.contains(&cookie), at_ns, &mut *self.accounts);
        self.take_news();
    }

    /// Takes in what all live sockets have counted so far, and tells nothing.
    pub fn refresh(&mut self, rows: impl IntoIterator<Item = Event>) {
        self.take_counts(rows, None);
    }

    /// Tells what the flows that began before `before_ns` have counted; returns
    /// the sockets there are.
    fn take_counts(
        &mut self,
        rows: impl IntoIterator<Item = Event>,
        before_ns: Option<u64>,
    ) -> HashSet<u64> {
        let mut there = HashSet::new();
        for row in rows {
            let Event::CountsRow(row) = row else { continue };
            there.insert(row.cookie);
            for key in self.connections.counted(&row, &*self.accounts) {
                let is_due = self.connections.get(&key).is_some_and(|connection| {
                    // Its beginning is told before, or is in the queue.
                    connection.outcome != Outcome::Pending
                        && before_ns.is_some_and(|before_ns| connection.started_ns <= before_ns)
                });
                if is_due {
                    self.translations.want(key);
                    self.push(Item::Update(key), self.now_ns);
                }
            }
        }
        there
    }

    /// Policies whose decisions may be told of.
    pub(super) fn rules_are(&mut self, rules: Generations) {
        self.frame.rules = rules;
    }

    /// Tells the engine how far the time of day is from the time since boot.
    pub fn clock_is(&mut self, offset: Offset) {
        let before = self.frame.clock.offset();
        self.frame.clock.follow(offset);
        let now = self.frame.clock.offset();
        if before != now {
            self.note(Fact::Clock(now));
        }
    }

    /// No event comes any more: attempts without outcome are told as unknown,
    /// and what lives on for the last time.
    pub fn finish(&mut self, rows: impl IntoIterator<Item = Event>) {
        self.connections.give_up_waiting();
        self.take_news();
        self.take_counts(rows, Some(u64::MAX));
    }

    /// The next record, in the order in which things became known; `None` when
    /// there is none, or the next one waits for a hash.
    pub fn next_record(&mut self) -> Option<Record> {
        loop {
            let item = self
                .queue
                .pop(self.now_ns, &self.images, &self.connections)?;
            if let Some(record) = self.render(item.what, item.at_ns) {
                return Some(record);
            }
        }
    }

    /// Records wait for a hash.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What there is to ask of the hash pool.
    pub fn next_work(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    /// With the image's row, where it was also found running.
    fn fork(&mut self, fork: &Fork, row: Option<ExecFacts>) {
        let id = fork.image.id;
        self.images.fork(fork);
        if let Some(row) = row {
            self.images.task_row(row);
        }
        self.ask_for_hash(&id);
        self.push(Item::Fork(id), fork.header.boot_ns);
    }

    fn exec(&mut self, facts: ExecFacts) {
        let id = facts.event.image.id;
        let previous = facts.event.image.previous;
        let at_ns = facts.event.header.boot_ns;
        let place = script::Place::of(&facts.event, Provenance::Live);
        if self.images.amend(&facts) {
            self.ask_for_script(&id, place);
            return;
        }
        self.images.exec(facts);
        if previous.is_known() {
            self.work.push_back(Work::Ended(previous, at_ns));
        }
        self.ask_for_hash(&id);
        self.ask_for_script(&id, place);
        if let Some(image) = self.images.get(&id)
            && let Some(file) = image.exe
            && let FileHash::Known {
                sha256,
                grade: Grade::Kernel,
            } = image.hash
            && image.flags & flags::FILE_KNOWN == 0
        {
            self.work
                .push_back(Work::Given(file, sha256, image.path.clone()));
        }
        self.push(Item::Exec(id), at_ns);
    }

    fn exit(&mut self, exit: &Exit) {
        let at_ns = exit.header.boot_ns;
        self.images.exit(exit);
        self.work.push_back(Work::Ended(exit.id, at_ns));
        self.push(Item::Exit(exit.id, exit.status), at_ns);
    }

    fn attempt(&mut self, attempt: &Attempt) {
        if let Some(key) = self.connections.crowded_out(attempt) {
            let close = Close {
                header: attempt.header,
                cookie: key.cookie,
                flow: key.flow,
                hook: Hook::Sendmsg4 as u32,
                counts: Counts::default(),
            };
            self.connections.close(&close, &mut *self.accounts);
        }
        match self.connections.attempt(attempt) {
            Some(key) => {
                self.put_domain(key);
                self.hold_images(key);
            }
            None => tracing::debug!(attempt.cookie, attempt.flow, "an attempt was told twice"),
        }
    }

    /// An image that a connection names is kept as long as the connection.
    fn hold_images(&mut self, key: Key) {
        if let Some(connection) = self.connections.get(&key) {
            for id in connection.images() {
                self.images.hold(&id);
            }
        }
    }

    /// The same of one image that has come to a connection, if there is one.
    fn hold(&mut self, key: Option<Key>, image: &ImageId) {
        if key.is_some() {
            self.images.hold(image);
        }
    }

    fn ask_for_hash(&mut self, id: &ImageId) {
        let request = self.images.get(id).and_then(|image| image.request());
        self.work.extend(request.map(Work::Hash));
    }

    fn ask_for_script(&mut self, id: &ImageId, place: script::Place) {
        let script = self.images.get(id).and_then(|image| image.script.clone());
        if let Some(script) = script.filter(|script| script.is_pending()) {
            let request = script::Request { script, place };
            self.work.push_back(Work::Script(Box::new(request)));
        }
    }

    fn take_news(&mut self) {
        while let Some(news) = self.connections.next_news() {
            match news {
                News::Opened(key) => {
                    self.translations.want(key);
                    self.push(Item::Opened(key), self.now_ns);
                }
                News::Used(key, speaker) => {
                    let at_ns = speaker.at_ns;
                    self.push(Item::Used(key, speaker), at_ns);
                }
                News::Denied(told) => self.push(Item::Standalone(told), self.now_ns),
                News::Closed(key) => {
                    self.translations.want(key);
                    self.push(Item::Closed(key), self.now_ns);
                }
                News::Forgotten(connection) => {
                    self.translations.forget(&connection);
                    for id in connection.images() {
                        self.images.release(&id);
                    }
                }
            }
        }
    }

    fn push(&mut self, what: Item, at_ns: u64) {
        self.queue.push(what, at_ns, self.now_ns);
    }

    const fn renderer(&self) -> Renderer<'_> {
        Renderer {
            frame: &self.frame,
            images: &self.images,
        }
    }

    /// Makes a record, numbers it, and remembers what it left open. `None` for
    /// a connection that was evicted meanwhile, which is counted.
    fn render(&mut self, what: Item, at_ns: u64) -> Option<Record> {
        let renderer = self.renderer();
        let subject = what.subject(&self.connections);
        let told = match &what {
            Item::Opened(key) => Some((*key, None)),
            Item::Used(key, speaker) => Some((*key, Some(speaker.image))),
            _ => None,
        };
        let denied = match &what {
            Item::Standalone(row) => Some((row.0, row.1.started_ns, row.1.image)),
            _ => None,
        };
        let news = self.facts.as_ref().map(|_| Tell::of(&what));
        let flow = match &what {
            Item::Opened(key) | Item::Used(key, _) | Item::Update(key) | Item::Closed(key) => {
                Some(*key)
            }
            Item::Standalone(row) => Some(row.0),
            _ => None,
        };
        let born = match &what {
            Item::Fork(id) | Item::Exec(id) | Item::Row(id) => Some(*id),
            _ => None,
        };
        let mut record = match what {
            Item::Ready(ready) => renderer.ready(*ready, at_ns),
            Item::Policy(news) => renderer.policy(*news, at_ns),
            Item::Loss(lost) => renderer.loss(lost, at_ns),
            Item::Fork(id) => renderer.fork(&id, at_ns),
            Item::Exec(id) => renderer.exec(&id, at_ns),
            Item::Exit(id, status) => renderer.exit(&id, status, at_ns),
            Item::Hash(id) => renderer.hash(&id, at_ns),
            Item::Row(id) => renderer.row(&id),
            Item::Opened(key) => {
                renderer.connection(key, self.connections.get(&key)?, Telling::Opened)
            }
            Item::Used(key, speaker) => {
                renderer.speaker(key, self.connections.get(&key)?, &speaker)
            }
            Item::Update(key) => {
                let connection = self.connections.get(&key)?;
                renderer.connection(key, connection, Telling::Update(at_ns))
            }
            Item::Closed(key) => {
                renderer.connection(key, self.connections.get(&key)?, Telling::Closed)
            }
            Item::Standalone(row) => renderer.connection(row.0, &row.1, Telling::Opened),
        };
        if let Some(key) = flow {
            self.renderer()
                .put_peer(&mut record, &key, &self.connections);
        }
        if let Some(id) = subject {
            self.remember_pending(id);
        }
        self.put_context(&mut record);
        self.emitted += 1;
        if let Some(event) = &mut record.event {
            event.sequence = Some(self.emitted);
            match self.actions.get_mut(&event.action) {
                Some(count) => *count += 1,
                None => {
                    self.actions.insert(event.action.clone(), 1);
                }
            }
        }
        if let Some(id) = born {
            self.images.tell(&id, NonZero::new(self.emitted));
        }
        if let Some((key, speaker)) = told
            && let Some(connection) = self.connections.get_mut(&key)
        {
            let sequence = NonZero::new(self.emitted);
            match speaker {
                None => connection.sequence = sequence,
                Some(image) => connection.tell_speaker(&image, sequence),
            }
        }
        if let Some((key, at_ns, image)) = denied
            && let Some(connection) = self.connections.get_mut(&key)
        {
            connection.tell_denied(at_ns, &image, NonZero::new(self.emitted));
        }
        if let Some(news) = news {
            self.tell(news, &record, at_ns);
        }
        Some(record)
    }

    /// Puts what the cgroup that a record names says of its process into it, and
    /// the names of its users.
    fn put_context(&self, record: &mut Record) {
        let process = record.process.as_deref_mut();
        let users = [
            record.user.as_mut(),
            process.and_then(|process| process.user.as_mut()),
        ];
        for user in users.into_iter().flatten() {
            let User { id, name } = user;
            let known = id.parse().ok().and_then(|uid| self.users.name(uid));
            *name = known.map(|name| name.to_string());
        }
        let procid = record.procid.as_ref();
        let cgroup = procid.and_then(|procid| procid.cgroup.as_ref());
        let Some(cgroup) = cgroup.and_then(|cgroup| cgroup.id.parse().ok()) else {
            return;
        };
        match self.contexts.get(cgroup) {
            Some(context) => context.put(record),
            None => context::put_gone(record),
        }
    }

    fn remember_pending(&mut self, id: ImageId) {
        if let Some(image) = self.images.get(&id)
            && image.is_pending()
        {
            let told = self.told_pending.entry(image.root).or_default();
            if !told.contains(&id) {
                told.push(id);
            }
        }
    }
}

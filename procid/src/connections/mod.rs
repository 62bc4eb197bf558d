//! The connection map: which flows there are, who began them, how they went.
//!
//! | module | holds |
//! | --- | --- |
//! | [`connection`] | what was seen of one flow |
//! | [`counts`] | what was sent and received |
//! | [`nat`] | how its ends are translated |
//! | [`peers`] | which flow is the other end of which |
//!
//! A flow goes *attempt → outcome → close*. Its outcome is the first one the
//! kernel side tells; [`UNDECIDED_MAX_NS`] after the attempt it is told as
//! unknown. What there is to tell is handed out as [`News`], once and in order.
//!
//! Ended flows are kept for [`KEEP_CLOSED_NS`] and as long as there is room
//! below [`RETAINED_MAX`]; how far back they reach is [`Connections::since_ns`].
//! Open flows are never forgotten below [`OPEN_MAX`]; beyond it the oldest
//! socket's are, and counted.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZero,
};

use procid_common::{
    image::ImageId,
    socket::{self, Attempt, Close, Hook, SocketRow, flags::SUBFLOW},
};

pub mod connection;
mod counts;
#[cfg(test)]
mod custody_tests;
#[cfg(test)]
pub(crate) mod fixtures;
mod nat;
mod peers;
#[cfg(test)]
mod peers_tests;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Judged, Key, Outcome, Role, Speaker};
pub use counts::Accounts;
pub use nat::Nat;
pub use peers::NoPeer;

/// How long an attempt without outcome is waited for, in kernel time.
pub const UNDECIDED_MAX_NS: u64 = 1_100_000_000;
/// How long ended flows are kept.
pub const KEEP_CLOSED_NS: u64 = 600_000_000_000;
/// How long TCP is waited for after the last descriptor of its socket was
/// closed: longer than it stays in FIN_WAIT2 (`tcp_fin_timeout`, 60 s).
pub const RELEASED_MAX_NS: u64 = 90_000_000_000;
/// How often is looked for those that waited too long.
const RELEASED_LOOK_NS: u64 = 30_000_000_000;
/// Open and ended flows together, as long as fewer than this are open.
pub const RETAINED_MAX: usize = 60_000;
/// Most open flows.
pub const OPEN_MAX: usize = 200_000;

/// Where the flows of a socket without a tag are counted from: far beyond what
/// the kernel side counts on one socket.
const UNCOUNTED: u32 = 1 << 31;

/// Most flows of one socket: a scan makes nothing else forgotten.
pub const SOCKET_MAX: u32 = 8_192;
/// Most other users of one flow that are remembered.
const SPEAKERS_MAX: usize = 1_024;

/// What became known of a flow.
#[derive(Debug)]
pub enum News {
    /// Its act, with the outcome, is to be told.
    Opened(Key),
    /// The first send of an image that did not open it is to be told.
    Used(Key, Box<Speaker>),
    /// An act on it that was denied is to be told.
    Denied(Box<(Key, Connection)>),
    /// Its end is to be told.
    Closed(Key),
    /// It is no longer in the map: its images are free.
    Forgotten(Box<Connection>),
}

/// What became of an act that was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is a flow of its own, which has ended.
    Flow(Key),
    /// It is kept with the flow that it was tried on.
    Use(Key),
    /// It is told of, and not kept.
    Told,
}

/// All flows known now.
#[derive(Debug)]
pub struct Connections {
    /// By cookie first, so that a socket's flows lie together; cookies only
    /// grow, so that new flows go to the end.
    map: BTreeMap<Key, Box<Connection>>,
    /// Attempts by the time their outcome is due; decided ones linger.
    undecided: VecDeque<(u64, Key)>,
    /// Ended flows in the order of their end.
    closed: VecDeque<(u64, Key)>,
    index: peers::Index,
    news: VecDeque<News>,
    retained_max: usize,
    open_max: usize,
    since_ns: u64,
    evicted: u64,
    released_due_ns: u64,
    packets: bool,
}

impl Default for Connections {
    fn default() -> Self {
        Self::with_capacity(RETAINED_MAX, OPEN_MAX)
    }
}

impl Connections {
    /// A map of another size.
    pub fn with_capacity(retained_max: usize, open_max: usize) -> Self {
        Self {
            map: BTreeMap::new(),
            undecided: VecDeque::new(),
            closed: VecDeque::new(),
            index: peers::Index::default(),
            news: VecDeque::new(),
            retained_max,
            open_max,
            since_ns: 0,
            evicted: 0,
            released_due_ns: 0,
            packets: false,
        }
    }

    /// Takes in an attempt, and says which flow it begins. `None` when that is
    /// known already: a hook that fires twice for one act tells nothing new.
    pub fn attempt(&mut self, attempt: &Attempt) -> Option<Key> {
        let mut connection = Connection::of_attempt(attempt);
        let key = match attempt.flow {
            0 => self.uncounted(attempt.cookie, &connection)?,
            flow => Key {
                cookie: attempt.cookie,
                flow,
            },
        };
        if self.map.contains_key(&key) {
            return None;
        }
        if attempt.flags & SUBFLOW != 0 {
            self.take_owner(&mut connection, attempt.cookie);
        }
        let due_ns = attempt.header.boot_ns.saturating_add(UNDECIDED_MAX_NS);
        self.undecided.push_back((due_ns, key));
        self.insert(key, connection);
        Some(key)
    }

    /// Takes in an act that a rule denied: a flow that has ended, or where it was
    /// an act on a flow that goes on, a use of that.
    pub fn denied(&mut self, attempt: &Attempt) -> Denied {
        let at_ns = attempt.header.boot_ns;
        let denied = Connection::of_denial(attempt);
        let named = Key {
            cookie: attempt.cookie,
            flow: attempt.flow,
        };
        let key = match attempt.flow {
            0 => self.uncounted(attempt.cookie, &denied),
            _ => Some(named),
        };
        if let Some(key) = key.filter(|key| !self.map.contains_key(key)) {
            self.insert(key, denied);
            self.end(key, at_ns);
            self.news.push_back(News::Opened(key));
            return Denied::Flow(key);
        }
        self.news
            .push_back(News::Denied(Box::new((named, denied.clone()))));
        let Some(connection) = self.map.get_mut(&named) else {
            return Denied::Told;
        };
        let rule = |one: &Connection| one.judged.as_ref().map(|it| (it.generation, it.rule));
        let speakers = connection.speakers.get_or_insert_default();
        let is_known = speakers.iter().any(|one| {
            let before = one.denied.as_deref();
            one.image == denied.image && before.is_some_and(|before| rule(before) == rule(&denied))
        });
        if is_known || speakers.len() >= SPEAKERS_MAX {
            return Denied::Told;
        }
        speakers.push(Speaker::of_denial(denied));
        Denied::Use(named)
    }

    /// The oldest flow but the first of a socket that has too many, to be
    /// closed before the new one is kept.
    pub fn crowded_out(&self, attempt: &Attempt) -> Option<Key> {
        let flow = attempt.flow.checked_sub(SOCKET_MAX)?;
        let key = Key {
            cookie: attempt.cookie,
            flow,
        };
        let connection = self.map.get(&key)?;
        (flow > 1 && connection.ended_ns.is_none()).then_some(key)
    }

    /// A further subflow of an MPTCP connection, which the kernel makes, is
    /// the act of who opened the connection.
    fn take_owner(&self, connection: &mut Connection, cookie: u64) {
        if let Some((_, first)) = self.flows(cookie).next() {
            connection.image = first.image;
            connection.others.clone_from(&first.others);
            connection.actor = first.actor;
        }
    }

    /// Takes in a connection that an image has accepted, and says which flow
    /// it is; `None` when that is known already.
    pub fn accept(&mut self, event: &Attempt) -> Option<Key> {
        let key = Key {
            cookie: event.cookie,
            flow: event.flow,
        };
        if self.map.contains_key(&key) {
            return None;
        }
        self.insert(key, Connection::of_accept(event));
        self.news.push_back(News::Opened(key));
        Some(key)
    }

    /// Takes in the first send of an image on a socket that another one opened,
    /// and says on which flow; `None` when it is not kept.
    pub fn used(&mut self, event: &Attempt) -> Option<Key> {
        let mut key = Key {
            cookie: event.cookie,
            flow: event.flow,
        };
        if !self.map.contains_key(&key) {
            // Found open, its flow has no number here.
            key.flow = 0;
        }
        let Some(connection) = self.map.get_mut(&key) else {
            key.flow = event.flow;
            self.insert(key, Connection::of_use(event));
            self.news.push_back(News::Opened(key));
            return Some(key);
        };
        if connection.users().any(|image| image == event.image) {
            return None;
        }
        let speaker = Speaker {
            image: event.image,
            actor: event.actor,
            at_ns: event.header.boot_ns,
            flags: event.flags,
            hook: event.hook,
            sequence: None,
            denied: None,
        };
        let speakers = connection.speakers.get_or_insert_default();
        let is_kept = speakers.len() < SPEAKERS_MAX;
        if is_kept {
            speakers.push(speaker.clone());
        }
        self.news.push_back(News::Used(key, Box::new(speaker)));
        is_kept.then_some(key)
    }

    /// Takes in that a flow's packets are addressed elsewhere than asked.
    pub fn wire(&mut self, event: &socket::Outcome) {
        let key = Key {
            cookie: event.cookie,
            flow: event.flow,
        };
        if let Some(connection) = self.map.get_mut(&key) {
            self.index.remove(key, connection);
            connection.wire = Some(Box::new(event.source));
            self.index.insert(key, connection);
        }
    }

    /// Takes in a socket found open, and the images that hold it, oldest first.
    /// False when its cookie is known already.
    pub fn found(&mut self, row: &SocketRow, holders: &[ImageId]) -> bool {
        if self.flows(row.cookie).next().is_some() {
            return false;
        }
        let key = Key {
            cookie: row.cookie,
            flow: 0,
        };
        self.insert(key, Connection::of_row(row, holders));
        self.news.push_back(News::Opened(key));
        true
    }

    /// Takes in what history knows of a flow, which is no news.
    pub fn restore(&mut self, key: Key, connection: Connection) {
        if !self.map.contains_key(&key) {
            self.insert(key, connection);
        }
    }

    /// Takes in an outcome; that of a flow whose attempt was not seen says
    /// nothing that could be told.
    pub fn outcome(&mut self, event: &socket::Outcome) {
        let key = Key {
            cookie: event.cookie,
            flow: event.flow,
        };
        let Some(connection) = self.map.get_mut(&key) else {
            return;
        };
        let outcome = match event.error {
            0 => Outcome::Success,
            socket::Outcome::ABANDONED => Outcome::Abandoned,
            errno if errno > 0 => Outcome::Failure(errno),
            // UNDECIDED: only the source is news.
            _ => Outcome::Pending,
        };
        match connection.outcome {
            Outcome::Pending => {
                self.index.remove(key, connection);
                connection.learn_source(event);
                self.index.insert(key, connection);
                if outcome != Outcome::Pending {
                    self.decide(key, outcome, event.header.boot_ns);
                }
            }
            // It was told as unknown; the end of what failed is told late.
            Outcome::Unknown if outcome != Outcome::Pending && connection.ended_ns.is_none() => {
                self.index.remove(key, connection);
                connection.learn_source(event);
                self.index.insert(key, connection);
                connection.outcome = outcome;
                if outcome != Outcome::Success {
                    self.end(key, event.header.boot_ns);
                    self.news.push_back(News::Closed(key));
                }
            }
            _ => {}
        }
    }

    /// Takes in the end of one flow, or of all flows of a socket.
    pub fn close(&mut self, event: &Close, accounts: &mut dyn Accounts) {
        let at_ns = event.header.boot_ns;
        let named = Key {
            cookie: event.cookie,
            flow: event.flow,
        };
        if event.flow != 0 && event.hook == Hook::SockRelease as u32 {
            if let Some(connection) = self.map.get_mut(&named)
                && connection.ended_ns.is_none()
            {
                connection.released_ns = NonZero::new(at_ns);
            }
            return;
        }
        let keys: Vec<Key> = if event.flow == 0 {
            self.flows(event.cookie).map(|(key, _)| *key).collect()
        } else if self.map.contains_key(&named) {
            vec![named]
        } else {
            // A socket found open has flow 0 here, whatever the kernel counts.
            vec![Key { flow: 0, ..named }]
        };
        for key in keys {
            let Some(connection) = self.map.get(&key) else {
                continue;
            };
            if connection.ended_ns.is_some() {
                continue;
            }
            if connection.outcome == Outcome::Pending {
                // Its outcome can no longer come.
                self.decide(key, Outcome::Unknown, at_ns);
            }
            if let Some(connection) = self.map.get_mut(&key) {
                let counts = counts::counts_of(key, connection, &event.counts, accounts);
                connection.count(&counts);
                if counts.flow != event.counts.flow {
                    accounts.forget(&connection.account(key.cookie));
                }
            }
            self.end(key, at_ns);
            self.news.push_back(News::Closed(key));
        }
    }

    /// Tells the attempts whose time is over as unknown, and forgets what ended
    /// long ago. `now_ns` is nanoseconds since boot.
    pub fn tick(&mut self, now_ns: u64) {
        while let Some(&(due_ns, key)) = self.undecided.front()
            && due_ns <= now_ns
        {
            self.undecided.pop_front();
            self.give_up(key, due_ns);
        }
        if now_ns >= self.released_due_ns {
            self.released_due_ns = now_ns.saturating_add(RELEASED_LOOK_NS);
            self.end_released(now_ns.saturating_sub(RELEASED_MAX_NS));
        }
        let before = now_ns.saturating_sub(KEEP_CLOSED_NS);
        while let Some(&(ended_ns, _)) = self.closed.front()
            && ended_ns < before
        {
            self.forget_oldest_closed();
        }
    }

    /// Tells every attempt that has no outcome yet as unknown, and what is
    /// known to be over as ended.
    pub fn give_up_waiting(&mut self) {
        while let Some((due_ns, key)) = self.undecided.pop_front() {
            self.give_up(key, due_ns);
        }
        self.end_released(u64::MAX);
    }

    /// Ends the flows whose last descriptor was closed before this time, and
    /// whose end was not seen: the kernel does not run a program inside itself,
    /// nor wherever else it sees fit.
    fn end_released(&mut self, before_ns: u64) {
        let over: Vec<(Key, u64)> = self
            .map
            .iter()
            .filter(|(_, connection)| connection.ended_ns.is_none())
            .filter_map(|(key, connection)| Some((*key, connection.released_ns?.get())))
            .filter(|(_, released_ns)| *released_ns < before_ns)
            .collect();
        for (key, released_ns) in over {
            if let Some(connection) = self.map.get_mut(&key) {
                // TCP may have gone on after that.
                connection.sent = None;
                connection.received = None;
            }
            self.end(key, released_ns);
            self.news.push_back(News::Closed(key));
        }
    }

    pub fn next_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    pub fn get(&self, key: &Key) -> Option<&Connection> {
        self.map.get(key).map(AsRef::as_ref)
    }

    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Connection> {
        self.map.get_mut(key).map(AsMut::as_mut)
    }

    /// All flows, by cookie.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Connection)> {
        self.map
            .iter()
            .map(|(key, connection)| (key, &**connection))
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Flows that have not ended, attempts included.
    pub fn open(&self) -> usize {
        self.map.len() - self.closed.len()
    }

    /// Most open flows.
    pub const fn capacity(&self) -> usize {
        self.open_max
    }

    /// Flows that ended at this time or before may be missing; nanoseconds
    /// since boot, 0 when nothing was forgotten yet.
    pub const fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// Open flows forgotten for want of room.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn flows(&self, cookie: u64) -> impl Iterator<Item = (&Key, &Box<Connection>)> {
        let first = Key { cookie, flow: 0 };
        let last = Key {
            cookie,
            flow: u32::MAX,
        };
        self.map.range(first..=last)
    }

    /// A name for the flow of a socket that the kernel side could not tag, and
    /// so neither counts nor compares: `None` for a further datagram to a
    /// destination.
    fn uncounted(&self, cookie: u64, new: &Connection) -> Option<Key> {
        let to = |connection: &Connection| (connection.destination, connection.destination_port);
        let mut flow = UNCOUNTED;
        for (key, connection) in self.flows(cookie) {
            let is_open = connection.ended_ns.is_none();
            if new.is_send() && connection.is_send() && is_open && to(connection) == to(new) {
                return None;
            }
            flow = flow.max(key.flow.saturating_add(1));
        }
        Some(Key { cookie, flow })
    }

    fn insert(&mut self, key: Key, connection: Connection) {
        self.packets |= connection.is_packet();
        self.index.insert(key, &connection);
        self.map.insert(key, Box::new(connection));
        while self.map.len() > self.retained_max && !self.closed.is_empty() {
            self.forget_oldest_closed();
        }
        if self.map.len() > self.open_max
            && let Some((key, connection)) = self.map.pop_first()
        {
            self.index.remove(key, &connection);
            self.evicted += 1;
            self.news.push_back(News::Forgotten(connection));
        }
    }

    fn give_up(&mut self, key: Key, at_ns: u64) {
        let pending = self
            .get(&key)
            .is_some_and(|connection| connection.outcome == Outcome::Pending);
        if pending {
            self.decide(key, Outcome::Unknown, at_ns);
        }
    }

    fn decide(&mut self, key: Key, outcome: Outcome, at_ns: u64) {
        if let Some(connection) = self.map.get_mut(&key) {
            connection.outcome = outcome;
            self.news.push_back(News::Opened(key));
            if matches!(outcome, Outcome::Failure(_) | Outcome::Abandoned) {
                self.end(key, at_ns);
            }
        }
    }

    fn end(&mut self, key: Key, at_ns: u64) {
        if let Some(connection) = self.map.get_mut(&key) {
            connection.ended_ns = NonZero::new(at_ns.max(1));
            self.closed.push_back((at_ns, key));
        }
    }

    fn forget_oldest_closed(&mut self) {
        if let Some((ended_ns, key)) = self.closed.pop_front() {
            self.since_ns = self.since_ns.max(ended_ns);
            if let Some(connection) = self.map.remove(&key) {
                self.index.remove(key, &connection);
                self.news.push_back(News::Forgotten(connection));
            }
        }
    }
}

//! What network address translation makes of connections' ends.
//!
//! A connection is looked up when there is something to tell of it, until it is
//! found: its act, an update, its end. A datagram socket's connect sends
//! nothing, so that one without an entry is looked up again a little later.
//!
//! The table asked is that of the agent's own network namespace. What it says
//! of a socket of that namespace is so. Another namespace's packets pass it with
//! the ends that their socket gave them, so that an entry with just these ends
//! is most likely theirs; where live sockets of two other namespaces have them,
//! nobody's.

use std::{collections::HashMap, mem, sync::Arc};

use super::Engine;
use crate::{
    connections::{Connection, Key, Nat, Outcome},
    conntrack::{Answer, Translation, Tuple},
    history::fact::Told,
};

/// UDP and UDP-Lite.
const DATAGRAMS: [u8; 2] = [17, 136];

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Translations {
    /// The agent's own network namespace.
    netns: u32,
    /// To be looked up; whether they may be again.
    due: Vec<(Key, Again)>,
    /// To be looked up at [`Engine::look_up_again`].
    later: Vec<Key>,
    /// What all connections share that are not translated.
    plain: Arc<Nat>,
    /// Who of another namespace is taken to be behind an entry.
    claims: HashMap<Tuple, Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    May,
    MayNot,
}

impl Translations {
    pub(super) fn new(netns: u32) -> Self {
        Self {
            netns,
            due: Vec::new(),
            later: Vec::new(),
            plain: Arc::new(Nat::Exact(Translation::default())),
            claims: HashMap::new(),
        }
    }

    /// Something is to be told of that connection.
    pub(super) fn want(&mut self, key: Key) {
        self.due.push((key, Again::May));
    }

    /// Nothing is to be told of that connection any more.
    pub(super) fn forget(&mut self, connection: &Connection) {
        if connection.netns != self.netns
            && let Some(nat) = connection.nat.as_deref()
            && *nat != *self.plain
            && let Some(tuple) = connection.tuple()
        {
            self.claims.remove(&tuple);
        }
    }

    /// What to look it up by; `None`: no entry of the table can be its.
    fn tuple(&self, connection: &Connection) -> Option<Tuple> {
        if connection.nat.is_some() || connection.outcome == Outcome::Denied {
            return None;
        }
        let tuple = connection.tuple()?;
        let is_loopback = tuple.local.0.is_loopback() || tuple.remote.0.is_loopback();
        (connection.netns == self.netns || !is_loopback).then_some(tuple)
    }
}

impl Engine {
    /// Connections of which it is not known how they are translated, and that
    /// there is something to tell of.
    pub fn untranslated(&mut self) -> Vec<Untranslated> {
        let due = mem::take(&mut self.translations.due);
        due.into_iter()
            .filter_map(|(key, again)| {
                let connection = self.connections.get(&key)?;
                let tuple = self.translations.tuple(connection)?;
                Some(Untranslated { key, tuple, again })
            })
            .collect()
    }

    /// Takes in what the table says of one of them.
    pub fn translated(&mut self, of: &Untranslated, answer: Answer) {
        let Answer::Found(translation) = answer else {
            if of.again == Again::May && DATAGRAMS.contains(&of.tuple.protocol) {
                self.translations.later.push(of.key);
            }
            return;
        };
        let Some(connection) = self.connections.get(&of.key) else {
            return;
        };
        let nat = if translation == Translation::default() {
            Arc::clone(&self.translations.plain)
        } else if connection.netns == self.translations.netns {
            Arc::new(Nat::Exact(translation))
        } else {
            Arc::new(self.claim(of, translation))
        };
        self.learn(of.key, nat);
    }

    /// Looks those up once more that were not found at first.
    pub fn look_up_again(&mut self) {
        let later = mem::take(&mut self.translations.later);
        let later = later.into_iter().map(|key| (key, Again::MayNot));
        self.translations.due.extend(later);
    }

    /// Of a socket of another namespace: whether it alone has these ends.
    fn claim(&mut self, of: &Untranslated, translation: Translation) -> Nat {
        let Some(other) = self.translations.claims.insert(of.tuple, of.key) else {
            return Nat::Inferred(translation);
        };
        let netns = |key: &Key| {
            let connection = self.connections.get(key)?;
            connection.ended_ns.is_none().then_some(connection.netns)
        };
        match netns(&other) {
            Some(netns_of_other) if netns(&of.key) != Some(netns_of_other) => {
                self.learn(other, Arc::new(Nat::Ambiguous));
                Nat::Ambiguous
            }
            _ => Nat::Inferred(translation),
        }
    }

    fn learn(&mut self, key: Key, nat: Arc<Nat>) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let is_news = *nat != *self.translations.plain && connection.sequence.is_some();
        connection.nat = Some(nat);
        if is_news {
            self.tell_flow(key, Told::Again);
        }
    }
}

/// A connection to be looked up.
#[derive(Clone, Copy, Debug)]
pub struct Untranslated {
    pub key: Key,
    pub tuple: Tuple,
    again: Again,
}

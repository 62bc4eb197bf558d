//! What the kernel side has counted, and which flows it belongs to.

use procid_common::socket::{
    Close, Counts, DestinationKey, DestinationState,
    flags::{RECEIVED_UNKNOWN, SENT_UNKNOWN},
};

use super::{Connection, Connections, Key, News};

/// The kernel side's accounts of datagram destinations.
pub trait Accounts: std::fmt::Debug {
    /// Whether what datagram sockets send and receive is counted at all.
    fn counts(&self) -> bool;

    fn look(&self, key: &DestinationKey) -> Option<DestinationState>;

    /// The flow has ended: its account is no longer needed.
    fn forget(&mut self, key: &DestinationKey);
}

impl Connections {
    /// Takes in what a live socket has counted so far, and says of which flows.
    pub fn counted(&mut self, event: &Close, accounts: &dyn Accounts) -> Vec<Key> {
        let open: Vec<Key> = self
            .flows(event.cookie)
            .filter(|(_, connection)| connection.ended_ns.is_none())
            .map(|(key, _)| *key)
            .collect();
        for key in &open {
            if let Some(connection) = self.map.get_mut(key) {
                let counts = counts_of(*key, connection, &event.counts, accounts);
                connection.count(&counts);
            }
        }
        open
    }

    /// Ends the flows of packet sockets that were no longer there at `at_ns`:
    /// no hook sees their end.
    pub fn end_gone(
        &mut self,
        is_there: impl Fn(u64) -> bool,
        at_ns: u64,
        accounts: &mut dyn Accounts,
    ) {
        let gone: Vec<Key> = self
            .map
            .iter()
            .filter(|(key, connection)| {
                connection.is_packet()
                    && connection.ended_ns.is_none()
                    && connection.started_ns < at_ns
                    && !is_there(key.cookie)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            if let Some(connection) = self.map.get_mut(&key) {
                let known = Counts::default();
                let counts = counts_of(key, connection, &known, accounts);
                connection.count(&counts);
                accounts.forget(&connection.account(key.cookie));
            }
            self.end(key, at_ns);
            self.news.push_back(News::Closed(key));
        }
        self.packets = self
            .map
            .values()
            .any(|connection| connection.is_packet() && connection.ended_ns.is_none());
    }

    /// Whether there are open packet sockets: see [`Self::end_gone`].
    pub const fn has_packets(&self) -> bool {
        self.packets
    }
}

/// What a socket's counts say of one of its flows: its first or connected one
/// is counted there, the others have accounts of their own.
pub(super) fn counts_of(
    key: Key,
    connection: &Connection,
    socket: &Counts,
    accounts: &dyn Accounts,
) -> Counts {
    let unknown = Counts {
        flags: SENT_UNKNOWN | RECEIVED_UNKNOWN,
        ..Counts::default()
    };
    if !connection.is_stream() && !accounts.counts() {
        return unknown;
    }
    if socket.flow == key.flow && !connection.is_packet() {
        return *socket;
    }
    let state = accounts.look(&connection.account(key.cookie));
    match state.filter(|state| state.flow == key.flow) {
        Some(state) => Counts {
            sent: state.sent,
            received: state.received,
            flow: key.flow,
            flags: socket.flags,
        },
        None => unknown,
    }
}

//! The programs' accounts of datagram destinations.

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use procid_common::socket::{DestinationKey, DestinationState};

use crate::connections::Accounts;

/// A map key or value as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain<T>(T);

// SAFETY: both types are plain data without padding (zerocopy's derives check).
unsafe impl Pod for Plain<DestinationKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<DestinationState> {}

type Destinations = HashMap<MapData, Plain<DestinationKey>, Plain<DestinationState>>;

/// Accounts in maps: those of most sockets, and those of sockets with very many
/// destinations.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) destinations: Destinations,
    pub(super) scans: Destinations,
    /// The programs count at all.
    pub(super) counts: bool,
}

impl Maps {
    fn find(&self, key: &DestinationKey) -> Option<(&Destinations, DestinationState)> {
        [&self.destinations, &self.scans]
            .into_iter()
            .find_map(|map| Some((map, map.get(&Plain(*key), 0).ok()?.0)))
    }
}

impl Accounts for Maps {
    fn counts(&self) -> bool {
        self.counts
    }

    fn look(&self, key: &DestinationKey) -> Option<DestinationState> {
        Some(self.find(key)?.1)
    }

    fn forget(&mut self, key: &DestinationKey) {
        // Not an error where the programs have forgotten it before.
        for map in [&mut self.destinations, &mut self.scans] {
            let _gone = map.remove(&Plain(*key));
        }
    }
}

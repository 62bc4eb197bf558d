//! Hashes that wait for word that their image lived long enough.
//!
//! An exec within a clock tick of its file's last change is settled by the
//! image's being alive at a later time (see [`super::settle`]). Two things
//! prove that: an end of the image told with a time not before that one; or
//! that its process was seen running the file after that time, and that all
//! events up to it have been told and no end of the image was among them.

use std::collections::HashMap;

use procid_common::image::{FileState, ImageId};

/// By how much events may be told out of the order of their times.
const SKEW_NS: u64 = 10_000_000;

/// One hash that waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub file: FileState,
    pub sha256: [u8; 32],
    /// The image must have been alive at this time, nanoseconds since boot.
    pub alive_at_ns: u64,
    /// The process was seen running the file after that time.
    pub seen_running: bool,
    /// When to give up, nanoseconds since boot.
    pub give_up_ns: u64,
}

/// What became of one that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Settled,
    Unsettled,
}

/// All that wait, and how far the events have been told.
#[derive(Debug, Default)]
pub struct Parked {
    waiting: HashMap<ImageId, Waiting>,
    told_ns: u64,
}

impl Parked {
    pub fn park(&mut self, id: ImageId, waiting: Waiting) {
        self.waiting.insert(id, waiting);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All events up to `now_ns` have been told.
    pub fn told(&mut self, now_ns: u64) {
        self.told_ns = self.told_ns.max(now_ns);
    }

    /// An image has ended.
    pub fn ended(&mut self, id: &ImageId, at_ns: u64) -> Option<(Waiting, Fate)> {
        let waiting = self.waiting.remove(id)?;
        Some((waiting, fate_of_ended(waiting.alive_at_ns, at_ns)))
    }

    /// Takes out what has been decided by `now_ns`.
    pub fn decided(&mut self, now_ns: u64) -> Vec<(ImageId, Waiting, Fate)> {
        let told_ns = self.told_ns;
        self.waiting
            .extract_if(|_, waiting| waiting.is_proven(told_ns) || now_ns >= waiting.give_up_ns)
            .map(|(id, waiting)| {
                let fate = if waiting.is_proven(told_ns) {
                    Fate::Settled
                } else {
                    Fate::Unsettled
                };
                (id, waiting, fate)
            })
            .collect()
    }
}

impl Waiting {
    fn is_proven(&self, told_ns: u64) -> bool {
        self.seen_running && told_ns >= self.alive_at_ns.saturating_add(SKEW_NS)
    }
}

/// What an end at `ended_ns` says of an image that must have been alive at
/// `alive_at_ns`.
pub const fn fate_of_ended(alive_at_ns: u64, ended_ns: u64) -> Fate {
    if ended_ns >= alive_at_ns {
        Fate::Settled
    } else {
        Fate::Unsettled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ImageId = ImageId {
        start_boottime: 1,
        self_exec_id: 1,
        tgid: 1,
        reserved: 0,
    };

    fn waiting(seen_running: bool) -> Waiting {
        Waiting {
            file: FileState::default(),
            sha256: [0; 32],
            alive_at_ns: 100,
            seen_running,
            give_up_ns: 1_000_000_000,
        }
    }

    fn fates(parked: &mut Parked, now_ns: u64) -> Vec<Fate> {
        parked.decided(now_ns).iter().map(|d| d.2).collect()
    }

    #[test]
    fn an_end_decides_by_its_time() {
        for (at, fate) in [(99, Fate::Unsettled), (100, Fate::Settled)] {
            let mut parked = Parked::default();
            parked.park(ID, waiting(false));
            assert_eq!(parked.ended(&ID, at).map(|e| e.1), Some(fate), "{at}");
            assert!(parked.is_empty());
        }
    }

    #[test]
    fn running_counts_once_the_events_have_caught_up() {
        let mut parked = Parked::default();
        parked.park(ID, waiting(true));
        parked.told(100 + SKEW_NS - 1);
        assert_eq!(fates(&mut parked, 0), []);
        parked.told(100 + SKEW_NS);
        assert_eq!(fates(&mut parked, 0), [Fate::Settled]);
    }

    #[test]
    fn who_was_not_seen_running_is_never_proven_by_silence() {
        let mut parked = Parked::default();
        parked.park(ID, waiting(false));
        parked.told(u64::MAX);
        assert_eq!(fates(&mut parked, 999_999_999), []);
        assert_eq!(fates(&mut parked, 1_000_000_000), [Fate::Unsettled]);
    }
}

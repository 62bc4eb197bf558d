//! Who is served at a time, and for how long.
//!
//! | | at most |
//! | --- | --- |
//! | connections being answered | [`OTHERS`] of other users, and [`FOR_ROOT`] more of root |
//! | connections that read along | [`READERS_MAX`](crate::agent::stream::READERS_MAX) |
//!
//! So neither a crowd of readers nor the group `procid` as a whole can keep root
//! from changing the policy.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::access::Peer;

/// Connections of other users than root that are answered at a time; further
/// ones are told so.
const OTHERS: usize = 16;
/// Connections that are kept for root. Beyond both, who connects waits in the
/// socket's queue.
const FOR_ROOT: usize = 8;

/// One connection's place among all of them.
pub(super) type Place = OwnedSemaphorePermit;

#[derive(Clone, Debug)]
pub(super) struct Slots {
    all: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(OTHERS + FOR_ROOT)),
            others: Arc::new(Semaphore::new(OTHERS)),
        }
    }
}

impl Slots {
    /// Waits for a place.
    pub(super) async fn place(&self) -> io::Result<Place> {
        let place = Arc::clone(&self.all).acquire_owned().await;
        place.map_err(io::Error::other)
    }

    /// `None`: there are too many of those that are not root.
    pub(super) fn stay(&self, place: Place, peer: Peer) -> Option<Arc<Stay>> {
        let other = if peer.uid == 0 {
            None
        } else {
            Some(Arc::clone(&self.others).try_acquire_owned().ok()?)
        };
        Some(Arc::new(Stay {
            held: Mutex::new(Some((place, other))),
            is_long: AtomicBool::new(false),
        }))
    }
}

/// How long one connection may stay, and the place it has until then.
#[derive(Debug)]
pub(super) struct Stay {
    held: Mutex<Option<(Place, Option<OwnedSemaphorePermit>)>>,
    is_long: AtomicBool,
}

impl Stay {
    /// It reads along from here on: it has a seat of its own, and gives its
    /// place to the next.
    pub(super) fn is_long_from_here(&self) {
        self.is_long.store(true, Ordering::Release);
        drop(
            self.held
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    /// Ready when its time is over.
    pub(super) async fn is_over(&self, time: Duration) {
        tokio::time::sleep(time).await;
        if self.is_long.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    }
}

/// Answers without having read the question, which could take its time.
pub(super) fn say_busy(stream: &UnixStream) -> io::Result<()> {
    const BODY: &str =
        r#"{"error":"the agent is answering as many others as it can; ask again in a moment"}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    stream.try_write(answer.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32) -> Peer {
        Peer {
            uid,
            gid: 0,
            pid: None,
        }
    }

    #[tokio::test]
    async fn a_crowd_leaves_room_for_root() {
        let slots = Slots::default();
        let mut stays = Vec::new();
        for _ in 0..OTHERS {
            let place = slots.place().await.unwrap();
            stays.push(slots.stay(place, peer(1000)).unwrap());
        }
        let place = slots.place().await.unwrap();
        assert!(slots.stay(place, peer(1000)).is_none());
        for _ in 0..FOR_ROOT {
            let place = slots.place().await.unwrap();
            stays.push(slots.stay(place, peer(0)).unwrap());
        }
        assert_eq!(slots.all.available_permits(), 0);
        // Who reads along takes nobody's place.
        stays[0].is_long_from_here();
        let place = slots.place().await.unwrap();
        assert!(slots.stay(place, peer(1000)).is_some());
        stays.clear();
        assert_eq!(slots.all.available_permits(), OTHERS + FOR_ROOT);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_along_may_stay() {
        let slots = Slots::default();
        let place = slots.place().await.unwrap();
        let stay = slots.stay(place, peer(0)).unwrap();
        let time = Duration::from_secs(9);
        stay.is_over(time).await;
        stay.is_long_from_here();
        let over = tokio::time::timeout(time * 100, stay.is_over(time)).await;
        assert!(over.is_err());
    }
}

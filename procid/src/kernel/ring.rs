//! The reading end of the ring buffer.

use std::{io, os::fd::OwnedFd, time::Duration};

use aya::maps::{MapData, RingBuf};
use rustix::event::{Timespec, epoll};

/// The reading end of the ring buffer.
pub struct Ring {
    ring: RingBuf<MapData>,
    epoll: OwnedFd,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Ring {
    pub(super) fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered: only what the programs wake us for (a new image)
        // ends a wait early; connections are then read in batches.
        epoll::add(
            &epoll,
            &ring,
            epoll::EventData::new_u64(0),
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        Ok(Self { ring, epoll })
    }

    /// Waits for the birth of an image, at most for `timeout`. Other events may
    /// be there without having ended the wait.
    ///
    /// # Errors
    ///
    /// Of epoll_wait(2).
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the next event's bytes, in the order the kernel wrote them; false
    /// when there is none.
    pub fn read(&mut self, take: impl FnOnce(&[u8])) -> bool {
        match self.ring.next() {
            Some(item) => {
                take(&item);
                true
            }
            None => false,
        }
    }
}

//! The reading end of a ring buffer.
//!
//! The kernel lends the pages of a ring twice, one after the other, so that no
//! record has to be read in two pieces. Here they are mapped once: pages that are
//! mapped twice count twice as memory of this process, and only a record that
//! crosses the end of the ring, one in thousands, has to be put together.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/ringbuf.c>

use std::{
    ffi::c_void,
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{NonNull, null_mut},
    slice,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use aya::maps::{Map, MapData};
use rustix::{
    event::{Timespec, epoll},
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// `BPF_RINGBUF_HDR_SZ`: a record's length and state, and the kernel's own word.
const HEADER: usize = 8;
/// `BPF_RINGBUF_BUSY_BIT`: it is being written.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: its writer has thought better of it.
const DISCARDED: u32 = 1 << 30;

/// The reading end of the ring buffer.
pub struct Ring {
    reader: Reader,
    epoll: OwnedFd,
    /// What the reader reads.
    _pages: [Pages; 2],
    _map: MapData,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Ring {
    pub(super) fn new(map: Map) -> io::Result<Self> {
        let Map::RingBuf(map) = map else {
            return Err(io::Error::other("it is no ring"));
        };
        let info = map.info().map_err(io::Error::other)?;
        let size = usize::try_from(info.max_entries()).map_err(io::Error::other)?;
        let page = page_size();
        let fd = map.fd().as_fd();
        let consumer = Pages::map(fd, 0..page, ProtFlags::READ | ProtFlags::WRITE)?;
        let producer = Pages::map(fd, page..2 * page + size, ProtFlags::READ)?;
        // SAFETY: the kernel keeps a position at the start of either page, and the
        // data, a power of two of bytes, behind the second. `Ring` keeps them
        // mapped as long as the reader.
        let reader = unsafe {
            Reader::new(
                consumer.0.cast(),
                producer.0.cast(),
                producer.0.cast().add(page),
                size,
            )
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let ring = Self {
            reader,
            epoll,
            _pages: [consumer, producer],
            _map: map,
        };
        // Only what the programs wake us for (a new image) ends a wait early;
        // connections are then read in batches.
        ring.also_wake(ring._map.fd().as_fd())?;
        Ok(ring)
    }

    /// Lets what is written to another descriptor end a wait, each time.
    ///
    /// # Errors
    ///
    /// Of epoll_ctl(2).
    pub fn also_wake(&self, on: BorrowedFd<'_>) -> io::Result<()> {
        let data = epoll::EventData::new_u64(0);
        // Edge-triggered: it need not be read.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, on, data, flags)?)
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
        self.reader.read(take)
    }
}

/// Pages of a ring; unmapped when dropped.
struct Pages(NonNull<c_void>, usize);

impl Pages {
    fn map(ring: BorrowedFd<'_>, bytes: Range<usize>, access: ProtFlags) -> io::Result<Self> {
        let (offset, length) = (bytes.start as u64, bytes.len());
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let address = unsafe { mmap(null_mut(), length, access, MapFlags::SHARED, ring, offset) }?;
        let address = NonNull::new(address).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self(address, length))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`, and its only user, the reader, has ended. It
        // cannot fail: the range is that of one whole mapping.
        let _done = unsafe { munmap(self.0.as_ptr(), self.1) };
    }
}

// SAFETY: an address in the whole process, which no thread owns.
unsafe impl Send for Pages {}

/// Goes over the records.
struct Reader {
    /// Up to where records have been taken: told to the writers, who then write
    /// over them.
    consumed: NonNull<AtomicU64>,
    /// Up to where they have been begun, by the writers.
    produced: NonNull<AtomicU64>,
    data: NonNull<u8>,
    /// Bytes of data, a power of two.
    size: usize,
    position: u64,
    /// `produced` at the last look.
    end: u64,
    /// A record that crosses the end of the ring.
    crossing: Vec<u8>,
}

// SAFETY: as of `Pages`; it has no other part in the memory than this one.
unsafe impl Send for Reader {}

impl Reader {
    /// # Safety
    ///
    /// All three are there, aligned to eight bytes, as long as the reader; `data`
    /// has `size` bytes, which writers treat as the kernel does.
    unsafe fn new(
        consumed: NonNull<AtomicU64>,
        produced: NonNull<AtomicU64>,
        data: NonNull<u8>,
        size: usize,
    ) -> Self {
        // SAFETY: the caller's.
        let position = unsafe { consumed.as_ref() }.load(Ordering::Acquire);
        Self {
            consumed,
            produced,
            data,
            size,
            position,
            end: position,
            crossing: Vec::new(),
        }
    }

    fn read(&mut self, take: impl FnOnce(&[u8])) -> bool {
        let Some(length) = self.next() else {
            return false;
        };
        let start = self.offset(self.position + HEADER as u64);
        let (first, rest) = pieces(start, length, self.size);
        if rest == 0 {
            take(self.bytes(start, first));
        } else {
            let mut crossing = std::mem::take(&mut self.crossing);
            crossing.clear();
            crossing.extend_from_slice(self.bytes(start, first));
            crossing.extend_from_slice(self.bytes(0, rest));
            take(&crossing);
            self.crossing = crossing;
        }
        self.pass(length);
        true
    }

    /// Length of the record at `position`, past those that were discarded.
    fn next(&mut self) -> Option<usize> {
        loop {
            if self.position == self.end {
                // SAFETY: see `new`. In one order with `consumed`: either this
                // sees a new record, or its writer that all others are taken,
                // and wakes.
                self.end = unsafe { self.produced.as_ref() }.load(Ordering::SeqCst);
                if self.position == self.end {
                    return None;
                }
            }
            let at = self.offset(self.position);
            // SAFETY: inside the data, as is every multiple of eight below `size`.
            let header = unsafe { self.data.add(at).cast::<AtomicU32>().as_ref() };
            // After it is written, so is all of the record.
            let header = header.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            // The kernel writes none that is longer.
            let length = ((header & !DISCARDED) as usize).min(self.size - HEADER);
            if header & DISCARDED == 0 {
                return Some(length);
            }
            self.pass(length);
        }
    }

    /// Gives a record's room back to the writers.
    fn pass(&mut self, length: usize) {
        self.position += (HEADER + length).next_multiple_of(8) as u64;
        // SAFETY: see `new`.
        unsafe { self.consumed.as_ref() }.store(self.position, Ordering::SeqCst);
    }

    fn offset(&self, position: u64) -> usize {
        (position & (self.size as u64 - 1)) as usize
    }

    /// Bytes of a record that is there.
    fn bytes(&self, start: usize, length: usize) -> &[u8] {
        debug_assert!(start + length <= self.size);
        // SAFETY: inside the data. Writers are done with the record, and do not
        // write over it before `consumed` passes it.
        unsafe { slice::from_raw_parts(self.data.add(start).as_ptr(), length) }
    }
}

/// How much of a record lies before the end of the ring, and how much at its
/// beginning.
fn pieces(start: usize, length: usize, size: usize) -> (usize, usize) {
    let first = length.min(size - start);
    (first, length - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64;

    /// A ring in memory of its own, written as the kernel does.
    struct Written {
        consumed: AtomicU64,
        produced: AtomicU64,
        data: Box<[AtomicU32; SIZE / 4]>,
    }

    impl Written {
        fn at(position: u64) -> Self {
            Self {
                consumed: AtomicU64::new(position),
                produced: AtomicU64::new(position),
                data: Box::new([const { AtomicU32::new(0) }; SIZE / 4]),
            }
        }

        fn reader(&self) -> Reader {
            // SAFETY: every test's reader ends before its ring.
            unsafe {
                Reader::new(
                    NonNull::from(&self.consumed),
                    NonNull::from(&self.produced),
                    NonNull::from(&*self.data).cast(),
                    SIZE,
                )
            }
        }

        fn word(&self, position: u64) -> &AtomicU32 {
            &self.data[(position as usize % SIZE) / 4]
        }

        /// Writes a record of so many words, all alike.
        fn write(&self, words: u32, value: u32, state: u32) {
            let start = self.produced.load(Ordering::Relaxed);
            for word in 0..u64::from(words) {
                self.word(start + HEADER as u64 + 4 * word)
                    .store(value, Ordering::Relaxed);
            }
            self.word(start)
                .store((4 * words) | state, Ordering::Release);
            let length = (HEADER as u64 + 4 * u64::from(words)).next_multiple_of(8);
            self.produced.store(start + length, Ordering::Release);
        }
    }

    fn next(reader: &mut Reader) -> Option<Vec<u8>> {
        let mut bytes = None;
        reader.read(|record| bytes = Some(record.to_vec()));
        bytes
    }

    fn record(words: u32, value: u32) -> Vec<u8> {
        value.to_ne_bytes().repeat(words as usize)
    }

    #[test]
    fn records_come_in_order_wherever_the_ring_ends() {
        for begin in (0..=2 * SIZE as u64).step_by(8) {
            let ring = Written::at(begin);
            let mut reader = ring.reader();
            for (words, value) in [(3, 7), (9, 8), (0, 0), (14, 9), (1, 5)] {
                assert_eq!(next(&mut reader), None);
                ring.write(words, value, 0);
                assert_eq!(next(&mut reader), Some(record(words, value)), "{begin}");
            }
            let [consumed, produced] =
                [&ring.consumed, &ring.produced].map(|word| word.load(Ordering::Relaxed));
            assert_eq!(consumed, produced);
        }
    }

    #[test]
    fn several_wait_and_a_later_reader_goes_on() {
        let ring = Written::at(24);
        for value in 1..=4 {
            ring.write(2, value, 0);
        }
        assert_eq!(next(&mut ring.reader()), Some(record(2, 1)));
        let mut reader = ring.reader();
        for value in 2..=4 {
            assert_eq!(next(&mut reader), Some(record(2, value)));
        }
        assert_eq!(next(&mut reader), None);
    }

    #[test]
    fn what_is_discarded_is_passed_and_what_is_being_written_ends_the_reading() {
        let ring = Written::at(48);
        ring.write(1, 1, DISCARDED);
        ring.write(2, 2, 0);
        let busy = ring.produced.load(Ordering::Relaxed);
        ring.write(1, 3, BUSY);
        ring.write(1, 4, 0);
        let mut reader = ring.reader();
        assert_eq!(next(&mut reader), Some(record(2, 2)));
        assert_eq!(next(&mut reader), None);
        ring.word(busy).store(4, Ordering::Release);
        assert_eq!(next(&mut reader), Some(record(1, 3)));
        assert_eq!(next(&mut reader), Some(record(1, 4)));
        assert_eq!(next(&mut reader), None);
    }
}

//! Kernel time to the time of day.
//!
//! Both clocks are slewed alike (adjtimex(2)); their distance changes only where
//! the time of day is set.

use std::time::Duration;

use crate::identity::hash::settle::Offset;

/// Smaller changes of the distance are left alone: two samples of one distance
/// differ by what lies between the readings of two clocks.
const STEP_NS: u64 = Duration::from_millis(1).as_nanos() as u64;

/// Maps nanoseconds since boot to nanoseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// At the agent's start.
    first: Offset,
    now: Offset,
}

impl Clock {
    /// Reads this host's clocks.
    pub fn of_this_host() -> Self {
        Self::fixed(sample())
    }

    /// A clock that starts with this distance.
    pub const fn fixed(offset: Offset) -> Self {
        Self {
            first: offset,
            now: offset,
        }
    }

    /// Takes in a new [`sample`], to follow a clock that was set.
    pub fn follow(&mut self, sample: Offset) {
        if self.now.0.abs_diff(sample.0) >= STEP_NS {
            self.now = sample;
        }
    }

    /// The distance at the start.
    pub const fn first(&self) -> Offset {
        self.first
    }

    /// A clock that started with one distance and has another now.
    pub const fn restored(first: Offset, now: Offset) -> Self {
        Self { first, now }
    }

    /// The distance now.
    pub const fn offset(&self) -> Offset {
        self.now
    }

    /// The time of day of an event.
    pub const fn at(&self, boot_ns: u64) -> i64 {
        self.now.to_real(boot_ns)
    }

    /// The time of day at which a process started: the same in every record of
    /// this agent, however the wall clock is set meanwhile.
    pub const fn started(&self, boot_ns: u64) -> i64 {
        self.first.to_real(boot_ns)
    }
}

/// The distance now: the greatest of three, since an interruption between the
/// two readings makes it smaller, never greater.
pub fn sample() -> Offset {
    let more = Offset::now().max(Offset::now());
    Offset::now().max(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_clock_is_followed_and_a_start_stays() {
        let mut clock = Clock::fixed(Offset(1_000_000_000));
        clock.follow(Offset(1_000_000_900));
        assert_eq!(clock.at(5), 1_000_000_005);
        clock.follow(Offset(3_000_000_000));
        assert_eq!(clock.at(5), 3_000_000_005);
        assert_eq!(clock.started(5), 1_000_000_005);
    }

    #[test]
    fn it_tells_the_time_of_day() {
        use std::time::{SystemTime, UNIX_EPOCH};

        use crate::identity::hash::settle::boot_now_ns;

        let clock = Clock::of_this_host();
        let told = clock.at(boot_now_ns());
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let real = i64::try_from(real.as_nanos()).unwrap();
        assert!(real.abs_diff(told) < 1_000_000_000, "{told} is not {real}");
    }
}

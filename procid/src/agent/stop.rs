//! Whether the agent is to stop.

use std::sync::atomic::{AtomicBool, Ordering};

/// Told by signals, heeded by the agent between two rounds.
#[derive(Debug, Default)]
pub struct Stop {
    wanted: AtomicBool,
    refused: AtomicBool,
}

/// A protected agent does not stop because it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl Stop {
    /// Tells it to.
    ///
    /// # Errors
    ///
    /// It is protected.
    pub fn want(&self) -> Result<(), Refused> {
        if self.refused.load(Ordering::Acquire) {
            return Err(Refused);
        }
        self.wanted.store(true, Ordering::Release);
        Ok(())
    }

    /// From now on it is not told to.
    pub(super) fn refuse(&self) {
        self.refused.store(true, Ordering::Release);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protected_agent_does_not_stop() {
        let stop = Stop::default();
        assert!(!stop.is_wanted());
        stop.refuse();
        assert_eq!(stop.want(), Err(Refused));
        assert!(!stop.is_wanted());
        let stop = Stop::default();
        assert_eq!(stop.want(), Ok(()));
        assert!(stop.is_wanted());
        // What was asked for before is not taken back.
        stop.refuse();
        assert!(stop.is_wanted());
    }
}

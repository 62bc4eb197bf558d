//! DNS answers, read before the connections that came after them.

use crate::{agent::engine::Engine, decode::decode, kernel::Ring};

/// Most answers of one round: a flood of them does not put off anything else.
const ANSWERS_MAX: usize = 4096;

/// One round's reading.
#[derive(Debug, Default)]
pub(super) struct Reading {
    answers: usize,
    /// Bytes that were no event.
    pub(super) undecodable: u64,
}

impl Reading {
    /// Hands the engine the answers that are there.
    pub(super) fn answers(&mut self, ring: &mut Ring, engine: &mut Engine) {
        while self.answers < ANSWERS_MAX {
            let mut event = None;
            if !ring.read(|bytes| event = Some(decode(bytes))) {
                break;
            }
            self.answers += 1;
            match event {
                Some(Ok(event)) => engine.event(event),
                Some(Err(error)) => {
                    tracing::warn!("the ring of DNS answers holds what is no event: {error}");
                    self.undecodable += 1;
                }
                None => {}
            }
        }
    }
}

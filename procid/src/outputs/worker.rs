//! The thread of one output: takes records from its queue and writes them.
//!
//! An output that fails is tried again every second, and gets the records that
//! it did not take before any later one. It is complained of when it begins to
//! fail, and then once a while.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CapabilitySet, CapabilitySets};
use tracing::{error, info, warn};

use super::queue::{Line, Queue, Tally};

const RETRY_EVERY: Duration = Duration::from_secs(1);
/// What goes on is told of so often.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// Where records are written.
pub trait Sink: Send {
    /// Writes records in order, and counts each that it is done with. On an error
    /// it is done with none, or some of the first; the others are given to it
    /// again later.
    ///
    /// # Errors
    ///
    /// It takes nothing at present.
    fn write(&mut self, lines: &[Line], tally: &mut Tally) -> Result<(), Trouble>;
}

/// Why an output takes nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {place}: {source}")]
pub struct Trouble {
    pub what: &'static str,
    pub place: String,
    pub source: io::Error,
}

/// Starts the thread of an output.
///
/// # Errors
///
/// Of making it.
pub fn start(name: String, sink: Box<dyn Sink>, queue: Arc<Queue>) -> io::Result<()> {
    thread::Builder::new()
        .name(format!("procid-{name}"))
        .spawn(move || {
            give_up_capabilities(&name);
            Worker {
                name,
                sink,
                queue: Arc::clone(&queue),
                voice: Voice::default(),
            }
            .work();
            queue.end();
        })
        .map(drop)
}

/// It handles what hostile processes have chosen, and needs none.
fn give_up_capabilities(name: &str) {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    if let Err(error) = rustix::thread::set_capabilities(None, none) {
        error!("the thread of output {name} keeps its capabilities: {error}");
    }
}

struct Worker {
    name: String,
    sink: Box<dyn Sink>,
    queue: Arc<Queue>,
    voice: Voice,
}

impl Worker {
    fn work(&mut self) {
        while let Some(lines) = self.queue.take() {
            let mut tally = Tally::default();
            let trouble = self.sink.write(&lines, &mut tally).err();
            let said = trouble.map(|trouble| trouble.to_string());
            self.queue.settle(&tally, said.clone());
            let lost = self.queue.fate().lost.values().sum();
            self.voice
                .tell(&self.name, said.as_deref(), lost, Instant::now());
            if said.is_some() && !self.queue.pause(RETRY_EVERY) {
                return;
            }
        }
    }
}

/// What was said of an output in the log.
#[derive(Debug, Default)]
struct Voice {
    trouble_at: Option<Instant>,
    is_failing: bool,
    loss_at: Option<Instant>,
    told_lost: u64,
}

impl Voice {
    fn tell(&mut self, name: &str, trouble: Option<&str>, lost: u64, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_none_or(|at| now >= at + WARN_EVERY);
        match trouble {
            Some(trouble) if is_due(self.trouble_at) => {
                self.trouble_at = Some(now);
                warn!("output {name}: {trouble}; its records wait, and some may be lost");
            }
            // Said once that it is well, where it was said that it was not.
            None if self.is_failing => info!("output {name} is written again"),
            _ => {}
        }
        self.is_failing = trouble.is_some();
        if lost > self.told_lost && is_due(self.loss_at) {
            self.loss_at = Some(now);
            self.told_lost = lost;
            warn!("output {name}: {lost} records lost so far; 'procid status' says why");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Fails at first, then takes one record at a time, and loses every third.
    struct Moody {
        failures: usize,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Sink for Moody {
        fn write(&mut self, lines: &[Line], tally: &mut Tally) -> Result<(), Trouble> {
            if self.failures > 0 {
                self.failures -= 1;
                return Err(Trouble {
                    what: "write",
                    place: "it".to_owned(),
                    source: io::Error::other("moody"),
                });
            }
            let mut taken = self.taken.lock().unwrap();
            if lines[0][0].is_multiple_of(3) {
                tally.lose("refused", 1);
            } else {
                tally.written += 1;
                taken.push(lines[0][0]);
            }
            Ok(())
        }
    }

    #[test]
    fn records_come_in_order_after_a_failure_and_all_before_the_end() {
        let queue = Arc::new(Queue::default());
        let taken = Arc::new(Mutex::new(Vec::new()));
        let sink = Moody {
            failures: 1,
            taken: Arc::clone(&taken),
        };
        for number in 1..=7 {
            queue.put(&Line::from([number]), false);
        }
        start("moody".to_owned(), Box::new(sink), Arc::clone(&queue)).unwrap();
        let limit = Instant::now() + Duration::from_secs(60);
        queue.close(limit);
        assert!(queue.wait_for_end(limit));
        assert_eq!(*taken.lock().unwrap(), [1, 2, 4, 5, 7]);
        let fate = queue.fate();
        assert_eq!((fate.written, fate.waiting), (5, 0));
        assert_eq!(fate.lost, [("refused", 2)].into());
        assert_eq!(fate.trouble, None);
    }

    #[test]
    fn an_output_that_never_works_ends_in_time() {
        let queue = Arc::new(Queue::default());
        let sink = Moody {
            failures: usize::MAX,
            taken: Arc::default(),
        };
        queue.put(&Line::from([1]), false);
        start("moody".to_owned(), Box::new(sink), Arc::clone(&queue)).unwrap();
        queue.close(Instant::now() + Duration::from_millis(10));
        assert!(queue.wait_for_end(Instant::now() + Duration::from_secs(60)));
        let fate = queue.fate();
        assert_eq!(fate.lost, [(super::super::queue::UNSENT, 1)].into());
        assert_eq!(fate.trouble.as_deref(), Some("cannot write it: moody"));
    }
}

//! Records to where they are kept, beside stdout.
//!
//! | module | holds |
//! | --- | --- |
//! | [`spec`] | what `--output` asks for |
//! | [`queue`] | the records that wait for one output, and what became of others |
//! | [`worker`] | the thread that writes them |
//! | [`file`](mod@file) | a file that is put aside when it is large enough |
//! | [`journald`] | entries of the journal |
//! | [`syslog`] | messages of syslog |
//! | [`shorten`](mod@shorten) | records for messages that have a largest length |
//! | [`datagram`], [`severity`] | what the last ones share |
//!
//! Each output has a queue and a thread of its own: one that fails or is slow
//! holds up neither the agent nor another. What it loses is counted by cause,
//! and a `loss` record tells of it, in its own stream too as soon as that goes on:
//! `output-file-full` are the records that had no room in a file's queue.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use crate::records::Record;
use queue::{Fate, Line, Queue};
use spec::Spec;
use worker::{Sink, Trouble};

pub mod datagram;
pub mod file;
pub mod journald;
pub mod queue;
pub mod severity;
pub mod shorten;
pub mod spec;
pub mod syslog;
pub mod worker;

/// Cause of loss: the record does not fit into one message, however shortened.
const TOO_LONG: &str = "too-long";
/// Cause of loss: the record cannot be read back.
const UNREADABLE: &str = "unreadable";
/// How long outputs may take to write what waits at the end.
const END_LIMIT: Duration = Duration::from_secs(5);
/// So much longer is one waited for that is in the middle of writing.
const END_GRACE: Duration = Duration::from_secs(1);

/// Outputs that can be written, before their threads are made.
pub struct Opened(Vec<(Spec, Box<dyn Sink>)>);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let specs = self.0.iter().map(|(spec, _)| spec);
        f.debug_list().entries(specs).finish()
    }
}

/// Opens files. Who takes datagrams may come later: to whom nothing can be sent
/// is an output that fails for now.
///
/// # Errors
///
/// A file cannot be opened.
pub fn open(specs: &[Spec]) -> Result<Opened, Trouble> {
    let sink = |spec: &Spec| -> Result<Box<dyn Sink>, Trouble> {
        Ok(match spec.clone() {
            Spec::File(path, limits) => Box::new(file::Rotating::open(&path, limits)?),
            Spec::Journald(path) => Box::new(journald::Journal::at(path)),
            Spec::Syslog(receiver, max) => Box::new(syslog::Syslog::to(receiver, max)),
        })
    };
    let opened = specs.iter().map(|spec| Ok((spec.clone(), sink(spec)?)));
    opened.collect::<Result<_, _>>().map(Opened)
}

impl Opened {
    /// # Errors
    ///
    /// Of making a thread.
    pub fn start(self) -> io::Result<Outputs> {
        let mut outputs = Vec::with_capacity(self.0.len());
        for (spec, sink) in self.0 {
            let kind = spec.kind();
            let before = outputs.iter().filter(|it: &&Output| it.spec.kind() == kind);
            let name = match before.count() {
                0 => kind.to_owned(),
                count => format!("{kind}{}", count + 1),
            };
            let queue = Arc::new(Queue::default());
            worker::start(name.clone(), sink, Arc::clone(&queue))?;
            outputs.push(Output { name, spec, queue });
        }
        Ok(Outputs(outputs))
    }
}

#[derive(Debug)]
struct Output {
    /// `file`, `file2`, …
    name: String,
    spec: Spec,
    queue: Arc<Queue>,
}

impl Output {
    /// What causes of loss begin with in `loss` records.
    fn causes(&self) -> String {
        format!("output-{}-", self.name)
    }

    fn is_told_by(&self, record: &Record) -> bool {
        let Some(lost) = record.procid.as_ref().and_then(|it| it.lost.as_ref()) else {
            return false;
        };
        let causes = self.causes();
        lost.keys().any(|cause| cause.starts_with(&causes))
    }
}

/// How one output fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub name: String,
    /// Where it goes.
    pub to: String,
    pub fate: Fate,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Outputs(Vec<Output>);

impl Outputs {
    /// Hands a record to every output.
    ///
    /// # Errors
    ///
    /// It cannot be written as JSON.
    pub fn put(&self, record: &Record) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let line = Line::from(line);
        for output in &self.0 {
            output.queue.put(&line, output.is_told_by(record));
        }
        Ok(())
    }

    /// Has the outputs write what they were handed.
    pub fn wake(&self) {
        for output in &self.0 {
            output.queue.wake();
        }
    }

    /// Records lost so far, by output and cause, of those outputs to whose
    /// readers it can be told.
    pub fn losses(&self) -> Vec<(String, u64)> {
        let told = self.0.iter().filter(|output| output.queue.can_tell());
        told.flat_map(|output| {
            let causes = output.causes();
            let lost = output.queue.fate().lost;
            lost.into_iter()
                .map(move |(cause, records)| (format!("{causes}{cause}"), records))
        })
        .collect()
    }

    pub fn standings(&self) -> Vec<Standing> {
        let standing = |output: &Output| Standing {
            name: output.name.clone(),
            to: output.spec.to_string(),
            fate: output.queue.fate(),
        };
        self.0.iter().map(standing).collect()
    }

    /// Has what waits written, for a few seconds at most, and says what was not.
    pub fn finish(&self) {
        let limit = Instant::now() + END_LIMIT;
        for output in &self.0 {
            output.queue.close(limit);
        }
        for output in &self.0 {
            let has_ended = output.queue.wait_for_end(limit + END_GRACE);
            let fate = output.queue.fate();
            let unsent = fate.lost.get(queue::UNSENT).copied().unwrap_or(0);
            let left = if has_ended { unsent } else { fate.waiting };
            if left > 0 {
                let why = fate.trouble.unwrap_or_else(|| "it is too slow".to_owned());
                warn!(
                    "output {}: {left} records were not written: {why}",
                    output.name
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;

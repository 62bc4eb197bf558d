//! The only room that speaks to the kernel's BPF side: loads, attaches, reads.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use crate::{
    agent::{
        handle::HookStatus,
        settings::{Args, Backend},
    },
    decode::Event,
    identity::hash::Inspect,
    records::Uncovered,
};

/// What to attach.
#[derive(Clone, Debug)]
pub struct Options {
    pub cgroup: Option<PathBuf>,
    pub backend: Backend,
    pub args: Args,
}

/// Attached programs; dropping it detaches them all.
#[derive(Debug)]
pub struct Kernel {}

/// What was attached.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// `cgroup`, `lsm` or `lsm+cgroup`.
    pub backend: String,
    pub hooks: Vec<HookStatus>,
    pub uncovered: Vec<Uncovered>,
}

/// The reading end of the ring buffer.
#[derive(Debug)]
pub struct Ring {}

/// One thing `procid doctor` tried.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What was tried.
    pub what: String,
    /// `Ok`: what it gives; `Err`: the kernel's answer.
    pub result: Result<String, String>,
    /// What is lost without it, or what procid will therefore use.
    pub means: String,
    /// How to get it, where it was refused.
    pub remedy: Option<String>,
    /// procid cannot run without it.
    pub required: bool,
}

/// Why nothing could be attached.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AttachError(pub String);

impl Kernel {
    /// Loads the programs and attaches every hook that this kernel allows.
    ///
    /// # Errors
    ///
    /// One sentence: no permission, no BTF, no cgroup v2, a missing field.
    pub fn attach(_options: &Options) -> Result<Self, AttachError> {
        Err(AttachError("not built yet".to_owned()))
    }

    pub fn report(&self) -> &Report {
        unimplemented!()
    }

    /// The ring's reading end; can be taken once.
    pub fn take_ring(&mut self) -> Option<Ring> {
        None
    }

    /// Processes and sockets that exist now: `TaskRow` and `SocketRow` events.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn snapshot(&self) -> std::io::Result<Vec<Event>> {
        Ok(Vec::new())
    }

    /// Events lost by the kernel side so far, by cause.
    pub fn losses(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::new()
    }

    pub fn inspector(&self) -> Arc<dyn Inspect> {
        unimplemented!()
    }
}

impl Ring {
    /// Waits up to `timeout` for events; true when there may be some.
    ///
    /// # Errors
    ///
    /// Of poll(2).
    pub fn wait(&self, _timeout: std::time::Duration) -> std::io::Result<bool> {
        Ok(false)
    }

    /// Takes the next event's bytes, in the order the kernel wrote them.
    pub fn read(&mut self, _take: impl FnOnce(&[u8])) -> bool {
        false
    }
}

/// Tries what procid needs of this kernel, one thing at a time.
pub fn probe(_options: &Options) -> Vec<Probe> {
    Vec::new()
}

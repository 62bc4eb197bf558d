//! The exec gate's place in the agent: while a policy asks for hashes, and the
//! kernel does not compute them inside exec, programs are hashed before they
//! run.

use procid_common::image::{KnownFile, known};

use crate::{
    agent::settings::ExecGate,
    gate::{Config, Counts, Gate, Marks},
    identity::script::interpreters::runs_scripts,
    kernel::Kernel,
};

/// The gate, if there is one.
pub(super) struct Guard {
    gate: Option<Gate>,
    marks: Marks,
    /// Why there is none; `None`: none is needed.
    lacking: Option<String>,
    stands: bool,
}

impl Guard {
    /// Makes a gate that stands before nothing. To be called before privileges
    /// are given up: its threads keep what they need of them.
    pub(super) fn new(setting: &ExecGate, kernel: &Kernel) -> Self {
        let marks = match setting {
            ExecGate::Auto | ExecGate::Off => Marks::Host,
            ExecGate::On(place) => Marks::Only(vec![place.clone()]),
        };
        let (gate, lacking) = match setting {
            ExecGate::Auto if kernel.report().hashes => (None, None),
            ExecGate::Off => (None, Some("it is off (--exec-gate)".to_owned())),
            ExecGate::Auto | ExecGate::On(_) => match open(kernel) {
                Ok(gate) => (Some(gate), None),
                Err(error) => (None, Some(error.to_string())),
            },
        };
        Self {
            gate,
            marks,
            lacking,
            stands: false,
        }
    }

    /// Stands before programs, or does not; says why what is asked for is not
    /// so.
    pub(super) fn stand(&mut self, is_asked_for: bool) -> Option<String> {
        let Some(gate) = &self.gate else {
            let why = self.lacking.as_ref().filter(|_| is_asked_for)?;
            return Some(without(why));
        };
        if self.stands != is_asked_for {
            let done = match is_asked_for {
                true => gate.watch(self.marks.clone()),
                false => gate.rest(),
            };
            if let Err(error) = done {
                return Some(match is_asked_for {
                    true => without(&error.to_string()),
                    false => format!("the exec gate still holds programs up: {error}"),
                });
            }
            self.stands = is_asked_for;
        }
        self.wrong()
    }

    /// What is wrong with a gate that should stand.
    pub(super) fn wrong(&self) -> Option<String> {
        let gate = self.gate.as_ref().filter(|_| self.stands)?;
        (!gate.is_open())
            .then(|| without("its watchdog has ended; start the agent anew, which takes over"))
    }

    /// The process that alone lets executions go on; `None`: there is none.
    pub(super) fn watchdog(&self) -> Option<u32> {
        self.gate.as_ref().map(Gate::watchdog)
    }

    /// What it has done so far; `None`: there is none.
    pub(super) fn counts(&self) -> Option<(bool, Counts)> {
        let gate = self.gate.as_ref()?;
        Some((self.stands && gate.is_open(), gate.counts()))
    }
}

fn without(why: &str) -> String {
    format!(
        "programs are not hashed before they run, because of the exec gate {why}: one that was \
         never seen is judged by unknown_hash until its hash is known"
    )
}

fn open(kernel: &Kernel) -> std::io::Result<Gate> {
    let files = kernel.known_files().clone();
    Gate::open(
        Config::default(),
        kernel.inspector(),
        move |state, sha256, file| {
            let path = rustix::fs::readlink(
                format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)),
                Vec::new(),
            );
            // One that may run scripts wakes the agent, and more than that costs
            // nothing.
            let is_plain = path.is_ok_and(|path| !runs_scripts(path.as_bytes()));
            let kind = if is_plain {
                known::PLAIN
            } else {
                known::INTERPRETER
            };
            files.tell(
                state,
                KnownFile {
                    sha256: *sha256,
                    kind,
                    gated: 1,
                },
            );
        },
    )
}

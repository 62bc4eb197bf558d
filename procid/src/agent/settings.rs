//! What the command line and the config file ask of `procid run`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::history::Limits;

use crate::outputs::spec::Spec;

/// Which hooks may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Everything that loads and attaches.
    #[default]
    Auto,
    Lsm,
    Cgroup,
}

/// What is kept of command lines, which hold secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Args {
    #[default]
    Full,
    None,
}

/// Longest text of a policy, bytes.
pub const POLICY_BYTES: usize = 1024 * 1024;

/// A policy as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    pub path: PathBuf,
    pub text: String,
}

/// Whether programs are hashed before they run, while a policy asks for hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ExecGate {
    /// On every local file system, where the kernel does not hash inside exec.
    #[default]
    Auto,
    Off,
    /// On the file system that is mounted there.
    On(PathBuf),
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Records on stdout as NDJSON, else as table lines.
    pub json: bool,
    /// Where records go beside stdout.
    pub outputs: Vec<Spec>,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    /// Where the metrics are served over TCP too; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The cgroup v2 directory to attach to; `None`: the root, wherever mounted.
    pub cgroup: Option<PathBuf>,
    pub backend: Backend,
    pub exec_gate: ExecGate,
    pub args: Args,
    pub update_every: Duration,
    /// `None`: no history is kept.
    pub history: Option<Limits>,
    /// `None`: the policy last applied, if there is one.
    pub policy: Option<PolicyFile>,
    /// The policy stays in force after a clean stop.
    pub keep: bool,
}

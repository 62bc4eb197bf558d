//! From a policy's text to the tables of this host.

use crate::{
    agent::policy::{Compiled, Parsed, Toolchain},
    api::accounts::Accounts,
    identity::hash::settle::Offset,
    policy::{Policy, Socket, compile::compile, places::HostPlaces, text},
};

/// Names of users, paths and mounts as this host has them.
#[derive(Debug)]
pub(super) struct HostToolchain {
    /// LSM hooks are attached.
    pub(super) lsm: bool,
    /// What denied speakers write to TCP connections is dropped.
    pub(super) withholds: bool,
    /// Why an agent cannot be protected, a clause; `None`: it can.
    pub(super) unprotectable: Option<String>,
}

impl Toolchain for HostToolchain {
    fn parse(&self, text: &str, file: &str) -> Result<Parsed, Vec<String>> {
        let sentences = |all: Vec<text::Diagnostic>| all.iter().map(ToString::to_string).collect();
        match text::parse(text, file, &Accounts) {
            Ok(parsed) => Ok(Parsed {
                policy: parsed.policy,
                warnings: sentences(parsed.warnings),
            }),
            Err(wrong) => Err(sentences(wrong)),
        }
    }

    fn compile(&self, policy: &Policy, clock: Offset) -> Result<Compiled, Vec<String>> {
        let places = HostPlaces::read()
            .map_err(|error| vec![format!("the mounts of this host cannot be read: {error}")])?;
        let tables = compile(policy, &places, clock).map_err(|error| vec![error.to_string()])?;
        Ok(Compiled {
            tables,
            unenforced: self.unenforced(policy),
        })
    }
}

impl HostToolchain {
    /// What the hooks that are attached do not see, or not in time.
    fn unenforced(&self, policy: &Policy) -> Vec<String> {
        let unprotectable = self.unprotectable.iter().filter(|_| policy.protect);
        let unprotectable = unprotectable.map(|why| format!("`protect` does nothing here: {why}"));
        let mut all = Vec::from_iter(unprotectable);
        if self.lsm {
            return all;
        }
        all.push(
            "sends on TCP connections that are open already are not judged without BPF LSM"
                .to_owned(),
        );
        if !self.withholds {
            all.push(
                "sends of other images than the one that connected it are not judged on TCP \
                 connections before Linux 6.16 without BPF LSM"
                    .to_owned(),
            );
        }
        for rule in &policy.rules {
            let what = if rule.ingress {
                "accepted sockets"
            } else if rule.destination.sockets.contains(&Socket::Packet) {
                "packet sockets"
            } else {
                continue;
            };
            let name = &rule.name;
            all.push(format!(
                "rule \"{name}\": {what} are not judged without BPF LSM"
            ));
        }
        all
    }
}

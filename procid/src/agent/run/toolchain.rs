//! From a policy's text to the tables of this host.

use crate::{
    agent::policy::{Compiled, Parsed, Toolchain},
    api::accounts::Accounts,
    identity::hash::settle::Offset,
    policy::{Policy, Rule, Socket, compile::compile, places::HostPlaces, text},
};

/// Names of users, paths and mounts as this host has them.
#[derive(Debug)]
pub(super) struct HostToolchain {
    /// LSM hooks are attached.
    pub(super) lsm: bool,
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
        let wrong: Vec<String> = policy.rules.iter().filter_map(not_yet).collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let places = HostPlaces::read()
            .map_err(|error| vec![format!("the mounts of this host cannot be read: {error}")])?;
        let tables = compile(policy, &places, clock).map_err(|error| vec![error.to_string()])?;
        Ok(Compiled {
            tables,
            unenforced: self.unenforced(policy),
        })
    }
}

/// What a rule asks for that the programs do not decide by yet.
fn not_yet(rule: &Rule) -> Option<String> {
    let process = &rule.process;
    if process.parents.is_empty() && process.ancestors.is_empty() {
        return None;
    }
    let (name, line) = (&rule.name, rule.line);
    Some(format!(
        "rule \"{name}\" (line {line}): `parent` and `ancestor` are not enforced yet; remove it"
    ))
}

impl HostToolchain {
    /// What the hooks that are attached do not see, or not in time.
    fn unenforced(&self, policy: &Policy) -> Vec<String> {
        if self.lsm {
            return Vec::new();
        }
        let mut all = vec![
            "sends on TCP connections that are open already are not judged without BPF LSM"
                .to_owned(),
        ];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_enforced_yet_is_refused() {
        let host = HostToolchain { lsm: false };
        for (field, refused) in [
            ("process = { parent = { executable = \"/bin/a\" } }", true),
            ("process = { ancestor = { executable = \"/bin/a\" } }", true),
            ("direction = \"ingress\"", false),
            ("process = { uid = 5 }", false),
        ] {
            let text =
                format!("mode = \"audit\"\n[[rule]]\nname = \"x\"\naction = \"deny\"\n{field}\n");
            let policy = host.parse(&text, "p").unwrap().policy;
            let answer = host.compile(&policy, Offset::now());
            assert_eq!(answer.is_err(), refused, "{field}: {answer:?}");
        }
    }
}

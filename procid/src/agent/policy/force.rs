//! From a policy and the temporary rules to what the kernel enforces.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{InForce, Manager, Now, Source, ask::Refusal, blocks::Blocks, hex, kernel};
use crate::policy::{Mode, Policy, Verdict, tables::Tables};

/// A policy, temporary rules included, and its tables.
pub(super) struct Built {
    pub(super) policy: Policy,
    pub(super) tables: Tables,
    /// As of [`Compiled`](super::Compiled).
    pub(super) unenforced: Vec<String>,
}

/// What temporary rules stand before where there is no policy: it lets
/// everything else be, also where something is not known.
pub(super) fn nothing_but_blocks() -> Policy {
    Policy {
        mode: Mode::Enforce,
        default: Verdict::Allow,
        unknown_hash: Verdict::Allow,
        loopback_allow: false,
        established_keep: false,
        on_overflow: Verdict::Allow,
        protect: false,
        rules: Vec::new(),
        sha256: Sha256::digest(b"").into(),
    }
}

impl Manager {
    pub(super) fn build(
        &self,
        source: Option<&Source>,
        blocks: &Blocks,
        now: Now,
    ) -> Result<Option<Built>, Refusal> {
        let mut policy = match source {
            Some(source) => source.policy.clone(),
            None if blocks.iter().next().is_none() => return Ok(None),
            None => nothing_but_blocks(),
        };
        let rules = blocks.iter().map(|block| block.rule(now));
        policy.rules = rules.chain(policy.rules).collect();
        let compiled = self
            .toolchain
            .compile(&policy, now.clock)
            .map_err(|wrong| Refusal::Input(wrong.join("\n")))?;
        Ok(Some(Built {
            policy,
            tables: compiled.tables,
            unenforced: compiled.unenforced,
        }))
    }

    pub(super) fn put(
        &mut self,
        built: Option<Built>,
        revert_at_ns: Option<u64>,
    ) -> Result<(), Refusal> {
        self.in_force = match built {
            Some(built) => {
                let generation = self
                    .enforcer
                    .apply(&built.tables, revert_at_ns, &self.family)
                    .map_err(|error| kernel(&error))?;
                let in_force = InForce {
                    generation,
                    sha256: hex(&built.policy.sha256).into(),
                    policy: Arc::new(built.policy),
                };
                self.remember(&in_force);
                Some(in_force)
            }
            None => {
                self.enforcer.clear().map_err(|error| kernel(&error))?;
                None
            }
        };
        Ok(())
    }

    /// What the pending policy stood before is in force, under this generation.
    pub(super) fn fall_back(&mut self, generation: u64) {
        let before = self.pending.take().and_then(|pending| pending.before);
        self.in_force = before.map(|before| InForce {
            generation,
            ..before
        });
        if let Some(in_force) = self.in_force.clone() {
            self.remember(&in_force);
        }
    }

    fn remember(&mut self, in_force: &InForce) {
        let names = in_force.policy.rules.iter();
        self.generations.put(
            in_force.generation,
            Arc::clone(&in_force.sha256),
            names.map(|rule| Arc::clone(&rule.name)).collect(),
        );
    }
}

//! Temporary rules, into force and out of it.

use super::{
    Manager, Now,
    ask::{Changed, Refusal},
    blocks::{Block, Blocks},
    commit,
};
use crate::policy::Mode;

impl Manager {
    /// Puts a temporary rule before all others.
    ///
    /// # Errors
    ///
    /// It cannot be compiled, kept or enforced; nothing has changed, unless the
    /// sentence says so.
    pub fn block(&mut self, block: Block, now: Now) -> Result<Changed, Refusal> {
        let mut blocks = self.blocks.clone();
        let mut warnings = block.warnings();
        let expires = now.rfc3339(block.until_ns);
        let name = blocks.add(block);
        self.put_blocks(blocks, now, &mut warnings)?;
        if let Some(in_force) = &self.in_force {
            if in_force.policy.mode == Mode::Audit {
                warnings.push(
                    "the policy in force has mode = \"audit\": the rule is recorded and blocks \
                     nothing"
                        .to_owned(),
                );
            }
            if in_force.policy.established_keep {
                warnings.push(
                    "the policy in force has established = \"keep\": connections that are open \
                     already go on"
                        .to_owned(),
                );
            }
        }
        Ok(Changed {
            block: Some(name.to_string()),
            expires: Some(expires),
            ..self.changed(warnings)
        })
    }

    /// Takes a temporary rule away.
    ///
    /// # Errors
    ///
    /// There is none of that name, or what remains cannot be put in force.
    pub fn unblock(&mut self, name: &str, now: Now) -> Result<Changed, Refusal> {
        let mut blocks = self.blocks.clone();
        if !blocks.remove(name) {
            return Err(Refusal::State(format!(
                "no temporary rule is named {name:?}; 'procid policy show' lists them"
            )));
        }
        let mut warnings = Vec::new();
        self.put_blocks(blocks, now, &mut warnings)?;
        Ok(Changed {
            block: Some(name.to_owned()),
            ..self.changed(warnings)
        })
    }

    /// Puts these temporary rules in force and keeps them.
    fn put_blocks(
        &mut self,
        blocks: Blocks,
        now: Now,
        warnings: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        let kept = self
            .store
            .stage_blocks(&blocks, now)
            .map_err(|error| Refusal::Unsupported(error.to_string()))?;
        let below = self.build(self.source.as_ref(), &blocks, now)?;
        let Some(pending) = &self.pending else {
            self.put(below, None)?;
            self.blocks = blocks;
            self.is_stale = false;
            commit(kept, warnings);
            return Ok(());
        };
        // What it falls back to has to hold the rules, too: it is put in force
        // first, for a moment.
        let above = self.build(Some(&pending.source), &blocks, now)?;
        let until_ns = pending.until_ns;
        self.put(below, None)?;
        self.blocks = blocks;
        self.is_stale = false;
        commit(kept, warnings);
        let before = self.in_force.clone();
        match self.put(above, Some(until_ns)) {
            Ok(()) => {
                if let Some(pending) = &mut self.pending {
                    pending.before = before;
                }
                Ok(())
            }
            Err(refusal) => {
                self.pending = None;
                Err(Refusal::Unsupported(format!(
                    "the temporary rules are as asked for, but the policy that waited to be \
                     confirmed is reverted: {refusal}"
                )))
            }
        }
    }
}

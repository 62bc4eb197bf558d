//! What is in force, to who asks.

use std::collections::BTreeMap;

use super::{
    Manager, Now,
    ask::{Pending, PolicyStatus, Refusal, Shown, ShownRule},
    kernel,
};
use crate::{
    policy::{Action, Mode, Verdict},
    time::rfc3339_ns,
};

impl Manager {
    /// `procid policy show`.
    ///
    /// # Errors
    ///
    /// No policy is in force, or the kernel does not tell.
    pub fn show(&self, now: Now) -> Result<Shown, Refusal> {
        let in_force = self.in_force.as_ref().ok_or_else(|| {
            Refusal::State(
                "no policy is in force; 'procid policy apply FILE' puts one in".to_owned(),
            )
        })?;
        let hits = self.enforcer.hits().map_err(|error| kernel(&error))?;
        let source = self.current();
        let expiries: BTreeMap<_, _> = self
            .blocks
            .iter()
            .map(|block| (&*block.name, block))
            .collect();
        let rules = in_force.policy.rules.iter().enumerate();
        Ok(Shown {
            status: self.status(now),
            rules: rules
                .map(|(index, rule)| {
                    // Line 0: a temporary rule.
                    let block = expiries.get(&*rule.name).filter(|_| rule.line == 0);
                    ShownRule {
                        name: rule.name.to_string(),
                        action: action(rule.action).to_owned(),
                        line: (rule.line != 0).then_some(rule.line),
                        hits: hits.get(index).copied().unwrap_or(0),
                        expires: rule.expires.map(|at| rfc3339_ns(clamped(at))),
                        target: block.map(|block| block.target.to_string()),
                        to: block.and_then(|block| Some(block.to?.to_string())),
                        reason: block.map(|block| block.reason.clone()),
                    }
                })
                .collect(),
            default_hits: hits.last().copied().unwrap_or(0),
            text: source.map(|source| source.text.clone()),
        })
    }

    /// The policy part of `procid status`.
    pub fn status(&self, now: Now) -> PolicyStatus {
        let Some(in_force) = &self.in_force else {
            return PolicyStatus::default();
        };
        let policy = &in_force.policy;
        PolicyStatus {
            generation: in_force.generation,
            sha256: Some(in_force.sha256.to_string()),
            file: self.current().map(|source| source.file.clone()),
            mode: match policy.mode {
                Mode::Enforce => "enforce",
                Mode::Audit => "audit",
            }
            .to_owned(),
            default: verdict(policy.default).to_owned(),
            rules: policy.rules.len(),
            blocks: self.blocks.iter().count(),
            protected: self.is_protected(),
            unprotected: self.unprotected(),
            pending: self.pending.as_ref().map(|pending| Pending {
                confirm_by: now.rfc3339(pending.until_ns),
                falls_back_to: pending.before.as_ref().map(|it| it.sha256.to_string()),
            }),
        }
    }

    fn unprotected(&self) -> Option<String> {
        let asked = self.current().is_some_and(|it| it.policy.protect);
        if self.is_protected() || !asked {
            return None;
        }
        Some(match &self.protection {
            Some(Err(why)) => why.clone(),
            _ => "the policy waits to be confirmed".to_owned(),
        })
    }

    /// Why the policy may not be the one that was put in force.
    pub fn trouble(&self, now: Now) -> Option<String> {
        // Until the next tick notices the deadline.
        if self
            .pending
            .as_ref()
            .is_some_and(|it| now.boot_ns >= it.until_ns)
        {
            return None;
        }
        let own = self.in_force.as_ref().map_or(0, |it| it.generation);
        match self.enforcer.generation() {
            Ok(generation) if generation == own => None,
            Ok(generation) => Some(format!(
                "policy generation {generation} is in force and was not put there by this agent; \
                 'procid policy apply' one"
            )),
            Err(error) => Some(format!("cannot read which policy is in force: {error}")),
        }
    }
}

pub(super) const fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
        Action::Audit => "audit",
    }
}

pub(super) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}

/// A time beyond what records can say is the last one that they can.
fn clamped(ns_since_epoch: i128) -> i64 {
    i64::try_from(ns_since_epoch).unwrap_or(i64::MAX)
}

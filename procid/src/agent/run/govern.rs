//! Changes of the policy: from questions to the manager, and into records.

use std::{io::Write, path::Path};

use sha2::{Digest as _, Sha256};

use super::{Agent, RunError, toolchain::HostToolchain};
use crate::{
    agent::{
        handle::Status,
        policy::{
            Lapse, Manager,
            ask::{Apply, Caller, Change, Changed, Refusal, Shown},
            blocks::Block,
            store::Store,
        },
        render::{PolicyNews, hex},
        settings::PolicyFile,
    },
    kernel::Kernel,
};

/// What reads, compiles and enforces policies on this host; where nothing does,
/// why.
pub(super) fn manager(kernel: &mut Kernel, state_dir: &Path) -> Result<Manager, String> {
    let lsm = kernel.report().backend.contains("lsm");
    let policies = kernel.take_policies().map_err(|error| error.to_string())?;
    Ok(Manager::new(
        Box::new(HostToolchain { lsm }),
        Box::new(policies),
        Store::new(state_dir.to_owned()),
    ))
}

impl<W: Write> Agent<W> {
    /// Puts the policy given in force, else the one kept.
    pub(super) fn start_policy(&mut self, given: Option<&PolicyFile>) -> Result<(), RunError> {
        let now = self.engine.now();
        let name = given.map(|file| file.path.display().to_string());
        let text = given.map(|file| file.text.as_str());
        let started = match &mut self.manager {
            Ok(manager) => manager.start(text.zip(name.as_deref()), now),
            Err(why) if given.is_some() => Err(Refusal::Unsupported(why.clone())),
            Err(_) => Ok(None),
        };
        let changed = started.map_err(RunError::Policy)?;
        self.name_rules();
        if let Some(changed) = changed {
            for warning in &changed.warnings {
                tracing::warn!("policy: {warning}");
            }
            tracing::info!(
                "policy {} is in force, generation {}",
                changed.sha256.as_deref().unwrap_or("of temporary rules"),
                changed.generation
            );
            let news = self.news("apply", Caller::Agent);
            self.engine.policy(done(news, &changed));
        }
        Ok(())
    }

    /// Tells of deadlines that have passed.
    pub(super) fn policy_deadlines(&mut self) {
        let Ok(manager) = &mut self.manager else {
            return;
        };
        for lapse in manager.tick(self.engine.now()) {
            let news = match lapse {
                Lapse::NotConfirmed { sha256 } => PolicyNews {
                    reason: Some(format!("{sha256} was not confirmed in time")),
                    ..self.news("revert", Caller::Clock)
                },
                Lapse::Expired { name, reason } => PolicyNews {
                    rule: Some(name.to_string()),
                    reason: Some(reason),
                    ..self.news("expire", Caller::Clock)
                },
            };
            self.engine.policy(news);
        }
    }

    pub(super) fn change(&mut self, change: &Change, caller: Caller) -> Result<Changed, Refusal> {
        self.policy_deadlines();
        let now = self.engine.now();
        let Self {
            manager, engine, ..
        } = self;
        let changed = match manager {
            Err(why) => Err(Refusal::Unsupported(why.clone())),
            Ok(manager) => match change {
                Change::Apply(apply) | Change::Reload(apply) => manager.apply(apply, now),
                Change::Confirm => manager.confirm(),
                Change::Revert => manager.revert(),
                Change::Block(request) => Block::new(request, |id| engine.file_of(id), now)
                    .and_then(|block| manager.block(block, now)),
                Change::Unblock(unblock) => manager.unblock(&unblock.name, now),
            },
        };
        if matches!(change, Change::Apply(Apply { dry_run: true, .. })) {
            return changed;
        }
        self.name_rules();
        let mut news = self.news(change.word(), caller);
        match change {
            Change::Block(request) => news.reason = Some(request.reason.clone()),
            Change::Unblock(unblock) => news.rule = Some(unblock.name.clone()),
            _ => {}
        }
        let news = match &changed {
            Ok(changed) => done(news, changed),
            Err(refusal) => {
                if let Change::Apply(apply) | Change::Reload(apply) = change {
                    news.sha256 = Some(hex(&Sha256::digest(&apply.text)));
                    // It is not that one which is in force.
                    news.generation = 0;
                }
                news.failure = Some(refusal.to_string());
                news
            }
        };
        self.engine.policy(news);
        changed
    }

    /// What was decided since is told with these names.
    fn name_rules(&mut self) {
        if let Ok(manager) = &self.manager {
            self.engine.rules_are(manager.generations().clone());
        }
    }

    pub(super) fn show(&self) -> Result<Shown, Refusal> {
        match &self.manager {
            Ok(manager) => manager.show(self.engine.now()),
            Err(why) => Err(Refusal::Unsupported(why.clone())),
        }
    }

    pub(super) fn put_policy_status(&self, status: &mut Status) {
        let Ok(manager) = &self.manager else {
            return;
        };
        let now = self.engine.now();
        let policy = manager.status(now);
        status.policy_generation = policy.generation;
        status.policy = (policy.generation != 0).then_some(policy);
        status.degraded.extend(manager.trouble(now));
    }

    /// What is in force, and who asked for a change.
    fn news(&self, change: &'static str, caller: Caller) -> PolicyNews {
        let manager = self.manager.as_ref().ok();
        let in_force = manager.and_then(Manager::in_force);
        PolicyNews {
            change,
            caller,
            image: self.engine.image_of(caller),
            failure: None,
            sha256: in_force.map(|(sha256, _)| sha256.to_owned()),
            generation: in_force.map_or(0, |(_, generation)| generation),
            rule: None,
            reason: None,
            confirm_by: None,
        }
    }
}

fn done(news: PolicyNews, changed: &Changed) -> PolicyNews {
    PolicyNews {
        sha256: changed.sha256.clone(),
        generation: changed.generation,
        rule: changed.block.clone().or(news.rule),
        confirm_by: changed.confirm_by.clone(),
        ..news
    }
}

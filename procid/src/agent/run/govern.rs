//! Changes of the policy: from questions to the manager, and into records.

use std::{collections::BTreeMap, io::Write, path::Path};

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::{Agent, RunError, toolchain::HostToolchain};
use crate::{
    agent::{
        handle::Status,
        policy::{
            Lapse, Manager,
            ask::{Apply, Caller, Change, Changed, Refusal, Shown},
            blocks::Block,
            explain::{Explain, Explained},
            open::{Denied, Open, ancestors},
            store::Store,
        },
        render::{PolicyNews, hex},
        settings::PolicyFile,
    },
    identity::hash::settle::boot_now_ns,
    kernel::Kernel,
    policy::UNPROTECT,
};

/// What reads, compiles and enforces policies on this host; where nothing does,
/// why.
pub(super) fn manager(kernel: &mut Kernel, state_dir: &Path) -> Result<Manager, String> {
    let report = kernel.report();
    let host = HostToolchain {
        lsm: report.backend.contains("lsm"),
        withholds: report.withholds,
        unprotectable: report.unprotectable.clone(),
    };
    let policies = kernel.take_policies().map_err(|error| error.to_string())?;
    Ok(Manager::new(
        Box::new(host),
        Box::new(policies),
        Store::new(state_dir.to_owned()),
    ))
}

/// Longest wait of a policy for the hashes of what runs.
const HASHES_WAIT_NS: u64 = 10_000_000_000;

type Answer = oneshot::Sender<Result<Changed, Refusal>>;

/// A change that is still to be made.
pub(super) struct Waiting {
    change: Box<Change>,
    caller: Caller,
    answer: Answer,
    /// It is a policy that asks for hashes.
    asks_hash: bool,
    /// Nanoseconds since boot.
    since_ns: u64,
}

impl<W: Write> Agent<W> {
    /// Puts the policy given in force, else the one kept.
    pub(super) fn start_policy(&mut self, given: Option<&PolicyFile>) -> Result<(), RunError> {
        let now = self.engine.now();
        let name = given.map(|file| file.path.display().to_string());
        let text = given.map(|file| file.text.as_str());
        let family = self.engine.family();
        let started = match &mut self.manager {
            Ok(manager) => {
                manager.family_is(family);
                manager.start(text.zip(name.as_deref()), now)
            }
            Err(why) if given.is_some() => Err(Refusal::Unsupported(why.clone())),
            Err(_) => Ok(None),
        };
        let changed = started.map_err(RunError::Policy)?;
        self.name_rules();
        if let Some(mut changed) = changed {
            changed.warnings.extend(self.hold());
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

    /// What is in force outlives this agent from now on, and what an earlier one
    /// left in force does not stand beside it. Programs are hashed before they
    /// run if it asks for hashes. Says what of that is not so.
    fn hold(&mut self) -> Vec<String> {
        let (is_any, asks_hash) = match &self.manager {
            Ok(manager) => (manager.in_force().is_some(), manager.asks_hash_now()),
            Err(_) => (false, false),
        };
        let mut warnings = Vec::from_iter(self.gate.stand(asks_hash));
        if !is_any {
            self.kernel.unpin();
            return warnings;
        }
        let held = self.kernel.pin().and_then(|()| self.kernel.supersede());
        warnings.extend(
            held.err().map(|error| {
                format!("this policy does not outlive the agent as it should: {error}")
            }),
        );
        warnings.extend(self.protect());
        warnings
    }

    /// Keeps other processes from the agent, if the policy asks for it. Says
    /// when that begins, and why it does not where that is not the host's doing.
    fn protect(&mut self) -> Option<String> {
        let manager = self.manager.as_mut().ok().filter(|it| it.protects())?;
        let was_protected = self.kernel.is_protected();
        let done = self.kernel.protect(self.gate.watchdog());
        manager.protection_is(done.as_ref().map_err(ToString::to_string).copied());
        match done {
            Ok(()) if was_protected => None,
            Ok(()) => {
                self.stop.refuse();
                Some(format!(
                    "from now on no other process ends this agent or loosens what it enforces; to \
                     end it, boot with {UNPROTECT} on the kernel command line"
                ))
            }
            // What the host cannot do is said with the policy.
            Err(_) if self.kernel.report().unprotectable.is_some() => None,
            Err(error) => Some(format!("the agent is not protected: {error}")),
        }
    }

    /// Where hashes of ancestors have become known, decisions go by them.
    pub(super) fn settle_lineages(&mut self) {
        if !std::mem::take(&mut self.has_hashed) {
            return;
        }
        if let Ok(manager) = &mut self.manager
            && manager.asks_hash_of_ancestors()
        {
            manager.settle(&self.engine.family());
        }
    }

    /// Warns where what holds the policy is not as this agent made it.
    pub(super) fn look_at_pins(&mut self) {
        let wrong = self.kernel.pins_wrong();
        for sentence in &wrong {
            if !self.pins_wrong.contains(sentence) {
                tracing::warn!("{sentence}");
            }
        }
        self.pins_wrong = wrong;
    }

    /// At a clean stop the policy ends, unless it is to be kept.
    pub(super) fn end_policy(&mut self) {
        let Ok(manager) = &mut self.manager else {
            return;
        };
        // Who makes a protected agent end has not made its policy end.
        if self.keep || self.kernel.is_protected() || manager.in_force().is_none() {
            return;
        }
        let ended = manager.end();
        self.kernel.unpin();
        let mut news = self.news("unload", Caller::Agent);
        news.failure = ended.err().map(|refusal| refusal.to_string());
        self.engine.policy(news);
    }

    /// Tells of deadlines that have passed.
    pub(super) fn policy_deadlines(&mut self) {
        let Ok(manager) = &mut self.manager else {
            return;
        };
        let engine = &self.engine;
        let lapses = manager.tick(engine.now(), || engine.family());
        if !lapses.is_empty() {
            for warning in self.hold() {
                tracing::warn!("{warning}");
            }
        }
        for lapse in lapses {
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

    /// A policy that asks for hashes waits for those of what runs already, and
    /// others for it; all else, a temporary rule above all, is done at once.
    pub(super) fn put_off(&mut self, change: Box<Change>, caller: Caller, answer: Answer) {
        let (Ok(manager), Change::Apply(apply) | Change::Reload(apply)) = (&self.manager, &*change)
        else {
            // Who asked may have gone meanwhile.
            let _gone = answer.send(self.change(&change, caller));
            return;
        };
        let asks_hash = manager.asks_hash(apply);
        if asks_hash && !apply.dry_run {
            // Before the wait: what is run from now on needs none. Why it cannot
            // is said with the answer.
            let _said_later = self.gate.stand(true);
        }
        let since_ns = boot_now_ns();
        self.changes.push_back(Waiting {
            change,
            caller,
            answer,
            asks_hash,
            since_ns,
        });
    }

    /// Puts the policies in force whose time has come, in the order they came.
    pub(super) fn make_changes(&mut self) {
        while let Some(next) = self.changes.front() {
            let is_due = boot_now_ns() >= next.since_ns.saturating_add(HASHES_WAIT_NS);
            if next.asks_hash && !is_due && self.engine.is_hashing(next.since_ns) {
                return;
            }
            let Some(next) = self.changes.pop_front() else {
                return;
            };
            let mut changed = self.change(&next.change, next.caller);
            match &mut changed {
                Ok(changed) if next.asks_hash => changed.unhashed = self.engine.unhashed(),
                Ok(_) => {}
                Err(_) => drop(self.hold()),
            }
            // Who asked may have gone meanwhile.
            let _gone = next.answer.send(changed);
        }
    }

    pub(super) fn explain(&mut self, request: &Explain) -> Result<Explained, Refusal> {
        let now = self.engine.now();
        let Self {
            manager, engine, ..
        } = self;
        match manager {
            Ok(manager) => {
                manager.family_is(engine.family());
                manager.explain(request, now, |image| engine.explainee(image))
            }
            Err(why) => Err(Refusal::Unsupported(why.clone())),
        }
    }

    /// What an apply means for what is open: the caller's own connections, and,
    /// where that was asked for, all that it denies. What the kernel does not
    /// tell is a warning: the policy is in force all the same.
    fn look_at_open(&mut self, apply: &Apply, caller: Caller, changed: &mut Changed) {
        let Ok(manager) = &mut self.manager else {
            return;
        };
        let now = self.engine.now();
        let engine = &self.engine;
        let mut open = |of: Option<&[u32]>| {
            if apply.dry_run {
                manager.open_under(apply, of, now)
            } else {
                manager.open(of)
            }
        };
        if let Caller::Peer { pid: Some(pid), .. } = caller {
            match open(Some(&ancestors(pid))) {
                Ok(open) => {
                    // A socket is inherited: who is farthest up has opened it.
                    let denied = open.iter().flat_map(Open::denied);
                    let by_socket: BTreeMap<_, _> = denied
                        .map(|(denied, image)| (denied.cookie.clone(), (denied, image)))
                        .collect();
                    let denied = by_socket.into_values();
                    changed.warnings.extend(
                        denied.map(|(denied, image)| of_caller(&engine.with_name(denied, &image))),
                    );
                }
                Err(why) => changed.warnings.push(format!(
                    "whether your own connections are denied is not known: {why}"
                )),
            }
        }
        if !apply.cut {
            return;
        }
        match open(None) {
            Ok(open) => {
                let cut = open.as_ref().map(Open::cut).unwrap_or_default();
                let denied = cut.denied.into_iter();
                changed.denied = denied
                    .map(|(denied, image)| engine.with_name(denied, &image))
                    .collect();
                changed.undecided = Some(cut.undecided);
            }
            Err(why) => changed
                .warnings
                .push(format!("no open connection is closed: {why}")),
        }
    }

    fn change(&mut self, change: &Change, caller: Caller) -> Result<Changed, Refusal> {
        self.policy_deadlines();
        let now = self.engine.now();
        let Self {
            manager, engine, ..
        } = self;
        let mut changed = match manager {
            Err(why) => Err(Refusal::Unsupported(why.clone())),
            Ok(manager) => {
                manager.family_is(engine.family());
                match change {
                    Change::Apply(apply) | Change::Reload(apply) => manager.apply(apply, now),
                    Change::Confirm => manager.confirm(),
                    Change::Revert => manager.revert(),
                    Change::Block(request) => Block::new(request, |id| engine.file_of(id), now)
                        .and_then(|block| manager.block(block, now)),
                    Change::Unblock(unblock) => manager.unblock(&unblock.name, now),
                }
            }
        };
        if let (Ok(changed), Change::Apply(apply)) = (&mut changed, change) {
            self.look_at_open(apply, caller, changed);
        }
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
        if let Ok(changed) = &mut changed {
            changed.warnings.extend(self.hold());
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

/// What a caller is told of a connection that it may act through.
fn of_caller(denied: &Denied) -> String {
    let Denied {
        pid,
        destination,
        port,
        ..
    } = denied;
    let name = denied.executable.as_deref().unwrap_or("no name is known");
    let by = match &denied.rule {
        Some(rule) => format!("rule \"{rule}\""),
        None => "the default".to_owned(),
    };
    format!(
        "you act from process {pid} ({name}), and {by} denies its connection to {destination} port \
         {port}; allow it, or this session may be lost"
    )
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

//! Which policy is in force, and how it changes.
//!
//! | module | holds |
//! | --- | --- |
//! | this one | [`Manager`]: the changes, one at a time |
//! | [`ask`] | what is asked of it, and its answers |
//! | [`blocks`] | temporary rules |
//! | [`explain`] | which rule decides, and why |
//! | [`family`] | the images that it asks about as ancestors |
//! | [`force`] | from a policy and the temporary rules to what the kernel enforces |
//! | [`generations`] | names of the rules of past policies |
//! | [`open`] | what a policy means for connections that are open |
//! | [`show`] | what is in force, to who asks |
//! | [`temporary`] | temporary rules, into force and out of it |
//! | [`store`] | what outlives the agent, in the state directory |
//!
//! It needs no kernel and knows no thread: a [`Toolchain`] turns text into
//! tables, an [`Enforcer`] puts them in force, and it is told the time.
//!
//! A policy that waits to be confirmed is not kept: an agent that starts
//! meanwhile puts the one before in force. Temporary rules stand before those
//! of every policy, and outlive it.

use std::{fmt, io, sync::Arc};

use crate::{
    identity::hash::settle::Offset,
    policy::{
        Matcher, Policy, UNPROTECT,
        lineage::{Before, Family},
        tables::{Enforcer, Tables},
    },
    time::rfc3339_ns,
};
use ask::{Apply, Changed, Refusal};
use blocks::Blocks;
pub(in crate::agent) use generations::Generations;
use store::{Kept, Store};

pub mod ask;
pub mod blocks;
pub mod explain;
pub(in crate::agent) mod family;
mod force;
mod generations;
pub mod open;
mod show;
pub mod store;
mod temporary;
#[cfg(test)]
mod tests;

/// Longest time to confirm a policy in, seconds.
const CONFIRM_MAX: u64 = 24 * 60 * 60;

/// From text to tables.
pub trait Toolchain: fmt::Debug + Send {
    /// Reads a policy; `file` is what messages call it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, a sentence each.
    fn parse(&self, text: &str, file: &str) -> Result<Parsed, Vec<String>>;

    /// Compiles it for this host; `clock` tells when rules expire.
    ///
    /// # Errors
    ///
    /// Why it cannot be, a sentence each.
    fn compile(&self, policy: &Policy, clock: Offset) -> Result<Compiled, Vec<String>>;
}

#[derive(Clone, Debug)]
pub struct Parsed {
    pub policy: Policy,
    /// What its author should know, a sentence each.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Compiled {
    pub tables: Tables,
    /// What of the policy this host cannot enforce, a sentence each.
    pub unenforced: Vec<String>,
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Nanoseconds since boot.
    pub boot_ns: u64,
    pub clock: Offset,
}

impl Now {
    fn rfc3339(self, boot_ns: u64) -> String {
        rfc3339_ns(self.clock.to_real(boot_ns))
    }
}

/// What happened by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// Nobody confirmed the policy in time: the one before is in force.
    NotConfirmed { sha256: Arc<str> },
    /// A temporary rule has expired.
    Expired { name: Arc<str>, reason: String },
}

/// A policy without temporary rules, and where it came from.
#[derive(Clone, Debug)]
struct Source {
    text: String,
    file: String,
    policy: Policy,
}

/// What the kernel was given, temporary rules included.
#[derive(Clone, Debug)]
struct InForce {
    generation: u64,
    policy: Arc<Policy>,
    sha256: Arc<str>,
}

#[derive(Clone, Debug)]
struct Pending {
    source: Source,
    /// Nanoseconds since boot.
    until_ns: u64,
    before: Option<InForce>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Manager {
    toolchain: Box<dyn Toolchain>,
    enforcer: Box<dyn Enforcer>,
    store: Store,
    /// The policy last confirmed, or applied without confirmation.
    source: Option<Source>,
    pending: Option<Pending>,
    blocks: Blocks,
    /// `None`: no policy is.
    in_force: Option<InForce>,
    generations: Generations,
    /// The kernel holds temporary rules that have expired.
    is_stale: bool,
    /// The images that are known.
    family: Family,
    /// Whether other processes are kept from the agent; `None`: it was not asked
    /// for yet.
    protection: Option<Result<(), String>>,
}

/// What a protected agent says to who would have it enforce less.
pub(crate) fn is_protected() -> String {
    format!(
        "the policy in force has protect = true, which only a policy that has it too can take the \
         place of; to end it, boot with {UNPROTECT} on the kernel command line"
    )
}

impl Manager {
    pub fn new(toolchain: Box<dyn Toolchain>, enforcer: Box<dyn Enforcer>, store: Store) -> Self {
        Self {
            toolchain,
            enforcer,
            store,
            source: None,
            pending: None,
            blocks: Blocks::default(),
            in_force: None,
            generations: Generations::default(),
            is_stale: false,
            family: Family::new(),
            protection: None,
        }
    }

    /// Puts the policy given (text and file name) in force, else the one kept,
    /// and the temporary rules kept. `None`: there is none of them.
    ///
    /// # Errors
    ///
    /// What is kept, or given, is no good; nothing has changed.
    pub fn start(
        &mut self,
        given: Option<(&str, &str)>,
        now: Now,
    ) -> Result<Option<Changed>, Refusal> {
        let mut blocks = self.store.blocks(now).map_err(Refusal::Input)?;
        blocks.expire(now.boot_ns);
        let kept;
        let (text, file) = match given {
            Some(given) => given,
            None => match self.store.policy().map_err(Refusal::Input)? {
                Some(text) => {
                    kept = (text, self.store.policy_path().display().to_string());
                    (kept.0.as_str(), kept.1.as_str())
                }
                None => {
                    let built = self.build(None, &blocks, now)?;
                    if built.is_some() {
                        self.put(built, None)?;
                    }
                    self.blocks = blocks;
                    return Ok(self.in_force.is_some().then(|| self.changed(Vec::new())));
                }
            },
        };
        let (source, warnings) = self.read(text, file)?;
        let before = std::mem::replace(&mut self.blocks, blocks);
        let applied = self.apply_source(source, warnings, &Apply::default(), now);
        if applied.is_err() {
            self.blocks = before;
        }
        applied.map(Some)
    }

    /// Images that are known now: to be said before what changes the policy.
    pub(in crate::agent) fn family_is(&mut self, family: Family) {
        self.family = family;
    }

    /// Whether the agent is to be protected. A policy that waits to be confirmed
    /// does not ask for it yet: it could not be reverted.
    pub(in crate::agent) fn protects(&self) -> bool {
        self.source.as_ref().is_some_and(|it| it.policy.protect)
    }

    /// What became of that, a clause where it could not be.
    pub(in crate::agent) fn protection_is(&mut self, protection: Result<(), String>) {
        self.protection = Some(protection);
    }

    fn is_protected(&self) -> bool {
        matches!(self.protection, Some(Ok(())))
    }

    /// Whether the policy in force turns on hashes of ancestors or parents.
    pub(in crate::agent) fn asks_hash_of_ancestors(&self) -> bool {
        let by_hash = |matcher: &Matcher| matches!(matcher, Matcher::Sha256(_));
        self.in_force.as_ref().is_some_and(|it| {
            it.policy.rules.iter().any(|rule| {
                let process = &rule.process;
                process
                    .ancestors
                    .iter()
                    .chain(&process.parents)
                    .any(by_hash)
            })
        })
    }

    /// Hashes of these images have become known.
    pub(in crate::agent) fn settle(&mut self, family: &Family) {
        if let Err(error) = self.enforcer.settle(family) {
            tracing::warn!("what hashes of ancestors decide is not known: {error}");
        }
    }

    /// Puts a policy in force, or says what would happen.
    ///
    /// # Errors
    ///
    /// It is no good, cannot be enforced, or another one waits to be confirmed;
    /// nothing has changed.
    pub fn apply(&mut self, request: &Apply, now: Now) -> Result<Changed, Refusal> {
        if self.pending.is_some() {
            return Err(Refusal::State(
                "another policy waits to be confirmed; 'procid policy confirm' or 'procid policy \
                 revert' it first"
                    .to_owned(),
            ));
        }
        if let Some(seconds) = request.confirm_seconds
            && !(1..=CONFIRM_MAX).contains(&seconds)
        {
            return Err(Refusal::Input(format!(
                "a policy cannot wait {seconds} s to be confirmed; give 1 s to 24 h"
            )));
        }
        let (source, warnings) = self.read(&request.text, &request.file)?;
        self.apply_source(source, warnings, request, now)
    }

    fn read(&self, text: &str, file: &str) -> Result<(Source, Vec<String>), Refusal> {
        let parsed = self
            .toolchain
            .parse(text, file)
            .map_err(|wrong| Refusal::Input(wrong.join("\n")))?;
        let source = Source {
            text: text.to_owned(),
            file: file.to_owned(),
            policy: parsed.policy,
        };
        Ok((source, parsed.warnings))
    }

    fn apply_source(
        &mut self,
        source: Source,
        mut warnings: Vec<String>,
        request: &Apply,
        now: Now,
    ) -> Result<Changed, Refusal> {
        if self.is_protected() && !source.policy.protect {
            return Err(Refusal::State(is_protected()));
        }
        let built = self.build(Some(&source), &self.blocks, now)?;
        let unenforced = built.iter().flat_map(|built| &built.unenforced);
        let unenforced: Vec<_> = unenforced.cloned().collect();
        if request.strict && !unenforced.is_empty() {
            return Err(Refusal::Unsupported(format!(
                "this host cannot enforce all of {}, and --strict asks for it: {}",
                source.file,
                unenforced.join("; ")
            )));
        }
        warnings.extend(unenforced);
        warnings.extend(self.unseen_ancestors(&source.policy));
        if request.dry_run {
            return Ok(Changed {
                sha256: Some(hex(&source.policy.sha256)),
                rules: built.map_or(0, |built| built.policy.rules.len()),
                warnings,
                ..Changed::default()
            });
        }
        let Some(seconds) = request.confirm_seconds else {
            let kept = self.stage_policy(&source)?;
            self.put(built, None)?;
            commit(kept, &mut warnings);
            self.source = Some(source);
            return Ok(self.changed(warnings));
        };
        let until_ns = now.boot_ns.saturating_add(seconds * 1_000_000_000);
        let before = self.in_force.clone();
        self.put(built, Some(until_ns))?;
        self.pending = Some(Pending {
            source,
            until_ns,
            before,
        });
        Ok(Changed {
            confirm_by: Some(now.rfc3339(until_ns)),
            ..self.changed(warnings)
        })
    }

    /// Rules on ancestors do not see those that nobody can tell any more.
    fn unseen_ancestors(&self, policy: &Policy) -> Option<String> {
        let asks = policy
            .rules
            .iter()
            .any(|rule| !rule.process.ancestors.is_empty() || !rule.process.parents.is_empty());
        let older = self.family.values();
        let older = older
            .filter(|member| member.before == Before::Older)
            .count();
        (asks && older != 0).then(|| {
            format!(
                "{older} images were running before procid, and who forked them cannot be told: \
                 rules with `ancestor` or `parent` do not see what came before them; start them \
                 anew, or procid before them"
            )
        })
    }

    /// The policy that waits to be confirmed stays.
    ///
    /// # Errors
    ///
    /// None waits, or the kernel refuses.
    pub fn confirm(&mut self) -> Result<Changed, Refusal> {
        let pending = self.pending.as_ref().ok_or_else(none_waits)?;
        let kept = self.stage_policy(&pending.source)?;
        self.enforcer.confirm().map_err(|error| kernel(&error))?;
        let mut warnings = Vec::new();
        commit(kept, &mut warnings);
        self.source = self.pending.take().map(|pending| pending.source);
        Ok(self.changed(warnings))
    }

    /// The policy before the one that waits to be confirmed is in force again.
    ///
    /// # Errors
    ///
    /// None waits, or the kernel refuses.
    pub fn revert(&mut self) -> Result<Changed, Refusal> {
        if self.pending.is_none() {
            return Err(none_waits());
        }
        let generation = self.enforcer.revert().map_err(|error| kernel(&error))?;
        self.fall_back(generation);
        Ok(self.changed(Vec::new()))
    }

    /// No policy is in force any more; what is kept for the next agent stays.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn end(&mut self) -> Result<(), Refusal> {
        self.enforcer.clear().map_err(|error| kernel(&error))?;
        self.pending = None;
        self.in_force = None;
        Ok(())
    }

    /// Takes in the time: says which deadlines have passed.
    ///
    /// `family`: the images that are known now.
    pub(in crate::agent) fn tick(
        &mut self,
        now: Now,
        family: impl FnOnce() -> Family,
    ) -> Vec<Lapse> {
        let mut lapses = Vec::new();
        if let Some(pending) = &self.pending
            && now.boot_ns >= pending.until_ns
        {
            let sha256: Arc<str> = hex(&pending.source.policy.sha256).into();
            let waiting = self.in_force.as_ref().map_or(0, |it| it.generation);
            match self.enforcer.generation() {
                Ok(generation) if generation != waiting => {
                    self.fall_back(generation);
                    lapses.push(Lapse::NotConfirmed { sha256 });
                }
                // The kernel's clock is the one that counts.
                Ok(_) => {}
                Err(error) => tracing::warn!("cannot read which policy is in force: {error}"),
            }
        }
        let expired = self.blocks.expire(now.boot_ns);
        if !expired.is_empty() {
            self.is_stale = true;
            let kept = self.store.stage_blocks(&self.blocks, now);
            if let Err(error) = kept.and_then(Kept::commit) {
                tracing::warn!("temporary rules that have expired are still kept: {error}");
            }
            lapses.extend(expired.into_iter().map(|block| Lapse::Expired {
                name: block.name,
                reason: block.reason,
            }));
        }
        if self.is_stale && self.pending.is_none() {
            self.is_stale = false;
            self.family = family();
            let built = self.build(self.source.as_ref(), &self.blocks, now);
            if let Err(refusal) = built.and_then(|built| self.put(built, None)) {
                tracing::warn!("rules that have expired stay in the tables: {refusal}");
            }
        }
        lapses
    }

    /// Names of the rules that decisions give by generation and index.
    pub(in crate::agent) const fn generations(&self) -> &Generations {
        &self.generations
    }

    /// SHA-256 of the policy in force, and its generation.
    pub fn in_force(&self) -> Option<(&str, u64)> {
        let in_force = self.in_force.as_ref()?;
        Some((&in_force.sha256, in_force.generation))
    }

    /// The policy in force without temporary rules; it may wait to be confirmed.
    fn current(&self) -> Option<&Source> {
        match &self.pending {
            Some(pending) => Some(&pending.source),
            None => self.source.as_ref(),
        }
    }

    fn stage_policy(&self, source: &Source) -> Result<Kept, Refusal> {
        self.store
            .stage_policy(&source.text)
            .map_err(|error| Refusal::Unsupported(error.to_string()))
    }

    fn changed(&self, warnings: Vec<String>) -> Changed {
        let in_force = self.in_force.as_ref();
        Changed {
            generation: in_force.map_or(0, |it| it.generation),
            sha256: in_force.map(|it| it.sha256.to_string()),
            rules: in_force.map_or(0, |it| it.policy.rules.len()),
            warnings,
            ..Changed::default()
        }
    }
}

/// What could not be kept is no reason to undo what is in force.
fn commit(kept: Kept, warnings: &mut Vec<String>) {
    if let Err(error) = kept.commit() {
        warnings.push(format!(
            "this is in force, but will not be after a restart: {error}"
        ));
    }
}

fn kernel(error: &io::Error) -> Refusal {
    Refusal::Unsupported(format!("the kernel refused the policy: {error}"))
}

fn none_waits() -> Refusal {
    Refusal::State(
        "no policy waits to be confirmed; 'procid status' says which one is in force".to_owned(),
    )
}

fn hex(bytes: &[u8]) -> String {
    super::render::hex(bytes)
}

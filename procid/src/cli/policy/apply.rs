//! `procid policy apply`, `confirm`, `revert`.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use super::{
    super::{
        AgentSocket,
        failure::{Code, Failure},
        output::{count, local, printable},
    },
    cut, file,
};
use crate::{
    agent::policy::ask::{self, Changed},
    api::client::Client,
    time,
};

/// Put a policy in force, whole and at once, or say why not.
///
/// A bad file changes nothing. The policy is kept in the agent's state
/// directory, and is in force again after a restart.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// The policy, in TOML.
    file: PathBuf,
    /// Say what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Refuse a policy that this host cannot enforce in full.
    #[arg(long)]
    strict: bool,
    /// Go back to the policy before, unless 'procid policy confirm' comes
    /// within this time, as in 60s; also if the agent is killed meanwhile.
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    confirm: Option<u64>,
    /// Close the open connections that the policy denies to every process that
    /// holds them. What is not certain stays open, and is counted.
    #[arg(long)]
    cut: bool,
    #[command(flatten)]
    socket: AgentSocket,
}

/// Keep the policy that waits to be confirmed.
#[derive(Debug, clap::Args)]
pub struct Confirm {
    #[command(flatten)]
    socket: AgentSocket,
}

/// Go back to the policy before the one that waits to be confirmed.
#[derive(Debug, clap::Args)]
pub struct Revert {
    #[command(flatten)]
    socket: AgentSocket,
}

impl Apply {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let policy = file::read(&self.file).map_err(Failure::usage)?;
        let request = ask::Apply {
            text: policy.text,
            file: policy.path.display().to_string(),
            dry_run: self.dry_run,
            strict: self.strict,
            confirm_seconds: self.confirm,
            cut: self.cut,
        };
        let client = Client::new(self.socket.socket);
        let changed = super::super::runtime()?.block_on(client.apply(&request))?;
        let text = if self.dry_run {
            let file = printable(&request.file);
            format!("{file} can be put in force: {}", rules(&changed))
        } else {
            in_force(&changed)
        };
        let code = tell(&changed, &text)?;
        if self.cut {
            return cut::cut(&changed, self.dry_run);
        }
        Ok(code)
    }
}

impl Confirm {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let client = Client::new(self.socket.socket);
        let changed = super::super::runtime()?.block_on(client.confirm())?;
        tell(&changed, &in_force(&changed))
    }
}

impl Revert {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let client = Client::new(self.socket.socket);
        let changed = super::super::runtime()?.block_on(client.revert())?;
        tell(&changed, &in_force(&changed))
    }
}

/// A span in whole seconds, rounded up.
///
/// # Errors
///
/// What is wrong with the text.
pub fn seconds(text: &str) -> Result<u64, String> {
    let span = time::span(text).map_err(|error| error.to_string())?;
    if span < Duration::from_secs(1) {
        return Err("give a second or more, such as 60s or 4h".to_owned());
    }
    Ok(span.as_secs() + u64::from(span.subsec_nanos() > 0))
}

/// Writes what has changed to stdout and what the caller should know to stderr.
///
/// # Errors
///
/// Of writing.
pub fn tell(changed: &Changed, text: &str) -> Result<Code, Failure> {
    for warning in &changed.warnings {
        // With stderr gone there is nobody to warn.
        let _gone = writeln!(io::stderr(), "procid: warning: {}", printable(warning));
    }
    if !changed.unhashed.is_empty() {
        let _gone = writeln!(io::stderr(), "procid: warning: {}", unhashed(changed));
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::of_stdout(&error))?;
    Ok(Code::Done)
}

/// Images that are named, at most.
const NAMED_MAX: usize = 10;

fn unhashed(changed: &Changed) -> String {
    let all = &changed.unhashed;
    let named = all.iter().take(NAMED_MAX).map(|image| {
        let name = image.executable.as_deref().unwrap_or("without a name");
        format!(
            "{} ({}, {})",
            image.pid,
            printable(name),
            printable(&image.reason)
        )
    });
    let named: Vec<_> = named.collect();
    let more = match all.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!(
        "the hash of {} is not known, so that unknown_hash decides of it: {}{more}",
        count(all.len() as u64, "running image"),
        named.join(", ")
    )
}

fn in_force(changed: &Changed) -> String {
    let Some(sha256) = &changed.sha256 else {
        return "no policy is in force".to_owned();
    };
    let mut text = format!(
        "policy {} is in force: generation {}, {}",
        printable(sha256),
        changed.generation,
        rules(changed)
    );
    if let Some(by) = &changed.confirm_by {
        text.push_str(&format!(
            "; it is reverted at {} unless you 'procid policy confirm' it",
            local(by)
        ));
    }
    text
}

fn rules(changed: &Changed) -> String {
    count(changed.rules as u64, "rule")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_whole_seconds() {
        assert_eq!(seconds("60s"), Ok(60));
        assert_eq!(seconds("1.5s"), Ok(2));
        assert_eq!(seconds("4h"), Ok(14_400));
        assert!(seconds("10ms").unwrap_err().contains("a second or more"));
        assert!(seconds("soon").is_err());
    }

    #[test]
    fn what_is_in_force_is_said() {
        let changed = Changed {
            generation: 3,
            sha256: Some("ab".to_owned()),
            rules: 1,
            ..Changed::default()
        };
        assert_eq!(
            in_force(&changed),
            "policy ab is in force: generation 3, 1 rule"
        );
        let waits = Changed {
            confirm_by: Some("2026-11-22T15:04:06.326456789Z".to_owned()),
            ..changed
        };
        assert!(in_force(&waits).contains("; it is reverted at 2026-11-22"));
        assert_eq!(in_force(&Changed::default()), "no policy is in force");
    }
}

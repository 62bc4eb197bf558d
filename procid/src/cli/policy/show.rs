//! `procid policy show`.

use std::io::{self, Write};

use super::super::{
    AgentSocket,
    failure::{Code, Failure},
    output::{local, printable},
};
use crate::{
    agent::policy::ask::{PolicyStatus, Shown, ShownRule},
    api::client::Client,
};

/// Print the rules in force, and how many decisions each has made since it came
/// into force.
///
/// Exit code 1: no policy is in force.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// One JSON object, the policy's text included, instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: AgentSocket,
}

impl Show {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let client = Client::new(self.socket.socket);
        let shown = super::super::runtime()?.block_on(client.policy())?;
        let mut out = io::stdout().lock();
        let written = if self.json {
            serde_json::to_writer(&mut out, &shown)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out))
        } else {
            text(&shown, &mut out)
        };
        written
            .and_then(|()| out.flush())
            .map_err(|error| Failure::of_stdout(&error))?;
        Ok(Code::Done)
    }
}

fn text(shown: &Shown, out: &mut impl Write) -> io::Result<()> {
    heading(&shown.status, out)?;
    writeln!(out, "{:>10}  {:<6}  RULE", "HITS", "ACTION")?;
    for rule in &shown.rules {
        writeln!(
            out,
            "{:>10}  {:<6}  {}{}",
            rule.hits,
            printable(&rule.action),
            printable(&rule.name),
            place(rule)
        )?;
    }
    writeln!(
        out,
        "{:>10}  {:<6}  (default)",
        shown.default_hits,
        printable(&shown.status.default)
    )
}

/// The policy in force, in the lines that `procid status` has as well.
///
/// # Errors
///
/// Of writing.
pub fn heading(status: &PolicyStatus, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "policy        generation {}, mode {}, default {}, {} of them temporary",
        status.generation,
        printable(&status.mode),
        printable(&status.default),
        format_args!("{} rules, {}", status.rules, status.blocks)
    )?;
    if let Some(sha256) = &status.sha256 {
        writeln!(out, "  sha256      {}", printable(sha256))?;
    }
    if let Some(file) = &status.file {
        writeln!(out, "  file        {}", printable(file))?;
    }
    let protected = match (&status.unprotected, status.protected) {
        (Some(why), _) => format!("no: {}", printable(why)),
        (None, true) => "yes".to_owned(),
        (None, false) => "no".to_owned(),
    };
    writeln!(out, "  protected   {protected}")?;
    let Some(pending) = &status.pending else {
        return Ok(());
    };
    let before = match &pending.falls_back_to {
        Some(sha256) => format!("policy {}", printable(sha256)),
        None => "no policy".to_owned(),
    };
    writeln!(
        out,
        "  ! unless it is confirmed, {before} is in force at {}",
        local(&pending.confirm_by)
    )
}

/// Where a rule is from, and until when.
fn place(rule: &ShownRule) -> String {
    let mut parts = Vec::new();
    parts.extend(rule.line.map(|line| format!("line {line}")));
    let text = |text: &Option<String>| text.as_deref().map(|it| printable(it).into_owned());
    parts.extend(text(&rule.target));
    parts.extend(text(&rule.to).map(|to| format!("to {to}")));
    let until = rule.expires.as_deref().map(local);
    parts.extend(until.map(|until| format!("until {until}")));
    parts.extend(text(&rule.reason).map(|reason| format!("because: {reason}")));
    if parts.is_empty() {
        String::new()
    } else {
        format!("  ({})", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::policy::ask::Pending;

    #[test]
    fn rules_are_listed_in_order_with_their_hits() {
        let shown = Shown {
            status: PolicyStatus {
                generation: 3,
                sha256: Some("ab".to_owned()),
                file: Some("/etc/p\x1b.toml".to_owned()),
                mode: "enforce".to_owned(),
                default: "deny".to_owned(),
                rules: 2,
                blocks: 1,
                protected: false,
                unprotected: Some("no\nLSM".to_owned()),
                pending: Some(Pending {
                    confirm_by: "2026-11-22T15:04:06.326456789Z".to_owned(),
                    falls_back_to: None,
                }),
            },
            rules: vec![
                ShownRule {
                    name: "block-1".to_owned(),
                    action: "deny".to_owned(),
                    hits: 12,
                    target: Some("exe:/usr/bin/nc".to_owned()),
                    to: Some("10.0.0.0/8".to_owned()),
                    reason: Some("leak\n".to_owned()),
                    ..ShownRule::default()
                },
                ShownRule {
                    name: "only the broker".to_owned(),
                    action: "allow".to_owned(),
                    line: Some(7),
                    ..ShownRule::default()
                },
            ],
            default_hits: 4,
            text: None,
        };
        let mut out = Vec::new();
        text(&shown, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        for line in [
            "policy        generation 3, mode enforce, default deny, 2 rules, 1 of them temporary\n",
            "  file        /etc/p\\u{1b}.toml\n",
            "  protected   no: no\\u{a}LSM\n",
            "  ! unless it is confirmed, no policy is in force at 2026-11-22",
            "        12  deny    block-1  (exe:/usr/bin/nc, to 10.0.0.0/8, because: leak\\u{a})\n",
            "         0  allow   only the broker  (line 7)\n",
            "         4  deny    (default)\n",
        ] {
            assert!(out.contains(line), "{line:?} is not in:\n{out}");
        }
    }
}

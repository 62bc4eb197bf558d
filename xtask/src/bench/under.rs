//! What a loop runs under.

use std::fmt::{self, Write as _};

use anyhow::Result;

use super::{
    Programs,
    agent::Agent,
    cgroup::Cgroup,
    empty::{Empty, Hooks},
    proc::{Bpf, ProgramTime},
};
use crate::bench::bpf;

/// What stands on the hooks while a loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    Bare,
    /// Programs that do nothing.
    Empty,
    /// An agent without a policy.
    Agent,
    /// An agent that enforces so many rules, of which the last one matches.
    Rules(usize),
}

impl Under {
    /// In the order of the page. The rules of the policies compared: the first
    /// is what the others are held to.
    pub(crate) const ALL: [Self; 7] = [
        Self::Bare,
        Self::Empty,
        Self::Agent,
        Self::Rules(1),
        Self::Rules(10),
        Self::Rules(100),
        Self::Rules(1_000),
    ];
    /// Those that budgets are for: by how little and by how much procid does.
    pub(crate) const BUDGETED: [Self; 3] = [Self::Agent, Self::Rules(10), Self::Rules(1_000)];
}

impl fmt::Display for Under {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare => f.write_str("bare"),
            Self::Empty => f.write_str("empty programs"),
            Self::Agent => f.write_str("no policy"),
            Self::Rules(1) => f.write_str("1 rule"),
            Self::Rules(rules) => write!(f, "{rules} rules"),
        }
    }
}

/// It, put up; taken down when dropped.
#[derive(Debug)]
pub(crate) enum Stand {
    Bare,
    Empty(Empty),
    Agent(Agent),
}

impl Stand {
    /// # Errors
    ///
    /// Of the programs, or the kernel's refusal.
    pub(crate) fn new(
        under: Under,
        programs: &Programs,
        hooks: &Hooks,
        cgroup: &Cgroup,
    ) -> Result<Self> {
        let rules = match under {
            Under::Bare => return Ok(Self::Bare),
            Under::Empty => return Ok(Self::Empty(hooks.attach(cgroup)?)),
            Under::Agent => 0,
            Under::Rules(rules) => rules,
        };
        let agent = Agent::start(&programs.procid, cgroup)?;
        if rules > 0 {
            agent.apply(&policy(rules))?;
        }
        // What it found running is hashed before it is measured.
        agent.settled()?;
        Ok(Self::Agent(agent))
    }

    /// Run times of its programs, by name, while the kernel takes them: those of
    /// empty programs by their hooks.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub(crate) fn times(&self) -> Result<Vec<(String, ProgramTime)>> {
        match self {
            Self::Bare => Ok(Vec::new()),
            Self::Empty(empty) => empty.times(),
            Self::Agent(agent) => {
                let programs = Bpf::of(agent.pid())?.programs.into_iter();
                programs
                    .map(|time| Ok((bpf::program_name(time.id)?, time)))
                    .collect()
            }
        }
    }

    /// # Errors
    ///
    /// The agent fails.
    pub(crate) fn end(self) -> Result<()> {
        match self {
            Self::Bare | Self::Empty(_) => Ok(()),
            Self::Agent(agent) => agent.stop(),
        }
    }
}

/// A policy whose last rule allows what the loops do, and whose others ask for
/// different things and match nothing.
pub(crate) fn policy(rules: usize) -> String {
    let mut text = String::from("mode = \"enforce\"\ndefault = \"deny\"\n");
    for number in 1..rules {
        let (high, low) = (number / 256, number % 256);
        let asks = match number % 5 {
            0 => format!("destination = {{ cidr = \"10.{high}.{low}.0/24\" }}"),
            1 => format!("destination = {{ cidr = \"fd00:{number:x}::/32\", port = 443 }}"),
            2 => {
                let port = 10 + number;
                format!(
                    "process = {{ uid = {number} }}\ndestination = {{ port = \"{port}-{}\" }}",
                    port + 9
                )
            }
            3 => format!("process = {{ executable = \"/usr/bin/tool-{number}\" }}"),
            _ => format!("process = {{ cgroup = \"/service-{number}\" }}"),
        };
        // Writing to a string cannot fail.
        let _written = write!(
            text,
            "\n[[rule]]\nname = \"rule {number}\"\naction = \"allow\"\n{asks}\n"
        );
    }
    text.push_str(
        "\n[[rule]]\nname = \"the last\"\naction = \"allow\"\n\
         destination = { cidr = \"127.0.0.0/8\" }\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_so_many_rules() {
        for under in Under::ALL {
            let Under::Rules(rules) = under else { continue };
            let text = policy(rules);
            assert_eq!(text.matches("[[rule]]").count(), rules);
            assert!(text.ends_with("destination = { cidr = \"127.0.0.0/8\" }\n"));
        }
    }
}

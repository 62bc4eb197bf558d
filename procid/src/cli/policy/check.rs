//! `procid policy check`: is this file a policy, and the one that was meant.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::file;
use crate::{
    api::accounts::Accounts,
    cli::{
        failure::{Code, Failure},
        output::printable,
    },
    policy::text::{Diagnostic, Severity, parse},
};

/// Say what is wrong with a policy file, and what is perhaps not meant.
///
/// Exit code 0 no errors, 1 errors (or, with --strict, warnings), 2 the file
/// cannot be read.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The policy; `-` is stdin.
    file: PathBuf,
    /// Warnings fail too.
    #[arg(long)]
    strict: bool,
    /// Problems on stdout as NDJSON instead of text on stderr.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let (name, text) = file::read_or_stdin(&self.file).map_err(Failure::usage)?;
        let problems = match parse(&text, &name, &Accounts) {
            Ok(parsed) => parsed.warnings,
            Err(errors) => errors,
        };
        if self.json {
            json(&problems, &mut io::stdout().lock())
                .map_err(|error| Failure::of_stdout(&error))?;
        } else {
            // With stderr gone too, the exit code is all there is to say.
            let _gone = lines(&problems, &mut io::stderr().lock());
        }
        let fails = |problem: &Diagnostic| self.strict || problem.severity == Severity::Error;
        Ok(if problems.iter().any(fails) {
            Code::Nothing
        } else {
            Code::Done
        })
    }
}

fn json(problems: &[Diagnostic], out: &mut impl Write) -> io::Result<()> {
    for problem in problems {
        serde_json::to_writer(&mut *out, problem)?;
        writeln!(out)?;
    }
    out.flush()
}

fn lines(problems: &[Diagnostic], out: &mut impl Write) -> io::Result<()> {
    for problem in problems {
        writeln!(out, "{}", printable(&problem.to_string()))?;
    }
    out.flush()
}

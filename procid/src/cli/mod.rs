//! The commands: flags, exit codes, and what people read.
//!
//! | module | holds |
//! | --- | --- |
//! | [`run`] | `procid run`: the agent in the foreground |
//! | [`config`] | its config file, and what the flags make of it |
//! | [`service`] | its second thread: the API and the signals |
//! | [`state_dir`] | where it keeps its state |
//! | [`privilege`] | which capabilities it needs to attach and keeps after |
//! | [`who`] | `procid who`: which image is speaking on a connection |
//! | [`watch`] | `procid watch`: what the agent sees, as it happens |
//! | [`ps`] | `procid ps`: the images that run now |
//! | [`save`] | `procid save`: a running image, put aside for a case |
//! | [`policy`] | `procid policy`: which policy is in force |
//! | [`block`] | `procid block`, `procid unblock` |
//! | [`cut`] | `procid cut`: close a connection |
//! | [`status`] | `procid status` |
//! | [`unload`] | `procid unload`: end what a killed agent enforces |
//! | [`doctor`] | `procid doctor` |
//! | [`failure`] | exit codes and sentences |
//! | [`output`] | text for people: times, durations, hostile bytes |

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

pub mod block;
pub mod config;
pub mod cut;
pub mod doctor;
pub mod failure;
pub mod output;
pub mod policy;
pub mod privilege;
pub mod ps;
pub mod report;
pub mod run;
pub mod save;
pub mod service;
pub mod state_dir;
pub mod status;
pub mod unload;
pub mod watch;
pub mod who;

use failure::{Code, Failure};

/// Where the agent listens unless told otherwise.
pub const SOCKET: &str = "/run/procid/procid.sock";

/// Which running process image is speaking on this connection?
///
/// Exit codes: 0 done, 1 nothing matched or a check failed, 2 bad usage or
/// input, 3 not permitted or not supported here, 4 no agent answers.
#[derive(Debug, Parser)]
#[command(name = "procid", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Who(who::Who),
    Watch(watch::Watch),
    Ps(ps::Ps),
    Save(save::Save),
    Report(report::Report),
    Cut(cut::Cut),
    Policy(policy::Policy),
    Block(block::Block),
    Unblock(block::Unblock),
    Status(status::Status),
    Doctor(doctor::Doctor),
    Unload(unload::Unload),
    /// The exec gate's watchdog; started by the agent
    #[command(hide = true, name = crate::gate::WATCH)]
    GateWatch,
}

/// The flag that says where the agent is, for the commands that ask it.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentSocket {
    /// The agent's socket.
    #[arg(long, value_name = "PATH", env = "PROCID_SOCKET", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// The definition of the command line, from which manual pages and completions
/// are made.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line that this process was given.
pub fn main() -> ExitCode {
    let done = match Cli::try_parse() {
        Ok(cli) => match cli.command {
            Command::Run(run) => run.execute(),
            Command::Who(who) => who.execute(),
            Command::Watch(watch) => watch.execute(),
            Command::Ps(ps) => ps.execute(),
            Command::Save(save) => save.execute(),
            Command::Report(report) => report.execute(),
            Command::Cut(cut) => cut.execute(),
            Command::Policy(policy) => policy.execute(),
            Command::Block(block) => block.execute(),
            Command::Unblock(unblock) => unblock.execute(),
            Command::Status(status) => status.execute(),
            Command::Doctor(doctor) => doctor.execute(),
            Command::Unload(unload) => unload.execute(),
            Command::GateWatch => crate::gate::watch::run()
                .map(|()| Code::Done)
                .map_err(|error| {
                    Failure::refused(format!("the exec gate's watchdog ends: {error}"))
                }),
        },
        Err(error) => not_a_command(&error),
    };
    match done {
        Ok(code) => code.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                // With stderr gone too, the exit code is all there is to say.
                let _gone = writeln!(io::stderr(), "procid: {}", one_line(&failure.message));
            }
            failure.code.into()
        }
    }
}

/// A cause may be of many lines, such as a verifier's log.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    output::printable(&lines.join("; ")).into_owned()
}

/// Help and version are answers; anything else is one sentence.
fn not_a_command(error: &clap::Error) -> Result<Code, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            error.print().map_err(|error| Failure::of_stdout(&error))?;
            Ok(Code::Done)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let _gone = error.print();
            Ok(Code::Usage)
        }
        _ => Err(Failure::usage(sentence(&error.render().to_string()))),
    }
}

/// Folds clap's paragraphs into one sentence: the error, its tips, and the
/// usage line's place taken by where to read more.
fn sentence(rendered: &str) -> String {
    let mut parts = Vec::new();
    let mut command = "procid";
    for paragraph in rendered.split("\n\n") {
        if let Some(usage) = paragraph.trim().strip_prefix("Usage: ") {
            command = if usage.starts_with("procid ") && !usage.starts_with("procid <") {
                let end = usage
                    .match_indices(' ')
                    .nth(1)
                    .map_or(usage.len(), |(at, _)| at);
                usage.get(..end).unwrap_or(command)
            } else {
                command
            };
        } else if !paragraph.trim_start().starts_with("For more information") {
            let words: Vec<_> = paragraph.split_whitespace().collect();
            parts.push(words.join(" "));
        }
    }
    let error = parts.join("; ");
    let error = error.strip_prefix("error: ").unwrap_or(&error);
    format!("{error}; see '{command} --help'")
}

/// A runtime for a command that asks the agent: this thread, nothing else.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::refused(format!("cannot start the event loop: {error}")))
}

impl From<crate::api::client::ClientError> for Failure {
    fn from(error: crate::api::client::ClientError) -> Self {
        use crate::api::client::ClientError;
        match error {
            ClientError::NoAgent { .. } | ClientError::Broken { .. } => {
                Self::no_agent(error.to_string())
            }
            ClientError::Denied(_) | ClientError::Forbidden(_) | ClientError::Unsupported(_) => {
                Self::refused(error.to_string())
            }
            ClientError::Refused(sentence) => Self::usage(sentence),
            ClientError::Nothing(sentence) => Self::nothing(sentence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_flags_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn a_cause_of_many_lines_is_one() {
        assert_eq!(
            one_line("refused:\n  R1 \x1b[2J\n\n"),
            "refused:; R1 \\u{1b}[2J"
        );
    }

    #[test]
    fn an_error_is_one_sentence() {
        let error = Cli::try_parse_from(["procid", "run", "--jsn"]).unwrap_err();
        assert_eq!(
            sentence(&error.render().to_string()),
            "unexpected argument '--jsn' found; tip: a similar argument exists: '--json'; \
             see 'procid run --help'"
        );
        let error = Cli::try_parse_from(["procid", "frobnicate"]).unwrap_err();
        assert_eq!(
            sentence(&error.render().to_string()),
            "unrecognized subcommand 'frobnicate'; see 'procid --help'"
        );
        for (who, sentence) in [
            (&[][..], "required arguments were not provided"),
            (&["--exe", "/a", "--sha256", "b"], "cannot be used with"),
        ] {
            let line = ["procid", "block", "--for", "4h", "--reason", "leak"];
            let error = Cli::try_parse_from(line.iter().chain(who)).unwrap_err();
            let error = self::sentence(&error.render().to_string());
            assert!(error.contains(sentence), "{error}");
            assert!(error.ends_with("see 'procid block --help'"), "{error}");
        }
        let error = Cli::try_parse_from(["procid", "run", "--backend", "x"]).unwrap_err();
        assert_eq!(
            sentence(&error.render().to_string()),
            "invalid value 'x' for '--backend <BACKEND>' [possible values: auto, lsm, cgroup]; \
             see 'procid --help'"
        );
    }
}

//! `procid policy apply --cut`: the agent says which open connections its
//! policy denies; closing them needs a capability that it has given up, and its
//! caller has.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use super::super::{
    failure::{Code, Failure},
    output::{count, printable},
};
use crate::{
    agent::policy::{ask::Changed, open::Denied},
    snapshot::{self, destroy::destroy},
};

/// Closes what is denied, or says what would be closed.
///
/// # Errors
///
/// The kernel refuses, or of writing.
pub(super) fn cut(changed: &Changed, dry_run: bool) -> Result<Code, Failure> {
    let refused =
        |error: io::Error| Failure::refused(format!("open connections cannot be closed: {error}"));
    let snapshot = snapshot::take().map_err(refused)?;
    let sockets: HashMap<_, _> = snapshot
        .rows
        .iter()
        .map(|row| (row.socket.cookie.to_string(), row.socket))
        .collect();
    let mut out = io::stdout().lock();
    let (mut closed, mut unlisted) = (0, 0);
    for denied in &changed.denied {
        let Some(socket) = sockets.get(&denied.cookie) else {
            unlisted += 1;
            continue;
        };
        if !dry_run {
            match destroy(socket) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                Err(error) => return Err(refused(error)),
            }
        }
        closed += 1;
        writeln!(out, "{}", line(denied, dry_run)).map_err(|error| Failure::of_stdout(&error))?;
    }
    let verb = if dry_run { "would be closed" } else { "closed" };
    let left = changed.undecided.unwrap_or(0);
    if unlisted > 0 {
        // With stderr gone there is nobody to warn.
        let _gone = writeln!(
            io::stderr(),
            "procid: warning: {} denied and cannot be closed: the kernel's socket table (sock_diag) \
             does not list MPTCP, nor anything without its module tcp_diag",
            count(unlisted, "connection")
        );
    }
    writeln!(
        out,
        "{} {verb}; {left} left open, of which it is not certain that the policy denies them",
        count(closed, "connection")
    )
    .and_then(|()| out.flush())
    .map_err(|error| Failure::of_stdout(&error))?;
    Ok(Code::Done)
}

fn line(denied: &Denied, dry_run: bool) -> String {
    let verb = if dry_run { "would close" } else { "closed" };
    let by = match &denied.rule {
        Some(rule) => format!("rule \"{}\"", printable(rule)),
        None => "the default".to_owned(),
    };
    let name = denied.executable.as_deref().unwrap_or("without a name");
    format!(
        "{verb} {} to {} port {} of process {} ({}): {by}",
        denied.transport.as_deref().unwrap_or("connection"),
        printable(&denied.destination),
        denied.port,
        denied.pid,
        printable(name)
    )
}

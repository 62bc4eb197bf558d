//! `procid status`: is the agent well, and what does it miss.

use std::io::{self, Write};

use super::{
    AgentSocket,
    failure::{Code, Failure},
    output::{count, local, losses, printable},
    policy::show::heading,
};
use crate::{agent::handle, api::client::Client};

/// Say how the agent is: hooks, uncovered paths, records lost, map fill.
///
/// Exit code 0 healthy, 1 degraded, 4 no agent answers.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: AgentSocket,
}

impl Status {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let status = super::runtime()?.block_on(Client::new(self.socket.socket).status())?;
        let mut out = io::stdout().lock();
        let written = if self.json {
            serde_json::to_writer(&mut out, &status)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out))
        } else {
            text(&status, &mut out)
        };
        written
            .and_then(|()| out.flush())
            .map_err(|error| Failure::of_stdout(&error))?;
        Ok(if status.healthy {
            Code::Done
        } else {
            Code::Nothing
        })
    }
}

fn gate_line(gate: &handle::GateStatus) -> String {
    let stands = if gate.stands {
        "stands"
    } else {
        "rests: no policy asks for hashes"
    };
    let mut line = format!(
        "{stands}; {}, {} hashed, {} known",
        count(gate.executions, "execution"),
        gate.hashed,
        gate.cached
    );
    for (passed, why) in [
        (gate.skipped, "let go on: too large or not trusted"),
        (gate.unproven, "let go on: with a writer, or changed"),
        (gate.timed_out, "let go on: no answer in time"),
        (gate.passed, "let go on: too many at once"),
        (gate.overflows, "overflows of the kernel's queue"),
        (gate.unopened, "denied: the kernel could not open the file"),
        (gate.unmarked, "file systems that it does not stand before"),
    ] {
        if passed > 0 {
            line.push_str(&format!(", {passed} {why}"));
        }
    }
    line
}

fn output_line(output: &handle::OutputStatus) -> String {
    let mut line = format!(
        "{} ({}): {} written, {} waiting, lost: {}",
        printable(&output.name),
        printable(&output.to),
        output.written,
        output.waiting,
        losses(&output.lost)
    );
    if output.shortened > 0 {
        line.push_str(&format!(", {} shortened", output.shortened));
    }
    if let Some(trouble) = &output.trouble {
        line.push_str(&format!("; {}", printable(trouble)));
    }
    line
}

fn text(status: &handle::Status, out: &mut impl Write) -> io::Result<()> {
    let health = if status.healthy {
        "healthy"
    } else {
        "degraded"
    };
    writeln!(
        out,
        "procid {} is {health}, pid {}, since {}",
        printable(&status.version),
        status.pid,
        local(&status.since)
    )?;
    for why in &status.degraded {
        writeln!(out, "  ! {}", printable(why))?;
    }
    writeln!(out, "backend       {}", printable(&status.backend))?;
    let attached = status.hooks.iter().filter(|hook| hook.attached).count();
    writeln!(
        out,
        "hooks         {attached} of {} attached",
        status.hooks.len()
    )?;
    for hook in &status.hooks {
        let name = printable(&hook.name);
        if hook.attached {
            writeln!(out, "  + {name:<28} {}", printable(&hook.gives))?;
        } else {
            let reason = hook.reason.as_deref().unwrap_or("no reason given");
            writeln!(
                out,
                "  - {name:<28} {}; without it: {}",
                printable(reason),
                printable(&hook.without)
            )?;
        }
    }
    writeln!(
        out,
        "uncovered     {}",
        count(status.uncovered.len() as u64, "path")
    )?;
    for uncovered in &status.uncovered {
        writeln!(
            out,
            "  - {}: {}",
            printable(&uncovered.path),
            printable(&uncovered.reason)
        )?;
    }
    writeln!(
        out,
        "records       {} emitted, lost: {}",
        status.emitted,
        losses(&status.lost)
    )?;
    writeln!(
        out,
        "hash queue    {}",
        count(status.hash_queue as u64, "file")
    )?;
    writeln!(
        out,
        "DNS answers   {} read, {} of them not to the end",
        status.answers.read, status.answers.unreadable
    )?;
    if let Some(gate) = &status.exec_gate {
        writeln!(out, "exec gate     {}", gate_line(gate))?;
    }
    for output in &status.outputs {
        writeln!(out, "output        {}", output_line(output))?;
    }
    for (name, fill) in &status.fill {
        writeln!(
            out,
            "fill          {}: {} of {}",
            printable(name),
            fill.used,
            fill.capacity
        )?;
    }
    match &status.policy {
        None => writeln!(out, "policy        none")?,
        Some(policy) => heading(policy, out)?,
    }
    let capabilities: Vec<_> = status.capabilities.iter().map(|c| printable(c)).collect();
    writeln!(
        out,
        "capabilities  {}",
        if capabilities.is_empty() {
            "none".to_owned()
        } else {
            capabilities.join(", ")
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::handle::HookStatus, records::Uncovered};

    #[test]
    fn what_is_missing_is_said_with_its_reason() {
        let status = handle::Status {
            degraded: vec!["12 records were lost".to_owned()],
            version: "0.1.0".to_owned(),
            pid: 42,
            backend: "cgroup".to_owned(),
            hooks: vec![HookStatus {
                name: "lsm/socket_sendmsg".to_owned(),
                without: "raw sends".to_owned(),
                reason: Some("EPERM\x1b[2J".to_owned()),
                ..HookStatus::default()
            }],
            uncovered: vec![Uncovered {
                path: "AF_PACKET".to_owned(),
                reason: "no LSM".to_owned(),
            }],
            lost: [("ring".to_owned(), 12)].into(),
            outputs: vec![handle::OutputStatus {
                name: "file".to_owned(),
                to: "file:/x".to_owned(),
                written: 3,
                lost: [("full".to_owned(), 2)].into(),
                trouble: Some("cannot write /x: No space left".to_owned()),
                ..handle::OutputStatus::default()
            }],
            ..handle::Status::default()
        };
        let mut out = Vec::new();
        text(&status, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        for line in [
            "procid 0.1.0 is degraded, pid 42",
            "  ! 12 records were lost",
            "hooks         0 of 1 attached",
            "EPERM\\u{1b}[2J; without it: raw sends",
            "uncovered     1 path\n  - AF_PACKET: no LSM",
            "lost: 12 ring",
            "output        file (file:/x): 3 written, 0 waiting, lost: 2 full; cannot write /x",
            "capabilities  none",
        ] {
            assert!(out.contains(line), "{line:?} is not in:\n{out}");
        }
    }
}

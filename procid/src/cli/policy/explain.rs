//! `procid policy explain`.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{
    super::{
        AgentSocket,
        failure::{Code, Failure},
        output::printable,
    },
    file,
};
use crate::{
    agent::policy::explain::{self, Explained, RuleAt},
    api::client::Client,
};

/// Say which rule decides for a process and a destination, and why.
///
/// The programs in the kernel decide, as they would if the process made a new
/// socket and used it now.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// The process that acts.
    #[arg(long)]
    pid: u32,
    /// Where to: `IP:PORT`, `[V6]:PORT`, or an address for what has no ports.
    #[arg(long, value_name = "IP:PORT", value_parser = destination)]
    to: (IpAddr, u16),
    /// tcp, udp, udplite, icmp, ipv6-icmp, sctp or dccp.
    #[arg(long, default_value = "tcp")]
    transport: String,
    /// `opener`, or `speaker`: of a socket that another image opened.
    #[arg(long, default_value = "opener")]
    role: String,
    /// As that effective user, instead of the process's own.
    #[arg(long)]
    uid: Option<u32>,
    /// As that effective group, instead of the process's own.
    #[arg(long)]
    gid: Option<u32>,
    /// From a socket bound to that port.
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// Explain this policy, which need not be in force.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: AgentSocket,
}

fn destination(text: &str) -> Result<(IpAddr, u16), String> {
    if let Ok(to) = text.parse::<SocketAddr>() {
        return Ok((to.ip(), to.port()));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse()
        .map(|ip| (ip, 0))
        .map_err(|_| "give an address and a port, as in 10.0.0.1:443 or [fd00::1]:443".to_owned())
}

impl Explain {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let policy = match &self.file {
            Some(path) => Some(file::read(path).map_err(Failure::usage)?),
            None => None,
        };
        let request = explain::Explain {
            pid: self.pid,
            to: self.to.0,
            port: self.to.1,
            transport: self.transport,
            role: self.role,
            uid: self.uid,
            gid: self.gid,
            source_port: self.source_port,
            file: policy
                .as_ref()
                .map(|policy| policy.path.display().to_string())
                .unwrap_or_default(),
            text: policy.map(|policy| policy.text),
        };
        let client = Client::new(self.socket.socket);
        let explained = super::super::runtime()?.block_on(client.explain(&request))?;
        let mut out = io::stdout().lock();
        let written = if self.json {
            serde_json::to_writer(&mut out, &explained)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out))
        } else {
            text(&explained, &mut out)
        };
        written
            .and_then(|()| out.flush())
            .map_err(|error| Failure::of_stdout(&error))?;
        Ok(Code::Done)
    }
}

fn text(explained: &Explained, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{}: {}",
        printable(&explained.verdict),
        printable(&explained.why)
    )?;
    if let Some(rule) = &explained.rule {
        writeln!(out, "  rule        {}", place(rule))?;
    }
    writeln!(
        out,
        "  policy      {}{}",
        printable(&explained.sha256),
        match explained.generation {
            0 => ", not in force".to_owned(),
            generation => format!(", generation {generation}"),
        }
    )?;
    let process = &explained.process;
    let or =
        |text: &Option<String>, none: &str| printable(text.as_deref().unwrap_or(none)).into_owned();
    writeln!(
        out,
        "  process     {} {}",
        process.pid,
        or(&process.executable, "without a name")
    )?;
    writeln!(out, "  inode       {}", or(&process.inode, "none"))?;
    writeln!(
        out,
        "  sha256      {} ({})",
        or(&process.sha256, "not known"),
        printable(&process.hash)
    )?;
    writeln!(
        out,
        "  owner       uid {}, gid {}",
        process.uid, process.gid
    )?;
    writeln!(out, "  cgroup      {}", or(&process.cgroup, "not known"))?;
    for passed in &explained.passed {
        writeln!(
            out,
            "  passed      {}: {}: {}",
            place(&passed.rule),
            printable(&passed.field),
            printable(&passed.reason)
        )?;
    }
    for rule in &explained.audit {
        writeln!(out, "  audit       {}", place(rule))?;
    }
    for note in &explained.notes {
        writeln!(out, "  ! {}", printable(note))?;
    }
    Ok(())
}

/// A rule, and where it stands.
fn place(rule: &RuleAt) -> String {
    let line = match rule.line {
        Some(line) => format!("line {line}"),
        None => "temporary".to_owned(),
    };
    format!(
        "\"{}\" ({}, {line})",
        printable(&rule.name),
        printable(&rule.action)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::policy::explain::{Explainee, Passed};

    #[test]
    fn a_destination_is_an_address_and_a_port() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(destination("10.0.0.1:443"), Ok((ip("10.0.0.1"), 443)));
        assert_eq!(destination("[::1]:53"), Ok((ip("::1"), 53)));
        assert_eq!(destination("::1"), Ok((ip("::1"), 0)));
        assert!(destination("host:443").is_err());
    }

    #[test]
    fn reasons_are_listed_and_made_printable() {
        let rule = |name: &str, action: &str| RuleAt {
            name: name.to_owned(),
            action: action.to_owned(),
            line: Some(4),
        };
        let explained = Explained {
            generation: 2,
            sha256: "ab".to_owned(),
            verdict: "deny".to_owned(),
            rule: Some(rule("b", "deny")),
            why: "rule \"b\" is the first to match, and its action is deny".to_owned(),
            process: Explainee {
                pid: 7,
                executable: Some("/bin/a\x1b".to_owned()),
                ..Explainee::default()
            },
            passed: vec![Passed {
                rule: rule("a", "allow"),
                field: "process.uid".to_owned(),
                reason: "0".to_owned(),
                certain: true,
            }],
            ..Explained::default()
        };
        let mut out = Vec::new();
        text(&explained, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        for line in [
            "deny: rule \"b\" is the first to match, and its action is deny\n",
            "  policy      ab, generation 2\n",
            "  process     7 /bin/a\\u{1b}\n",
            "  passed      \"a\" (allow, line 4): process.uid: 0\n",
        ] {
            assert!(out.contains(line), "{line:?} is not in:\n{out}");
        }
    }
}

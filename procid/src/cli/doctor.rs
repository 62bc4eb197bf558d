//! `procid doctor`: what this kernel allows, tried and not read.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::{
    failure::{Code, Failure},
    output::printable,
};
use crate::{
    agent::settings::{Args, Backend},
    kernel::{self, Probe},
};

/// Try what procid needs of this kernel, and say how to get what it refuses.
///
/// Every hook is loaded and attached for a moment, to a cgroup of its own, and
/// taken away again. Exit code 0 only when `procid run` could start here, else 3.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// The cgroup v2 directory to try in [default: the root, wherever mounted].
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
}

impl Doctor {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let probes = kernel::probe(&kernel::Options {
            cgroup: self.cgroup,
            backend: Backend::Auto,
            args: Args::Full,
        });
        let mut out = io::stdout().lock();
        let written = if self.json {
            json(&probes, &mut out)
        } else {
            text(&probes, &mut out)
        };
        written
            .and_then(|()| out.flush())
            .map_err(|error| Failure::of_stdout(&error))?;
        Ok(if blocking(&probes).next().is_none() {
            Code::Done
        } else {
            Code::Refused
        })
    }
}

/// What was refused that procid cannot run without.
fn blocking(probes: &[Probe]) -> impl Iterator<Item = &Probe> {
    probes
        .iter()
        .filter(|probe| probe.required && probe.result.is_err())
}

fn text(probes: &[Probe], out: &mut impl Write) -> io::Result<()> {
    for probe in probes {
        let (mark, answer) = match &probe.result {
            Ok(answer) => ("ok", answer),
            Err(refusal) if probe.required => ("FAILED", refusal),
            Err(refusal) => ("without", refusal),
        };
        writeln!(
            out,
            "{mark:<8} {}: {}",
            printable(&probe.what),
            printable(answer)
        )?;
        writeln!(out, "         {}", printable(&probe.means))?;
        if let (Err(_), Some(remedy)) = (&probe.result, &probe.remedy) {
            writeln!(out, "         remedy: {}", printable(remedy))?;
        }
    }
    writeln!(out)?;
    let refused: Vec<_> = probes
        .iter()
        .filter(|probe| probe.result.is_err())
        .map(|probe| printable(&probe.what))
        .collect();
    if let Some(first) = blocking(probes).next() {
        writeln!(
            out,
            "procid run cannot start here ({}); what depends on it was not tried.",
            printable(&first.what)
        )
    } else if refused.is_empty() {
        writeln!(
            out,
            "procid run can start here and will use all {} of these.",
            probes.len()
        )
    } else {
        writeln!(
            out,
            "procid run can start here and will use {} of these {}, going without: {}.",
            probes.len() - refused.len(),
            probes.len(),
            refused.join("; ")
        )
    }
}

fn json(probes: &[Probe], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<_> = probes
        .iter()
        .map(|probe| {
            let (ok, answer) = match &probe.result {
                Ok(answer) => (true, answer),
                Err(refusal) => (false, refusal),
            };
            serde_json::json!({
                "what": probe.what,
                "ok": ok,
                "answer": answer,
                "means": probe.means,
                "remedy": probe.remedy.as_ref().filter(|_| !ok),
                "required": probe.required,
            })
        })
        .collect();
    let can_run = blocking(probes).next().is_none();
    serde_json::to_writer(
        &mut *out,
        &serde_json::json!({ "can_run": can_run, "probes": rows }),
    )?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(required: bool, result: Result<String, String>) -> Probe {
        Probe {
            what: "read BTF".to_owned(),
            result,
            means: "offsets".to_owned(),
            remedy: Some("another kernel".to_owned()),
            required,
        }
    }

    fn print(probes: &[Probe]) -> String {
        let mut out = Vec::new();
        text(probes, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_it_can_go_without_does_not_stop_it() {
        let probes = [
            probe(true, Ok("found".to_owned())),
            probe(false, Err("EPERM".to_owned())),
        ];
        let out = print(&probes);
        assert!(out.contains("ok       read BTF: found\n"), "{out}");
        assert!(out.contains("without  read BTF: EPERM\n"), "{out}");
        assert_eq!(out.matches("remedy: another kernel").count(), 1);
        assert!(
            out.contains("will use 1 of these 2, going without: read BTF."),
            "{out}"
        );
        assert!(blocking(&probes).next().is_none());
    }

    #[test]
    fn what_it_needs_does() {
        let probes = [probe(true, Err("ENOENT".to_owned()))];
        assert!(print(&probes).contains("procid run cannot start here (read BTF)"));
        assert!(blocking(&probes).next().is_some());
        let mut out = Vec::new();
        json(&probes, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["can_run"], false);
        assert_eq!(value["probes"][0]["remedy"], "another kernel");
    }
}

//! `cargo xtask test`: everything this host can run, and what it could not.

use std::{
    ffi::OsStr,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{
    build, cargo,
    conformance::{self, Boot, Errand, cell},
    host, rooms, setup,
    vm::kernels,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only this part
    #[arg(long)]
    only: Option<Part>,
    /// On each kernel, the conformance table with each backend alone too, and
    /// nothing left out (some 20 minutes more)
    #[arg(long)]
    vms: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The rooms check, and tests that need no privilege
    Unit,
    /// Tests as root on the running kernel, in cgroups of their own
    Live,
    /// Tests as root on Debian's kernels, in virtual machines
    Vm,
}

/// What became of one part.
#[derive(Debug)]
pub(crate) struct Outcome {
    part: String,
    /// `Err`: failed, and why; `Ok(Some(_))`: skipped, and why.
    result: Result<Option<String>>,
    /// The test harness' own summary lines.
    summaries: Vec<String>,
    /// Lines of the conformance runner, one for each cell of its table.
    pub(crate) cells: Vec<String>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let wanted = |part| args.only.is_none_or(|only| only == part);
    setup::for_build()?;
    if wanted(Part::Live) || wanted(Part::Vm) {
        setup::for_tests()?;
    }
    let mut outcomes = Vec::new();
    if wanted(Part::Unit) {
        outcomes.push(part("rooms", |_| rooms()));
        outcomes.push(part("unit", unit));
    }
    if wanted(Part::Live) {
        outcomes.push(part("live", live));
        outcomes.push(part("live conformance", conformance::live));
    }
    if wanted(Part::Vm) {
        let kernels = kernels::TESTED;
        let mut boots: Vec<Boot> = kernels.map(|it| (it, Errand::Suite("vm"))).into();
        // One kernel says for all that its command line is read.
        let newest = kernels.last();
        boots.extend(newest.map(|&it| (it, Errand::Parameter("vm", "procid.protect=0"))));
        boots.extend(if args.vms {
            conformance::whole_table(&kernels)
        } else {
            conformance::short_table(&kernels)
        });
        outcomes.extend(conformance::in_vms(&boots));
    }
    if wanted(Part::Live) || wanted(Part::Vm) {
        outcomes.push(part("conformance table", |_| conformance::check(&outcomes)));
    }
    report(&outcomes)
}

/// Runs one part; a failure is kept for the end, so that all parts run.
pub(crate) fn part(
    name: &str,
    run: impl FnOnce(&mut Summaries) -> Result<Option<String>>,
) -> Outcome {
    part_among(name, Summaries::default(), run)
}

/// As [`part`], beside others whose output goes to the same place: `summaries`
/// says whose each line is.
pub(crate) fn part_among(
    name: &str,
    mut summaries: Summaries,
    run: impl FnOnce(&mut Summaries) -> Result<Option<String>>,
) -> Outcome {
    println!("==== {name}");
    let result = run(&mut summaries);
    summaries.show_rest();
    if let Err(error) = &result {
        println!("{name}: {error:#}");
    }
    Outcome {
        part: name.to_owned(),
        result,
        summaries: summaries.lines,
        cells: summaries.cells,
    }
}

/// Prints what became of each part.
///
/// # Errors
///
/// When one failed.
pub(crate) fn report(outcomes: &[Outcome]) -> Result<()> {
    println!("==== summary");
    let mut failed = Vec::new();
    for Outcome {
        part,
        result,
        summaries,
        ..
    } in outcomes
    {
        match result {
            Ok(None) => println!("{part}: passed"),
            Ok(Some(reason)) => println!("{part}: SKIPPED: {reason}"),
            Err(error) => {
                println!(
                    "{part}: FAILED: {}",
                    error.to_string().lines().next().unwrap_or_default()
                );
                failed.push(part.as_str());
            }
        }
        for line in summaries {
            println!("    {line}");
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn rooms() -> Result<Option<String>> {
    let files = rooms::check(&host::root().join("procid/src"))?;
    println!("{files} files need no kernel, and name neither aya nor crate::kernel");
    Ok(None)
}

fn unit(summaries: &mut Summaries) -> Result<Option<String>> {
    let mut tests = cargo::cargo();
    tests.args(["test", "--workspace", "--no-fail-fast"]);
    tests.args(["--exclude", "procid-ebpf", "--exclude", "procid-tests"]);
    summaries.stream(&mut tests)?;
    Ok(None)
}

fn live(summaries: &mut Summaries) -> Result<Option<String>> {
    if let Some(reason) = host::no_root_because() {
        return Ok(Some(reason));
    }
    let procid = build::procid()?;
    let program = build::test_program()?;
    let suite = build::test_suite("live")?;
    let env = [
        ("PROCID_BIN", procid.as_os_str()),
        ("PROCID_TESTPROG", program.as_os_str()),
        ("RUST_BACKTRACE", OsStr::new("1")),
    ];
    let mut tests = host::as_root(&suite, &env)?;
    // Where cargo would start them.
    tests.current_dir(host::root().join("tests"));
    summaries.stream(tests.arg("--test-threads=1"))?;
    Ok(None)
}

/// Passes test output on to stdout and keeps the harness' summary lines, and the
/// cells of the conformance table.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    lines: Vec<String>,
    cells: Vec<String>,
    /// A line that has not ended yet.
    partial: Vec<u8>,
    /// Before each line, of a part that runs beside others.
    label: Option<String>,
    /// Of such a part, what is shown when its line ends.
    held: Vec<u8>,
}

impl Summaries {
    /// Of a part that runs beside others: its lines are shown whole, each after
    /// `label`.
    pub(crate) fn labelled(label: String) -> Self {
        Self {
            label: Some(label),
            ..Self::default()
        }
    }

    /// Runs `command` and takes its stdout.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub(crate) fn stream(&mut self, command: &mut Command) -> Result<()> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdout = child.stdout.take().context("a child without stdout")?;
        let mut reader = BufReader::new(stdout);
        loop {
            let bytes = reader.fill_buf()?;
            let length = bytes.len();
            if length == 0 {
                break;
            }
            self.take(bytes)?;
            reader.consume(length);
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("the tests ended with {status}");
        }
        Ok(())
    }

    /// Takes a piece of output.
    ///
    /// # Errors
    ///
    /// When stdout is closed.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let shown = self.show(bytes);
        let mut stdout = io::stdout().lock();
        stdout.write_all(&shown)?;
        stdout.flush()
    }

    /// Keeps what is to be kept and returns what can be shown now.
    fn show(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = self.keep(bytes);
        if let Some(label) = &self.label {
            self.held.append(&mut shown);
            let whole = self.held.iter().rposition(|&byte| byte == b'\n');
            let rest = self.held.split_off(whole.map_or(0, |end| end + 1));
            for line in self.held.split_inclusive(|&byte| byte == b'\n') {
                shown.extend_from_slice(label.as_bytes());
                shown.extend_from_slice(line);
            }
            self.held = rest;
        }
        shown
    }

    /// Shows a line that never ended: it may name the test that hung.
    fn show_rest(&mut self) {
        if !self.held.is_empty() {
            // The outcome is told all the same.
            let _closed = self.take(b"\n");
        }
    }

    /// Keeps what is to be kept and returns what is to be shown: all but the
    /// cells, a thousand lines that would bury a failure. A line that has not
    /// ended is shown as far as it goes: it names the test that hangs.
    fn keep(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.partial.push(byte);
            let may_be_cell = self.partial.first() == Some(&b'{');
            if !may_be_cell {
                shown.push(byte);
            }
            if byte != b'\n' {
                continue;
            }
            let line = String::from_utf8_lossy(&self.partial).trim().to_owned();
            if line.starts_with(cell::START) {
                self.cells.push(line);
            } else {
                if may_be_cell {
                    shown.extend_from_slice(&self.partial);
                }
                if line.starts_with("test result:") {
                    self.lines.push(line);
                }
            }
            self.partial.clear();
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lines_are_kept_however_the_output_is_cut() {
        let output = b"running 2 tests\r\n{\"path\":\"x\"}\r\n{not}\r\n\r\ntest result: ok. 2 passed\r\ntest b ... ";
        let expected = b"running 2 tests\r\n{not}\r\n\r\ntest result: ok. 2 passed\r\ntest b ... ";
        for size in 1..=output.len() {
            let mut summaries = Summaries::default();
            let shown: Vec<u8> = output
                .chunks(size)
                .flat_map(|piece| summaries.keep(piece))
                .collect();
            assert_eq!(shown, expected);
            assert_eq!(summaries.lines, ["test result: ok. 2 passed"]);
            assert_eq!(summaries.cells, [r#"{"path":"x"}"#]);
        }
    }

    #[test]
    fn lines_of_parts_that_run_at_once_are_shown_whole() {
        let mut summaries = Summaries::labelled("7.3  | ".to_owned());
        let pieces = ["a\nb", "c\n", "{\"path\":\"x\"}\nd", "\n"];
        let shown: Vec<_> = pieces
            .map(|piece| String::from_utf8(summaries.show(piece.as_bytes())).unwrap())
            .into();
        assert_eq!(shown, ["7.3  | a\n", "7.3  | bc\n", "", "7.3  | d\n"]);
    }

    #[test]
    fn one_failed_part_fails_the_run_and_a_skipped_one_does_not() {
        let outcome = |result| Outcome {
            part: "x".to_owned(),
            result,
            summaries: Vec::new(),
            cells: Vec::new(),
        };
        report(&[outcome(Ok(None)), outcome(Ok(Some("why".to_owned())))]).unwrap();
        report(&[outcome(Err(anyhow::anyhow!("broken"))), outcome(Ok(None))]).unwrap_err();
    }
}

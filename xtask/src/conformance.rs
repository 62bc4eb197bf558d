//! `cargo xtask conformance`: every path, and the same denied, on every kernel
//! and backend, and the page that shows what became of each.

pub(crate) mod cell;
mod page;

use std::{
    ffi::{OsStr, OsString},
    fmt, fs,
    num::NonZero,
    panic::resume_unwind,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, ScopedJoinHandle, available_parallelism},
};

use anyhow::{Context as _, Result, bail};

use self::cell::Cell;
use crate::{
    build, host, process, setup,
    test::{self, Outcome, Summaries},
    vm::{self, kernels},
};

/// Sizes that the paths of bytes move on the running kernel, and under
/// emulation.
const SIZES: [u64; 3] = [1, 65_536, 67_108_864];
const SIZES_IN_VM: [u64; 2] = [1, 65_536];
/// Runs at random, under load.
const INTERLEAVED: &str = "100";
/// The backends that a virtual machine's kernel can have.
const BACKENDS_IN_VM: [&str; 3] = ["auto", "cgroup", "lsm"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write docs/CONFORMANCE.md anew
    #[arg(long)]
    write: bool,
    /// Run only on this kernel: live, 6.1, …; may be repeated
    #[arg(long = "kernel", value_name = "KERNEL", conflicts_with = "write")]
    kernels: Vec<String>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    setup::for_build()?;
    setup::for_tests()?;
    let wanted = |kernel: &str| args.kernels.is_empty() || args.kernels.iter().any(|k| k == kernel);
    let mut outcomes = Vec::new();
    if wanted("live") {
        outcomes.push(test::part("live", live));
    }
    let kernels: Vec<_> = kernels::TESTED
        .into_iter()
        .filter(|it| wanted(it))
        .collect();
    outcomes.extend(in_vms(&whole_table(&kernels)));
    if args.write {
        write(&outcomes)?;
    } else {
        outcomes.push(test::part("table", |_| check(&outcomes)));
    }
    test::report(&outcomes)
}

/// Every path on the running kernel, then some at random.
///
/// # Errors
///
/// When a record is missing or wrong.
pub(crate) fn live(summaries: &mut Summaries) -> Result<Option<String>> {
    if let Some(reason) = host::no_root_because() {
        return Ok(Some(reason));
    }
    let (procid, program) = (build::procid()?, build::test_program()?);
    let suite = build::test_suite("conformance")?;
    let env = [
        ("PROCID_BIN", procid.as_os_str()),
        ("PROCID_TESTPROG", program.as_os_str()),
    ];
    let release = process::capture(Command::new("uname").arg("-r"))?;
    let version: Vec<&str> = release.split('.').take(2).collect();
    let mut table = host::as_root(&suite, &env)?;
    table.args(["--json", "--backend", "cgroup", "--kernel"]);
    table.arg(format!("live {}", version.join(".")));
    table.args(SIZES.map(|size| format!("--size={size}")));
    let mut denied = host::as_root(&suite, &env)?;
    denied.args(["--json", "--backend", "cgroup", "--denied", "--kernel"]);
    denied.arg(format!("live {}", version.join(".")));
    let mut random = host::as_root(&suite, &env)?;
    random.args(["--backend", "cgroup", "--interleave", INTERLEAVED]);
    // A path that fails would hide what the others do under load.
    let done = [&mut table, &mut denied, &mut random].map(|part| summaries.stream(part));
    done.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(None)
}

/// What one virtual machine is booted for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Errand {
    /// A test suite.
    Suite(&'static str),
    /// Those of its tests that are ignored but where the kernel has this
    /// parameter.
    Parameter(&'static str, &'static str),
    /// Every path with one backend, and the same denied.
    Table(&'static str),
}

impl fmt::Display for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Suite(_) => "suite",
            Self::Parameter(..) => "parameter",
            Self::Table(backend) => backend,
        })
    }
}

/// A kernel, and what it is booted for.
pub(crate) type Boot = (&'static str, Errand);

/// The boots of every kernel's whole table.
pub(crate) fn whole_table(kernels: &[&'static str]) -> Vec<Boot> {
    let of_kernel =
        |&kernel: &&'static str| BACKENDS_IN_VM.map(|backend| (kernel, Errand::Table(backend)));
    kernels.iter().flat_map(of_kernel).collect()
}

/// Those of every kernel with all its backends at once, and of each backend
/// alone where it differs most: the oldest kernel for LSM, which lacks hooks
/// there, and the newest for cgroups, which has most there. What they leave out
/// is in [`whole_table`].
pub(crate) fn short_table(kernels: &[&'static str]) -> Vec<Boot> {
    let mut boots: Vec<_> = kernels
        .iter()
        .map(|&kernel| (kernel, Errand::Table("auto")))
        .collect();
    boots.extend(
        kernels
            .first()
            .map(|&oldest| (oldest, Errand::Table("lsm"))),
    );
    boots.extend(
        kernels
            .last()
            .map(|&newest| (newest, Errand::Table("cgroup"))),
    );
    boots
}

/// Runs them in virtual machines, as many at once as this host has processors.
pub(crate) fn in_vms(boots: &[Boot]) -> Vec<Outcome> {
    let at_once = available_parallelism()
        .map_or(1, NonZero::get)
        .min(boots.len());
    let next = AtomicUsize::new(0);
    let machine = || {
        let mut outcomes = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(kernel, errand)) = boots.get(index) else {
                return outcomes;
            };
            let name = format!("{kernel} {errand}");
            let output = Summaries::labelled(format!("{name:<12}| "));
            let outcome = test::part_among(&format!("vm {name}"), output, |summaries| {
                in_vm(kernel, errand, summaries)
            });
            outcomes.push((index, outcome));
        }
    };
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let machines: Vec<_> = (0..at_once).map(|_| scope.spawn(machine)).collect();
        let ended = machines.into_iter().map(ScopedJoinHandle::join);
        ended
            .flat_map(|outcomes| outcomes.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// # Errors
///
/// When the suite fails, or a record is missing or wrong.
fn in_vm(kernel: &str, errand: Errand, summaries: &mut Summaries) -> Result<Option<String>> {
    if let Some(reason) = vm::unsupported() {
        return Ok(Some(reason));
    }
    let in_turn = ["suite", "--test-threads=1"].map(OsString::from).to_vec();
    let (suite, command) = match errand {
        Errand::Suite(suite) => (suite, in_turn),
        Errand::Parameter(suite, _) => (suite, [in_turn, vec!["--ignored".into()]].concat()),
        Errand::Table(backend) => {
            let script = "failed=0\nsuite \"$@\" || failed=1\n\
                          suite --denied \"$@\" || failed=1\nexit $failed";
            let words = ["sh", "-c", script, "sh", "--json", "--kernel", kernel];
            let mut command: Vec<OsString> = words.map(OsString::from).to_vec();
            command.push(format!("--backend={backend}").into());
            command.extend(SIZES_IN_VM.map(|size| format!("--size={size}").into()));
            ("conformance", command)
        }
    };
    let mut job = vm::Job::new(&command)?;
    job.add_file(&build::test_suite(suite)?, OsStr::new("suite"));
    if let Errand::Parameter(_, parameter) = errand {
        job.append(parameter);
    }
    let status = job.run(kernel, &mut |bytes: &[u8]| summaries.take(bytes))?;
    if status != 0 {
        bail!("the tests exited with status {status}");
    }
    Ok(None)
}

fn page_path() -> PathBuf {
    host::root().join("docs/CONFORMANCE.md")
}

fn cells(outcomes: &[Outcome]) -> Result<Vec<Cell>> {
    let lines = outcomes.iter().flat_map(|outcome| &outcome.cells);
    lines
        .filter_map(|line| Cell::parse(line).transpose())
        .collect()
}

/// Holds the cells of these outcomes to the page.
///
/// # Errors
///
/// When a cell is lost, or a row is missing.
pub(crate) fn check(outcomes: &[Outcome]) -> Result<Option<String>> {
    let now = page::levels(&cells(outcomes)?);
    if now.is_empty() {
        return Ok(Some("no path was run".to_owned()));
    }
    let path = page_path();
    let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lost = page::lost(&page::read(&page), &now);
    for sentence in &lost {
        println!("{sentence}");
    }
    if !lost.is_empty() {
        bail!(
            "{} cells are not as docs/CONFORMANCE.md has them (`cargo xtask conformance --write`)",
            lost.len()
        );
    }
    Ok(None)
}

fn write(outcomes: &[Outcome]) -> Result<()> {
    let cells = cells(outcomes)?;
    let path = page_path();
    fs::write(&path, page::write(&cells)).with_context(|| path.display().to_string())?;
    println!("{}: {} cells", path.display(), cells.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_table_has_every_kernel_and_every_backend() {
        let boots = short_table(&kernels::TESTED);
        let has = |kernel: Option<&str>, backend: &str| {
            boots.iter().any(|(of, errand)| {
                kernel.is_none_or(|kernel| kernel == *of) && errand.to_string() == backend
            })
        };
        assert!(kernels::TESTED.iter().all(|it| has(Some(it), "auto")));
        assert!(BACKENDS_IN_VM.iter().all(|backend| has(None, backend)));
        assert!(boots.len() < whole_table(&kernels::TESTED).len());
    }
}

//! The conformance table: every way out, every hand a socket passes through,
//! every byte and every image that hides, one cell for each kernel and backend.
//!
//! A path is a run of the test program under a running agent; the records of
//! every socket that it used are held to what it says it did. Run by `cargo
//! xtask conformance` and `cargo xtask test`, which set `PROCID_BIN` and
//! `PROCID_TESTPROG`, and collect the cells.
//!
//! | module | holds |
//! | --- | --- |
//! | [`paths`] | the table's rows |
//! | [`run`] | one run of the test program |
//! | [`watch`] | an agent and the runs it watches |
//! | [`told`] | its records, found by socket |
//! | [`hold`], [`detail`] | what they must say |
//! | [`cell`] | what that makes of a path |
//! | [`interleave`] | the paths at random, under load |

mod cell;
mod detail;
mod hold;
mod interleave;
mod paths;
mod run;
mod told;
mod watch;

use std::{
    fmt,
    io::{self, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use clap::Parser;
use procid_tests::records::text;

use self::{
    cell::{Cell, Verdict, verdict},
    hold::Problem,
    paths::Path,
    run::Run,
    told::Told,
    watch::Watch,
};

/// Most problems of one path that are printed: the first ones tell.
const PRINTED: usize = 12;

/// Hold procid to every path of the conformance table
#[derive(Debug, Parser)]
struct Args {
    /// Backend of the agent: auto, cgroup, lsm; may be repeated
    #[arg(long = "backend", default_value = "cgroup")]
    backends: Vec<String>,
    /// The kernel's name in the table [default: from uname]
    #[arg(long)]
    kernel: Option<String>,
    /// Only this path; may be repeated
    #[arg(long = "only", value_name = "PATH")]
    only: Vec<String>,
    /// Bytes to move on the paths of bytes; may be repeated
    #[arg(long = "size", value_name = "BYTES", default_values_t = [1, 65_536])]
    sizes: Vec<u64>,
    /// Write each cell to stdout, as a line of JSON
    #[arg(long)]
    json: bool,
    /// Instead, so many runs at random under load
    #[arg(long, value_name = "RUNS")]
    interleave: Option<usize>,
    /// Where that random order starts [default: the time]
    #[arg(long, requires = "interleave")]
    seed: Option<u64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let paths = args.paths()?;
    let mut results = Vec::new();
    for backend in &args.backends {
        results.push(match args.interleave {
            Some(count) => interleave::interleave(backend, &paths, count, args.seed()),
            None => table(&args, backend, &paths),
        });
    }
    results.into_iter().collect()
}

impl Args {
    fn paths(&self) -> Result<Vec<Path>> {
        let mut paths = paths::all();
        let unknown = |name: &&String| !paths.iter().any(|path| path.to_string() == **name);
        if let Some(name) = self.only.iter().find(unknown) {
            bail!("there is no path {name:?}");
        }
        if !self.only.is_empty() {
            paths.retain(|path| self.only.contains(&path.to_string()));
        }
        Ok(paths)
    }

    fn seed(&self) -> u64 {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH);
        self.seed
            .unwrap_or_else(|| now().map_or(0, |now| now.as_secs()))
    }

    /// `6.1` of `6.1.0-50-cloud-amd64`.
    fn kernel(&self) -> String {
        self.kernel.clone().unwrap_or_else(|| {
            let uname = rustix::system::uname();
            let release = uname.release().to_string_lossy();
            release.split('.').take(2).collect::<Vec<_>>().join(".")
        })
    }
}

/// One backend's column of the table.
fn table(args: &Args, backend: &str, paths: &[Path]) -> Result<()> {
    let watch = Watch::start(backend);
    let mut runs = Vec::new();
    for &path in paths {
        if path.has_sizes() {
            runs.extend(args.sizes.iter().map(|&size| watch.run(path, Some(size))));
        } else {
            runs.push(watch.run(path, None));
        }
    }
    let (records, app) = watch.end(&runs);
    let told = Told::new(&records, &app, &runs);
    let mut report = Report {
        is_quiet: args.json,
        ..Report::default()
    };
    // What `auto` has come to.
    let backend = records.ready().map_or_else(String::new, |ready| {
        text(ready, "/procid/backend").into_owned()
    });
    for path in paths {
        let name = path.to_string();
        let of_path: Vec<&Run> = runs
            .iter()
            .filter(|run| run.path.to_string() == name && run.path.section == path.section)
            .collect();
        let cell = Cell {
            path: name,
            what: path.what,
            section: path.section,
            kernel: args.kernel(),
            backend: backend.clone(),
            cell: verdict(&told, path, &of_path),
            bytes: of_path.iter().filter_map(|run| run.bytes).collect(),
        };
        report.take(&cell);
        if args.json {
            let mut line = serde_json::to_string(&cell)?;
            line.push('\n');
            io::stdout().lock().write_all(line.as_bytes())?;
        }
    }
    eprintln!("{} {backend}: {report}", args.kernel());
    if records.lost() > 0 {
        bail!("{backend}: {} records lost", records.lost());
    }
    report.result()
}

/// How many cells are what.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Prints failures only: the cells are told otherwise.
    is_quiet: bool,
    covered: usize,
    uncovered: usize,
    failed: usize,
    wrong_images: usize,
}

impl Report {
    fn take(&mut self, cell: &Cell) {
        let Cell {
            path,
            kernel,
            backend,
            cell: verdict,
            ..
        } = cell;
        if !self.is_quiet || matches!(verdict, Verdict::Failed(_)) {
            eprintln!("{kernel} {backend} {path}: {verdict}");
        }
        match verdict {
            Verdict::Failed(problems) => self.failed(problems),
            Verdict::NotCovered(_) => self.uncovered += 1,
            Verdict::Attributed | Verdict::Exact | Verdict::NoBytes(_) => self.covered += 1,
        }
    }

    /// Counts a failure, and prints why.
    pub(crate) fn failed(&mut self, problems: &[Problem]) {
        self.failed += 1;
        for (number, problem) in problems.iter().enumerate() {
            let (kind, sentence) = match problem {
                Problem::Missing(sentence) => ("missing", sentence),
                Problem::Wrong(sentence) => ("wrong", sentence),
                Problem::WrongImage(sentence) => {
                    self.wrong_images += 1;
                    ("WRONG IMAGE", sentence)
                }
            };
            if number < PRINTED {
                eprintln!("  {kind}: {sentence}");
            }
        }
        if let Some(more @ 1..) = problems.len().checked_sub(PRINTED) {
            eprintln!("  and {more} more");
        }
    }

    pub(crate) fn result(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("{self}");
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} covered, {} not covered, {} failed, {} wrong images",
            self.covered, self.uncovered, self.failed, self.wrong_images
        )
    }
}

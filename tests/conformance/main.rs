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
//! | [`denied`] | the same paths where a policy denies them |
//! | [`interleave`] | the paths at random, under load |

mod cell;
mod denied;
mod detail;
mod hold;
mod interleave;
mod paths;
mod run;
mod told;
mod watch;

use std::{
    collections::BTreeMap,
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
    /// Instead, deny each path by a policy
    #[arg(long, conflicts_with = "interleave")]
    denied: bool,
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
            None if args.denied => denied::table(&args, backend, &paths),
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
    let mut column = Column::run(args, backend, paths);
    for _ in 0..TRIES {
        let again = column.left_by_skips(paths);
        if again.is_empty() {
            break;
        }
        let names: Vec<_> = again.iter().map(Path::to_string).collect();
        eprintln!("programs were skipped: once more {}", names.join(", "));
        column.replace(Column::run(args, backend, &again));
    }
    let report = Report::of(args, &column.cells)?;
    let Column { backend, lost, .. } = column;
    eprintln!("{} {backend}: {report}", args.kernel());
    if !lost.is_empty() {
        bail!("{backend}: records lost: {lost:?}");
    }
    report.result()
}

/// Times that paths are run again.
const TRIES: usize = 3;

/// What one agent saw.
struct Column {
    /// What `auto` has come to.
    backend: String,
    cells: Vec<Cell>,
    /// Losses that should not have been, by cause.
    lost: BTreeMap<String, u64>,
    /// Runs of programs that the kernel skipped, as it is known to.
    skipped: u64,
}

impl Column {
    fn run(args: &Args, backend: &str, paths: &[Path]) -> Self {
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
        let backend = records.ready().map_or_else(String::new, |ready| {
            text(ready, "/procid/backend").into_owned()
        });
        let cells = paths.iter().map(|path| {
            let name = path.to_string();
            let of_path: Vec<&Run> = runs
                .iter()
                .filter(|run| run.path.to_string() == name && run.path.section == path.section)
                .collect();
            Cell {
                path: name,
                what: path.what,
                section: path.section.title(),
                kernel: args.kernel(),
                backend: backend.clone(),
                cell: verdict(&told, path, &of_path),
                bytes: of_path.iter().filter_map(|run| run.bytes).collect(),
            }
        });
        let cells = cells.collect();
        let mut lost = records.losses();
        let skipped = if preempts_tracepoints() {
            lost.remove("program-skipped").unwrap_or(0)
        } else {
            0
        };
        Self {
            backend,
            cells,
            lost,
            skipped,
        }
    }

    /// Paths whose failure a skipped program explains. An image that is wrong
    /// is explained by nothing.
    fn left_by_skips(&self, paths: &[Path]) -> Vec<Path> {
        let is_left = |cell: &&Cell| match &cell.cell {
            Verdict::Failed(problems) => !problems
                .iter()
                .any(|problem| matches!(problem, Problem::WrongImage(_))),
            _ => false,
        };
        if self.skipped == 0 {
            return Vec::new();
        }
        let left: Vec<_> = self.cells.iter().filter(is_left).collect();
        let is_left = |path: &Path| {
            left.iter()
                .any(|cell| cell.path == path.to_string() && cell.section == path.section.title())
        };
        paths.iter().filter(|path| is_left(path)).copied().collect()
    }

    /// Puts the cells of a later run in the place of the same paths' cells.
    fn replace(&mut self, later: Self) {
        self.skipped = later.skipped;
        for (cause, count) in later.lost {
            *self.lost.entry(cause).or_default() += count;
        }
        for cell in later.cells {
            let mut cells = self.cells.iter_mut();
            let same = |old: &&mut Cell| old.path == cell.path && old.section == cell.section;
            if let Some(old) = cells.find(same) {
                *old = cell;
            }
        }
    }
}

/// Whether a program on a tracepoint can be preempted, and is then skipped for
/// other tasks on its CPU: `sock_send_length` and `sock_recv_length` have no
/// second program for that; see DESIGN.
fn preempts_tracepoints() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let major = release
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    major.is_some_and(|major: u32| major >= 7)
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
    /// Prints the cells, each also as JSON where that is asked for.
    pub(crate) fn of(args: &Args, cells: &[Cell]) -> Result<Self> {
        let mut report = Self {
            is_quiet: args.json,
            ..Self::default()
        };
        for cell in cells {
            report.take(cell);
            if args.json {
                let mut line = serde_json::to_string(cell)?;
                line.push('\n');
                io::stdout().lock().write_all(line.as_bytes())?;
            }
        }
        Ok(report)
    }

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
            Verdict::Attributed
            | Verdict::Exact
            | Verdict::NoBytes(_)
            | Verdict::Denied
            | Verdict::Dropped => {
                self.covered += 1;
            }
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

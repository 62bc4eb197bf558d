//! The paths at random, several at a time, under a load of other connections.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Result, bail};
use fastrand::Rng;
use procid_tests::{listener, program::Program};

use crate::{
    Report,
    cell::{Verdict, verdict},
    paths::Path,
    run::Run,
    told::Told,
    watch::Watch,
};

/// Runs at one time.
const AT_ONCE: usize = 8;
/// Connections a second of the load, and how many at most.
const RATE: &str = "2000";
const MOST: &str = "40000";
/// Bytes that a path of bytes moves.
const BYTES: u64 = 65_536;

/// Runs `count` of `paths` under one agent, and holds it to every one.
///
/// # Errors
///
/// When a record is missing or wrong, or was lost.
pub(crate) fn interleave(backend: &str, paths: &[Path], count: usize, seed: u64) -> Result<()> {
    eprintln!("{count} runs at random, {AT_ONCE} at a time: --seed {seed}");
    let mut random = Rng::with_seed(seed);
    let chosen: Vec<Path> = (0..count)
        .filter_map(|_| random.choice(paths))
        .copied()
        .collect();
    let watch = Watch::start(backend);
    let listener = listener::Tcp::on("0.0.0.0:0");
    let port = listener.address().port().to_string();
    let load = Program::start(
        watch.cgroup(),
        &watch.app().path,
        [
            "load",
            "--sum",
            "--until-told",
            "--rate",
            RATE,
            "--count",
            MOST,
            "--port",
            &port,
        ],
    );
    let runs = run_all(&watch, &chosen);
    let summary = load.finish().summary;
    let (records, app) = watch.end(&runs);
    let told = Told::new(&records, &app, &runs);
    let mut report = Report::default();
    for run in &runs {
        let verdict = verdict(&told, &run.path, &[run]);
        if let Verdict::Failed(problems) = &verdict {
            eprintln!("{} {:?}: {verdict}", run.path, run.bytes);
            report.failed(problems);
        }
    }
    let attempts = summary.map_or(0, |summary| summary.attempts);
    eprintln!("{count} runs beside {attempts} connections: {report}");
    if records.lost() > 0 {
        bail!("{} records lost (--seed {seed})", records.lost());
    }
    report.result()
}

fn run_all(watch: &Watch, chosen: &[Path]) -> Vec<Run> {
    let next = AtomicUsize::new(0);
    let runs = Mutex::new(Vec::new());
    let work = || {
        while let Some(&path) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let run = watch.run(path, path.has_sizes().then_some(BYTES));
            runs.lock().expect("no run panics").push(run);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    runs.into_inner().expect("no run panics")
}

//! The same paths under a policy that denies them: each denied call fails with
//! `EPERM`, nothing leaves, and one record names the rule.
//!
//! Where a socket passes from one image to another, the one that takes it is
//! denied, alone: what its opener sends has left. Of all other paths nothing
//! may, not even over loopback.

use std::{collections::HashSet, fs, path::Path as FilePath, process::Command, thread};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use procid_tests::{
    records::{Records, text},
    way::{DENIED, Said},
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value;

use crate::{
    Args, Report,
    cell::{Cell, Verdict},
    hold::Problem,
    paths::{Path, Subject},
    preempts_tracepoints,
    run::Ran,
    told::{brief, uncovered},
    watch::Watch,
};

const RULE: &str = "not these";
/// The sentence of `EPERM`.
const NOT_PERMITTED: &str = "Operation not permitted";
/// How Rust's libraries end that of `EAGAIN`.
const NOTHING_CAME: &str = "(os error 11)";

/// One path, denied.
#[derive(Debug)]
struct Attempt {
    path: Path,
    end: Result<End>,
}

#[derive(Debug)]
enum End {
    /// A call of it was not permitted.
    Refused(Left),
    /// No call was refused, but nothing came of it.
    Nothing(Left),
    /// It did all that it wanted.
    Done,
    /// This kernel has no such thing: the program's own sentence.
    Unsupported(String),
}

/// Packets that left the network namespace that a program had to itself, by
/// all interfaces, loopback too.
#[derive(Clone, Copy, Debug)]
struct Left(u64);

/// One backend's column.
pub(crate) fn table(args: &Args, backend: &str, paths: &[Path]) -> Result<()> {
    let watch = Watch::start(backend);
    // Where the program puts its copies.
    let copies = watch.scratch().directory("copies");
    let mut attempts = Vec::new();
    for subject in Subject::ALL {
        let of_kind: Vec<_> = paths.iter().filter(|path| path.denied == subject).collect();
        if of_kind.is_empty() {
            continue;
        }
        deny(&watch, subject, &copies)?;
        for &&path in &of_kind {
            let end = attempt(&watch, &copies, path);
            attempts.push(Attempt { path, end });
        }
    }
    let refused = attempts
        .iter()
        .filter(|attempt| matches!(attempt.end, Ok(End::Refused(_) | End::Nothing(_))));
    let records = watch.end_of_denials(refused.count());
    let backend = records.ready().map_or_else(String::new, |ready| {
        text(ready, "/procid/backend").into_owned()
    });
    let cells: Vec<_> = paths
        .iter()
        .filter_map(|path| attempts.iter().find(|attempt| attempt.path.is(path)))
        .map(|attempt| Cell {
            path: attempt.path.to_string(),
            what: attempt.path.what,
            section: attempt.path.section.denied(),
            kernel: args.kernel(),
            backend: backend.clone(),
            cell: attempt.verdict(&records, &copies),
            bytes: Vec::new(),
        })
        .collect();
    let report = Report::of(args, &cells)?;
    eprintln!("{} {backend}, denied: {report}", args.kernel());
    let mut lost = records.losses();
    if preempts_tracepoints() {
        lost.remove("program-skipped");
    }
    ensure!(lost.is_empty(), "records lost: {lost:?}");
    report.result()
}

/// Puts a policy in force under which these may send nothing.
fn deny(watch: &Watch, subject: Subject, copies: &FilePath) -> Result<()> {
    // As policies name it.
    let name = watch.cgroup().path().file_name().unwrap_or_default();
    let cgroup = format!("cgroup = \"/{}\"", name.display());
    let process = match subject {
        Subject::Takers => format!("executable = \"{}/**\"", copies.display()),
        Subject::Speakers => format!("{cgroup}, role = \"speaker\""),
        Subject::Every | Subject::Acceptors => cgroup,
    };
    let direction = match subject {
        Subject::Acceptors => "direction = \"ingress\"\n",
        _ => "",
    };
    let file = watch.scratch().path().join("policy.toml");
    fs::write(
        &file,
        format!(
            "mode = \"enforce\"\ndefault = \"allow\"\n\n\
             [[rule]]\nname = \"{RULE}\"\naction = \"deny\"\n\
             {direction}process = {{ {process} }}\n"
        ),
    )?;
    let file = file.display().to_string();
    let output = watch.agent().ask(&["policy", "apply", &file]);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "policy apply: {said}");
    Ok(())
}

fn attempt(watch: &Watch, copies: &FilePath, path: Path) -> Result<End> {
    let app = &watch.app().path;
    let mut command = Command::new(app);
    command.args(["enter", "--loopback", "--"]).arg(app);
    command.args(path.arguments(None));
    command.env("TMPDIR", copies).env(DENIED, "1");
    let (ran, left) = alone(|| Ran::of(watch.cgroup(), &mut command))?;
    for line in ran.output.lines() {
        // Other lines tell what was done before the call that is denied.
        if let Ok(Said::Unsupported(why)) = serde_json::from_str(line) {
            return Ok(End::Unsupported(why.unsupported));
        }
    }
    if ran.has_succeeded() {
        Ok(End::Done)
    } else if ran.errors.contains(NOT_PERMITTED) {
        Ok(End::Refused(left))
    } else if path.is_dropped && ran.errors.contains(NOTHING_CAME) {
        Ok(End::Nothing(left))
    } else {
        bail!("{ran}");
    }
}

/// Does it in a network namespace of its own; how many packets left there.
fn alone<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<(T, Left)> {
    let in_thread = || {
        // SAFETY: descriptors stay as they are.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare(CLONE_NEWNET)")?;
        let done = act()?;
        Ok((done, Left(packets_sent()?)))
    };
    let joined = thread::scope(|scope| scope.spawn(in_thread).join());
    joined.map_err(|_| anyhow!("a thread has panicked"))?
}

/// By all interfaces of the thread's network namespace.
fn packets_sent() -> Result<u64> {
    /// After the interface's name.
    const SENT: usize = 9;
    let table = fs::read_to_string("/proc/thread-self/net/dev")?;
    let mut sum = 0;
    for line in table.lines().skip(2) {
        let (_, counts) = line.split_once(':').context("no interface")?;
        let sent = counts.split_whitespace().nth(SENT);
        sum += sent.context("no count of packets")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// The images that were run on a path, and all that come from them.
struct Family(HashSet<String>);

impl Family {
    /// No two paths have the same arguments.
    fn of(records: &Records, path: &Path) -> Self {
        let arguments: Vec<_> = path.arguments(None).into_iter().map(Value::from).collect();
        let births = records.of_action("exec").filter(|birth| {
            let told = birth.pointer("/process/args").and_then(Value::as_array);
            told.is_some_and(|told| told.ends_with(&arguments))
        });
        Self(
            births
                .map(|birth| text(birth, "/process/entity_id").into_owned())
                .collect(),
        )
    }

    fn has(&self, record: &Value) -> bool {
        let ancestry = record.pointer("/procid/ancestry").and_then(Value::as_array);
        let mut line = ancestry.into_iter().flatten().filter_map(Value::as_str);
        self.0.contains(&*text(record, "/process/entity_id")) || line.any(|id| self.0.contains(id))
    }
}

/// A failure, unless the agent has said that it cannot deny this path.
fn not_denied(path: &Path, records: &Records, what: &str) -> Verdict {
    match uncovered(records, path.undeniable) {
        Some(reason) => Verdict::NotCovered(reason),
        None => Verdict::Failed(vec![Problem::Wrong(what.to_owned())]),
    }
}

impl Attempt {
    fn verdict(&self, records: &Records, copies: &FilePath) -> Verdict {
        let left = match &self.end {
            Ok(End::Refused(left) | End::Nothing(left)) => *left,
            Ok(End::Unsupported(reason)) => return Verdict::NotCovered(reason.clone()),
            Ok(End::Done) => return not_denied(&self.path, records, "nothing was denied"),
            Err(error) => return not_denied(&self.path, records, &format!("{error:#}")),
        };
        let problems = self.problems(records, copies, left);
        match &self.end {
            _ if !problems.is_empty() => Verdict::Failed(problems),
            Ok(End::Nothing(_)) => Verdict::Dropped,
            _ => Verdict::Denied,
        }
    }

    fn problems(&self, records: &Records, copies: &FilePath, left: Left) -> Vec<Problem> {
        let mut problems = Vec::new();
        if left.0 > 0 && self.path.denied == Subject::Every {
            problems.push(Problem::Wrong(format!("{} packets left", left.0)));
        }
        let family = Family::of(records, &self.path);
        let denials: Vec<_> = records
            .denials()
            .filter(|record| family.has(record))
            .collect();
        if denials.is_empty() {
            problems.push(Problem::Missing("no record of the denial".to_owned()));
        }
        // Who is not told goes on.
        let is_told = !matches!(self.end, Ok(End::Nothing(_)));
        for record in denials.iter().skip(1).filter(|_| is_told) {
            let sentence = format!("another denial: {}", brief(record));
            problems.push(Problem::Wrong(sentence));
        }
        for record in denials {
            if text(record, "/rule/name") != RULE {
                let sentence = format!("not the rule: {}", brief(record));
                problems.push(Problem::Wrong(sentence));
            }
            let executable = text(record, "/process/executable").into_owned();
            let role = text(record, "/procid/role");
            let is_subject = match self.path.denied {
                Subject::Every => true,
                Subject::Acceptors => role == "acceptor",
                Subject::Takers => FilePath::new(&executable).starts_with(copies),
                Subject::Speakers => role == "speaker",
            };
            if !is_subject {
                problems.push(Problem::WrongImage(brief(record)));
            }
        }
        problems
    }
}

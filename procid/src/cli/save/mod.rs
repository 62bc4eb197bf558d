//! `procid save`: a running image, put aside for a case.
//!
//! | module | holds |
//! | --- | --- |
//! | [`process`] | the running process, held so that it cannot become another one |
//! | [`folder`] | the directory made for it, into which nothing is written twice |
//! | [`manifest`] | what was saved, and how sure it is |
//!
//! Nothing that the kernel tells of a process has its entity id in it, but the
//! agent knows each image's end: one that it said runs, before and after a
//! process's files were opened, ran in that process all the time between.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    AgentSocket,
    failure::{Code, Failure},
    output::{count, printable},
};
use crate::{
    api::client::Client,
    flow::Query,
    records::{Record, escape::escape},
    time::rfc3339_ns,
};

pub mod folder;
pub mod manifest;
pub mod process;

use folder::Folder;
use manifest::{Expected, Image, Manifest};
use process::Process;

/// Save a running process image for a case file: a copy of what runs, although
/// it may be deleted or have never been a file, its memory map, arguments,
/// connections and hashes.
///
/// Its environment is not saved: it holds secrets. The directory is made, mode
/// 0700, and must not exist. Exit code 1 when the image has ended, or when what
/// was copied is not what was recorded, which is said.
#[derive(Debug, clap::Args)]
pub struct Save {
    /// The image's entity id, as 'procid ps' and records name it.
    #[arg(value_name = "ENTITY")]
    entity: String,
    /// The directory to make.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    socket: AgentSocket,
}

impl Save {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let client = Client::new(self.socket.socket.clone());
        let runtime = super::runtime()?;
        let record = runtime.block_on(self.running(&client))?;
        let pid = record.process.as_ref().and_then(|process| process.pid);
        let pid = pid.ok_or_else(|| self.none("its pid is not known"))?;
        let process = Process::open(pid).map_err(|error| unreadable(pid, &error))?;
        let mut exe = process.exe().map_err(|error| unreadable(pid, &error))?;
        // Still running: what has just been opened is its own.
        let record = runtime.block_on(self.running(&client)).and(Ok(record))?;

        let folder =
            Folder::make(&self.output).map_err(|error| unwritable(&self.output, &error))?;
        let put = |error: io::Error| unwritable(&self.output, &error);
        let mut manifest = Manifest {
            saved: now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            entity_id: self.entity.clone(),
            pid,
            link: exe.link.clone(),
            ..Manifest::default()
        };
        let copied = folder.copy("exe", &mut exe.file).map_err(put)?;
        let image = Image {
            inode: exe.inode,
            sha256: copied.sha256.clone(),
        };
        manifest.compare(&image, &Expected::of(&record));
        manifest.files.push(copied);
        for name in ["maps", "cmdline"] {
            match process.read(name) {
                Ok(bytes) => manifest.files.push(folder.put(name, &bytes).map_err(put)?),
                Err(error) => manifest.missing(name, &error.to_string()),
            }
        }
        let text = pretty(&record)?;
        manifest
            .files
            .push(folder.put("process.json", &text).map_err(put)?);
        let connections = runtime.block_on(self.connections(&client, pid))?;
        manifest.connections = connections.iter().filter(|it| is_use(it)).count();
        let lines = ndjson(&connections)?;
        manifest
            .files
            .push(folder.put("connections.ndjson", &lines).map_err(put)?);
        folder
            .put("manifest.json", &pretty(&manifest)?)
            .map_err(put)?;
        folder.finish().map_err(put)?;
        tell(&manifest, &self.output).map_err(|error| Failure::of_stdout(&error))?;
        Ok(if manifest.differs.is_empty() {
            Code::Done
        } else {
            Code::Nothing
        })
    }

    /// The image's record, where it runs.
    async fn running(&self, client: &Client) -> Result<Record, Failure> {
        let record = client.process(&self.entity).await?;
        let record = record.ok_or_else(|| self.none("no such image is known"))?;
        let ended = record.process.as_ref().and_then(|it| it.end.as_deref());
        match ended {
            None => Ok(record),
            Some(end) => Err(self.none(&format!("it ended at {}", super::output::local(end)))),
        }
    }

    fn none(&self, why: &str) -> Failure {
        Failure::nothing(format!(
            "{}: {why}; 'procid ps' lists the images that run",
            printable(&self.entity)
        ))
    }

    /// What is known of its connections, open and ended; the last record says
    /// what that could miss.
    async fn connections(&self, client: &Client, pid: u32) -> Result<Vec<Record>, Failure> {
        let query = Query {
            pid: Some(pid),
            ..Query::default()
        };
        let mut answer = client.who(&query).await?;
        let mut records = Vec::new();
        while let Some(record) = answer.next().await? {
            let process = record.process.as_ref();
            let entity = process.and_then(|process| process.entity_id.as_deref());
            if entity == Some(self.entity.as_str()) || !is_use(&record) {
                records.push(record);
            }
        }
        Ok(records)
    }
}

/// It is not the record that says what the others cover.
fn is_use(record: &Record) -> bool {
    record
        .procid
        .as_ref()
        .is_none_or(|it| it.coverage.is_none())
}

fn now() -> String {
    let now = Timestamp::now().as_nanosecond();
    rfc3339_ns(i64::try_from(now).unwrap_or(i64::MAX))
}

fn pretty(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| no_text(&error))?;
    text.push(b'\n');
    Ok(text)
}

fn ndjson(records: &[Record]) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record).map_err(|error| no_text(&error))?;
        text.push(b'\n');
    }
    Ok(text)
}

fn no_text(error: &serde_json::Error) -> Failure {
    Failure::refused(format!("what is known cannot be written: {error}"))
}

fn unreadable(pid: u32, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::refused(format!(
            "process {pid} cannot be read: {error}; run it as root (CAP_SYS_PTRACE)"
        )),
        _ => Failure::nothing(format!("process {pid} cannot be read: {error}")),
    }
}

fn unwritable(directory: &Path, error: &io::Error) -> Failure {
    let at = escape(directory.as_os_str().as_encoded_bytes()).into_owned();
    match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(format!(
            "{at} exists; nothing is overwritten: give a directory that does not"
        )),
        _ => Failure::refused(format!("cannot write to {at}: {error}")),
    }
}

/// What was saved, for people.
fn tell(manifest: &Manifest, directory: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let at = escape(directory.as_os_str().as_encoded_bytes()).into_owned();
    writeln!(
        out,
        "saved {} of process {} to {at}: {}, {}; its environment is not saved",
        printable(&manifest.entity_id),
        manifest.pid,
        count(manifest.files.len() as u64, "file"),
        count(manifest.connections as u64, "connection"),
    )?;
    writeln!(out, "  exe        {}", printable(&manifest.link))?;
    writeln!(out, "  sha256     {}", manifest.verdict())?;
    for why in &manifest.differs {
        writeln!(out, "  differs    {}", printable(why))?;
    }
    for (name, why) in &manifest.not_saved {
        writeln!(out, "  not saved  {name}: {}", printable(why))?;
    }
    out.flush()
}

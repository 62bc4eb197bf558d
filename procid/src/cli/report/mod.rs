//! `procid report`: what `who` answers, as one page for a case file.
//!
//! | module | holds |
//! | --- | --- |
//! | [`case`] | what was found, and the tree of its process images |
//! | [`page`] | the page: completeness, timeline, tree, tables |
//! | [`timeline`] | the picture of when each image spoke |
//! | [`words`] | what several parts of the page say in the same way |
//!
//! The page is whole without a script: tables, tree and picture are in it as
//! they are. A script that filters and sorts the tables is the only one that the
//! page's own policy lets run, by its hash.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    AgentSocket,
    failure::{Code, Failure},
    output::{count, printable},
    who::{self, question::Question},
};
use crate::{
    agent::recall::join,
    api::client::{Client, ClientError},
    records::Record,
    time::rfc3339_ns,
};

pub mod case;
pub mod page;
pub mod timeline;
pub mod words;

use case::Case;

/// Images before those that were found which an agent is asked for, at most.
const IMAGES_MAX: usize = 2_000;

/// Write what is known of connections as one page for a case file: timeline,
/// process tree, tables, and what is missing in it.
///
/// The page needs nothing but a browser, and fetches nothing. It holds command
/// lines: the file is made with mode 0600, and must not exist. Exit code 1 when
/// nothing matched; the page then says what was covered.
#[derive(Debug, clap::Args)]
pub struct Report {
    #[command(flatten)]
    question: Question,
    /// The file to make.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Ask no agent, but the history in this state directory, such as a copy;
    /// nothing in it is changed.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: AgentSocket,
}

impl Report {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let query = self.question.query()?;
        let (records, images) = match &self.state_dir {
            Some(state_dir) => {
                let reader = who::history_in(state_dir)?;
                join::with_images(&reader, &query)
                    .map_err(|error| Failure::usage(format!("--state-dir: {error}")))?
            }
            None => {
                let client = Client::new(self.socket.socket);
                match super::runtime()?.block_on(of_agent(&client, &query)) {
                    Err(ClientError::NoAgent { .. }) => (who::of_kernel(&query)?, Vec::new()),
                    answered => answered?,
                }
            }
        };
        let case = Case::new(query, records, images);
        let made = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let page = page::page(&case, &rfc3339_ns(made)).into_string();
        write(&self.output, page.as_bytes())?;
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{}: {}, {}, sha256 {:x}",
            printable(&self.output.to_string_lossy()),
            count(case.connections.len() as u64, "connection"),
            count(case.tree.images() as u64, "process image"),
            Sha256::digest(page.as_bytes()),
        )
        .map_err(|error| Failure::of_stdout(&error))?;
        Ok(if case.connections.is_empty() {
            Code::Nothing
        } else {
            Code::Done
        })
    }
}

/// The answer, and the images before those that it names.
async fn of_agent(
    client: &Client,
    query: &crate::flow::Query,
) -> Result<(Vec<Record>, Vec<Record>), ClientError> {
    let mut answer = client.who(query).await?;
    let mut records = Vec::new();
    while let Some(record) = answer.next().await? {
        records.push(record);
    }
    let mut images = Vec::new();
    for entity in case::ancestors(&records).into_iter().take(IMAGES_MAX) {
        images.extend(client.process(&entity).await?);
    }
    Ok((records, images))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = path.display().to_string();
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::usage(format!(
            "--output: {name} exists; a report is not written over: give another name"
        )),
        ErrorKind::PermissionDenied => {
            Failure::refused(format!("--output: cannot write {name}: {error}"))
        }
        _ => Failure::usage(format!("--output: cannot write {name}: {error}")),
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

#[cfg(test)]
mod tests;

//! `procid who`: which process image is speaking on this connection.
//!
//! | module | holds |
//! | --- | --- |
//! | [`question`] | flags to a [`Query`](crate::flow::Query) |
//! | [`printer`] | records in the format asked for, and what the answer covers |
//! | [`text`] | a connection as people read it |
//! | [`hops`] | its other end, and where its request came from and went on |
//! | [`ancestors`] | the images before those that acted |
//! | [`csv`] | a connection as a line of a table |

use std::{
    collections::HashSet,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    AgentSocket,
    failure::{Code, Failure},
};
use crate::{
    agent::recall::join,
    api::client::{Client, ClientError},
    flow::Query,
    history::{Reader, reader::ReadError},
    records::{Coverage, Record},
    snapshot,
};

pub mod ancestors;
pub mod csv;
mod hops;
pub mod printer;
pub mod question;
pub mod text;

use printer::{Format, Printer};

/// How often `--follow` asks for news.
const POLL: Duration = Duration::from_millis(500);
/// How far each such question reaches back before the last one: a connection
/// is told of up to a second after it began, when its outcome is known.
const OVERLAP: Duration = Duration::from_secs(5);

/// Say which process image opened and used a connection, now or in the past.
///
/// The running agent answers, from memory and from its history. With none, the
/// kernel's socket table and /proc do: what is open now, marked `snapshot`.
/// Exit code 1 when nothing matched.
#[derive(Debug, clap::Args)]
pub struct Who {
    #[command(flatten)]
    question: question::Question,
    /// Records as NDJSON, the last line saying what the answer covers.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// A table with a header line. Cells that a spreadsheet would take for a
    /// formula start with an apostrophe.
    #[arg(long)]
    csv: bool,
    /// Print what matches, then what comes, until interrupted.
    #[arg(long, conflicts_with_all = ["until", "at"])]
    follow: bool,
    /// Ask no agent, but the history in this state directory, such as a copy;
    /// nothing in it is changed.
    #[arg(long, value_name = "DIR", conflicts_with = "follow")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: AgentSocket,
}

impl Who {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let query = self.question.query()?;
        let format = match (self.json, self.csv) {
            (true, _) => Format::Json,
            (_, true) => Format::Csv,
            _ => Format::Text,
        };
        let mut printer = Printer::new(format, io::stdout().lock());
        if let Some(state_dir) = &self.state_dir {
            return from_history(state_dir, &query, &mut printer);
        }
        let client = Client::new(self.socket.socket);
        let runtime = super::runtime()?;
        if self.follow {
            return runtime.block_on(follow(&client, query, &mut printer));
        }
        match runtime.block_on(from_agent(&client, &query, &mut printer)) {
            Err(Trouble::Agent(ClientError::NoAgent { .. })) => {}
            done => return done.map_err(Failure::from),
        }
        print(&of_kernel(&query)?, &mut printer)
    }
}

/// Why an answer was not printed to its end.
#[derive(Debug)]
enum Trouble {
    Agent(ClientError),
    Other(Failure),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Agent(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Agent(error) => error.into(),
            Trouble::Other(failure) => failure,
        }
    }
}

async fn from_agent<W: Write>(
    client: &Client,
    query: &Query,
    printer: &mut Printer<W>,
) -> Result<Code, Trouble> {
    let mut answer = client.who(query).await?;
    let mut covered = None;
    printer.begin()?;
    while let Some(record) = answer.next().await? {
        match coverage(&record) {
            Some(coverage) => covered = Some(coverage.clone()),
            None => {
                ask_ancestors(client, &record, printer).await?;
                printer.record(&record)?;
            }
        }
    }
    Ok(printer.end(covered.as_ref())?)
}

/// Asks for the ancestors that are to be named.
async fn ask_ancestors<W: Write>(
    client: &Client,
    record: &Record,
    printer: &mut Printer<W>,
) -> Result<(), ClientError> {
    for entity in printer.wanted(record) {
        let image = client.process(&entity).await?;
        printer.ancestors.learn(entity, image);
    }
    Ok(())
}

/// What the history in a state directory knows.
fn from_history<W: Write>(
    state_dir: &Path,
    query: &Query,
    printer: &mut Printer<W>,
) -> Result<Code, Failure> {
    let reader = history_in(state_dir)?;
    let answer = if printer.names_ancestors() {
        join::with_images(&reader, query)
    } else {
        join::alone(&reader, query).map(|records| (records, Vec::new()))
    };
    let (records, images) =
        answer.map_err(|error| Failure::usage(format!("--state-dir: {error}")))?;
    printer.ancestors.learn_all(images);
    print(&records, printer)
}

/// The history in a state directory.
pub(super) fn history_in(state_dir: &Path) -> Result<Reader, Failure> {
    Reader::open(state_dir).map_err(|error| {
        let sentence = format!("--state-dir: {error}");
        match &error {
            ReadError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Failure::refused(sentence)
            }
            _ => Failure::usage(sentence),
        }
    })
}

/// What is open now, of the kernel's socket table and /proc.
pub(super) fn of_kernel(query: &Query) -> Result<Vec<Record>, Failure> {
    snapshot::who(query).map_err(|error| {
        Failure::no_agent(format!(
            "no agent answers, and the kernel's socket table cannot be read: {error}; start \
             'procid run' or ask as root"
        ))
    })
}

fn print<W: Write>(records: &[Record], printer: &mut Printer<W>) -> Result<Code, Failure> {
    printer.begin()?;
    let mut covered = None;
    for record in records {
        match coverage(record) {
            Some(coverage) => covered = Some(coverage),
            None => printer.record(record)?,
        }
    }
    printer.end(covered)
}

/// Prints each connection once, as it is when it is first told of, up to the time
/// asked for.
async fn follow<W: Write>(
    client: &Client,
    mut query: Query,
    printer: &mut Printer<W>,
) -> Result<Code, Failure> {
    let mut seen = HashSet::new();
    printer.begin()?;
    loop {
        let asked = Timestamp::now() - OVERLAP;
        let mut answer = client.who(&query).await?;
        // What an answer no longer holds lies before `since` for good.
        let mut present = HashSet::new();
        while let Some(record) = answer.next().await? {
            if coverage(&record).is_some() {
                continue;
            }
            let key = key(&record);
            if !seen.contains(&key) && !present.contains(&key) {
                ask_ancestors(client, &record, printer).await?;
                printer.record(&record)?;
            }
            present.insert(key);
        }
        printer.flush()?;
        seen = present;
        let since = i64::try_from(asked.as_nanosecond()).unwrap_or(i64::MAX);
        let since = query.since.map_or(since, |first| first.max(since));
        if query.until.is_some_and(|until| until < since) {
            return Ok(Code::Done);
        }
        query.since = Some(since);
        tokio::time::sleep(POLL).await;
    }
}

fn coverage(record: &Record) -> Option<&Coverage> {
    record.procid.as_ref()?.coverage.as_ref()
}

/// One use of a connection by one image.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    flow_id: Option<String>,
    entity_id: Option<String>,
    role: Option<String>,
    /// Tells rows apart that have no flow id.
    timestamp: String,
}

fn key(record: &Record) -> Key {
    let procid = record.procid.as_deref();
    let flow_id = procid.and_then(|procid| procid.flow_id.clone());
    Key {
        timestamp: if flow_id.is_some() {
            String::new()
        } else {
            record.timestamp.clone()
        },
        flow_id,
        entity_id: record
            .process
            .as_ref()
            .and_then(|process| process.entity_id.clone()),
        role: procid.and_then(|procid| procid.role.clone()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        agent::handle::{Handle, Memory, Question},
        api::server,
        records::Procid,
    };

    fn row(flow_id: &str, role: &str) -> Record {
        Record {
            procid: Some(Box::new(Procid {
                flow_id: Some(flow_id.to_owned()),
                role: Some(role.to_owned()),
                ..Procid::default()
            })),
            ..Record::default()
        }
    }

    /// Gives each question its prepared answer, then stops, as an agent does.
    async fn agent(mut questions: mpsc::Receiver<Question>, answers: Vec<Vec<Record>>) {
        for records in answers {
            if let Some(Question::Who(_, sender)) = questions.recv().await {
                let memory = Memory {
                    records,
                    ..Memory::default()
                };
                sender.send(memory).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn following_prints_each_use_once_until_the_agent_stops() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let (questions, receiver) = mpsc::channel(1);
        let handle = Handle::new(questions);
        tokio::spawn(server::serve(listener, handle, std::future::pending()));
        let opened = row("1.1", "opener");
        let spoken = row("1.1", "speaker");
        let other = row("2.1", "opener");
        tokio::spawn(agent(
            receiver,
            vec![
                vec![opened.clone()],
                vec![opened.clone(), spoken.clone()],
                vec![other.clone()],
            ],
        ));
        let mut out = Vec::new();
        let mut printer = Printer::new(Format::Json, &mut out);
        let failure = follow(&Client::new(socket), Query::default(), &mut printer)
            .await
            .unwrap_err();
        assert_eq!(failure.code, Code::NoAgent);
        let printed: Vec<Record> = out
            .split(|&b| b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(printed, [opened, spoken, other]);
    }
}

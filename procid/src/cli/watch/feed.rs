//! What is there and what comes, from the agent; comes back when it does.
//!
//! The stream is read from before the first question on, so that nothing falls
//! between what is there and what comes. When the agent ends, it is asked again
//! every second, for what lies behind the last record seen. A reader of the feed
//! that stops taking stops the stream, and is told afterwards what it missed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time};

use crate::{
    api::{
        client::{Answer, Client, ClientError},
        events::Parameters,
    },
    flow::Query,
    records::Record,
};

/// Records that wait to be taken.
const AHEAD: usize = 256;
/// How often an agent that has ended is asked for.
const RETRY: Duration = Duration::from_secs(1);
/// How often the bytes of open connections are asked for, and how much longer
/// each of them makes that.
const REFRESH: Duration = Duration::from_secs(2);
const REFRESH_EACH: Duration = Duration::from_millis(10);

/// What there is to know.
#[derive(Debug)]
pub enum News {
    /// Images that run: all of them.
    Images(Vec<Record>),
    /// Connections that were open when they were asked for.
    Connections {
        asked: Instant,
        open: Open,
    },
    Record(Box<Record>),
    /// The agent does not answer, and why; it is asked again.
    Gone(String),
    /// It does again.
    Back,
}

/// Open connections, oldest first.
#[derive(Debug, Default)]
pub struct Open {
    pub records: Vec<Record>,
    /// There are more, older ones.
    pub is_cut: bool,
}

/// A feed that has not been taken from yet.
#[derive(Debug)]
pub struct Feed {
    client: Client,
    stream: Answer,
    /// Behind the last record seen.
    place: Parameters,
    waiting: VecDeque<News>,
}

/// Begins to read.
///
/// # Errors
///
/// No agent answers, or it refuses.
pub async fn begin(client: Client) -> Result<Feed, ClientError> {
    let place = Parameters::default();
    let stream = client.events(&place).await?;
    let mut feed = Feed {
        client,
        stream,
        place,
        waiting: VecDeque::new(),
    };
    feed.look().await?;
    Ok(feed)
}

impl Feed {
    /// Records as they come, and nothing of what was there before.
    ///
    /// # Errors
    ///
    /// As [`begin`]: the agent has ended, or has broken off.
    pub async fn record(&mut self) -> Result<Option<Record>, ClientError> {
        let record = self.stream.next().await?;
        if let Some(record) = &record {
            self.note(record);
        }
        Ok(record)
    }

    /// Waits until the agent answers again.
    ///
    /// # Errors
    ///
    /// It refuses.
    pub async fn come_back(&mut self) -> Result<(), ClientError> {
        loop {
            time::sleep(RETRY).await;
            match self.client.events(&self.place).await {
                Ok(stream) => {
                    self.stream = stream;
                    return Ok(());
                }
                Err(ClientError::NoAgent { .. } | ClientError::Broken { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Everything, from now on, in a task that ends with its reader.
    pub fn start(self) -> mpsc::Receiver<News> {
        let (sender, news) = mpsc::channel(AHEAD);
        tokio::spawn(self.work(sender));
        news
    }

    async fn work(mut self, sender: mpsc::Sender<News>) {
        let mut due = time::Instant::now() + REFRESH;
        loop {
            while let Some(news) = self.waiting.pop_front() {
                if let News::Connections { open, .. } = &news {
                    let each = u32::try_from(open.records.len()).unwrap_or(u32::MAX);
                    due = time::Instant::now() + REFRESH + REFRESH_EACH.saturating_mul(each);
                }
                if sender.send(news).await.is_err() {
                    return;
                }
            }
            let done = tokio::select! {
                record = self.stream.next() => match record {
                    Ok(Some(record)) => self.take(record).await,
                    Ok(None) => Err("the agent has ended".to_owned()),
                    Err(error) => Err(error.to_string()),
                },
                () = time::sleep_until(due) => self.open().await.map_err(|error| error.to_string()),
                () = sender.closed() => return,
            };
            if let Err(why) = done {
                if sender.send(News::Gone(why)).await.is_err() {
                    return;
                }
                let back = async {
                    self.come_back().await?;
                    self.look().await
                };
                let back = tokio::select! {
                    back = back => back,
                    () = sender.closed() => return,
                };
                self.waiting.push_front(match back {
                    Ok(()) => News::Back,
                    Err(error) => News::Gone(error.to_string()),
                });
            }
        }
    }

    async fn take(&mut self, record: Record) -> Result<(), String> {
        self.note(&record);
        let has_missed = record.procid.as_ref().is_some_and(|it| it.missed.is_some());
        self.waiting.push_back(News::Record(Box::new(record)));
        if has_missed {
            // What began and ended in between is not known: look again.
            self.look().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn note(&mut self, record: &Record) {
        let missed = record.procid.as_ref().and_then(|procid| procid.missed);
        let sequence = record.event.as_ref().and_then(|event| event.sequence);
        if let Some(sequence) = sequence.or(missed.map(|missed| missed.to)) {
            self.place.after = Some(sequence);
            let agent = record.agent.as_ref();
            self.place.ephemeral_id = agent.and_then(|agent| agent.ephemeral_id.clone());
        }
    }

    /// Asks for all that is there.
    async fn look(&mut self) -> Result<(), ClientError> {
        let images = collect(self.client.processes().await?).await?;
        self.waiting.push_back(News::Images(images.records));
        self.open().await
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        let asked = Instant::now();
        let answer = self.client.connections(&Query::default()).await?;
        let open = collect(answer).await?;
        self.waiting.push_back(News::Connections { asked, open });
        Ok(())
    }
}

/// An answer without its coverage.
async fn collect(mut answer: Answer) -> Result<Open, ClientError> {
    let mut open = Open::default();
    while let Some(record) = answer.next().await? {
        match record.procid.as_ref().and_then(|it| it.coverage.as_ref()) {
            Some(coverage) => open.is_cut = coverage.lost.contains_key("over-answer-limit"),
            None => open.records.push(record),
        }
    }
    Ok(open)
}

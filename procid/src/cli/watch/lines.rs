//! A record a line, as `procid run` prints them.

use std::io::{self, Write};

use tokio::signal::unix::{SignalKind, signal};

use super::feed::Feed;
use crate::{
    cli::failure::{Code, Failure},
    records::line::{Style, header, is_for_people, line},
};

/// Prints what comes until it is interrupted or nobody reads it. An agent that
/// ends is waited for, which stderr tells.
pub(super) async fn run(mut feed: Feed, mut out: impl Write) -> Result<Code, Failure> {
    let failed = |error: io::Error| Failure::refused(format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        done = print(&mut feed, &mut out) => done.map(|()| Code::Done),
        _ = interrupt.recv() => Ok(Code::Done),
        _ = terminate.recv() => Ok(Code::Done),
    }
}

async fn print(feed: &mut Feed, out: &mut impl Write) -> Result<(), Failure> {
    let style = Style::default();
    let mut put = |text: &str| {
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(|error| Failure::of_stdout(&error))
    };
    put(&header(style))?;
    loop {
        match feed.record().await {
            Ok(Some(record)) if is_for_people(&record) => put(&line(&record, style))?,
            Ok(Some(_)) => {}
            ended => {
                let why = ended.map_or_else(|error| error.to_string(), |_| "it has ended".into());
                // With stderr gone too there is nobody to tell.
                let _gone = writeln!(io::stderr(), "procid: waiting for the agent: {why}");
                feed.come_back().await?;
            }
        }
    }
}

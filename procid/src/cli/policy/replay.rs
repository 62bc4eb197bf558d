//! `procid policy replay`: what a policy would have done to history.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    super::{
        AgentSocket,
        failure::{Code, Failure},
        output::{count, local, losses, printable},
        who,
    },
    file,
};
use crate::{
    agent::recall::{join, pages::Pages},
    api::{accounts::Accounts, client::Client},
    flow::Query,
    policy::{
        Mode, Policy,
        past::lineage::Images,
        replay::{Alike, Change, Replay, Tally},
        text::parse,
    },
    records::Coverage,
    time,
};

/// Say what a policy would have done to the connections and sends of the past.
///
/// Nothing is put in force. A record has less than a decision in the kernel: an
/// executable is named by the path it was run by. Exit code 1 when there was
/// nothing to judge.
#[derive(Debug, clap::Args)]
pub struct PolicyReplay {
    /// The policy; `-` is stdin.
    file: PathBuf,
    /// From this time on: times as journalctl takes them, such as
    /// "2026-11-22 15:04", "1h ago", -5min, today.
    #[arg(long, value_name = "TIME", value_parser = time::moment, allow_hyphen_values = true)]
    since: i64,
    /// Up to this time.
    #[arg(long, value_name = "TIME", value_parser = time::moment, allow_hyphen_values = true)]
    until: Option<i64>,
    /// NDJSON instead of text: a line for each kind of act, the last one for all.
    #[arg(long)]
    json: bool,
    /// Ask no agent, but the history in this state directory, such as a copy;
    /// nothing in it is changed.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: AgentSocket,
}

impl PolicyReplay {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let (name, text) = file::read_or_stdin(&self.file).map_err(Failure::usage)?;
        let policy = parse(&text, &name, &Accounts)
            .map_err(|errors| {
                let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
                Failure::usage(lines.join("\n"))
            })?
            .policy;
        if self.until.is_some_and(|until| until < self.since) {
            return Err(Failure::usage("--since is later than --until"));
        }
        let query = Query {
            since: Some(self.since),
            until: self.until,
            ..Query::default()
        };
        let mut replay = Replay::new(&policy);
        let covered = match &self.state_dir {
            Some(state_dir) => judge_history(state_dir, query, &mut replay)?,
            None => {
                let client = Client::new(self.socket.socket);
                super::super::runtime()?.block_on(judge(&client, query, &mut replay))?
            }
        };
        let mut out = io::stdout().lock();
        let told = Told {
            name: &name,
            policy: &policy,
            replay: &replay,
            covered: covered.as_ref(),
        };
        if self.json {
            told.json(&mut out)
        } else {
            told.text(&mut out)
        }
        .and_then(|()| out.flush())
        .map_err(|error| Failure::of_stdout(&error))?;
        Ok(match replay.judged() {
            0 => Code::Nothing,
            _ => Code::Done,
        })
    }
}

/// Judges every act that the agent knows of.
async fn judge(
    client: &Client,
    query: Query,
    replay: &mut Replay<'_>,
) -> Result<Option<Coverage>, Failure> {
    let mut pages = Pages::new(query);
    let mut images = Images::default();
    loop {
        let mut answer = client.who(pages.query()).await?;
        let mut page = Vec::new();
        while let Some(record) = answer.next().await? {
            page.push(record);
        }
        for record in pages.take(page) {
            if replay.asks_ancestors() {
                while let Some(entity) = images.wanted(&record) {
                    let image = client.process(&entity).await?;
                    images.learn(entity, image);
                }
            }
            replay.judge(&record, &images);
        }
        if !pages.go_back() {
            return Ok(pages.covered());
        }
    }
}

/// Judges every act that the history in a state directory knows of.
fn judge_history(
    state_dir: &Path,
    query: Query,
    replay: &mut Replay<'_>,
) -> Result<Option<Coverage>, Failure> {
    let reader = who::history_in(state_dir)?;
    let mut pages = Pages::new(query);
    loop {
        let (page, known) = join::with_images(&reader, pages.query())
            .map_err(|error| Failure::usage(format!("--state-dir: {error}")))?;
        let mut images = Images::default();
        for image in known {
            let process = image.process.as_ref();
            if let Some(entity) = process.and_then(|process| process.entity_id.clone()) {
                images.learn(entity, Some(image));
            }
        }
        for record in pages.take(page) {
            replay.judge(&record, &images);
        }
        if !pages.go_back() {
            return Ok(pages.covered());
        }
    }
}

struct Told<'a> {
    name: &'a str,
    policy: &'a Policy,
    replay: &'a Replay<'a>,
    covered: Option<&'a Coverage>,
}

impl Told<'_> {
    fn text(&self, out: &mut impl Write) -> io::Result<()> {
        let replay = self.replay;
        let mode = match self.policy.mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit, which blocks nothing: as if it were enforce",
        };
        writeln!(out, "policy      {}, mode {mode}", printable(self.name))?;
        writeln!(
            out,
            "judged      {}: {} as they were decided, {} denied now, {} allowed now, {} not certain",
            count(replay.judged(), "act"),
            replay.unchanged,
            replay.changed(Change::Denied),
            replay.changed(Change::Allowed),
            replay.changed(Change::Uncertain),
        )?;
        for (why, count) in &replay.unjudged {
            writeln!(out, "not judged  {count}: {why}")?;
        }
        let mut shown = None;
        for (alike, tally) in replay.groups() {
            if shown != Some(alike.change) {
                shown = Some(alike.change);
                writeln!(out, "{}", title(alike.change))?;
            }
            group(alike, tally, out)?;
        }
        if replay.not_shown > 0 {
            writeln!(
                out,
                "and {} of further kinds",
                count(replay.not_shown, "act")
            )?;
        }
        match self.covered {
            Some(covered) => writeln!(
                out,
                "covered {} to {}; records lost: {}",
                covered
                    .from
                    .as_deref()
                    .map_or_else(|| "nothing before".to_owned(), local),
                local(&covered.to),
                losses(&covered.lost),
            ),
            None => writeln!(out, "what history covers is not known"),
        }
    }

    fn json(&self, out: &mut impl Write) -> io::Result<()> {
        for (alike, tally) in self.replay.groups() {
            let mut line = json!(alike);
            if let (Some(line), Some(tally)) = (line.as_object_mut(), json!(tally).as_object()) {
                line.extend(tally.clone());
            }
            writeln!(out, "{line}")?;
        }
        let replay = self.replay;
        let unjudged: serde_json::Map<_, _> = replay
            .unjudged
            .iter()
            .map(|(why, count)| (why.to_string(), json!(count)))
            .collect();
        let all = json!({
            "judged": replay.judged(),
            "unchanged": replay.unchanged,
            "denied": replay.changed(Change::Denied),
            "allowed": replay.changed(Change::Allowed),
            "uncertain": replay.changed(Change::Uncertain),
            "unjudged": unjudged,
            "not_shown": replay.not_shown,
            "coverage": self.covered,
        });
        writeln!(out, "{all}")
    }
}

const fn title(change: Change) -> &'static str {
    match change {
        Change::Denied => "DENIED NOW, and let pass then",
        Change::Allowed => "ALLOWED NOW, and denied then",
        Change::Uncertain => {
            "NOT CERTAIN: what is not known decides, and unknown_hash stands in for it"
        }
    }
}

fn group(alike: &Alike, tally: &Tally, out: &mut impl Write) -> io::Result<()> {
    let or =
        |text: &Option<String>, none: &str| printable(text.as_deref().unwrap_or(none)).into_owned();
    let hash = alike
        .sha256
        .as_deref()
        .map_or("", |hash| hash.get(..12).unwrap_or(hash));
    let to = match (alike.ip, alike.port) {
        (Some(ip), Some(port)) => std::net::SocketAddr::new(ip, port).to_string(),
        (Some(ip), None) => ip.to_string(),
        (None, _) => "no address".to_owned(),
    };
    let transport = alike
        .transport
        .as_deref()
        .map(|it| format!("/{}", printable(it)));
    writeln!(
        out,
        "{:>8}  {} {} {} {to}{}",
        tally.count,
        or(&alike.executable, "unknown"),
        printable(hash),
        match alike.role.as_deref() {
            Some("acceptor") => "accepted on",
            Some("speaker") => "spoke to",
            _ => "to",
        },
        transport.unwrap_or_default(),
    )?;
    let rule = match (&alike.rule, alike.line) {
        (Some(rule), Some(line)) => format!("rule \"{}\" (line {line})", printable(rule)),
        (Some(rule), None) => format!("rule \"{}\"", printable(rule)),
        (None, _) => "no rule: the default".to_owned(),
    };
    writeln!(
        out,
        "          {}, {rule}; {} to {}",
        alike.verdict,
        local(&tally.first),
        local(&tally.last),
    )
}

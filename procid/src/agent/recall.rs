//! Answers from history: the facts that were kept, rendered as the agent
//! renders what it knows.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
};

use procid_common::{image::ImageId, policy::NO_RULE};

use super::{
    clock::Clock,
    engine::ANSWER_MAX,
    origin::Origin,
    policy::Generations,
    render::{Frame, Renderer, Seen, Telling, absent},
    settings::Args,
};
use crate::{
    connections::{Judged, Key},
    flow::Query,
    history::{Reader, fact::Ruling, reader::PastRun, restore::PastFlow},
    identity::{
        entity::EntityId,
        images::{ANCESTRY_MAX, Images},
    },
    records::{ECS_VERSION, Ecs, Record},
    time::rfc3339_ns,
};

/// Images that are read before one that a flow names: its ancestors, and what
/// their processes ran before.
const LINE_MAX: usize = 4 * ANCESTRY_MAX;

pub mod coverage;
pub mod join;
pub mod pages;
mod peers;
#[cfg(test)]
mod tests;

/// A record of the past.
#[derive(Clone, Debug)]
pub struct Recalled {
    /// When it happened, nanoseconds since the epoch.
    pub at: i64,
    pub key: Key,
    /// `runs.id` of the run that saw it.
    pub run: i64,
    pub record: Record,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Answer<'a> {
    /// Oldest first.
    pub found: Vec<Recalled>,
    /// There was more, which is older.
    pub is_cut: bool,
    /// The runs that saw it.
    past: HashMap<i64, Past<'a>>,
}

impl Answer<'_> {
    /// Records of the images that were read for it, those before the ones that
    /// it names included.
    pub fn images(&self) -> Vec<Record> {
        let images = self.past.values().flat_map(|past| {
            let renderer = past.renderer();
            past.ids.iter().map(move |id| renderer.image(id))
        });
        images.collect()
    }
}

/// The connections of the past that match, and further images that used them;
/// those that `skip` names are left out.
///
/// # Errors
///
/// Those of reading.
pub fn recall<'a>(
    reader: &Reader,
    query: &Query,
    runs: &'a [PastRun],
    skip: impl Fn(&PastRun, &PastFlow) -> bool,
) -> rusqlite::Result<Answer<'a>> {
    let mut past: HashMap<i64, Past<'a>> = HashMap::new();
    let mut seen = HashSet::new();
    let mut answer = Answer::default();
    reader.search(query, runs, &mut |id| {
        let Some(flow) = reader.flow(id)? else {
            return Ok(ControlFlow::Continue(()));
        };
        let Some(run) = runs.iter().find(|run| run.id == flow.run) else {
            return Ok(ControlFlow::Continue(()));
        };
        if skip(run, &flow) || (!flow.is_denied_use && !seen.insert((flow.run, flow.key))) {
            return Ok(ControlFlow::Continue(()));
        }
        let past = past.entry(run.id).or_insert_with(|| Past::new(run));
        past.learn(reader, &flow)?;
        past.find_peer(reader, &flow)?;
        past.put(query, &flow, &mut answer.found);
        answer.is_cut = answer.found.len() > ANSWER_MAX;
        Ok(if answer.is_cut {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    answer.found.sort_by_key(|one| (one.at, one.key));
    let over = answer.found.len().saturating_sub(ANSWER_MAX);
    answer.found.drain(..over);
    answer.past = past;
    Ok(answer)
}

/// The record of an image of the past; `None`: history does not know it.
///
/// # Errors
///
/// Those of reading.
pub fn image(reader: &Reader, entity: EntityId) -> rusqlite::Result<Option<Record>> {
    let Some((number, run)) = reader.named(entity)? else {
        return Ok(None);
    };
    let runs = reader.runs()?;
    let Some(run) = runs.iter().find(|it| it.id == run) else {
        return Ok(None);
    };
    let mut past = Past::new(run);
    past.learn_image(reader, number)?;
    let within = reader.image(number)?.map(|image| image.within);
    Ok(past.ids.first().map(|id| {
        let image = past.images.get(id);
        let mut record = past.renderer().image(id);
        if let (Some(within), Some(image)) = (within, image) {
            within.put(&mut record, image.actor.creds.euid);
        }
        record
    }))
}

/// One run, as far as it is needed.
#[derive(Debug)]
struct Past<'a> {
    run: &'a PastRun,
    frame: Frame,
    images: Images,
    known: HashSet<i64>,
    /// Of the images that are known.
    ids: Vec<ImageId>,
    local: peers::Local,
}

impl<'a> Past<'a> {
    fn new(run: &'a PastRun) -> Self {
        let of = &run.run;
        Self {
            run,
            frame: Frame {
                boot_id: of.boot_id,
                origin: Origin {
                    ecs: Ecs {
                        version: ECS_VERSION.to_owned(),
                    },
                    host: of.host.clone(),
                    agent: of.agent.clone(),
                },
                args: if of.keeps_args {
                    Args::Full
                } else {
                    Args::None
                },
                clock: Clock::restored(of.first_offset, of.offset),
                rules: Generations::default(),
            },
            images: Images::new(of.boot_id),
            known: HashSet::new(),
            ids: Vec::new(),
            local: peers::Local::default(),
        }
    }

    /// Reads the images that a flow names, and those before them.
    fn learn(&mut self, reader: &Reader, flow: &PastFlow) -> rusqlite::Result<()> {
        for number in &flow.images {
            self.learn_image(reader, *number)?;
        }
        if let (Some(judged), Some(ruling)) = (flow.connection.judged.as_deref(), &flow.ruling) {
            self.name_rule(judged, ruling);
        }
        Ok(())
    }

    /// Reads an image, and those before it.
    fn learn_image(&mut self, reader: &Reader, number: i64) -> rusqlite::Result<()> {
        let mut line = vec![number];
        for _ in 0..=LINE_MAX {
            let Some(number) = line.pop() else { break };
            if !self.known.insert(number) {
                continue;
            }
            let Some(past) = reader.image(number)? else {
                continue;
            };
            line.extend(past.previous);
            line.extend(past.parent);
            if let Some(image) = past.image {
                self.ids.push(image.id);
                self.images.restore(image);
            }
        }
        Ok(())
    }

    fn name_rule(&mut self, judged: &Judged, ruling: &Ruling) {
        let Some(policy) = &ruling.policy else {
            return;
        };
        let rules = &mut self.frame.rules;
        rules.restore(judged.generation, policy, None);
        for (index, name) in [(judged.rule, &ruling.rule), (judged.audit, &ruling.audit)] {
            if let Some(name) = name
                && index != NO_RULE
            {
                rules.restore(judged.generation, policy, Some((index, name)));
            }
        }
    }

    const fn renderer(&self) -> Renderer<'_> {
        Renderer {
            frame: &self.frame,
            images: &self.images,
        }
    }

    /// Puts the records of a flow that match.
    fn put(&self, query: &Query, flow: &PastFlow, found: &mut Vec<Recalled>) {
        let renderer = self.renderer();
        let connection = &flow.connection;
        let until = self.frame.clock.at(self.run.seen_ns);
        let mut put = |at_ns: u64, record: Record| {
            found.push(Recalled {
                at: self.frame.clock.at(at_ns),
                key: flow.key,
                run: flow.run,
                record,
            });
        };
        let opened = Seen {
            connection,
            by: None,
            context: flow.within.context.as_deref(),
            until: Some(until),
        };
        if renderer.is_answer(query, &opened) {
            let mut record = if flow.is_denied_use {
                renderer.denied_use(flow.key, connection)
            } else {
                renderer.connection(flow.key, connection, Telling::Answer)
            };
            self.put_peer(&mut record, &flow.key);
            flow.within.put(&mut record, connection.actor.creds.euid);
            if connection.ended_ns.is_none()
                && let Some(procid) = &mut record.procid
            {
                let until = rfc3339_ns(until);
                let reason = format!("it was open when procid last wrote its history, at {until}");
                absent(procid, "event.end", &reason);
            }
            put(connection.started_ns, record);
        }
        for used in &flow.uses {
            let speaker = &used.speaker;
            let seen = Seen {
                by: Some(speaker),
                context: used.within.context.as_deref(),
                ..opened
            };
            if renderer.is_answer(query, &seen) {
                let mut record = renderer.speaker(flow.key, connection, speaker);
                self.put_peer(&mut record, &flow.key);
                used.within.put(&mut record, speaker.actor.creds.euid);
                put(speaker.at_ns, record);
            }
        }
    }
}

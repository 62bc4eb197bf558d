//! Batches to rows, each batch one transaction.

use std::{collections::HashMap, num::NonZero};

use lru::LruCache;
use procid_common::{image::flags, policy::verdict};
use rusqlite::{
    Connection as Database, OptionalExtension as _, Result, TransactionBehavior, params,
};

use super::{
    batch::Batch,
    bounds::Bounds,
    fact::{FlowFact, Gap, ImageFact, Run, Told, UseFact},
    feed::now,
    names::{Names, next_id},
    translations,
    value::{LATE_NS, Stored, marks, ns, outcome_number},
};
use crate::{
    connections::{Connection, Key, Outcome},
    identity::{
        entity::BootId,
        image::{Image, Provenance},
    },
    records::escape::escape,
};

/// What no image and no actor names any more: they are written once, for all, so
/// that what is removed with those that named them would stay for good.
const PRUNE: &str = "\
    DELETE FROM programs WHERE NOT EXISTS \
        (SELECT 1 FROM images WHERE program = programs.id); \
    DELETE FROM places WHERE NOT EXISTS \
        (SELECT 1 FROM actors WHERE place = places.id);";

const RECENT: NonZero<usize> = NonZero::new(16_384).expect("not 0");

/// The database, open for writing, and the run that writes.
#[derive(Debug)]
pub(super) struct Store {
    database: Database,
    run: i64,
    names: Names,
    boot_id: BootId,
    keeps_args: bool,
    next_flow: i64,
    /// The latest start of the flows written.
    newest_ns: i64,
    /// Flows last written: of one that has ended, something may still be told.
    recent: LruCache<Key, i64>,
}

impl Store {
    /// Takes over an opened database for one run, which gets its row.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(super) fn new(database: Database, run: &Run) -> Result<Self> {
        let next_flow = next_id(&database, "flows")?;
        // Rows that were removed may have had the highest numbers.
        let next_flow = next_flow.max(database.query_row(
            "SELECT coalesce(max(first_flow), 1) FROM runs",
            [],
            |row| row.get(0),
        )?);
        let uncovered = serde_json::to_string(&run.uncovered)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        database.execute(
            "INSERT INTO runs (name, agent, version, host, host_id, boot, keeps_args, backend, \
             uncovered, first_flow, since, seen, first_clock, clock) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12, ?13)",
            params![
                run.agent.ephemeral_id,
                run.agent.id,
                run.agent.version,
                run.host.name,
                run.host.id,
                run.boot_id,
                run.keeps_args,
                run.backend,
                uncovered,
                next_flow,
                ns(run.since_ns),
                run.first_offset.0,
                run.offset.0,
            ],
        )?;
        let id = database.last_insert_rowid();
        // Before anything has a number of theirs in mind.
        database.execute_batch(PRUNE)?;
        Ok(Self {
            run: id,
            names: Names::new(&database, id, run.boot_id)?,
            boot_id: run.boot_id,
            keeps_args: run.keeps_args,
            next_flow,
            newest_ns: 0,
            recent: LruCache::new(RECENT),
            database,
        })
    }

    /// Writes a batch, all of it or nothing; it was complete at that time,
    /// nanoseconds since boot.
    ///
    /// # Errors
    ///
    /// Nothing was written.
    pub(super) fn write(&mut self, batch: &Batch, gaps: &[Gap], now_ns: u64) -> Result<()> {
        let (next_flow, newest_ns) = (self.next_flow, self.newest_ns);
        let written = self.try_write(batch, gaps, now_ns);
        if written.is_err() {
            // Numbers given are of rows that are not there.
            self.next_flow = next_flow;
            self.newest_ns = newest_ns;
            self.recent.clear();
            if let Ok(names) = Names::new(&self.database, self.run, self.boot_id) {
                self.names = names;
            }
        }
        written
    }

    /// Removes what is beyond the bounds, a step of it.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(super) fn bound(&mut self, bounds: &mut Bounds) -> Result<()> {
        for id in bounds.keep(&self.database, self.run, now())? {
            self.names.forget_image(&id);
        }
        Ok(())
    }

    fn try_write(&mut self, batch: &Batch, gaps: &[Gap], now_ns: u64) -> Result<()> {
        let Self {
            database,
            run,
            names,
            keeps_args,
            next_flow,
            newest_ns,
            recent,
            ..
        } = self;
        let transaction =
            rusqlite::Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
        let mut rows = Rows {
            database,
            names,
            run: *run,
            keeps_args: *keeps_args,
            next_flow,
            newest_ns,
            recent,
        };
        for fact in &batch.images {
            rows.image(fact)?;
        }
        let mut written = HashMap::new();
        for (at, fact) in batch.flows.iter().enumerate() {
            let id = rows.flow(fact)?;
            if !batch.uses.is_empty() {
                written.insert(at, id);
            }
        }
        for fact in &batch.uses {
            let at = batch.flow_at(&fact.flow.key);
            rows.used(fact, at.and_then(|at| written.get(&at).copied()))?;
        }
        rows.rest(batch, gaps, now_ns)?;
        transaction.commit()
    }
}

struct Rows<'a> {
    database: &'a Database,
    names: &'a mut Names,
    run: i64,
    keeps_args: bool,
    next_flow: &'a mut i64,
    newest_ns: &'a mut i64,
    recent: &'a mut LruCache<Key, i64>,
}

impl Rows<'_> {
    fn image(&mut self, fact: &ImageFact) -> Result<()> {
        let Self {
            database, names, ..
        } = self;
        let image = &fact.image;
        let found = names.find_image(database, &image.id)?;
        let parent = match &image.parent {
            Some(parent) => names.image(database, parent)?,
            None => None,
        };
        let previous = match &image.previous {
            Some(previous) => names.image(database, previous)?,
            None => None,
        };
        let is_fork = image.flags & flags::FORKED != 0 && image.root != image.id;
        let root = match is_fork {
            true => names.find_image(database, &image.root)?,
            false => None,
        };
        let args = match root {
            // It has them.
            Some(_) => None,
            None if self.keeps_args => args(image),
            None => None,
        };
        let number = found.unwrap_or_else(|| names.new_image(&image.id));
        let actor = names.actor(database, Some(number), &image.actor, &fact.within)?;
        let program = names.program(database, image)?;
        let text = if found.is_some() {
            "UPDATE images SET entity = ?6, parent = ?7, previous = ?8, root = ?9, program = ?10, \
             args = ?11, flags = ?12, actor = ?13, born = ?14, ended = ?15, \
             status = coalesce(?16, status), snapshot = ?17, sequence = ?18 \
             WHERE id = ?1 AND run = ?2 AND pid = ?3 AND start = ?4 AND exec = ?5"
        } else {
            "INSERT INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, \
             ?14, ?15, ?16, ?17, ?18)"
        };
        database.prepare_cached(text)?.execute(params![
            number,
            self.run,
            image.id.tgid,
            ns(image.id.start_boottime),
            image.id.self_exec_id.cast_signed(),
            image.entity.bytes(),
            parent,
            previous,
            root,
            program,
            args,
            image.flags,
            actor,
            ns(image.born_ns),
            image.ended_ns.map(ns),
            fact.status,
            image.provenance == Provenance::Snapshot,
            image.sequence.map(|number| ns(number.get())),
        ])?;
        Ok(())
    }

    /// Writes a flow, or what is new of one that is open; returns its number.
    fn flow(&mut self, fact: &FlowFact) -> Result<i64> {
        let connection = &fact.connection;
        let known = match fact.told {
            Told::Again => self.known_flow(&fact.key)?,
            Told::New | Told::Denied => None,
        };
        if let Some(id) = known {
            let ends = Ends::of(connection);
            let local = self.names.address(self.database, ends.local)?;
            self.database
                .prepare_cached(
                    "UPDATE flows SET local = ?2, local_port = ?3, wire = ?4, duration = ?5, \
                     marks = marks | ?6, sent = ?7, received = ?8, outcome = ?9, \
                     sequence = coalesce(sequence, ?10) WHERE id = ?1",
                )?
                .execute(params![
                    id,
                    local,
                    ends.local_port,
                    connection.wire.as_deref().copied().map(Stored),
                    duration(connection),
                    marks(connection),
                    connection.sent.map(u64::cast_signed),
                    connection.received.map(u64::cast_signed),
                    outcome_number(connection.outcome),
                    connection.sequence.map(|number| ns(number.get())),
                ])?;
            translations::write(self.database, id, connection.nat.as_deref())?;
            self.recent.put(fact.key, id);
            return Ok(id);
        }
        self.insert(fact)
    }

    /// The number of a flow that has been told of before, while it is open and
    /// for a while longer.
    fn known_flow(&mut self, key: &Key) -> Result<Option<i64>> {
        if let Some(id) = self.recent.get(key) {
            return Ok(Some(*id));
        }
        self.database
            .prepare_cached(
                "SELECT id FROM flows INDEXED BY flows_open \
                 WHERE run = ?1 AND cookie = ?2 AND flow = ?3 AND duration IS NULL",
            )?
            .query_row(
                params![self.run, key.cookie.cast_signed(), key.flow],
                |row| row.get(0),
            )
            .optional()
    }

    fn insert(&mut self, fact: &FlowFact) -> Result<i64> {
        let Self {
            database, names, ..
        } = self;
        let connection = &fact.connection;
        let image = names.image(database, &connection.image)?;
        let actor = names.actor(database, image, &connection.actor, &fact.within)?;
        let is_live = connection.provenance == Provenance::Live;
        let creator = match &*connection.others {
            [creator] if is_live => names.image(database, creator)?,
            _ => None,
        };
        let kind = names.kind(database, connection)?;
        let ends = Ends::of(connection);
        let local = names.address(database, ends.local)?;
        let judgement = names.judgement(
            database,
            connection.judged.as_deref(),
            fact.ruling.as_deref(),
        )?;
        let started_ns = ns(connection.started_ns);
        let mut marks = marks(connection);
        if started_ns.saturating_add(LATE_NS) < *self.newest_ns {
            marks |= marks::LATE;
        }
        *self.newest_ns = started_ns.max(*self.newest_ns);
        let id = *self.next_flow;
        *self.next_flow += 1;
        if fact.told == Told::Denied {
            marks |= marks::USE;
        } else {
            self.recent.put(fact.key, id);
        }
        database
            .prepare_cached(
                "INSERT INTO flows VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, \
                 ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
            )?
            .execute(params![
                id,
                self.run,
                fact.key.cookie.cast_signed(),
                fact.key.flow,
                actor,
                creator,
                kind,
                local,
                ends.local_port,
                ends.remote,
                ends.remote_port,
                connection.wire.as_deref().copied().map(Stored),
                started_ns,
                duration(connection),
                marks,
                connection.sent.map(u64::cast_signed),
                connection.received.map(u64::cast_signed),
                outcome_number(connection.outcome),
                judgement,
                connection.sequence.map(|number| ns(number.get())),
            ])?;
        translations::write(database, id, connection.nat.as_deref())?;
        if let Some(domain) = connection.domain.as_deref() {
            let asked_by = names.image(database, &domain.asked_by)?;
            let others = (!domain.others.is_empty()).then(|| domain.others.join("\n"));
            database
                .prepare_cached("INSERT INTO domains VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![
                    id,
                    &*domain.name,
                    asked_by,
                    ns(domain.at_ns),
                    others
                ])?;
        }
        for (place, holder) in connection.holders().iter().enumerate() {
            let image = names.image(database, holder)?;
            database
                .prepare_cached("INSERT INTO holders VALUES (?1, ?2, ?3)")?
                .execute(params![id, i64::try_from(place).unwrap_or(0), image])?;
        }
        Ok(id)
    }

    fn used(&mut self, fact: &UseFact, flow: Option<i64>) -> Result<()> {
        let flow = match flow {
            Some(flow) => flow,
            None => match self.known_flow(&fact.flow.key)? {
                Some(flow) => flow,
                None => self.insert(&fact.flow)?,
            },
        };
        let Self {
            database, names, ..
        } = self;
        let speaker = &fact.speaker;
        let image = names.image(database, &speaker.image)?;
        let actor = names.actor(database, image, &speaker.actor, &fact.within)?;
        database
            .prepare_cached(
                "INSERT INTO uses (flow, actor, at, flags, hook, sequence) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                flow,
                actor,
                ns(speaker.at_ns),
                speaker.flags,
                speaker.hook,
                speaker.sequence.map(|number| ns(number.get())),
            ])?;
        Ok(())
    }

    fn rest(&mut self, batch: &Batch, gaps: &[Gap], now_ns: u64) -> Result<()> {
        let Self { database, run, .. } = &*self;
        for (at_ns, lost) in &batch.losses {
            for (cause, count) in lost {
                database
                    .prepare_cached("INSERT INTO losses VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![run, ns(*at_ns), cause, count.cast_signed()])?;
            }
        }
        for (at_ns, record) in &batch.changes {
            let text = serde_json::to_string(record)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            database
                .prepare_cached("INSERT INTO changes (run, at, record) VALUES (?1, ?2, ?3)")?
                .execute(params![run, ns(*at_ns), text])?;
        }
        for gap in gaps {
            database.execute(
                "INSERT INTO gaps (start, stop, count, cause) VALUES (?1, ?2, ?3, ?4)",
                params![gap.from, gap.to, gap.count.map(u64::cast_signed), gap.cause],
            )?;
        }
        database
            .prepare_cached(
                "UPDATE runs SET seen = ?2, clock = coalesce(?3, clock), \
                 ended = coalesce(?4, ended) WHERE id = ?1",
            )?
            .execute(params![
                run,
                ns(now_ns),
                batch.clock.map(|offset| offset.0),
                batch.ended_ns.map(ns),
            ])?;
        Ok(())
    }
}

/// The ends of a connection as this host sees them.
struct Ends {
    local: Stored,
    local_port: u16,
    remote: Stored,
    remote_port: u16,
}

impl Ends {
    fn of(connection: &Connection) -> Self {
        let (source, destination) = (Stored(connection.source), Stored(connection.destination));
        let (source_port, destination_port) = (connection.source_port, connection.destination_port);
        if connection.is_accepted() {
            Self {
                local: destination,
                local_port: destination_port,
                remote: source,
                remote_port: source_port,
            }
        } else {
            Self {
                local: source,
                local_port: source_port,
                remote: destination,
                remote_port: destination_port,
            }
        }
    }
}

fn duration(connection: &Connection) -> Option<i64> {
    let ended_ns = connection.ended_ns?.get();
    Some(ns(ended_ns).saturating_sub(ns(connection.started_ns)))
}

fn marks(connection: &Connection) -> i64 {
    let judged = connection.judged.as_deref();
    let noted = judged.is_some_and(|judged| judged.verdict != verdict::ALLOW);
    let is_released =
        connection.ended_ns.is_some() && connection.released_ns == connection.ended_ns;
    let is_noted = noted || connection.outcome == Outcome::Denied;
    let mark = |is_so: bool, mark: i64| if is_so { mark } else { 0 };
    mark(is_released, marks::RELEASED) | mark(is_noted, marks::NOTED)
}

/// Arguments as JSON, made harmless.
fn args(image: &Image) -> Option<String> {
    let args = image.args.as_deref()?;
    let args: Vec<_> = args.iter().map(|arg| escape(arg)).collect();
    serde_json::to_string(&args).ok()
}

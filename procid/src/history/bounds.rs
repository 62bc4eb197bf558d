//! The bounds of the file: the oldest is removed first, in small steps.
//!
//! A connection is removed when it ended before all that stay, an image when
//! it ended and neither a connection nor an image that stays names it. The
//! file does not shrink below its bound for it: freed pages are used again.

use std::time::{Duration, Instant};

use procid_common::image::ImageId;
use rusqlite::{Connection as Database, Result, TransactionBehavior, params};

use super::value::{LONG_NS, boot};

/// Connections looked at in one step: of a small file, no large part.
const FLOWS_STEP: usize = 512;
/// Steps at one time: more than a batch brings.
const STEPS: usize = 16;
/// Most images.
const IMAGES_STEP: usize = 4_096;
/// Freed pages given back to the file system in one step.
const PAGES_STEP: u64 = 256;
/// What was passed over because it had not ended is looked at again.
const ROUND: Duration = Duration::from_secs(600);

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub size: u64,
    pub age: Duration,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Bounds {
    limits: Limits,
    /// What is below was looked at in this round.
    flows_from: i64,
    images_from: i64,
    round_ends: Instant,
    size: u64,
    removed: u64,
}

struct Old {
    id: i64,
    started: i64,
    /// `None`: it goes on.
    ended: Option<i64>,
}

impl Bounds {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            flows_from: 0,
            images_from: 0,
            round_ends: Instant::now() + ROUND,
            size: 0,
            removed: 0,
        }
    }

    /// Of the file, at the last look.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Connections removed by this run.
    pub(super) const fn removed(&self) -> u64 {
        self.removed
    }

    /// Some steps; `now` is nanoseconds since the epoch. Returns the images of
    /// `run`, the present one, that were removed.
    pub(super) fn keep(&mut self, database: &Database, run: i64, now: i64) -> Result<Vec<ImageId>> {
        let age = i64::try_from(self.limits.age.as_nanos()).unwrap_or(i64::MAX);
        let before = now.saturating_sub(age);
        if Instant::now() >= self.round_ends {
            self.round_ends = Instant::now() + ROUND;
            self.flows_from = 0;
            self.images_from = 0;
        }
        let mut is_full = self.is_full(database)?;
        let mut cut = before;
        for _ in 0..STEPS {
            let step = self.remove_flows(database, run, before, is_full)?;
            if let Some((_, of_step)) = step {
                cut = of_step;
            }
            if is_full && step.is_none_or(|(removed, _)| removed == 0) {
                // It is full of what goes on: images go for it.
                cut = now;
            }
            if step.is_none() {
                break;
            }
            is_full = self.is_full(database)?;
        }
        self.remove_images(database, run, cut, is_full)
    }

    /// Whether it is beyond its size; freed pages are given back then.
    fn is_full(&mut self, database: &Database) -> Result<bool> {
        let number = |pragma: &str| {
            database
                .query_row(pragma, [], |row| row.get::<_, i64>(0))
                .map(boot)
        };
        let page = number("PRAGMA page_size")?;
        let pages = number("PRAGMA page_count")?;
        let free = number("PRAGMA freelist_count")?;
        self.size = pages * page;
        if self.size > self.limits.size && free > 0 {
            database.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES_STEP})"))?;
        }
        // Short of the bound, so that what a batch adds stays within it.
        Ok((pages - free) * page > self.limits.size / 16 * 15)
    }

    /// One step: how many connections were removed, and that they ended before a
    /// time; `None`: there is none to look at.
    fn remove_flows(
        &mut self,
        database: &Database,
        run: i64,
        before: i64,
        is_full: bool,
    ) -> Result<Option<(i64, i64)>> {
        let flows = self.old_flows(database, run)?;
        let cut = match flows.last() {
            Some(last) if is_full => last.started.saturating_add(LONG_NS).max(before),
            _ => before,
        };
        if flows.first().is_none_or(|first| first.started >= cut) {
            return Ok(None);
        }
        let transaction =
            rusqlite::Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
        let mut removed = 0;
        for flow in &flows {
            if flow.started >= cut {
                break;
            }
            self.flows_from = flow.id + 1;
            if flow.ended.is_some_and(|ended| ended < cut) {
                for text in [
                    "DELETE FROM flows WHERE id = ?1",
                    "DELETE FROM uses WHERE flow = ?1",
                    "DELETE FROM holders WHERE flow = ?1",
                    "DELETE FROM translations WHERE flow = ?1",
                    "DELETE FROM domains WHERE flow = ?1",
                ] {
                    database.prepare_cached(text)?.execute([flow.id])?;
                }
                removed += 1;
            }
        }
        if removed > 0 {
            database
                .prepare_cached(
                    "UPDATE removed SET flows = flows + ?1, until = max(coalesce(until, ?2), ?2)",
                )?
                .execute(params![removed, cut])?;
            self.removed += u64::try_from(removed).unwrap_or(0);
        }
        for text in [
            "DELETE FROM gaps WHERE stop < ?1",
            "DELETE FROM losses WHERE at < ?1 - (SELECT clock FROM runs WHERE id = run)",
            "DELETE FROM changes WHERE at < ?1 - (SELECT clock FROM runs WHERE id = run)",
        ] {
            database.prepare_cached(text)?.execute([before])?;
        }
        transaction.commit()?;
        Ok(Some((removed, cut)))
    }

    /// The next connections to look at, oldest first.
    fn old_flows(&self, database: &Database, run: i64) -> Result<Vec<Old>> {
        database
            .prepare_cached(
                "SELECT f.id, f.started + r.clock, \
                 iif(f.duration IS NOT NULL, f.started + f.duration, iif(r.id = ?1, NULL, r.seen)) \
                 + r.clock FROM flows f JOIN runs r ON r.id = f.run \
                 WHERE f.id >= ?2 ORDER BY f.id LIMIT ?3",
            )?
            .query_map(
                params![run, self.flows_from, i64::try_from(FLOWS_STEP).unwrap_or(0)],
                |row| {
                    Ok(Old {
                        id: row.get(0)?,
                        started: row.get(1)?,
                        ended: row.get(2)?,
                    })
                },
            )?
            .collect()
    }

    fn remove_images(
        &mut self,
        database: &Database,
        run: i64,
        before: i64,
        is_full: bool,
    ) -> Result<Vec<ImageId>> {
        let images: Vec<(i64, i64, Option<i64>, i64, ImageId)> = database
            .prepare_cached(
                "SELECT i.id, i.born + r.clock, \
                 iif(r.id = ?1, i.ended, coalesce(i.ended, r.seen)) + r.clock, \
                 r.id, i.start, i.exec, i.pid FROM images i JOIN runs r ON r.id = i.run \
                 WHERE i.id >= ?2 ORDER BY i.id LIMIT ?3",
            )?
            .query_map(
                params![
                    run,
                    self.images_from,
                    i64::try_from(IMAGES_STEP).unwrap_or(0)
                ],
                |row| {
                    let id = ImageId {
                        start_boottime: boot(row.get(4)?),
                        self_exec_id: row.get::<_, i64>(5)?.cast_unsigned(),
                        tgid: row.get(6)?,
                        reserved: 0,
                    };
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, id))
                },
            )?
            .collect::<Result<_>>()?;
        let is_old = |born: i64| born < before;
        if images
            .first()
            .is_none_or(|first| !is_full && !is_old(first.1))
        {
            return Ok(Vec::new());
        }
        let mut forgotten = Vec::new();
        let transaction =
            rusqlite::Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
        let mut removed = 0;
        for (number, born, ended, of, id) in images {
            if !is_old(born) {
                break;
            }
            self.images_from = number + 1;
            if ended.is_none_or(|ended| ended >= before) || is_named(database, number)? {
                continue;
            }
            for text in [
                "DELETE FROM images WHERE id = ?1",
                "DELETE FROM actors WHERE image = ?1",
            ] {
                database.prepare_cached(text)?.execute([number])?;
            }
            removed += 1;
            if of == run {
                forgotten.push(id);
            }
        }
        database
            .prepare_cached("UPDATE removed SET images = images + ?1")?
            .execute([removed])?;
        transaction.commit()?;
        Ok(forgotten)
    }
}

/// Whether anything that stays names that image.
fn is_named(database: &Database, image: i64) -> Result<bool> {
    database
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM images WHERE parent = ?1) \
             OR EXISTS (SELECT 1 FROM flows WHERE creator = ?1 AND creator IS NOT NULL) \
             OR EXISTS (SELECT 1 FROM holders WHERE image = ?1) \
             OR EXISTS (SELECT 1 FROM domains WHERE asked_by = ?1 AND asked_by IS NOT NULL) \
             OR EXISTS (SELECT 1 FROM actors a WHERE a.image = ?1 \
             AND (EXISTS (SELECT 1 FROM flows WHERE actor = a.id) \
             OR EXISTS (SELECT 1 FROM uses WHERE actor = a.id)))",
        )?
        .query_row([image], |row| row.get(0))
}

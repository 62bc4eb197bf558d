//! Which flows a question may mean, newest first.
//!
//! What is found here is a superset, to be matched once it is read: what the
//! indexes and a look at a row leave out is left out, no more. Flows lie in the
//! order of their start, in buckets that the indexes begin with; a question
//! goes through the buckets from the newest to the oldest until enough is found.
//!
//! | what narrows | how |
//! | --- | --- |
//! | ports, addresses | an index of each bucket, the one that finds the fewest |
//! | process, user, container | the actors that match, where they are few |
//! | verdict | the flows that are marked |
//! | time | the flows that began then, the long ones by their end, the late ones |

use std::ops::ControlFlow;

use rusqlite::{OptionalExtension as _, Result, params, params_from_iter, types::Value};

use super::{
    reader::{PastRun, Reader},
    value::{BUCKET_BITS, LATE_NS, LONG_NS, ns},
};
use crate::flow::Query;
use ends::{Ends, ends};
use process::Wanted;

mod ends;
mod process;

/// Whether more is wanted.
pub type Visit<'a> = dyn FnMut(i64) -> Result<ControlFlow<()>> + 'a;

/// The times of a question, on the clock of one run; nanoseconds since boot.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    since: Option<i64>,
    until: Option<i64>,
}

impl Times {
    fn of(query: &Query, run: &PastRun) -> Self {
        let boot = |real: i64| ns(run.run.offset.to_boot(real));
        let since = query.since.max(query.at);
        let until = match (query.until, query.at) {
            (Some(until), Some(at)) => Some(until.min(at)),
            (until, at) => until.or(at),
        };
        Self {
            since: since.map(boot),
            until: until.map(boot),
        }
    }
}

impl Reader {
    /// Hands out the numbers of flows that may be answers, those of the newest
    /// run first, until no more is wanted.
    ///
    /// # Errors
    ///
    /// Those of reading, and of `visit`.
    pub fn search(&self, query: &Query, runs: &[PastRun], visit: &mut Visit<'_>) -> Result<()> {
        let Some(ends) = ends(self, query)? else {
            return Ok(());
        };
        let wanted = Wanted::of(self, query)?;
        for (at, run) in runs.iter().enumerate().rev() {
            let is_last = at + 1 == runs.len();
            let times = Times::of(query, run);
            // What was open when an earlier run ended is not known to be so later.
            let is_before = |since: i64| since > ns(run.seen_ns) && !is_last;
            if times.since.is_some_and(is_before) {
                continue;
            }
            let mut look = Look {
                reader: self,
                run,
                times,
                ends: &ends,
                wanted: &wanted,
                visit: &mut *visit,
            };
            if look.go()?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

struct Look<'a, 'v> {
    reader: &'a Reader,
    run: &'a PastRun,
    times: Times,
    ends: &'a [Ends],
    wanted: &'a Wanted,
    visit: &'a mut Visit<'v>,
}

impl Look<'_, '_> {
    fn go(&mut self) -> Result<ControlFlow<()>> {
        let (first, end) = self.run.flows;
        let last: Option<i64> = self
            .reader
            .database
            .prepare_cached("SELECT max(id) FROM flows WHERE id >= ?1 AND id < ?2")?
            .query_row([first, end], |row| row.get(0))?;
        let Some(last) = last else {
            return Ok(ControlFlow::Continue(()));
        };
        let high = match self.times.until {
            Some(until) => self.after(first, last, until)?,
            None => last,
        };
        let low = match self.times.since {
            Some(since) => self.before(first, last, since)?,
            None => first,
        };
        if high < last && self.hand_out(&self.late(high)?)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if let Some(few) = &self.wanted.few {
            let mut ids: Vec<i64> = few
                .iter()
                .copied()
                .filter(|id| (first..=high).contains(id))
                .collect();
            ids.retain(|id| (first..end).contains(id));
            return self.hand_out(&ids);
        }
        let mut bucket = high >> BUCKET_BITS;
        while bucket >= first >> BUCKET_BITS {
            let from = first.max(bucket << BUCKET_BITS);
            let to = high.min(((bucket + 1) << BUCKET_BITS) - 1);
            let ids = self.in_bucket(bucket, from, to, low)?;
            if self.hand_out(&ids)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            bucket -= 1;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn hand_out(&mut self, ids: &[i64]) -> Result<ControlFlow<()>> {
        for id in ids {
            if (self.visit)(*id)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Candidates of one bucket, newest first.
    fn in_bucket(&self, bucket: i64, from: i64, to: i64, low: i64) -> Result<Vec<i64>> {
        let mut ids = Vec::new();
        for ends in self.ends {
            let mut values: Vec<Value> = vec![bucket.into(), from.into(), to.into()];
            let mut text = String::from("SELECT id FROM flows ");
            let has_index = ends.put_driver(self.reader, bucket, &mut text, &mut values)?;
            match self.times.since {
                // Nothing short is as late as that.
                Some(since) if to < low && !has_index => {
                    for (long, bound) in [
                        ("started + duration IS NULL", None),
                        ("started + duration >= ?4", Some(since)),
                    ] {
                        let mut values = values.clone();
                        values.extend(bound.map(Value::from));
                        let mut text = format!(
                            "{text} INDEXED BY flows_long WHERE id >> 15 = ?1 \
                             AND id BETWEEN ?2 AND ?3 \
                             AND (duration IS NULL OR duration > 2000000000) AND {long}"
                        );
                        self.put_conditions(ends, &mut text, &mut values);
                        ids.extend(self.ids(&text, values)?);
                    }
                }
                _ => {
                    if !has_index {
                        text.push_str(if self.wanted.is_noted {
                            "INDEXED BY flows_noted WHERE marks & 4 AND ?1 = ?1"
                        } else {
                            "NOT INDEXED WHERE ?1 = ?1"
                        });
                        text.push_str(" AND id BETWEEN ?2 AND ?3");
                    }
                    self.put_conditions(ends, &mut text, &mut values);
                    ids.extend(self.ids(&text, values)?);
                }
            }
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.dedup();
        Ok(ids)
    }

    fn put_conditions(&self, ends: &Ends, text: &mut String, values: &mut Vec<Value>) {
        ends.put_conditions(text, values);
        if let Some(since) = self.times.since {
            values.push(since.into());
            text.push_str(&format!(
                " AND (duration IS NULL OR started + duration >= ?{})",
                values.len()
            ));
        }
        if let Some(until) = self.times.until {
            // A use may have been seen before the act that it is told with.
            values.push(until.saturating_add(LATE_NS).into());
            text.push_str(&format!(" AND started <= ?{}", values.len()));
        }
        self.wanted.put_condition(text);
    }

    fn ids(&self, text: &str, values: Vec<Value>) -> Result<Vec<i64>> {
        self.reader
            .database
            .prepare_cached(text)?
            .query_map(params_from_iter(values), |row| row.get(0))?
            .collect()
    }

    /// Flows beyond `high` that began in time: they were written late.
    fn late(&self, high: i64) -> Result<Vec<i64>> {
        self.reader
            .database
            .prepare_cached(
                "SELECT id FROM flows INDEXED BY flows_late \
                 WHERE run = ?1 AND started <= ?2 AND marks & 2 AND id > ?3 ORDER BY id DESC",
            )?
            .query_map(params![self.run.id, self.times.until, high], |row| {
                row.get(0)
            })?
            .collect()
    }

    /// A number beyond which all flows began after that time, but for late ones.
    fn after(&self, first: i64, last: i64, at: i64) -> Result<i64> {
        let limit = at.saturating_add(2 * LATE_NS);
        Ok(self.part(first, last, limit)?.min(last))
    }

    /// A number below which all flows that were short ended before that time.
    fn before(&self, first: i64, last: i64, at: i64) -> Result<i64> {
        self.part(first, last, at.saturating_sub(LONG_NS + LATE_NS))
    }

    /// Where flows that began at `limit` or later begin. The order of starts is
    /// not strict: what is asked for stands off from the limit by [`LATE_NS`].
    fn part(&self, first: i64, last: i64, limit: i64) -> Result<i64> {
        let mut next = self.reader.database.prepare_cached(
            "SELECT id, started FROM flows \
             WHERE id BETWEEN ?1 AND ?2 AND NOT marks & 2 ORDER BY id LIMIT 1",
        )?;
        let (mut low, mut high) = (first, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let found: Option<(i64, i64)> = next
                .query_row([middle, high - 1], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            match found {
                Some((id, started)) if started < limit => low = id + 1,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }
}

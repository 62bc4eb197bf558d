//! Process, user, container and verdict.

use rusqlite::{Result, params_from_iter, types::Value};

use crate::{flow::Query, history::reader::Reader};

/// Actors up to which flows are found by their actor.
const ACTORS_MAX: usize = 20_000;
/// The same of flows.
const FLOWS_MAX: usize = 50_000;

/// What is asked of who acted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// All flows that may be meant, newest first, where these are few.
    pub(super) few: Option<Vec<i64>>,
    /// Only flows marked as denied or noted.
    pub(super) is_noted: bool,
    /// What holds of the actor `a`, and its image `i`.
    condition: Option<String>,
}

impl Wanted {
    pub(super) fn of(reader: &Reader, query: &Query) -> Result<Self> {
        let mut wanted = Self {
            is_noted: matches!(query.verdict.as_deref(), Some("deny" | "audit")),
            ..Self::default()
        };
        let mut conditions = Vec::new();
        // The first of these that is asked for finds the actors.
        let mut driver = None;
        if let Some(pid) = query.pid {
            if pid == 0 {
                conditions.push("a.image IS NULL".to_owned());
            } else {
                conditions.push(format!("i.pid = {pid}"));
                driver = Some(
                    "images i INDEXED BY images_pid CROSS JOIN actors a INDEXED BY actors_image \
                     ON a.image = i.id",
                );
            }
        }
        if let Some(programs) = programs(reader, query)? {
            if programs.is_empty() {
                return Ok(wanted.nothing());
            }
            conditions.push(format!("i.program IN ({programs})"));
            driver = driver.or(Some(
                "images i INDEXED BY images_program CROSS JOIN actors a INDEXED BY actors_image \
                 ON a.image = i.id",
            ));
        }
        if let Some(container) = &query.container {
            let ids = containers(reader, container)?;
            if ids.is_empty() {
                return Ok(wanted.nothing());
            }
            conditions.push(format!("a.place IN ({ids})"));
            driver = driver.or(Some(
                "actors a INDEXED BY actors_place LEFT JOIN images i ON i.id = a.image",
            ));
        }
        if let Some(uid) = query.user {
            conditions.push(format!("a.euid = {uid}"));
            driver = driver.or(Some(
                "actors a INDEXED BY actors_euid LEFT JOIN images i ON i.id = a.image",
            ));
        }
        if let Some(name) = &query.domain {
            wanted.few = named(reader, name)?;
        }
        if conditions.is_empty() {
            return Ok(wanted);
        }
        let condition = conditions.join(" AND ");
        if let Some(driver) = driver.filter(|_| wanted.few.is_none()) {
            wanted.few = few(reader, driver, &condition)?;
        }
        wanted.condition = Some(condition);
        Ok(wanted)
    }

    fn nothing(self) -> Self {
        Self {
            few: Some(Vec::new()),
            ..self
        }
    }

    /// Leaves out rows of `flows` that nobody asked for has used.
    pub(super) fn put_condition(&self, text: &mut String) {
        let Some(condition) = &self.condition else {
            return;
        };
        text.push_str(&format!(
            " AND (EXISTS (SELECT 1 FROM actors a LEFT JOIN images i ON i.id = a.image \
             WHERE a.id = flows.actor AND {condition}) \
             OR EXISTS (SELECT 1 FROM uses u JOIN actors a ON a.id = u.actor \
             LEFT JOIN images i ON i.id = a.image WHERE u.flow = flows.id AND {condition}))"
        ));
    }
}

/// The flows whose destination was called that, or something below it, perhaps;
/// `None`: there are too many.
fn named(reader: &Reader, name: &str) -> Result<Option<Vec<i64>>> {
    let name = name.trim_matches('.').to_ascii_lowercase();
    let mut statement = reader.database.prepare(
        "SELECT flow FROM domains WHERE instr(name, ?1) OR instr(others, ?1) \
         ORDER BY flow DESC LIMIT ?2",
    )?;
    let most = i64::try_from(FLOWS_MAX + 1).unwrap_or(i64::MAX);
    let flows = statement
        .query_map(rusqlite::params![name, most], |row| row.get(0))?
        .collect::<Result<Vec<i64>>>()?;
    Ok((flows.len() <= FLOWS_MAX).then_some(flows))
}

/// The flows of all actors that match; `None`: there are too many.
fn few(reader: &Reader, driver: &str, condition: &str) -> Result<Option<Vec<i64>>> {
    let text = format!(
        "SELECT a.id FROM {driver} WHERE {condition} LIMIT {}",
        ACTORS_MAX + 1
    );
    let actors: Vec<i64> = reader
        .database
        .prepare(&text)?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_>>()?;
    if actors.len() > ACTORS_MAX {
        return Ok(None);
    }
    let mut flows: Vec<i64> = Vec::new();
    for text in [
        "SELECT id FROM flows INDEXED BY flows_actor WHERE actor = ?1",
        "SELECT flow FROM uses INDEXED BY uses_actor WHERE actor = ?1",
    ] {
        let mut statement = reader.database.prepare_cached(text)?;
        for actor in &actors {
            let mut rows = statement.query([actor])?;
            while let Some(row) = rows.next()? {
                flows.push(row.get(0)?);
                if flows.len() > FLOWS_MAX {
                    return Ok(None);
                }
            }
        }
    }
    flows.sort_unstable_by(|a, b| b.cmp(a));
    flows.dedup();
    Ok(Some(flows))
}

/// Numbers of the programs that match, with commas; `None`: any.
fn programs(reader: &Reader, query: &Query) -> Result<Option<String>> {
    let mut conditions = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    if let Some(exe) = &query.exe {
        values.push(exe.clone().into());
        conditions.push(if exe.contains('/') {
            "path = ?1"
        } else {
            // A kernel thread's name is not its program's.
            "(path IS NULL OR path = ?1 OR substr(path, -length(?1) - 1) = '/' || ?1)"
        });
    }
    if let Some(sha256) = &query.sha256 {
        let (from, to) = hash_range(sha256);
        values.extend([from.to_vec().into(), to.to_vec().into()]);
        conditions.push(if values.len() == 2 {
            "sha256 BETWEEN ?1 AND ?2"
        } else {
            "sha256 BETWEEN ?2 AND ?3"
        });
    }
    if conditions.is_empty() {
        return Ok(None);
    }
    let text = format!("SELECT id FROM programs WHERE {}", conditions.join(" AND "));
    let ids: Vec<String> = reader
        .database
        .prepare_cached(&text)?
        .query_map(params_from_iter(values), |row| row.get::<_, i64>(0))?
        .map(|id| Ok(id?.to_string()))
        .collect::<Result<_>>()?;
    Ok(Some(ids.join(",")))
}

fn containers(reader: &Reader, start: &str) -> Result<String> {
    let ids: Vec<String> = reader
        .database
        .prepare_cached(
            "SELECT id FROM places WHERE lower(substr(container, 1, length(?1))) = lower(?1)",
        )?
        .query_map([start], |row| row.get::<_, i64>(0))?
        .map(|id| Ok(id?.to_string()))
        .collect::<Result<_>>()?;
    Ok(ids.join(","))
}

/// The first and the last hash that start with these digits.
fn hash_range(digits: &str) -> ([u8; 32], [u8; 32]) {
    let fill = |with: u8| {
        let mut bytes = [0; 32];
        let digits = digits.bytes().chain(std::iter::repeat(with));
        let nibbles: Vec<u8> = digits
            .take(64)
            .map(|digit| match digit.to_ascii_lowercase() {
                digit @ b'0'..=b'9' => digit - b'0',
                digit @ b'a'..=b'f' => digit - b'a' + 10,
                _ => 0,
            })
            .collect();
        for (byte, pair) in bytes.iter_mut().zip(nibbles.chunks(2)) {
            if let [high, low] = pair {
                *byte = high << 4 | low;
            }
        }
        bytes
    };
    (fill(b'0'), fill(b'f'))
}

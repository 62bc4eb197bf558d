//! The file, read: by the agent's API while it is written, or from a copied
//! state directory.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection as Database, OpenFlags, Result, Row};

use super::{
    fact::{Gap, Run},
    file::{FILE, STABLE_PLANS, VERSION, migrate},
    value::boot,
};
use crate::{identity::hash::settle::Offset, records};

/// How long a lock that the writer holds is waited for.
const BUSY_TIME: Duration = Duration::from_secs(5);

/// Why there is no history to read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{} is not there; give the state directory of an agent, or a copy of it", .0.display())]
    Nothing(PathBuf),
    #[error(
        "{} was written by a newer procid (schema {found}, this one knows {VERSION}): ask that one", path.display()
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("{} is not a history of procid: it is empty or was begun by another program", .0.display())]
    Foreign(PathBuf),
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot read {}: {source}", path.display())]
    Sqlite {
        path: PathBuf,
        source: rusqlite::Error,
    },
}

/// A run of the agent, as it is known from the file.
#[derive(Clone, Debug)]
pub struct PastRun {
    /// `runs.id`.
    pub id: i64,
    pub run: Run,
    /// The last batch was written, nanoseconds since boot.
    pub seen_ns: u64,
    /// It ended cleanly, at that time.
    pub ended_ns: Option<u64>,
    /// Numbers of its flows: from the first to before the second.
    pub(super) flows: (i64, i64),
}

/// What was lost or removed.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    pub gaps: Vec<Gap>,
    /// By run, time (nanoseconds since boot) and cause.
    pub losses: Vec<(i64, u64, String, u64)>,
    /// What ended before may have been removed, nanoseconds since the epoch.
    pub removed_until: Option<i64>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Reader {
    pub(super) database: Database,
    /// A copy that only this reader uses.
    _copy: Option<Copied>,
}

impl Reader {
    /// Opens the history in a state directory, and writes nothing: where the
    /// directory cannot be written, and batches are in the file beside the
    /// database that SQLite must index, a copy is read, and so is one of a file
    /// that an older procid wrote.
    ///
    /// # Errors
    ///
    /// One sentence: it is not there, too new, or cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, ReadError> {
        let path = state_dir.join(FILE);
        match fs::metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ReadError::Nothing(path));
            }
            Err(source) => return Err(ReadError::Io { path, source }),
        }
        let has_wal = fs::metadata(beside(&path, "-wal")).is_ok_and(|wal| wal.len() > 0);
        // Without it the file is whole, and reading leaves no trace beside it.
        let first = try_open(&path, !has_wal);
        let opened = match first {
            Ok(database) => Ok((database, None)),
            Err(error) if has_wal && cannot_be_indexed(&error) => {
                let copy = Copied::of(&path).map_err(|source| ReadError::Io {
                    path: path.clone(),
                    source,
                })?;
                try_open(&copy.0.join(FILE), false).map(|database| (database, Some(copy)))
            }
            Err(error) => Err(error),
        };
        let (database, copy) = opened.map_err(|source| ReadError::Sqlite {
            path: path.clone(),
            source,
        })?;
        let reader = Self {
            database,
            _copy: copy,
        };
        let sqlite = |source| ReadError::Sqlite {
            path: path.clone(),
            source,
        };
        let found = reader.version().map_err(sqlite)?;
        match usize::try_from(found) {
            Ok(VERSION) => Ok(reader),
            Ok(newer) if newer > VERSION => Err(ReadError::Newer { path, found }),
            Ok(1..) => {
                drop(reader);
                let copy = Copied::of(&path).map_err(|source| ReadError::Io {
                    path: path.clone(),
                    source,
                })?;
                let database = copy.migrated(found).map_err(sqlite)?;
                Ok(Self {
                    database,
                    _copy: Some(copy),
                })
            }
            _ => Err(ReadError::Foreign(path)),
        }
    }

    fn version(&self) -> Result<i64> {
        self.database
            .query_row("PRAGMA user_version", [], |row| row.get(0))
    }

    /// Until the next call of this, all answers are of one moment.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn refresh(&self) -> Result<()> {
        if !self.database.is_autocommit() {
            self.database.execute_batch("COMMIT")?;
        }
        self.database.execute_batch("BEGIN")
    }

    /// Lets the writer go on undisturbed.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn release(&self) -> Result<()> {
        if self.database.is_autocommit() {
            return Ok(());
        }
        self.database.execute_batch("COMMIT")
    }

    /// All runs, oldest first.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn runs(&self) -> Result<Vec<PastRun>> {
        let mut runs: Vec<PastRun> = self
            .database
            .prepare_cached(
                "SELECT id, name, agent, version, host, host_id, boot, keeps_args, backend, \
                 uncovered, since, seen, ended, first_clock, clock, first_flow \
                 FROM runs ORDER BY id",
            )?
            .query_map([], past_run)?
            .collect::<Result<_>>()?;
        let firsts: Vec<i64> = runs.iter().skip(1).map(|run| run.flows.0).collect();
        for (run, next) in runs.iter_mut().zip(firsts) {
            run.flows.1 = next;
        }
        Ok(runs)
    }

    /// # Errors
    ///
    /// Those of reading.
    pub fn missing(&self) -> Result<Missing> {
        let gaps = self
            .database
            .prepare_cached("SELECT start, stop, count, cause FROM gaps ORDER BY id")?
            .query_map([], |row| {
                Ok(Gap {
                    from: row.get(0)?,
                    to: row.get(1)?,
                    count: row.get::<_, Option<i64>>(2)?.map(boot),
                    cause: row.get(3)?,
                })
            })?
            .collect::<Result<_>>()?;
        let losses = self
            .database
            .prepare_cached("SELECT run, at, cause, count FROM losses")?
            .query_map([], |row| {
                Ok((
                    row.get(0)?,
                    boot(row.get(1)?),
                    row.get(2)?,
                    boot(row.get(3)?),
                ))
            })?
            .collect::<Result<_>>()?;
        let removed_until = self
            .database
            .query_row("SELECT until FROM removed", [], |row| row.get(0))?;
        Ok(Missing {
            gaps,
            losses,
            removed_until,
        })
    }

    /// Changes of the policy since that time (nanoseconds since the epoch), as
    /// the records that told of them, oldest first.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn changes(&self, since: i64) -> Result<Vec<records::Record>> {
        self.database
            .prepare_cached(
                "SELECT c.record FROM changes c JOIN runs r ON r.id = c.run \
                 WHERE c.at + r.clock >= ?1 ORDER BY c.id",
            )?
            .query_map([since], |row| json(row, 0))?
            .collect()
    }
}

fn past_run(row: &Row<'_>) -> Result<PastRun> {
    let id = row.get(0)?;
    let host = records::Host {
        name: row.get(4)?,
        id: row.get(5)?,
        boot: None,
    };
    let boot_id: [u8; 16] = row.get(6)?;
    Ok(PastRun {
        id,
        run: Run {
            boot_id,
            host: records::Host {
                boot: Some(records::Id {
                    id: crate::identity::entity::uuid(boot_id),
                }),
                ..host
            },
            agent: records::Agent {
                agent_type: "procid".to_owned(),
                version: row.get(3)?,
                id: row.get(2)?,
                ephemeral_id: row.get(1)?,
            },
            keeps_args: row.get(7)?,
            backend: row.get(8)?,
            uncovered: json(row, 9)?,
            since_ns: boot(row.get(10)?),
            first_offset: Offset(row.get(13)?),
            offset: Offset(row.get(14)?),
        },
        seen_ns: boot(row.get(11)?),
        ended_ns: row.get::<_, Option<i64>>(12)?.map(boot),
        flows: (row.get(15)?, i64::MAX),
    })
}

pub(super) fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, at: usize) -> Result<T> {
    let text: String = row.get(at)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, error.into())
    })
}

fn try_open(path: &Path, immutable: bool) -> Result<Database> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let database = Database::open_with_flags(uri(path, immutable), flags)?;
    database.busy_timeout(BUSY_TIME)?;
    database.set_db_config(STABLE_PLANS, true)?;
    database.pragma_update(None, "temp_store", "MEMORY")?;
    database.set_prepared_statement_cache_capacity(64);
    database.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(database)
}

/// `file:` and the path, with what a URI gives a meaning to written as `%XX`.
fn uri(path: &Path, immutable: bool) -> PathBuf {
    use std::{ffi::OsString, os::unix::ffi::OsStrExt as _, os::unix::ffi::OsStringExt as _};
    let mut uri = b"file:".to_vec();
    // An authority would begin with two slashes.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'%' | b'?' | b'#') {
            uri.extend(format!("%{byte:02x}").into_bytes());
        } else {
            uri.push(byte);
        }
    }
    if immutable {
        uri.extend(b"?immutable=1");
    }
    OsString::from_vec(uri).into()
}

/// SQLite needs to write a file beside the database to read this one.
fn cannot_be_indexed(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, PermissionDenied, ReadOnly, SystemIoFailure};
    matches!(
        error.sqlite_error_code(),
        Some(CannotOpen | PermissionDenied | ReadOnly | SystemIoFailure)
    )
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A copy of the database and its log in a directory of their own.
#[derive(Debug)]
struct Copied(PathBuf);

impl Copied {
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = format!("procid-history-{}", std::process::id());
        let mut directory = std::env::temp_dir().join(&name);
        let mut count = 0;
        // A name that somebody else has taken is not used.
        while let Err(error) = fs::DirBuilder::new().mode(0o700).create(&directory) {
            count += 1;
            if error.kind() != ErrorKind::AlreadyExists || count > 100 {
                return Err(error);
            }
            directory = std::env::temp_dir().join(format!("{name}-{count}"));
        }
        let copy = Self(directory);
        for suffix in ["", "-wal"] {
            match fs::copy(beside(path, suffix), copy.0.join(format!("{FILE}{suffix}"))) {
                Err(error) if suffix.is_empty() || error.kind() != ErrorKind::NotFound => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(copy)
    }

    /// Brings the copy from that version to this procid's.
    fn migrated(&self, found: i64) -> Result<Database> {
        let path = self.0.join(FILE);
        migrate(&mut Database::open(&path)?, found)?;
        try_open(&path, false)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

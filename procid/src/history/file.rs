//! The file: made, found whole, found damaged, found too new.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use rusqlite::{Connection as Database, ErrorCode, OpenFlags, config::DbConfig};

use super::fact::Gap;

/// Name of the database in the state directory.
pub const FILE: &str = "history.sqlite3";
/// Name of the file whose lock says that an agent writes.
const LOCK: &str = "history.lock";
/// Schema of this version of procid: `PRAGMA user_version`.
pub const VERSION: usize = MIGRATIONS.len();
/// How to come from each version to the next, views aside.
const MIGRATIONS: [&str; 3] = [
    include_str!("schema-1.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
];
/// What people read.
const VIEWS: &str = include_str!("views.sql");
/// Views are made anew with each version: tables they name may have changed.
const DROP_VIEWS: &str = "DROP VIEW IF EXISTS denials; DROP VIEW IF EXISTS connections; \
     DROP VIEW IF EXISTS processes; DROP VIEW IF EXISTS acts;";
/// Longest look for damage when the file is opened.
const CHECK_TIME: Duration = Duration::from_secs(1);
/// How long a lock that a reader holds is waited for.
const BUSY_TIME: Duration = Duration::from_secs(5);
/// Instructions of SQLite's machine between two looks at the clock.
const CHECK_STEPS: i32 = 10_000;
/// Without it SQLite plans a statement again whenever a value is bound to it that
/// might have made for another plan
/// (<https://www.sqlite.org/queryplanner-ng.html#qpstab>).
pub(super) const STABLE_PLANS: DbConfig = DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
/// Cause of a [`Gap`]: what a damaged file held.
pub const DAMAGED: &str = "damaged-file";

/// Why there is no history to write to.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(
        "{} was written by a newer procid (schema {found}, this one knows {VERSION}): it is left \
         as it is and nothing is added; run the newer procid, or move the file away", path.display()
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("another agent writes the history in {}; give this one a --state-dir of its own", .0.display())]
    Taken(PathBuf),
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{}: {source}", path.display())]
    Sqlite {
        path: PathBuf,
        source: rusqlite::Error,
    },
}

/// A database that can be written, and what came of opening it.
#[derive(Debug)]
pub struct Opened {
    pub database: Database,
    /// Held while it is open.
    pub lock: File,
    /// What a damaged file held is missing.
    pub gap: Option<Gap>,
}

/// Opens the history for writing, and makes it where there is none. A file that
/// is damaged is renamed, never written to.
///
/// # Errors
///
/// It cannot be opened, another agent has it, or it is of a newer procid.
pub fn open(state_dir: &Path) -> Result<Opened, FileError> {
    let lock = lock(&state_dir.join(LOCK))?;
    let path = state_dir.join(FILE);
    let mut gap = None;
    let database = match look(&path) {
        Err(FileError::Sqlite { source, .. }) if is_damage(&source) => {
            gap = Some(set_aside(&path, &source.to_string())?);
            look(&path)?
        }
        looked => looked?,
    };
    Ok(Opened {
        database,
        lock,
        gap,
    })
}

fn lock(path: &Path) -> Result<File, FileError> {
    let failed = |what, source| FileError::Io {
        what,
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed("open", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(FileError::Taken(path.parent().unwrap_or(path).to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(failed("lock", error)),
    }
}

/// Opens, checks and migrates it.
fn look(path: &Path) -> Result<Database, FileError> {
    // SQLite gives its other files the mode of this one.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| FileError::Io {
            what: "open",
            path: path.to_owned(),
            source,
        })?;
    let sqlite = |source| FileError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut database = Database::open_with_flags(path, flags).map_err(sqlite)?;
    let found: i64 = database
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(sqlite)?;
    if usize::try_from(found).is_ok_and(|found| found > VERSION) {
        return Err(FileError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    prepare(&database)
        .and_then(|()| check(&mut database))
        .and_then(|()| migrate(&mut database, found))
        .map_err(sqlite)?;
    Ok(database)
}

fn prepare(database: &Database) -> rusqlite::Result<()> {
    database.busy_timeout(BUSY_TIME)?;
    database.set_db_config(STABLE_PLANS, true)?;
    // Only a new file takes these two.
    database.pragma_update(None, "page_size", 4096)?;
    database.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    // Power loss costs the last batches, not the file.
    database.pragma_update(None, "synchronous", "NORMAL")?;
    database.pragma_update(None, "journal_size_limit", 16 << 20)?;
    // KiB.
    database.pragma_update(None, "cache_size", -4096)?;
    database.pragma_update(None, "temp_store", "MEMORY")?;
    database.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Looks for damage, for a time.
fn check(database: &mut Database) -> rusqlite::Result<()> {
    let until = Instant::now() + CHECK_TIME;
    database.progress_handler(CHECK_STEPS, Some(move || Instant::now() >= until))?;
    let found = database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    database.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Ok(word) if word == "ok" => Ok(()),
        Ok(word) => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(word),
        )),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            tracing::debug!("the history is too large to be checked as a whole");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// From the version found to the one of this procid, all of it or nothing.
pub(super) fn migrate(database: &mut Database, found: i64) -> rusqlite::Result<()> {
    let found = usize::try_from(found).unwrap_or(0);
    if found >= VERSION {
        return Ok(());
    }
    let transaction = database.transaction()?;
    transaction.execute_batch(DROP_VIEWS)?;
    for text in &MIGRATIONS[found..] {
        transaction.execute_batch(text)?;
    }
    transaction.execute_batch(VIEWS)?;
    transaction.pragma_update(None, "user_version", i64::try_from(VERSION).unwrap_or(0))?;
    transaction.commit()
}

/// Whether the file itself is bad, rather than what was asked of it.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Renames a damaged file, and those beside it, and says so.
pub(super) fn set_aside(path: &Path, why: &str) -> Result<Gap, FileError> {
    let now = Timestamp::now();
    let stamp = now.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
    let name = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut mark = format!(".damaged-{stamp}");
    let mut count = 1;
    while name(&mark).exists() {
        count += 1;
        mark = format!(".damaged-{stamp}-{count}");
    }
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (name(suffix), name(&format!("{mark}{suffix}")));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(FileError::Io {
                    what: "set aside the damaged",
                    path: from,
                    source: error,
                });
            }
            _ => {}
        }
    }
    tracing::error!(
        "the history is damaged ({why}): it is kept as {}, and a new one is begun",
        name(&mark).display()
    );
    Ok(Gap {
        from: None,
        to: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        count: None,
        cause: DAMAGED.to_owned(),
    })
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;

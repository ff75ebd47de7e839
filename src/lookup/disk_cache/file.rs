//! The file: opening it, and reading its entries.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
};

use super::row::{Row, StateRow};
use crate::lookup::cache_entry::CacheEntry;
use crate::lookup::clock::now;
use crate::policy::facts::Lookup;

/// Keys and values of [`Row`]; a row that this version cannot read is ignored.
pub(super) const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts-2");
/// States of other parts of the gateway by name, values of [`StateRow`].
pub(super) const STATES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("states-1");
/// Bytes of redb's own cache; small, as entries are read once, at the start.
const REDB_CACHE: usize = 4 << 20;

/// Why the cache file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskCacheError {
    #[error("{} is in use by a running gateway; use its control socket", path.display())]
    InUse { path: PathBuf },
    #[error("cannot open {}: {why}; create its directory, and let the gateway's user write there", path.display())]
    Open { path: PathBuf, why: io::Error },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Only,
    OrNew,
}

/// Reads the file's entries, without expired ones; for use while no gateway runs.
///
/// # Errors
/// The file is missing, in use, or damaged.
pub fn read_disk_cache(path: &Path) -> Result<Vec<(Lookup, CacheEntry)>, DiskCacheError> {
    Ok(load(path, Existing::Only)?.entries)
}

/// The content of the file.
pub(super) struct LoadedFile {
    pub(super) database: Database,
    /// Those that have not expired.
    pub(super) entries: Vec<(Lookup, CacheEntry)>,
    /// Number of rows that are not as they were written.
    pub(super) damaged: usize,
    pub(super) states: LoadedStates,
}

/// States of other parts of the gateway.
#[derive(Debug, Default)]
pub(super) struct LoadedStates {
    pub(super) intact: HashMap<String, Vec<u8>>,
    /// Names of those that are not as they were written.
    pub(super) damaged: Vec<String>,
}

pub(super) fn load(path: &Path, existing: Existing) -> Result<LoadedFile, DiskCacheError> {
    // Created here rather than by redb, for its mode: it names people's mailboxes.
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(existing == Existing::OrNew).mode(0o600);
    let opened = options.open(path);
    drop(opened.map_err(|why| DiskCacheError::Open { path: path.to_owned(), why })?);
    // redb may panic on a damaged file; that must not end the gateway.
    let loading = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(REDB_CACHE).set_check_integrity_on_open(true);
        let database = builder.create(path).map_err(|error| open_error(path, error))?;
        let (entries, damaged_rows) = entries(&database).map_err(|why| damaged(path, &why))?;
        let states = states(&database).map_err(|why| damaged(path, &why))?;
        Ok(LoadedFile { database, entries, damaged: damaged_rows, states })
    }));
    loading.unwrap_or_else(|_panic| Err(damaged(path, &"its structure is invalid")))
}

pub(super) fn damaged(path: &Path, why: &dyn std::fmt::Display) -> DiskCacheError {
    DiskCacheError::Damaged { path: path.to_owned(), why: why.to_string() }
}

fn open_error(path: &Path, error: DatabaseError) -> DiskCacheError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => DiskCacheError::InUse { path },
        DatabaseError::Storage(redb::StorageError::Io(why))
            if why.kind() != io::ErrorKind::InvalidData
                && why.kind() != io::ErrorKind::UnexpectedEof =>
        {
            DiskCacheError::Open { path, why }
        }
        other => DiskCacheError::Damaged { path, why: other.to_string() },
    }
}

/// The entries that have not expired, and the number of damaged rows.
fn entries(database: &Database) -> Result<(Vec<(Lookup, CacheEntry)>, usize), redb::Error> {
    let reading = database.begin_read()?;
    let table = match reading.open_table(FACTS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error.into()),
    };
    let now = now();
    let (mut entries, mut damaged) = (Vec::new(), 0);
    for row in table.iter()? {
        let (key, value) = row?;
        match Row::read(key.value(), value.value()) {
            Row::Answer(row) if row.1.is_fresh(now) => entries.push(*row),
            Row::Answer(_) | Row::Unreadable => {}
            Row::Damaged => damaged += 1,
        }
    }
    Ok((entries, damaged))
}

fn states(database: &Database) -> Result<LoadedStates, redb::Error> {
    let reading = database.begin_read()?;
    let mut states = LoadedStates::default();
    let table = match reading.open_table(STATES) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(states),
        Err(error) => return Err(error.into()),
    };
    for row in table.iter()? {
        let (name, value) = row?;
        let name = name.value().to_owned();
        match StateRow::read(&name, value.value()) {
            Some(state) => drop(states.intact.insert(name, state.to_vec())),
            None => states.damaged.push(name),
        }
    }
    Ok(states)
}

//! Answers that survive a restart: a redb file.
//!
//! A thread of its own writes what is learnt, in one durable commit a second and one at the end. So a kill -9, or a power
//! cut, loses what was learnt in the last second or so, and nothing else: redb's file is whole after any of them. A file that
//! cannot be read is set aside and said; the gateway goes on with an empty one. Expired answers are pruned, and of more than
//! the memory may hold the first to end are not kept.

mod writer;

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
};

pub(super) use self::writer::DiskCache;
use super::cache_entry::CacheEntry;
use super::now;
use crate::policy::facts::Lookup;

/// A lookup as JSON to an [`CacheEntry`] as JSON: what a later version cannot read it leaves out.
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts-1");
/// Octets of redb's own cache: entries are read once, at the start.
const CACHE: usize = 4 << 20;

/// Why the file of answers cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskCacheError {
    #[error("{} is in use by a running gateway; ask it by its control socket", path.display())]
    InUse { path: PathBuf },
    #[error("cannot open {}: {why}; make its directory, and let the gateway's user write there", path.display())]
    Open { path: PathBuf, why: io::Error },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
}

/// What was found at the start: the store unless it cannot be used, what it holds, and what has to be said.
pub(super) struct Opened {
    pub(super) store: Option<DiskCache>,
    pub(super) entries: Vec<(Lookup, CacheEntry)>,
    pub(super) notice: Option<String>,
}

/// Opens the file at `path`, made if it is not there; of its entries at most `most`, the last to end.
pub(super) fn open(path: &Path, most: usize) -> Opened {
    let (database, entries, notice) = match load(path, Existing::OrNew) {
        Ok((database, entries)) => (Some(database), entries, None),
        Err(DiskCacheError::Damaged { why, .. }) => begin_anew(path, &why),
        Err(error) => {
            let notice = format!("answers are kept in memory only: {error}");
            (None, Vec::new(), Some(notice))
        }
    };
    let (entries, surplus) = the_last_to_end(entries, most);
    let mut notice = notice;
    let store = database.and_then(|database| match DiskCache::start(database, most, surplus) {
        Ok(store) => Some(store),
        Err(why) => {
            notice = Some(format!("answers are kept in memory only: cannot start a thread: {why}"));
            None
        }
    });
    Opened { store, entries, notice }
}

/// What the file holds, for whoever looks while no gateway runs: what expired is left out.
///
/// # Errors
/// There is no such file, it is in use, or damaged.
pub fn read_disk_cache(path: &Path) -> Result<Vec<(Lookup, CacheEntry)>, DiskCacheError> {
    Ok(load(path, Existing::Only)?.1)
}

/// Removes what `matches` from the file; returns how many.
///
/// # Errors
/// As [`read_disk_cache`].
pub fn purge_disk_cache(
    path: &Path,
    matches: impl Fn(&Lookup) -> bool,
) -> Result<usize, DiskCacheError> {
    let (database, entries) = load(path, Existing::Only)?;
    let gone: Vec<_> = entries.into_iter().map(|(lookup, _)| lookup).filter(matches).collect();
    let count = gone.len();
    let gone = gone.into_iter().map(|lookup| (lookup, None));
    writer::commit(&database, gone).map_err(|why| damaged(path, &why))?;
    Ok(count)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Only,
    OrNew,
}

/// The file is another after this, or there is none.
fn begin_anew(
    path: &Path,
    why: &str,
) -> (Option<Database>, Vec<(Lookup, CacheEntry)>, Option<String>) {
    let aside = aside(path);
    let moved = fs::rename(path, &aside).map_err(|why| why.to_string());
    let opened =
        moved.and_then(|()| load(path, Existing::OrNew).map_err(|error| error.to_string()));
    match opened {
        Ok((database, entries)) => {
            let notice = format!(
                "{} was damaged ({why}) and is now {}; answers are learnt anew",
                path.display(),
                aside.display()
            );
            (Some(database), entries, Some(notice))
        }
        Err(error) => {
            let notice = format!(
                "answers are kept in memory only: {} is damaged ({why}) and no other can be made: {error}",
                path.display()
            );
            (None, Vec::new(), Some(notice))
        }
    }
}

/// `facts.redb.damaged-2026-11-23T12:00:00.000000Z`
fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{}", now()));
    name.into()
}

fn load(
    path: &Path,
    existing: Existing,
) -> Result<(Database, Vec<(Lookup, CacheEntry)>), DiskCacheError> {
    // Not redb makes it: it names people's mailboxes.
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(existing == Existing::OrNew).mode(0o600);
    let opened = options.open(path);
    drop(opened.map_err(|why| DiskCacheError::Open { path: path.to_owned(), why })?);
    // What stands in a damaged file must not end the gateway, whatever it leads redb to.
    let loading = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let database = builder.create(path).map_err(|error| refused(path, error))?;
        let entries = entries(&database).map_err(|why| damaged(path, &why))?;
        Ok((database, entries))
    }));
    loading.unwrap_or_else(|_panic| Err(damaged(path, &"it cannot be made sense of")))
}

fn damaged(path: &Path, why: &dyn std::fmt::Display) -> DiskCacheError {
    DiskCacheError::Damaged { path: path.to_owned(), why: why.to_string() }
}

fn refused(path: &Path, error: DatabaseError) -> DiskCacheError {
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

/// Those that are good now; what cannot be read was written by another version.
fn entries(database: &Database) -> Result<Vec<(Lookup, CacheEntry)>, redb::Error> {
    let reading = database.begin_read()?;
    let table = match reading.open_table(FACTS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let now = now();
    let mut entries = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        let lookup = serde_json::from_str(key.value());
        let entry = serde_json::from_slice::<CacheEntry>(value.value());
        if let (Ok(lookup), Ok(entry)) = (lookup, entry)
            && entry.is_fresh(now)
        {
            entries.push((lookup, entry));
        }
    }
    Ok(entries)
}

/// At most `most`, and how many there were besides.
fn the_last_to_end(
    mut entries: Vec<(Lookup, CacheEntry)>,
    most: usize,
) -> (Vec<(Lookup, CacheEntry)>, bool) {
    let surplus = entries.len() > most;
    if surplus {
        entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.expires_at));
        entries.truncate(most);
    }
    (entries, surplus)
}

//! The cache on disk: answers survive a restart in a redb file.
//!
//! A thread writes the changes, in one durable commit a second and one at the end. A kill -9 or a power cut loses the changes
//! of the last second and nothing else: redb's file is consistent after either. A file that cannot be read is set aside with
//! a warning, and the gateway continues with an empty one. Expired answers are pruned; of more than the memory cache may
//! hold, the first to expire are dropped.
//!
//! The file also holds the states of other parts of the gateway that survive a restart ([`super::LookupService::save_state`]).

mod file;
mod row;
mod writer;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use redb::Database;

pub use self::file::{DiskCacheError, read_disk_cache};
use self::file::{Existing, LoadedFile, LoadedStates, damaged, load};
pub(super) use self::writer::DiskCache;
use self::writer::commit;
use super::cache_entry::CacheEntry;
use super::clock::now;
use crate::policy::facts::Lookup;

/// The result of [`open`].
pub(super) struct OpenedCache {
    /// `None` if the file cannot be used.
    pub(super) cache: Option<DiskCache>,
    pub(super) entries: Vec<(Lookup, CacheEntry)>,
    /// Number of rows that were damaged, and dropped; states included.
    pub(super) damaged: usize,
    /// By name.
    pub(super) states: HashMap<String, Vec<u8>>,
    pub(super) warnings: Vec<String>,
}

/// Opens or creates the file at `path`. Returns at most `max` of its entries, the last to expire.
pub(super) fn open(path: &Path, max: usize) -> OpenedCache {
    let (mut damaged, mut states) = (0, LoadedStates::default());
    let mut warnings = Vec::new();
    let (database, entries) = match load(path, Existing::OrNew) {
        Ok(loaded) => {
            (damaged, states) = (loaded.damaged, loaded.states);
            warnings.extend((damaged > 0).then(|| damaged_rows(path, damaged)));
            warnings.extend(states.damaged.iter().map(|name| damaged_state(path, name)));
            (Some(loaded.database), loaded.entries)
        }
        Err(DiskCacheError::Damaged { why, .. }) => {
            let (database, entries, warning) = replace_damaged(path, &why);
            warnings.push(warning);
            (database, entries)
        }
        Err(error) => {
            warnings.push(format!("answers are cached in memory only: {error}"));
            (None, Vec::new())
        }
    };
    let (entries, has_surplus) = last_to_expire(entries, max);
    let damaged = damaged + states.damaged.len();
    let prune_now = has_surplus || damaged > 0;
    let cache = database.and_then(|database| match DiskCache::start(database, max, prune_now) {
        Ok(cache) => Some(cache),
        Err(why) => {
            warnings
                .push(format!("answers are cached in memory only: cannot start a thread: {why}"));
            None
        }
    });
    OpenedCache { cache, entries, damaged, states: states.intact, warnings }
}

fn damaged_rows(path: &Path, count: usize) -> String {
    let answers = if count == 1 { "answer" } else { "answers" };
    format!(
        "{count} cached {answers} in {} did not match the checksum and were dropped; check the disk",
        path.display()
    )
}

fn damaged_state(path: &Path, name: &str) -> String {
    let path = path.display();
    format!("the state {name} in {path} did not match the checksum and was dropped; check the disk")
}

/// Deletes the answers whose lookup `matches` from the file; for use while no gateway runs. Returns their number.
///
/// # Errors
/// As [`read_disk_cache`].
pub fn purge_disk_cache(
    path: &Path,
    matches: impl Fn(&Lookup) -> bool,
) -> Result<usize, DiskCacheError> {
    let LoadedFile { database, entries, .. } = load(path, Existing::Only)?;
    let purged: Vec<_> = entries.into_iter().map(|(lookup, _)| lookup).filter(matches).collect();
    let count = purged.len();
    let purged = purged.into_iter().map(|lookup| (lookup, None));
    commit(&database, purged, [].into_iter()).map_err(|why| damaged(path, &why))?;
    Ok(count)
}

/// Sets a damaged file aside and creates a new one.
fn replace_damaged(
    path: &Path,
    why: &str,
) -> (Option<Database>, Vec<(Lookup, CacheEntry)>, String) {
    let aside = set_aside_name(path);
    let moved = fs::rename(path, &aside).map_err(|why| why.to_string());
    let opened =
        moved.and_then(|()| load(path, Existing::OrNew).map_err(|error| error.to_string()));
    match opened {
        Ok(LoadedFile { database, entries, .. }) => {
            let warning = format!(
                "{} was damaged ({why}) and is now {}; the cache starts empty",
                path.display(),
                aside.display()
            );
            (Some(database), entries, warning)
        }
        Err(error) => {
            let warning = format!(
                "answers are cached in memory only: {} is damaged ({why}) and cannot be replaced: {error}",
                path.display()
            );
            (None, Vec::new(), warning)
        }
    }
}

/// `facts.redb.damaged-2026-11-23T12:00:00.000000Z`
fn set_aside_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{}", now()));
    name.into()
}

/// At most `max` entries, and whether there were more.
fn last_to_expire(
    mut entries: Vec<(Lookup, CacheEntry)>,
    max: usize,
) -> (Vec<(Lookup, CacheEntry)>, bool) {
    let has_surplus = entries.len() > max;
    if has_surplus {
        entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.expires_at));
        entries.truncate(max);
    }
    (entries, has_surplus)
}

//! The thread that writes the file.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redb::{Database, ReadableTable as _, ReadableTableMetadata as _};

use super::file::{FACTS, STATES};
use super::row::{Row, StateRow};
use crate::lookup::cache_entry::CacheEntry;
use crate::lookup::clock::now;
use crate::policy::facts::Lookup;

/// Changes within this time go into one commit.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
const PRUNE_INTERVAL: Duration = Duration::from_secs(600);
/// Changes that wait for the disk; more are not written, and lost at the end of the process.
const MAX_QUEUED: usize = 16_384;

/// `None` removes the entry.
type EntryChange = (Lookup, Option<Arc<CacheEntry>>);
/// A state of another part of the gateway, by name. It replaces the one before.
type StateChange = (&'static str, Vec<u8>);

enum WriterCommand {
    Change(EntryChange),
    State(StateChange),
    /// Commit now, then reply.
    Flush(SyncSender<()>),
}

/// The cache file, open for writing. On drop it writes the queued changes.
#[derive(Debug)]
pub(in crate::lookup) struct DiskCache {
    commands: Option<SyncSender<WriterCommand>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl DiskCache {
    /// Keeps at most `max` entries; with `prune_now` the file has more.
    pub(super) fn start(database: Database, max: usize, prune_now: bool) -> io::Result<Self> {
        let (commands, inbox) = sync_channel(MAX_QUEUED);
        let name = String::from("facts");
        let thread = thread::Builder::new().name(name).spawn(move || {
            let last_pruned = if prune_now { None } else { Some(Instant::now()) };
            Writer { database, max, last_pruned }.run(&inbox);
        })?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
    }

    /// Queues a change; never blocks.
    pub(in crate::lookup) fn change(&self, lookup: Lookup, entry: Option<Arc<CacheEntry>>) {
        if let Some(commands) = &self.commands {
            let _queue_is_full = commands.try_send(WriterCommand::Change((lookup, entry)));
        }
    }

    /// Likewise, for a state of another part of the gateway.
    pub(in crate::lookup) fn save_state(&self, name: &'static str, state: Vec<u8>) {
        if let Some(commands) = &self.commands {
            let _queue_is_full = commands.try_send(WriterCommand::State((name, state)));
        }
    }

    /// Waits until all queued changes are on disk.
    pub(in crate::lookup) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if let Some(commands) = &self.commands
            && commands.send(WriterCommand::Flush(done)).is_ok()
        {
            let _even_if_it_failed = is_done.recv();
        }
    }
}

struct Writer {
    database: Database,
    max: usize,
    /// `None`: prune at the next opportunity.
    last_pruned: Option<Instant>,
}

impl Writer {
    fn run(&mut self, inbox: &Receiver<WriterCommand>) {
        let mut changes: HashMap<Lookup, Option<Arc<CacheEntry>>> = HashMap::new();
        let mut states: HashMap<&'static str, Vec<u8>> = HashMap::new();
        let mut first_change = None;
        loop {
            let limit = first_change.map_or(PRUNE_INTERVAL, |first: Instant| {
                COMMIT_INTERVAL.saturating_sub(first.elapsed())
            });
            let mut flushed = None;
            let (write, stop) = match inbox.recv_timeout(limit) {
                Ok(WriterCommand::Change((lookup, entry))) => {
                    changes.insert(lookup, entry);
                    let first = *first_change.get_or_insert_with(Instant::now);
                    (first.elapsed() >= COMMIT_INTERVAL, false)
                }
                Ok(WriterCommand::State((name, state))) => {
                    states.insert(name, state);
                    let first = *first_change.get_or_insert_with(Instant::now);
                    (first.elapsed() >= COMMIT_INTERVAL, false)
                }
                Ok(WriterCommand::Flush(done)) => {
                    flushed = Some(done);
                    (true, false)
                }
                Err(RecvTimeoutError::Timeout) => (true, false),
                Err(RecvTimeoutError::Disconnected) => (true, true),
            };
            if write {
                // On a full disk these changes are lost; the next ones are tried again.
                let _failed = commit(&self.database, changes.drain(), states.drain());
                first_change = None;
            }
            if let Some(done) = flushed {
                let _caller_is_gone = done.send(());
            }
            if stop {
                return;
            }
            if self.last_pruned.is_none_or(|last| last.elapsed() >= PRUNE_INTERVAL) {
                self.last_pruned = Some(Instant::now());
                let _failed = prune(&self.database, self.max);
            }
        }
    }
}

/// Makes the changes in one durable commit.
pub(super) fn commit(
    database: &Database,
    changes: impl ExactSizeIterator<Item = EntryChange>,
    states: impl ExactSizeIterator<Item = StateChange>,
) -> Result<(), redb::Error> {
    if changes.len() == 0 && states.len() == 0 {
        return Ok(());
    }
    let writing = database.begin_write()?;
    if states.len() > 0 {
        let mut table = writing.open_table(STATES)?;
        for (name, state) in states {
            drop(table.insert(name, StateRow::write(name, &state).as_slice())?);
        }
    }
    if changes.len() > 0 {
        let mut table = writing.open_table(FACTS)?;
        for (lookup, entry) in changes {
            if let Some(entry) = entry {
                let Some((key, value)) = Row::write(&lookup, &entry) else { continue };
                drop(table.insert(key.as_str(), value.as_slice())?);
            } else if let Some(key) = Row::key(&lookup) {
                drop(table.remove(key.as_str())?);
            }
        }
    }
    writing.commit()?;
    Ok(())
}

/// Removes expired, unreadable and damaged rows, of more than `max` the first to expire, and damaged states.
fn prune(database: &Database, max: usize) -> Result<(), redb::Error> {
    let now = now();
    let writing = database.begin_write()?;
    writing.open_table(STATES)?.retain(|name, value| StateRow::read(name, value).is_some())?;
    {
        let mut table = writing.open_table(FACTS)?;
        let expires_at = |key: &str, value: &[u8]| match Row::read(key, value) {
            Row::Answer(row) => Some(row.1.expires_at),
            Row::Unreadable | Row::Damaged => None,
        };
        table.retain(|key, value| {
            expires_at(key, value).is_some_and(|expires_at| now < expires_at)
        })?;
        let surplus = usize::try_from(table.len()?).unwrap_or(usize::MAX).saturating_sub(max);
        if surplus > 0 {
            let mut expiry_times = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                expiry_times.extend(expires_at(key.value(), value.value()));
            }
            expiry_times.sort_unstable();
            let last_removed = expiry_times.get(surplus - 1).copied().unwrap_or_default();
            table.retain(|key, value| {
                expires_at(key, value).is_some_and(|expires_at| last_removed < expires_at)
            })?;
        }
    }
    writing.commit()?;
    Ok(())
}

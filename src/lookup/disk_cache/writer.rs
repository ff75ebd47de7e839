//! The thread that writes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redb::{Database, ReadableTable as _, ReadableTableMetadata as _};

use super::FACTS;
use crate::lookup::cache_entry::CacheEntry;
use crate::lookup::now;
use crate::policy::facts::Lookup;

/// What is learnt in so long is one commit.
const BATCH: Duration = Duration::from_secs(1);
/// What expired is removed so often.
const PRUNE: Duration = Duration::from_secs(600);
/// What waits for the disk, at most; more is not written, and forgotten at the end of the process.
const WAITING: usize = 16_384;

type Change = (Lookup, Option<Arc<CacheEntry>>);

enum Order {
    Change(Change),
    /// Commit now, and say so.
    Flush(SyncSender<()>),
}

/// The file of answers, while it is written to. Dropped, it writes what is left.
#[derive(Debug)]
pub(in crate::lookup) struct DiskCache {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _it_said_nothing = thread.join();
        }
    }
}

impl DiskCache {
    /// With room for `most` entries; `prunes` at once if there are more.
    pub(super) fn start(database: Database, most: usize, prunes: bool) -> io::Result<Self> {
        let (orders, inbox) = sync_channel(WAITING);
        let name = String::from("facts");
        let thread = thread::Builder::new().name(name).spawn(move || {
            let last_pruned = if prunes { None } else { Some(Instant::now()) };
            Writer { database, most, last_pruned }.run(&inbox);
        })?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Keeps an entry, or removes it. Never waits.
    pub(in crate::lookup) fn change(&self, lookup: Lookup, entry: Option<Arc<CacheEntry>>) {
        if let Some(orders) = &self.orders {
            let _too_busy = orders.try_send(Order::Change((lookup, entry)));
        }
    }

    /// Waits until all that was told before is on the disk.
    pub(in crate::lookup) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if let Some(orders) = &self.orders
            && orders.send(Order::Flush(done)).is_ok()
        {
            let _even_if_it_failed = is_done.recv();
        }
    }
}

struct Writer {
    database: Database,
    most: usize,
    /// `None`: never.
    last_pruned: Option<Instant>,
}

impl Writer {
    fn run(&mut self, inbox: &Receiver<Order>) {
        let mut changes: HashMap<Lookup, Option<Arc<CacheEntry>>> = HashMap::new();
        let mut since = None;
        loop {
            let patience =
                since.map_or(PRUNE, |since: Instant| BATCH.saturating_sub(since.elapsed()));
            let order = inbox.recv_timeout(patience);
            let mut waiting = None;
            let (write, over) = match order {
                Ok(Order::Change((lookup, entry))) => {
                    changes.insert(lookup, entry);
                    let since = *since.get_or_insert_with(Instant::now);
                    (since.elapsed() >= BATCH, false)
                }
                Ok(Order::Flush(done)) => {
                    waiting = Some(done);
                    (true, false)
                }
                Err(RecvTimeoutError::Timeout) => (true, false),
                Err(RecvTimeoutError::Disconnected) => (true, true),
            };
            if write {
                // A full disk: these are lost, the next ones are tried again.
                let _failed = commit(&self.database, changes.drain());
                since = None;
            }
            if let Some(done) = waiting {
                let _gone = done.send(());
            }
            if over {
                return;
            }
            if self.last_pruned.is_none_or(|last| last.elapsed() >= PRUNE) {
                self.last_pruned = Some(Instant::now());
                let _failed = prune(&self.database, self.most);
            }
        }
    }
}

/// Makes the changes in one durable commit.
pub(super) fn commit(
    database: &Database,
    changes: impl ExactSizeIterator<Item = Change>,
) -> Result<(), redb::Error> {
    if changes.len() == 0 {
        return Ok(());
    }
    let writing = database.begin_write()?;
    {
        let mut table = writing.open_table(FACTS)?;
        for (lookup, entry) in changes {
            // Neither fails: they are plain data with strings for keys.
            let Ok(key) = serde_json::to_string(&lookup) else { continue };
            match entry.map(|entry| serde_json::to_vec(&*entry)) {
                Some(Ok(value)) => drop(table.insert(key.as_str(), value.as_slice())?),
                Some(Err(_)) => {}
                None => drop(table.remove(key.as_str())?),
            }
        }
    }
    writing.commit()?;
    Ok(())
}

/// Removes what expired or cannot be read, and of more than `most` the first to end.
fn prune(database: &Database, most: usize) -> Result<(), redb::Error> {
    let now = now();
    let writing = database.begin_write()?;
    {
        let mut table = writing.open_table(FACTS)?;
        table.retain(|_, value| {
            serde_json::from_slice::<CacheEntry>(value).is_ok_and(|entry| entry.is_fresh(now))
        })?;
        let surplus = usize::try_from(table.len()?).unwrap_or(usize::MAX).saturating_sub(most);
        if surplus > 0 {
            let mut ends = Vec::new();
            for row in table.iter()? {
                let (_, value) = row?;
                ends.extend(
                    serde_json::from_slice::<CacheEntry>(value.value()).map(|it| it.expires_at),
                );
            }
            ends.sort_unstable();
            let last_gone = ends.get(surplus - 1).copied().unwrap_or_default();
            table.retain(|_, value| {
                serde_json::from_slice::<CacheEntry>(value)
                    .is_ok_and(|entry| last_gone < entry.expires_at)
            })?;
        }
    }
    writing.commit()?;
    Ok(())
}

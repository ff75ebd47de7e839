//! The in-memory cache (moka), bounded in entries and in bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Moka;

use super::cache_entry::CacheEntry;
use super::clock::now;
use super::settings::LookupSettings;
use crate::policy::facts::{Lookup, LookupObserver};

#[derive(Clone, Debug)]
pub(super) struct MemoryCache(Moka<Lookup, Arc<CacheEntry>>);

impl MemoryCache {
    pub(super) fn new(settings: &LookupSettings) -> Self {
        let limits = settings.cache_limits;
        // An entry weighs its size in bytes, and at least bytes / entries: so neither limit is exceeded.
        let share = limits.bytes.div_ceil(limits.entries.max(1));
        let weigh = move |lookup: &Lookup, entry: &Arc<CacheEntry>| {
            let bytes = entry.size(subject_size(lookup)).max(share);
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let capacity = u64::try_from(limits.bytes).unwrap_or(u64::MAX);
        // LRU admits every new entry. The default (TinyLFU) may not, and the newest answer is needed next, when the sender
        // returns.
        let cache = Moka::builder().eviction_policy(EvictionPolicy::lru());
        Self(cache.max_capacity(capacity).weigher(weigh).expire_after(ByExpiryTime).build())
    }

    pub(super) fn get(&self, lookup: &Lookup) -> Option<Arc<CacheEntry>> {
        self.0.get(lookup)
    }

    pub(super) fn insert(&self, lookup: Lookup, entry: Arc<CacheEntry>) {
        self.0.insert(lookup, entry);
    }

    pub(super) fn remove(&self, lookup: &Lookup) {
        self.0.invalidate(lookup);
    }

    /// All entries; some may have expired.
    pub(super) fn entries(&self) -> Vec<(Lookup, Arc<CacheEntry>)> {
        self.0.iter().map(|(lookup, entry)| (Lookup::clone(&lookup), entry)).collect()
    }

    /// Evicts expired entries and reports the size.
    pub(super) fn maintain(&self, observer: &dyn LookupObserver) {
        self.0.run_pending_tasks();
        observer.on_cache_size(self.0.entry_count(), self.0.weighted_size());
    }
}

fn subject_size(lookup: &Lookup) -> usize {
    match lookup {
        Lookup::Addresses(name, _) | Lookup::MailExchanges(name) | Lookup::Texts(name) => {
            name.as_dns().len()
        }
        Lookup::Callout(_, path) | Lookup::Recipient(path) => path.len(),
        Lookup::Reverse(_) | Lookup::Connect(_) | Lookup::Greet(_) | Lookup::ReceivePath(_) => 16,
    }
}

/// Expires an entry at its own time, by the wall clock at insertion.
struct ByExpiryTime;

impl Expiry<Lookup, Arc<CacheEntry>> for ByExpiryTime {
    fn expire_after_create(
        &self,
        _: &Lookup,
        entry: &Arc<CacheEntry>,
        _: Instant,
    ) -> Option<Duration> {
        Some(entry.expires_at - now())
    }

    fn expire_after_update(
        &self,
        _: &Lookup,
        entry: &Arc<CacheEntry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.expires_at - now())
    }
}

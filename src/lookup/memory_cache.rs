//! Answers in memory, bounded in number and in octets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Moka;

use super::LookupSettings;
use super::cache_entry::CacheEntry;
use super::now;
use crate::policy::facts::{Lookup, LookupObserver};

#[derive(Clone, Debug)]
pub(super) struct Cache(Moka<Lookup, Arc<CacheEntry>>);

impl Cache {
    pub(super) fn new(settings: &LookupSettings) -> Self {
        let limits = settings.cache_limits;
        // One entry weighs as many octets as it has, and no less than its share: so neither bound is passed.
        let share = limits.bytes.div_ceil(limits.entries.max(1));
        let weigh = move |lookup: &Lookup, entry: &Arc<CacheEntry>| {
            let octets = entry.octets(subject_octets(lookup)).max(share);
            u32::try_from(octets).unwrap_or(u32::MAX)
        };
        let most = u64::try_from(limits.bytes).unwrap_or(u64::MAX);
        // What was learnt last is asked for next, when the sender comes again: it always gets in.
        let cache = Moka::builder().eviction_policy(EvictionPolicy::lru());
        Self(cache.max_capacity(most).weigher(weigh).expire_after(UntilItsEnd).build())
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

    /// All that is good now.
    pub(super) fn entries(&self) -> Vec<(Lookup, Arc<CacheEntry>)> {
        self.0.iter().map(|(lookup, entry)| (Lookup::clone(&lookup), entry)).collect()
    }

    /// Tidies up, and tells how much is kept.
    pub(super) fn tell(&self, observer: &dyn LookupObserver) {
        self.0.run_pending_tasks();
        observer.on_cache_size(self.0.entry_count(), self.0.weighted_size());
    }
}

fn subject_octets(lookup: &Lookup) -> usize {
    match lookup {
        Lookup::Addresses(name, _) | Lookup::MailExchanges(name) => name.as_dns().len(),
        Lookup::Callout(_, path) | Lookup::Recipient(path) => path.len(),
        Lookup::Reverse(_) | Lookup::Connect(_) | Lookup::Greet(_) | Lookup::ReceivePath(_) => 16,
    }
}

/// An entry's own end, by the wall clock at the time when it is put in.
struct UntilItsEnd;

impl Expiry<Lookup, Arc<CacheEntry>> for UntilItsEnd {
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

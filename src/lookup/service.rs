//! The lookup service of a running gateway.
//!
//! A lookup is answered from observed traffic, else from the cache, else by a query. Concurrent lookups of one subject share
//! a query, which runs to its end even if all callers leave. In the last fifth of its life a cached answer is refreshed in
//! the background by the first reader, who gets the cached answer at once. No caller waits longer than the deadline; then
//! the answer is unknown.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::cache_entry::CacheEntry;
use super::call_ahead::CallAhead;
use super::clock::now;
use super::disk_cache::{self, DiskCache};
use super::dns::{Dns, DnsError, system_servers};
use super::limits::ClientShares;
use super::memory_cache::MemoryCache;
use super::probe::Prober;
use super::redis_store::{Claim, RedisStore, is_shared};
use super::settings::LookupSettings;
use super::single_flight::{Join, SingleFlight};
use super::traffic_hints::ObservedServers;
use crate::policy::facts::{
    Answer, Lookup, LookupKind, LookupObserver, LookupResult, Reason, Resolution, Source,
};
use crate::time::Timestamp;
use crate::traffic::{ConnectionResponse, FlowObserver, FlowSummary, MailDirection};

/// Interval of cleaning up and of reporting the cache's size.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(10);

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error(
        "[lookup] redis is not the address of a Redis server: {0}; write one such as \"redis://192.0.2.6:6379/0\""
    )]
    Redis(String),
}

/// Answers lookups; clones share everything.
#[derive(Clone)]
pub struct LookupService(Arc<Inner>);

struct Inner {
    settings: LookupSettings,
    observed: ObservedServers,
    memory: MemoryCache,
    flights: SingleFlight,
    dns: Dns,
    shares: ClientShares,
    prober: Prober,
    call_ahead: CallAhead,
    redis: Option<RedisStore>,
    disk: Option<DiskCache>,
    /// Of other parts of the gateway, as an earlier process left them in the cache file.
    saved_states: Mutex<HashMap<String, Vec<u8>>>,
    observer: Arc<dyn LookupObserver>,
    /// Runs the queries, so that they neither delay sessions nor end with a caller's thread.
    runtime: Handle,
}

impl LookupService {
    /// Loads the answers of an earlier process. Queries run on the runtime of the caller. Also returns warnings for the log:
    /// problems that the service can do with.
    ///
    /// # Errors
    /// No DNS server is known, or an address in the settings is wrong.
    pub fn start(
        settings: LookupSettings,
        observer: Arc<dyn LookupObserver>,
    ) -> Result<(Self, Vec<String>), LookupError> {
        let servers = match settings.dns_servers.as_slice() {
            [] => system_servers()?,
            servers => servers.to_vec(),
        };
        // Slightly less than the callers' deadline, so that they receive the reason.
        let dns = Dns::uncached(&servers, settings.deadline * 19 / 20)?;
        let runtime = Handle::current();
        let connect =
            |url: &String| RedisStore::start(url, &settings, &runtime, Arc::clone(&observer));
        let redis = settings.redis.as_ref().map(connect).transpose().map_err(LookupError::Redis)?;
        let memory = MemoryCache::new(&settings);
        let mut warnings = Vec::new();
        let (mut disk, mut saved_states) = (None, HashMap::new());
        if let Some(path) = &settings.cache_file {
            let opened = disk_cache::open(path, settings.cache_limits.entries);
            for (lookup, entry) in opened.entries {
                memory.insert(lookup, Arc::new(entry));
            }
            warnings.extend(opened.warnings);
            saved_states = opened.states;
            observer.on_damaged_rows(opened.damaged);
            disk = opened.cache;
        }
        let inner = Arc::new(Inner {
            observed: ObservedServers::new(settings.traffic_max_age),
            memory,
            flights: SingleFlight::default(),
            dns,
            shares: ClientShares::new(&settings),
            prober: Prober::new(&settings),
            call_ahead: CallAhead::new(&settings),
            redis,
            disk,
            saved_states: Mutex::new(saved_states),
            observer,
            runtime,
            settings,
        });
        let maintained = Arc::downgrade(&inner);
        inner.runtime.spawn(async move {
            let mut tick = interval(MAINTENANCE_INTERVAL);
            tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tick.tick().await;
                let Some(inner) = maintained.upgrade() else { return };
                inner.maintain();
            }
        });
        Ok((Self(inner), warnings))
    }

    /// Answers a lookup of the gateway's own, no later than the deadline.
    pub async fn lookup(&self, lookup: &Lookup) -> LookupResult {
        self.lookup_for(lookup, None).await
    }

    /// The same for a session of `client`, which uses its share of the queries (`limits`).
    pub async fn lookup_for(&self, lookup: &Lookup, client: Option<IpAddr>) -> LookupResult {
        let inner = &self.0;
        let (result, how, waited) = match inner.answer_now(lookup, client) {
            // Without a wait the clock is not read.
            Some((result, how)) => (result, how, Duration::ZERO),
            None => {
                let began = Instant::now();
                let (result, how) = inner.wait_for_query(lookup, client).await;
                (result, how, began.elapsed())
            }
        };
        inner.observer.on_answer(lookup.kind(), how, result.answer.kind(), waited);
        result
    }

    /// Sets this host's own addresses, which are not probed.
    pub fn set_own_addresses(&self, addresses: BTreeSet<IpAddr>) {
        self.0.prober.set_own_addresses(addresses);
    }

    /// Sets the servers that recipients are verified with: host names have other addresses now.
    pub fn set_upstreams(&self, addresses: Vec<SocketAddr>) {
        self.0.call_ahead.set_upstreams(addresses);
    }

    /// Records a response of `server` that was observed in traffic at `at`.
    pub fn on_response(&self, server: IpAddr, response: ConnectionResponse, at: Timestamp) {
        self.0.observed.on_response(server, response, at);
    }

    /// The cached answers whose lookup `matches`; the last to expire comes first.
    pub fn entries(&self, matches: impl Fn(&Lookup) -> bool) -> Vec<(Lookup, Arc<CacheEntry>)> {
        let now = now();
        let mut entries = self.0.memory.entries();
        entries.retain(|(lookup, entry)| entry.is_fresh(now) && matches(lookup));
        entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.expires_at));
        entries
    }

    /// Deletes the answers whose lookup `matches` from memory, disk and Redis. Returns their number.
    pub async fn purge(&self, matches: impl Fn(&Lookup) -> bool) -> usize {
        let purged = self.entries(matches);
        for (lookup, _) in &purged {
            self.0.memory.remove(lookup);
            if let Some(disk) = &self.0.disk {
                disk.change(lookup.clone(), None);
            }
            if let Some(redis) = self.0.redis.as_ref().filter(|_| is_shared(lookup.kind())) {
                redis.remove(lookup).await;
            }
        }
        purged.len()
    }

    /// Whether there is a cache file, and so what [`Self::save_state`] gets outlives the process.
    pub fn keeps_states(&self) -> bool {
        self.0.disk.is_some()
    }

    /// The state that another part of the gateway saved in an earlier process; only the first call returns it.
    pub fn take_saved_state(&self, name: &str) -> Option<Vec<u8>> {
        self.0.saved_states.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    /// Writes the state of another part of the gateway to the cache file, within a second or at [`Self::flush`]. It replaces the
    /// state that was saved under the same name.
    pub fn save_state(&self, name: &'static str, state: Vec<u8>) {
        if let Some(disk) = &self.0.disk {
            disk.save_state(name, state);
        }
    }

    /// Waits until all answers and states are on disk.
    pub fn flush(&self) {
        if let Some(disk) = &self.0.disk {
            disk.flush();
        }
    }
}

#[cfg(test)]
impl LookupService {
    pub(super) fn all_entries(&self) -> Vec<(Lookup, Arc<CacheEntry>)> {
        self.entries(|_| true)
    }

    pub(super) fn insert(&self, lookup: Lookup, result: LookupResult, ttl: Duration) {
        self.0.insert(lookup, CacheEntry::new(result, now(), ttl));
    }

    pub(super) fn make_due(&self, lookup: &Lookup) {
        if let Some(entry) = self.0.memory.get(lookup) {
            let due = CacheEntry { refresh_at: now(), ..CacheEntry::clone(&entry) };
            self.0.memory.insert(lookup.clone(), Arc::new(due));
        }
    }

    pub(super) fn maintain(&self) {
        self.0.maintain();
    }
}

fn unknown(lookup: &Lookup, reason: Reason) -> LookupResult {
    let source = if lookup.is_probe() { Source::Probe } else { Source::None };
    LookupResult { answer: Answer::Unknown(reason), source, at: Some(now()) }
}

/// Only outbound flows show servers of others; inbound ones end at our own.
impl FlowObserver for LookupService {
    fn on_flow(&self, flow: &FlowSummary<'_>) {
        if let (MailDirection::Outbound, Some(response)) = (flow.direction, flow.response()) {
            self.on_response(flow.flow.start.server.ip(), response, flow.flow.end);
        }
    }
}

impl Inner {
    /// The answer that needs no query, if there is one.
    fn answer_now(
        self: &Arc<Self>,
        lookup: &Lookup,
        client: Option<IpAddr>,
    ) -> Option<(LookupResult, Resolution)> {
        if let Some(answer) = self.prober.answer_without_probe(lookup) {
            let how = match answer {
                Answer::Unknown(Reason::RateLimited) => Resolution::RateLimited,
                _ => Resolution::CacheHit,
            };
            return Some((LookupResult { answer, source: Source::Probe, at: None }, how));
        }
        if let Some(result) = self.observed.answer(lookup) {
            return Some((result, Resolution::Traffic));
        }
        let entry = self.memory.get(lookup)?;
        let now = now();
        if !entry.is_fresh(now) {
            return None;
        }
        if entry.needs_refresh(now) {
            self.refresh(lookup, client, Arc::clone(&entry));
        }
        Some((entry.result.clone(), Resolution::CacheHit))
    }

    /// Starts or joins a query, and waits for it until the deadline.
    async fn wait_for_query(
        self: &Arc<Self>,
        lookup: &Lookup,
        client: Option<IpAddr>,
    ) -> (LookupResult, Resolution) {
        let (query, how) = match self.join_query(lookup, client, None) {
            Join::Leader(query) => (query, Resolution::Queried),
            Join::Follower(query) => (query, Resolution::Coalesced),
            Join::Ready(result) => return (result, Resolution::CacheHit),
            Join::Full => return (unknown(lookup, Reason::RateLimited), Resolution::RateLimited),
        };
        match timeout(self.settings.deadline, query).await {
            Ok(result) => match result.answer {
                Answer::Unknown(Reason::RateLimited) => (result, Resolution::RateLimited),
                Answer::Unknown(Reason::Timeout) => (result, Resolution::Timeout),
                _ => (result, how),
            },
            Err(_elapsed) => (unknown(lookup, Reason::Timeout), Resolution::Timeout),
        }
    }

    /// `replaced`: the entry that the query refreshes.
    fn join_query(
        self: &Arc<Self>,
        lookup: &Lookup,
        client: Option<IpAddr>,
        replaced: Option<Arc<CacheEntry>>,
    ) -> Join {
        let cached = || {
            let entry = self.memory.get(lookup).filter(|entry| entry.is_fresh(now()))?;
            // A refresh is not satisfied by the entry that it replaces.
            let is_new = replaced.as_ref().is_none_or(|replaced| entry.is_newer(replaced));
            is_new.then(|| entry.result.clone())
        };
        let replaced_entry = replaced.clone();
        self.flights.join(lookup, &self.runtime, cached, || {
            // Only now is it known that this client starts a query.
            let permit = self.shares.acquire(lookup, client).ok()?;
            let (inner, lookup) = (Arc::clone(self), lookup.clone());
            Some(async move {
                let _permit = permit;
                inner.query(lookup, replaced_entry).await
            })
        })
    }

    fn refresh(self: &Arc<Self>, lookup: &Lookup, client: Option<IpAddr>, entry: Arc<CacheEntry>) {
        if let Join::Leader(_nobody_waits) = self.join_query(lookup, client, Some(entry)) {
            self.observer.on_refresh(lookup.kind());
        }
    }

    /// Queries Redis, then the source of the answer, and caches the answer.
    async fn query(
        self: Arc<Self>,
        lookup: Lookup,
        replaced: Option<Arc<CacheEntry>>,
    ) -> LookupResult {
        let redis = self.redis.as_ref().filter(|_| is_shared(lookup.kind()));
        let mut locked = None;
        if let Some(redis) = redis {
            match redis.claim(&lookup).await {
                Claim::Hit(entry)
                    if replaced.as_ref().is_none_or(|replaced| entry.is_newer(replaced)) =>
                {
                    self.observer.on_shared_hit(lookup.kind());
                    self.observer.on_new_answer(&lookup, &entry.result);
                    let result = entry.result.clone();
                    self.insert(lookup, *entry);
                    return result;
                }
                Claim::Hit(_) | Claim::Unavailable => {}
                Claim::Acquired => locked = Some(redis),
            }
        }
        let (result, dns_ttl) = self.query_source(&lookup).await;
        self.observer.on_new_answer(&lookup, &result);
        let now = now();
        let is_unknown = matches!(result.answer, Answer::Unknown(_));
        // A failed refresh does not replace a known answer.
        let retained = replaced.filter(|entry| is_unknown && entry.is_fresh(now));
        let ttl = self.settings.ttls.of(lookup.kind(), &result, dns_ttl);
        let ttl = ttl.filter(|_| retained.is_none());
        let fresh = ttl.map(|ttl| CacheEntry::new(result.clone(), now, ttl));
        if let Some(redis) = redis {
            match (&fresh, locked) {
                (Some(entry), _) => redis.share(&lookup, entry).await,
                (None, Some(locked)) => locked.release(&lookup).await,
                (None, None) => {}
            }
        }
        if let Some(retained) = retained {
            let refresh_at = now + self.settings.ttls.unknown;
            let entry = CacheEntry { refresh_at, ..CacheEntry::clone(&retained) };
            self.memory.insert(lookup, Arc::new(entry));
            return retained.result.clone();
        }
        if let Some(entry) = fresh {
            self.insert(lookup, entry);
        }
        result
    }

    fn insert(&self, lookup: Lookup, entry: CacheEntry) {
        let entry = Arc::new(entry);
        // An unknown answer is not worth a write to disk.
        let is_known = !matches!(entry.result.answer, Answer::Unknown(_));
        if let Some(disk) = self.disk.as_ref().filter(|_| is_known) {
            disk.change(lookup.clone(), Some(Arc::clone(&entry)));
        }
        self.memory.insert(lookup, entry);
    }

    async fn query_source(&self, lookup: &Lookup) -> (LookupResult, Option<Duration>) {
        let (answer, ttl, source) = match lookup.kind() {
            LookupKind::Reverse
            | LookupKind::Addresses
            | LookupKind::MailExchanges
            | LookupKind::Texts => {
                let (answer, ttl) = self.dns.answer_with_ttl(lookup).await;
                (answer, ttl, Source::Dns)
            }
            LookupKind::Connect | LookupKind::Greet | LookupKind::Callout => {
                (self.prober.probe(lookup).await, None, Source::Probe)
            }
            LookupKind::Recipient | LookupKind::ReceivePath => match lookup {
                Lookup::Recipient(path) => {
                    (self.call_ahead.verify(path).await, None, Source::Upstream)
                }
                _ => (Answer::Unknown(Reason::NoResolver), None, Source::None),
            },
        };
        (LookupResult { answer, source, at: Some(now()) }, ttl)
    }

    fn maintain(&self) {
        self.prober.maintain();
        self.shares.maintain();
        self.memory.maintain(&*self.observer);
        self.observer.on_in_flight(self.flights.len());
    }
}

//! Answers for a running gateway: what passes, what is known, and whom to ask.
//!
//! A lookup is answered by what traffic showed of its server; else by what is kept; else by a flight, which is under way once
//! for all who ask the same, and goes on when they leave. What is kept is asked for anew in the last fifth of its life by
//! whoever reads it, who is answered at once. Nobody waits longer than the deadline: then it is unknown.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::cache_entry::CacheEntry;
use super::call_ahead::CallAhead;
use super::disk_cache::{self, DiskCache};
use super::dns::{Dns, DnsError, system_servers};
use super::memory_cache::Cache;
use super::probe::Prober;
use super::redis_store::{Shared, Turn, is_shared};
use super::single_flight::{Boarding, Flights};
use super::traffic_hints::Board;
use super::{LookupSettings, now};
use crate::policy::facts::{
    Answer, Lookup, LookupKind, LookupObserver, LookupResult, Reason, Resolution, Source,
};
use crate::time::Timestamp;
use crate::traffic::{ConnectionResponse, FlowObserver, FlowSummary, MailDirection};

/// How often what is not needed any more is forgotten, and the size of the cache is told.
const TIDY: Duration = Duration::from_secs(10);

/// Why lookups cannot be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error(
        "[lookup] redis names no Redis server: {0}; write one such as \"redis://192.0.2.6:6379/0\""
    )]
    Shared(String),
}

/// Answers lookups; clones share everything.
#[derive(Clone)]
pub struct LookupService(Arc<Desk>);

struct Desk {
    settings: LookupSettings,
    board: Board,
    cache: Cache,
    flights: Flights,
    dns: Dns,
    prober: Prober,
    call_ahead: CallAhead,
    shared: Option<Shared>,
    store: Option<DiskCache>,
    observer: Arc<dyn LookupObserver>,
    /// Where the work is done: lookups shall not hold up sessions, nor end with the thread of whoever asked first.
    runtime: Handle,
}

impl LookupService {
    /// Ready to answer; the work is done on the runtime that this is called on. Answers of an earlier process are read
    /// first. The sentences are for the log: what does not stand in the way of answering.
    ///
    /// # Errors
    /// Nobody can be asked as the settings say.
    pub fn start(
        settings: LookupSettings,
        observer: Arc<dyn LookupObserver>,
    ) -> Result<(Self, Vec<String>), LookupError> {
        let servers = match settings.dns_servers.as_slice() {
            [] => system_servers()?,
            servers => servers.to_vec(),
        };
        // A little less than the askers', so that they hear why.
        let dns = Dns::uncached(&servers, settings.deadline * 19 / 20)?;
        let runtime = Handle::current();
        let patience = settings.probes.timeout;
        let join = |url: &String| Shared::start(url, patience, &runtime, Arc::clone(&observer));
        let shared = settings.redis.as_ref().map(join).transpose().map_err(LookupError::Shared)?;
        let cache = Cache::new(&settings);
        let mut notices = Vec::new();
        let mut store = None;
        if let Some(path) = &settings.cache_file {
            let opened = disk_cache::open(path, settings.cache_limits.entries);
            for (lookup, entry) in opened.entries {
                cache.insert(lookup, Arc::new(entry));
            }
            notices.extend(opened.notice);
            store = opened.store;
        }
        let desk = Arc::new(Desk {
            board: Board::new(settings.traffic_max_age),
            cache,
            flights: Flights::default(),
            dns,
            prober: Prober::new(&settings),
            call_ahead: CallAhead::new(&settings),
            shared,
            store,
            observer,
            runtime,
            settings,
        });
        let tidied = Arc::downgrade(&desk);
        desk.runtime.spawn(async move {
            let mut tick = interval(TIDY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tick.tick().await;
                let Some(desk) = tidied.upgrade() else { return };
                desk.tidy();
            }
        });
        Ok((Self(desk), notices))
    }

    /// The answer, no later than the deadline.
    pub async fn lookup(&self, lookup: &Lookup) -> LookupResult {
        let desk = &self.0;
        let (answered, how, took) = match desk.known(lookup) {
            // No clock is read for what nobody waited for.
            Some((answered, how)) => (answered, how, Duration::ZERO),
            None => {
                let began = Instant::now();
                let (answered, how) = desk.find(lookup).await;
                (answered, how, began.elapsed())
            }
        };
        desk.observer.on_answer(lookup.kind(), how, answered.answer.kind(), took);
        answered
    }

    /// Traffic of our MTA, or of another host, showed this response of `server` at `at`.
    pub fn on_response(&self, server: IpAddr, response: ConnectionResponse, at: Timestamp) {
        self.0.board.passed(server, response, at);
    }

    /// What is kept and `matches`, the last to end first.
    pub fn entries(&self, matches: impl Fn(&Lookup) -> bool) -> Vec<(Lookup, Arc<CacheEntry>)> {
        let now = now();
        let mut kept = self.0.cache.entries();
        kept.retain(|(lookup, entry)| entry.is_fresh(now) && matches(lookup));
        kept.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.expires_at));
        kept
    }

    /// Forgets what `matches`, also in the file and in the store that gateways share; returns how many.
    pub async fn purge(&self, matches: impl Fn(&Lookup) -> bool) -> usize {
        let gone = self.entries(matches);
        for (lookup, _) in &gone {
            self.0.cache.remove(lookup);
            if let Some(store) = &self.0.store {
                store.change(lookup.clone(), None);
            }
            if let Some(shared) = self.0.shared.as_ref().filter(|_| is_shared(lookup.kind())) {
                shared.forget(lookup).await;
            }
        }
        gone.len()
    }

    /// Waits until what was learnt is on the disk; for the end of the process.
    pub fn flush(&self) {
        if let Some(store) = &self.0.store {
            store.flush();
        }
    }
}

#[cfg(test)]
impl LookupService {
    pub(super) fn kept(&self) -> Vec<(Lookup, Arc<CacheEntry>)> {
        self.entries(|_| true)
    }

    pub(super) fn keep(&self, lookup: Lookup, answered: LookupResult, life: Duration) {
        self.0.keep(lookup, CacheEntry::new(answered, now(), life));
    }

    pub(super) fn make_due(&self, lookup: &Lookup) {
        if let Some(entry) = self.0.cache.get(lookup) {
            let due = CacheEntry { refresh_at: now(), ..CacheEntry::clone(&entry) };
            self.0.cache.insert(lookup.clone(), Arc::new(due));
        }
    }

    pub(super) fn tidy(&self) {
        self.0.tidy();
    }
}

fn unknown(reason: Reason) -> LookupResult {
    LookupResult { answer: Answer::Unknown(reason), source: Source::None, at: Some(now()) }
}

/// Only outbound flows show the servers of others; inbound ones end at our own.
impl FlowObserver for LookupService {
    fn on_flow(&self, flow: &FlowSummary<'_>) {
        if let (MailDirection::Outbound, Some(response)) = (flow.direction, flow.response()) {
            self.on_response(flow.flow.start.server.ip(), response, flow.flow.end);
        }
    }
}

impl Desk {
    /// What can be said without asking anybody.
    fn known(self: &Arc<Self>, lookup: &Lookup) -> Option<(LookupResult, Resolution)> {
        if let Some(answer) = self.prober.settled(lookup) {
            let how = match answer {
                Answer::Unknown(Reason::RateLimited) => Resolution::RateLimited,
                _ => Resolution::CacheHit,
            };
            return Some((LookupResult { answer, source: Source::None, at: None }, how));
        }
        if let Some(answered) = self.board.answer(lookup) {
            return Some((answered, Resolution::Traffic));
        }
        let entry = self.cache.get(lookup)?;
        let now = now();
        if !entry.is_fresh(now) {
            return None;
        }
        if entry.needs_refresh(now) {
            self.renew(lookup);
        }
        Some((entry.answered.clone(), Resolution::CacheHit))
    }

    /// On a flight of one's own or of another.
    async fn find(self: &Arc<Self>, lookup: &Lookup) -> (LookupResult, Resolution) {
        let (flight, how) = match self.board_flight(lookup, None) {
            Boarding::Started(flight) => (flight, Resolution::Queried),
            Boarding::Joined(flight) => (flight, Resolution::Coalesced),
            Boarding::Landed(answered) => return (answered, Resolution::CacheHit),
            Boarding::Full => return (unknown(Reason::RateLimited), Resolution::RateLimited),
        };
        match timeout(self.settings.deadline, flight).await {
            Ok(answered) => match answered.answer {
                Answer::Unknown(Reason::RateLimited) => (answered, Resolution::RateLimited),
                Answer::Unknown(Reason::Timeout) => (answered, Resolution::Timeout),
                _ => (answered, how),
            },
            Err(_elapsed) => (unknown(Reason::Timeout), Resolution::Timeout),
        }
    }

    fn board_flight(
        self: &Arc<Self>,
        lookup: &Lookup,
        before: Option<Arc<CacheEntry>>,
    ) -> Boarding {
        let known = || {
            let kept = self.cache.get(lookup).filter(|entry| entry.is_fresh(now()));
            // A renewal is not satisfied by what it renews.
            let newer = kept.filter(|kept| before.as_ref().is_none_or(|old| kept.is_newer(old)));
            newer.map(|entry| entry.answered.clone())
        };
        let old = before.clone();
        self.flights.board(lookup, &self.runtime, known, || {
            let (desk, lookup) = (Arc::clone(self), lookup.clone());
            async move { desk.work(lookup, old).await }
        })
    }

    /// Asks anew for what is kept and ends soon.
    fn renew(self: &Arc<Self>, lookup: &Lookup) {
        let Some(entry) = self.cache.get(lookup) else { return };
        if let Boarding::Started(_nobody_waits) = self.board_flight(lookup, Some(entry)) {
            self.observer.on_refresh(lookup.kind());
        }
    }

    /// Asks whoever knows, and keeps the answer. `before` is what it is to replace.
    async fn work(
        self: Arc<Self>,
        lookup: Lookup,
        before: Option<Arc<CacheEntry>>,
    ) -> LookupResult {
        let sharing = self.shared.as_ref().filter(|_| is_shared(lookup.kind()));
        let mut ours = None;
        if let Some(shared) = sharing {
            match shared.turn(&lookup).await {
                Turn::Known(entry) if before.as_ref().is_none_or(|old| entry.is_newer(old)) => {
                    self.observer.on_shared_hit(lookup.kind());
                    self.observer.on_new_answer(&lookup, &entry.answered);
                    let answered = entry.answered.clone();
                    self.keep(lookup, *entry);
                    return answered;
                }
                Turn::Known(_) | Turn::Alone => {}
                Turn::Ours => ours = Some(shared),
            }
        }
        let (answered, ttl) = self.find_out(&lookup).await;
        self.observer.on_new_answer(&lookup, &answered);
        let now = now();
        let unknown = matches!(answered.answer, Answer::Unknown(_));
        let old = before.filter(|old| unknown && old.is_fresh(now));
        let life = self.settings.ttls.of(lookup.kind(), &answered, ttl);
        let fresh = life.filter(|_| old.is_none());
        let fresh = fresh.map(|life| CacheEntry::new(answered.clone(), now, life));
        if let Some(shared) = sharing {
            match (&fresh, ours) {
                (Some(entry), _) => shared.share(&lookup, entry).await,
                (None, Some(ours)) => ours.let_go(&lookup).await,
                (None, None) => {}
            }
        }
        if let Some(old) = old {
            // What is known stands until its end; for a while nobody tries again.
            let refresh_at = now + self.settings.ttls.unknown;
            self.cache
                .insert(lookup, Arc::new(CacheEntry { refresh_at, ..CacheEntry::clone(&old) }));
            return old.answered.clone();
        }
        if let Some(entry) = fresh {
            self.keep(lookup, entry);
        }
        answered
    }

    fn keep(&self, lookup: Lookup, entry: CacheEntry) {
        let entry = Arc::new(entry);
        // What is unknown is worth no write.
        let known = !matches!(entry.answered.answer, Answer::Unknown(_));
        if let Some(store) = self.store.as_ref().filter(|_| known) {
            store.change(lookup.clone(), Some(Arc::clone(&entry)));
        }
        self.cache.insert(lookup, entry);
    }

    async fn find_out(&self, lookup: &Lookup) -> (LookupResult, Option<Duration>) {
        let (answer, ttl, source) = match lookup.kind() {
            LookupKind::Reverse | LookupKind::Addresses | LookupKind::MailExchanges => {
                let (answer, ttl) = self.dns.timed(lookup).await;
                (answer, ttl, Source::Dns)
            }
            LookupKind::Connect | LookupKind::Greet | LookupKind::Callout => {
                (self.prober.answer(lookup).await, None, Source::Probe)
            }
            LookupKind::Recipient | LookupKind::ReceivePath => match lookup {
                Lookup::Recipient(path) => {
                    (self.call_ahead.answer(path).await, None, Source::Upstream)
                }
                _ => (Answer::Unknown(Reason::NoResolver), None, Source::None),
            },
        };
        (LookupResult { answer, source, at: Some(now()) }, ttl)
    }

    fn tidy(&self) {
        self.prober.tidy();
        self.cache.tell(&*self.observer);
        self.observer.on_in_flight(self.flights.len());
    }
}

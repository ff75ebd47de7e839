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

use super::board::Board;
use super::cache::Cache;
use super::call_ahead::CallAhead;
use super::dns::{Dns, DnsError, system_servers};
use super::flights::{Boarding, Flights};
use super::life::Entry;
use super::probe::Prober;
use super::{Settings, now};
use crate::addr::Family;
use crate::policy::facts::{
    Answer, Answered, Lookup, LookupKind, ObserveLookups, Obtained, Reason, Source,
};
use crate::time::Timestamp;
use crate::traffic::Response;

/// How often what is not needed any more is forgotten, and the size of the cache is told.
const TIDY: Duration = Duration::from_secs(10);

/// Who knows whether mail from the world reaches us over a family.
pub type ReceivePath = Box<dyn Fn(Family) -> Answered + Send + Sync>;

/// Answers lookups; clones share everything.
#[derive(Clone)]
pub struct Reach(Arc<Desk>);

struct Desk {
    settings: Settings,
    board: Board,
    cache: Cache,
    flights: Flights,
    dns: Dns,
    prober: Prober,
    call_ahead: CallAhead,
    receive_path: ReceivePath,
    observer: Arc<dyn ObserveLookups>,
    /// Where the work is done: lookups shall not hold up sessions, nor end with the thread of whoever asked first.
    runtime: Handle,
}

impl Reach {
    /// Ready to answer; the work is done on the runtime that this is called on.
    ///
    /// # Errors
    /// No DNS server can be asked.
    pub fn start(
        settings: Settings,
        receive_path: ReceivePath,
        observer: Arc<dyn ObserveLookups>,
    ) -> Result<Self, DnsError> {
        let servers = match settings.dns.as_slice() {
            [] => system_servers()?,
            servers => servers.to_vec(),
        };
        let desk = Arc::new(Desk {
            board: Board::new(settings.traffic_fresh),
            cache: Cache::new(&settings),
            flights: Flights::default(),
            // A little less than the askers', so that they hear why.
            dns: Dns::uncached(&servers, settings.deadline * 19 / 20)?,
            prober: Prober::new(&settings),
            call_ahead: CallAhead::new(&settings),
            receive_path,
            observer,
            runtime: Handle::current(),
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
        Ok(Self(desk))
    }

    /// The answer, no later than the deadline.
    pub async fn ask(&self, lookup: &Lookup) -> Answered {
        let began = Instant::now();
        let (answered, how) = self.0.answer(lookup).await;
        let told = answered.answer.told();
        self.0.observer.answered(lookup.kind(), how, told, began.elapsed());
        answered
    }

    /// What our MTA, or another's traffic, showed of `server` at `at`.
    pub fn passed(&self, server: IpAddr, response: Response, at: Timestamp) {
        self.0.board.passed(server, response, at);
    }
}

#[cfg(test)]
impl Reach {
    pub(super) fn kept(&self) -> Vec<(Lookup, Arc<Entry>)> {
        self.0.cache.entries()
    }

    pub(super) fn keep(&self, lookup: Lookup, answered: Answered, life: Duration) {
        self.0.cache.insert(lookup, Arc::new(Entry::new(answered, now(), life)));
    }

    pub(super) fn make_due(&self, lookup: &Lookup) {
        if let Some(entry) = self.0.cache.get(lookup) {
            let due = Entry { renew: now(), ..Entry::clone(&entry) };
            self.0.cache.insert(lookup.clone(), Arc::new(due));
        }
    }

    pub(super) fn tidy(&self) {
        self.0.tidy();
    }
}

fn unknown(reason: Reason) -> Answered {
    Answered { answer: Answer::Unknown(reason), source: Source::None, at: Some(now()) }
}

impl Desk {
    async fn answer(self: &Arc<Self>, lookup: &Lookup) -> (Answered, Obtained) {
        if let Lookup::ReceivePath(family) = lookup {
            return ((self.receive_path)(*family), Obtained::Traffic);
        }
        if let Some(answer) = self.prober.settled(lookup) {
            let how = match answer {
                Answer::Unknown(Reason::Limited) => Obtained::Limited,
                _ => Obtained::Cache,
            };
            return (Answered { answer, source: Source::None, at: None }, how);
        }
        if let Some(answered) = self.board.answer(lookup) {
            return (answered, Obtained::Traffic);
        }
        if let Some(entry) = self.cache.get(lookup) {
            let now = now();
            if entry.is_good(now) {
                if entry.is_due(now) {
                    self.renew(lookup);
                }
                return (entry.answered.clone(), Obtained::Cache);
            }
        }
        let (flight, how) = match self.board_flight(lookup, None) {
            Boarding::Started(flight) => (flight, Obtained::Asked),
            Boarding::Joined(flight) => (flight, Obtained::Joined),
            Boarding::Landed(answered) => return (answered, Obtained::Cache),
            Boarding::Full => return (unknown(Reason::Limited), Obtained::Limited),
        };
        match timeout(self.settings.deadline, flight).await {
            Ok(answered) => match answered.answer {
                Answer::Unknown(Reason::Limited) => (answered, Obtained::Limited),
                Answer::Unknown(Reason::Timeout) => (answered, Obtained::Timeout),
                _ => (answered, how),
            },
            Err(_elapsed) => (unknown(Reason::Timeout), Obtained::Timeout),
        }
    }

    fn board_flight(self: &Arc<Self>, lookup: &Lookup, before: Option<Arc<Entry>>) -> Boarding {
        let known = || {
            let kept = self.cache.get(lookup).filter(|entry| entry.is_good(now()));
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
            self.observer.renewed(lookup.kind());
        }
    }

    /// Asks whoever knows, and keeps the answer. `before` is what it is to replace.
    async fn work(self: Arc<Self>, lookup: Lookup, before: Option<Arc<Entry>>) -> Answered {
        let (answered, ttl) = self.find_out(&lookup).await;
        let now = now();
        let unknown = matches!(answered.answer, Answer::Unknown(_));
        if let Some(old) = before.filter(|old| unknown && old.is_good(now)) {
            // What is known stands until its end; for a while nobody tries again.
            let renew = now + self.settings.lives.unknown;
            self.cache.insert(lookup, Arc::new(Entry { renew, ..Entry::clone(&old) }));
            return old.answered.clone();
        }
        if let Some(life) = self.settings.lives.of(lookup.kind(), &answered, ttl) {
            self.cache.insert(lookup, Arc::new(Entry::new(answered.clone(), now, life)));
        }
        answered
    }

    async fn find_out(&self, lookup: &Lookup) -> (Answered, Option<Duration>) {
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
                _ => (Answer::Unknown(Reason::NoSource), None, Source::None),
            },
        };
        (Answered { answer, source, at: Some(now()) }, ttl)
    }

    fn tidy(&self) {
        self.prober.tidy();
        self.cache.tell(&*self.observer);
        self.observer.under_way(self.flights.len());
    }
}

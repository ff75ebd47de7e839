//! The status page: what a person wants to know at 3 a.m., at `/` of the metrics listener.
//!
//! Layer 4. [`Status`] is told of sessions and lookups and keeps the little of it that the page shows: an hour of counts and
//! a few rows, some 200 KiB whatever comes. What only others know, [`LiveState`], is gathered by `app` for each page. A page is made
//! at most once a second, however many ask.
//!
//! What strangers said is hostile. It is stripped of addresses and local parts (`masking`), unless the operator wants them,
//! and cut and escaped *before it is kept*: what is not to be shown is not there. What is HTML in it is escaped by maud, which
//! does that to all that is not written in the template itself.

mod chart;
mod components;
mod fact;
mod families;
mod headline;
mod hour;
mod masking;
mod page;
mod routes;
mod session;
#[cfg(test)]
mod tests;
mod text;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use self::routes::{LiveStateProvider, routes};

use self::fact::FactRow;
use self::hour::{Hour, Past};
use self::masking::AddressMasking;
use self::session::SessionRow;
use crate::addr::Family;
use crate::engine::{AttemptOutcome, Event, Observe, SessionRecord};
use crate::policy::door::DoorReport;
use crate::policy::facts::{
    AnswerKind, Lookup, LookupKind, LookupObserver, LookupResult, Resolution,
};
use crate::time::Timestamp;

/// Rows of sessions, and of facts.
const ROWS: usize = 20;

/// `[status]`, checked by `config/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusSettings {
    /// Show addresses of clients and whole paths of envelopes.
    pub show_addresses: bool,
}

/// What does not change while the gateway runs.
#[derive(Clone, Debug)]
pub struct GatewayInfo {
    /// Its name in SMTP.
    pub host: String,
    pub version: &'static str,
    /// The configuration file.
    pub config: String,
    pub started: Timestamp,
}

/// How things are, as others know.
#[derive(Clone, Debug)]
pub struct LiveState {
    pub at: Timestamp,
    pub ready: bool,
    /// What `/readyz` says.
    pub readiness: &'static str,
    /// As people name them, IPv6 first; empty where nobody keeps a door.
    pub doors: Vec<DoorReport>,
    /// Those that are configured; empty where mail goes on to where its client meant to go.
    pub upstreams: Vec<UpstreamRow>,
}

/// An upstream and how it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamRow {
    pub address: SocketAddr,
    /// Whether it took the last connection; `None` before the first.
    pub up: Option<bool>,
    /// For how long that has been so.
    pub lasts: Duration,
    /// What went wrong last, and how long ago.
    pub failed: Option<(AttemptOutcome, Duration)>,
}

/// What the page shows of sessions and lookups. Told by those who are at it, so each call is short.
pub struct Status {
    masking: AddressMasking,
    /// Sessions in progress, by family.
    open: [AtomicU64; Family::ALL.len()],
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By family.
    hours: [Hour; Family::ALL.len()],
    /// The latest first.
    sessions: VecDeque<SessionRow>,
    facts: VecDeque<FactRow>,
}

/// A copy of it all for one page.
struct Snapshot {
    families: [OfFamily; Family::ALL.len()],
    sessions: Vec<SessionRow>,
    facts: Vec<FactRow>,
}

struct OfFamily {
    open: u64,
    past: Past,
}

impl Status {
    pub fn new(settings: StatusSettings) -> Self {
        Self {
            masking: AddressMasking { open: settings.show_addresses },
            open: Default::default(),
            kept: Mutex::default(),
        }
    }

    fn snapshot(&self, now: Timestamp) -> Snapshot {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot {
            families: Family::ALL.map(|family| OfFamily {
                open: self.open[family as usize].load(Ordering::Relaxed),
                past: kept.hours[family as usize].past(now),
            }),
            sessions: kept.sessions.iter().cloned().collect(),
            facts: kept.facts.iter().cloned().collect(),
        }
    }
}

impl Observe for Status {
    fn event(&self, family: Family, event: Event) {
        let open = &self.open[family as usize];
        match event {
            Event::SessionOpened => {
                open.fetch_add(1, Ordering::Relaxed);
            }
            Event::SessionClosed(_) => {
                open.fetch_sub(1, Ordering::Relaxed);
            }
            // The session's record will tell.
            _ => {}
        }
    }

    fn session(&self, record: &SessionRecord) {
        let row = SessionRow::new(record, self.masking);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.hours[record.family as usize].add(record);
        kept.sessions.truncate(ROWS - 1);
        kept.sessions.push_front(row);
    }
}

impl LookupObserver for Status {
    fn on_new_answer(&self, lookup: &Lookup, answered: &LookupResult) {
        let row = FactRow::new(lookup, answered, self.masking);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.facts.truncate(ROWS - 1);
        kept.facts.push_front(row);
    }

    fn on_answer(&self, _: LookupKind, _: Resolution, _: AnswerKind, _: Duration) {}
    fn on_refresh(&self, _: LookupKind) {}
    fn on_shared_hit(&self, _: LookupKind) {}
    fn on_store_state(&self, _: bool) {}
    fn on_cache_size(&self, _: u64, _: u64) {}
    fn on_in_flight(&self, _: usize) {}
}

//! The status page, at `/` of the metrics listener.
//!
//! Layer 4. Requests must name this gateway (`host_check`). [`StatusCollector`] observes sessions and lookups and stores what the page shows: an hour of counts and a few rows,
//! about 200 KiB. `app` provides the rest, [`LiveState`], for each page. A page is rendered at most once a second for all
//! clients.
//!
//! Client data is hostile. Addresses and local parts are removed (`masking`) unless the operator enables them, and values are
//! truncated and escaped *before they are stored*: hidden values are never stored. maud escapes HTML in everything outside
//! the template.

mod chart;
mod components;
mod families;
mod headline;
mod host_check;
mod hour;
mod lookup;
mod masking;
mod page;
mod routes;
mod session;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use self::routes::{LiveStateProvider, routes};

use self::hour::{HourSummary, LastHour};
use self::lookup::LookupRow;
use self::masking::AddressMasking;
use self::session::SessionRow;
use crate::addr::Family;
use crate::canary::CanaryStatus;
use crate::engine::{Event, Observe, SessionRecord};
use crate::policy::door::DoorReport;
use crate::policy::facts::{
    AnswerKind, Lookup, LookupKind, LookupObserver, LookupResult, Resolution,
};
use crate::time::Timestamp;

/// Rows of sessions, and of lookups.
const ROWS: usize = 20;

/// `[status]`, checked by `config/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusSettings {
    /// Show client addresses and full envelope paths.
    pub show_addresses: bool,
    /// Names by which the page may be requested, besides the gateway's own name and address.
    pub hosts: Vec<String>,
}

/// Constant while the gateway runs.
#[derive(Clone, Debug)]
pub struct GatewayInfo {
    /// Its host name in SMTP.
    pub host: String,
    pub version: &'static str,
    /// Path of the configuration file.
    pub config: String,
    pub started: Timestamp,
}

/// State that `app` collects for each page.
#[derive(Clone, Debug)]
pub struct LiveState {
    pub at: Timestamp,
    pub ready: bool,
    /// The text of `/readyz`.
    pub readiness: &'static str,
    /// IPv6 first; empty without doors.
    pub doors: Vec<DoorReport>,
    /// Configured upstreams; empty if mail is relayed to its original destination.
    pub upstreams: Vec<UpstreamRow>,
    /// By direction; `None` without `[canary]`.
    pub canaries: Option<Vec<CanaryStatus>>,
    /// About a setting that is dangerous, and was chosen.
    pub warning: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamRow {
    /// Its address, behind its host name if it has one; or a host name without an address.
    pub name: String,
    /// Whether the last connection attempt succeeded; `None` before the first.
    pub up: Option<bool>,
    /// Time since `up` changed.
    pub unchanged_for: Duration,
    /// The error of the last failed attempt, and its age.
    pub last_error: Option<(&'static str, Duration)>,
}

/// Collects sessions and lookups for the page. Sessions call it, so each call is short.
pub struct StatusCollector {
    masking: AddressMasking,
    /// Open sessions, by family.
    open: [AtomicU64; Family::ALL.len()],
    stored: Mutex<StoredRows>,
}

#[derive(Default)]
struct StoredRows {
    /// By family.
    hours: [LastHour; Family::ALL.len()],
    /// The latest first.
    sessions: VecDeque<SessionRow>,
    /// The latest first.
    lookups: VecDeque<LookupRow>,
}

/// A copy of the collected data for one page.
struct Snapshot {
    families: [FamilySnapshot; Family::ALL.len()],
    sessions: Vec<SessionRow>,
    lookups: Vec<LookupRow>,
}

struct FamilySnapshot {
    open: u64,
    hour: HourSummary,
}

impl StatusCollector {
    pub fn new(settings: &StatusSettings) -> Self {
        Self {
            masking: AddressMasking { show_addresses: settings.show_addresses },
            open: Default::default(),
            stored: Mutex::default(),
        }
    }

    fn snapshot(&self, now: Timestamp) -> Snapshot {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot {
            families: Family::ALL.map(|family| FamilySnapshot {
                open: self.open[family as usize].load(Ordering::Relaxed),
                hour: stored.hours[family as usize].summary(now),
            }),
            sessions: stored.sessions.iter().cloned().collect(),
            lookups: stored.lookups.iter().cloned().collect(),
        }
    }
}

impl Observe for StatusCollector {
    fn event(&self, family: Family, event: Event) {
        let open = &self.open[family as usize];
        match event {
            Event::SessionOpened => {
                open.fetch_add(1, Ordering::Relaxed);
            }
            Event::SessionClosed(_) => {
                open.fetch_sub(1, Ordering::Relaxed);
            }
            // The session's record contains the rest.
            _ => {}
        }
    }

    fn session(&self, record: &SessionRecord) {
        let row = SessionRow::new(record, self.masking);
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.hours[record.family as usize].add(record);
        stored.sessions.truncate(ROWS - 1);
        stored.sessions.push_front(row);
    }
}

impl LookupObserver for StatusCollector {
    fn on_new_answer(&self, lookup: &Lookup, result: &LookupResult) {
        let row = LookupRow::new(lookup, result, self.masking);
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.lookups.truncate(ROWS - 1);
        stored.lookups.push_front(row);
    }

    fn on_answer(&self, _: LookupKind, _: Resolution, _: AnswerKind, _: Duration) {}
    fn on_refresh(&self, _: LookupKind) {}
    fn on_shared_hit(&self, _: LookupKind) {}
    fn on_store_state(&self, _: bool) {}
    fn on_cache_size(&self, _: u64, _: u64) {}
    fn on_in_flight(&self, _: usize) {}
}

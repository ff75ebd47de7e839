//! What the gateway says of its sessions, kept for comparison with what the senders and the MTA say.
//!
//! Layer 5.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::addr::Family;
use crate::engine::{Endpoint, Event, Observe, Outcome, Refusal, SessionRecord};

/// Records that nobody has asked for yet; the oldest goes when more come.
const KEPT: usize = 256;

/// Counts of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub sessions: u64,
    /// Messages that the MTA answered with 250.
    pub messages: u64,
    /// Sessions in which the gateway or the MTA refused something.
    pub refused: u64,
}

/// Collects the session records and events of the demo's gateway.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    inner: Mutex<Inner>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    records: VecDeque<SessionRecord>,
    refusals: BTreeMap<(Family, Refusal), u64>,
    closed: BTreeMap<(Family, Outcome), u64>,
    messages: BTreeMap<Family, u64>,
}

impl Inner {
    fn remove(&mut self, client: Endpoint) -> Option<SessionRecord> {
        let at = self.records.iter().position(|r| r.client == client)?;
        self.records.remove(at)
    }
}

impl Ledger {
    /// Takes out the record of the session that came from `client`, waiting for it up to `patience`.
    pub(super) async fn take(
        &self,
        client: SocketAddr,
        patience: Duration,
    ) -> Option<SessionRecord> {
        let client = Endpoint::from(client);
        let found = async {
            loop {
                let more = self.more.notified();
                if let Some(record) = self.lock().remove(client) {
                    return record;
                }
                more.await;
            }
        };
        tokio::time::timeout(patience, found).await.ok()
    }

    /// How often `refusal` was counted so far.
    pub(super) fn refusals(&self) -> BTreeMap<(Family, Refusal), u64> {
        self.lock().refusals.clone()
    }

    /// Sessions closed so far, whatever their outcome.
    pub(super) fn closed(&self, family: Family) -> u64 {
        let inner = self.lock();
        let closed = inner.closed.iter().filter(|((f, _), _)| *f == family);
        closed.map(|(_, count)| count).sum()
    }

    /// Messages with a 250 so far.
    pub(super) fn messages(&self, family: Family) -> u64 {
        self.lock().messages.get(&family).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under this lock can leave it half changed, so a panic elsewhere does not spoil it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observe for Ledger {
    fn event(&self, family: Family, event: Event) {
        let mut inner = self.lock();
        let count = match event {
            Event::SessionClosed(outcome) => inner.closed.entry((family, outcome)).or_default(),
            Event::Refusal(refusal) => inner.refusals.entry((family, refusal)).or_default(),
            Event::Message { code: 250, .. } => inner.messages.entry(family).or_default(),
            _ => return,
        };
        *count += 1;
    }

    fn session(&self, record: &SessionRecord) {
        let mut inner = self.lock();
        if inner.records.len() == KEPT {
            inner.records.pop_front();
        }
        inner.records.push_back(record.clone());
        drop(inner);
        self.more.notify_waiters();
    }
}

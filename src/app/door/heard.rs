//! What the relay's own sessions tell of the way in: messages that were taken, sessions that stalled.

use std::sync::{Mutex, PoisonError};

use crate::addr::{Family, Networks, is_global};
use crate::engine::{Event, Observe, Outcome, SessionRecord};
use crate::policy::door::Stalled;
use crate::smtp::Verb;
use crate::time::Timestamp;

/// Told of sessions; asked by the keeper.
#[derive(Debug, Default)]
pub(in crate::app) struct Heard {
    /// They prove nothing: monitoring, the vantage.
    exempt: Networks,
    /// By family.
    of: Mutex<[Of; Family::ALL.len()]>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Of {
    /// When the latest session from outside ended in which a message got its 250.
    pub(super) accepted: Option<Timestamp>,
    /// Those since.
    pub(super) stalled: Option<Stalled>,
}

impl Heard {
    pub(in crate::app) fn new(exempt: Networks) -> Self {
        Self { exempt, of: Mutex::default() }
    }

    pub(super) fn of(&self, family: Family) -> Of {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)[family as usize]
    }

    /// The door turned: what stalled before it has been judged.
    pub(super) fn forget_stalled(&self, family: Family) {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)[family as usize].stalled = None;
    }
}

impl Observe for Heard {
    fn event(&self, _: Family, _: Event) {}

    fn session(&self, record: &SessionRecord) {
        let client = record.client.address;
        if !is_global(client) || self.exempt.contains(client) {
            return;
        }
        let end = record.start + record.duration;
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let of = &mut all[record.family as usize];
        if accepted(record) {
            of.accepted = of.accepted.max(Some(end));
            of.stalled = None;
        } else if stalled(record) {
            let before =
                of.stalled.unwrap_or(Stalled { sessions: 0, since: record.start, last: end });
            of.stalled = Some(Stalled {
                sessions: before.sessions.saturating_add(1),
                since: before.since.min(record.start),
                last: before.last.max(end),
            });
        }
    }
}

fn accepted(record: &SessionRecord) -> bool {
    let codes = record.smtp.transactions.iter().filter_map(|transaction| transaction.data_code);
    codes.into_iter().any(|code| (200..300).contains(&code))
}

/// Content was to come, and neither it nor a refusal came to an end before somebody gave up.
fn stalled(record: &SessionRecord) -> bool {
    let gave_up = matches!(record.outcome, Outcome::Timeout | Outcome::ClientClosed);
    let begun = record.smtp.replies.contains_key(&354)
        || record.smtp.commands.get(&Verb::Bdat).is_some_and(|count| *count > 0);
    let last = record.smtp.transactions.last();
    gave_up && begun && last.is_some_and(|transaction| transaction.deciding_code().is_none())
}

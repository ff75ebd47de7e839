//! Collects the evidence of the relay's own sessions for the doors.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::addr::{Family, Networks};
use crate::engine::{Event, Observe, Outcome, SessionRecord};
use crate::policy::door::{InboundEvidence, InboundSession, SessionEnd};
use crate::smtp::Verb;

/// Written by the relay's workers, read by the door controller.
#[derive(Debug, Default)]
pub(in crate::app) struct SharedEvidence(Mutex<InboundEvidence>);

impl SharedEvidence {
    /// Sessions of `exempt` clients are not evidence.
    pub(in crate::app) fn new(exempt: Networks) -> Self {
        Self(Mutex::new(InboundEvidence::new(exempt)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, InboundEvidence> {
        // Evidence is consistent between any two changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observe for SharedEvidence {
    fn event(&self, _: Family, _: Event) {}

    fn session(&self, record: &SessionRecord) {
        self.lock().on_session(&inbound(record));
    }
}

fn inbound(record: &SessionRecord) -> InboundSession {
    let smtp = &record.smtp;
    let mut codes = smtp.transactions.iter().filter_map(|transaction| transaction.data_code);
    let sent_bdat = smtp.commands.get(&Verb::Bdat).is_some_and(|count| *count > 0);
    InboundSession {
        client: record.client.address,
        start: record.start,
        end: record.start + record.duration,
        message_accepted: codes.any(|code| code / 100 == 2),
        content_started: smtp.replies.contains_key(&354) || sent_bdat,
        content_complete: smtp.phases.data.is_some(),
        ended_by: match record.outcome {
            Outcome::ClientClosed => SessionEnd::Client,
            Outcome::Timeout => SessionEnd::Timeout,
            _ => SessionEnd::Other,
        },
        last_transaction: smtp.transactions.last().map(|last| last.deciding_code()),
    }
}

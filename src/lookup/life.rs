//! How long an answer is good: by who gave it, and by what it says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::Lives;
use crate::policy::facts::{LookupKind, LookupResult, Reason, Told};
use crate::time::Timestamp;

/// Upstream comes back soon, and mail waits for it.
const UPSTREAM_DOWN: Duration = Duration::from_secs(2);

/// An answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(flatten)]
    pub answered: LookupResult,
    /// Then it is forgotten.
    pub until: Timestamp,
    /// From then on it is asked for anew by whoever reads it.
    pub renew: Timestamp,
}

impl Entry {
    /// Good from `now` on for `life`, due in its last fifth.
    pub(super) fn new(answered: LookupResult, now: Timestamp, life: Duration) -> Self {
        Self { answered, until: now + life, renew: now + life * 4 / 5 }
    }

    pub(super) fn is_good(&self, now: Timestamp) -> bool {
        now < self.until
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.renew <= now
    }

    /// It came after `other`.
    pub(super) fn is_newer(&self, other: &Self) -> bool {
        other.until < self.until || other.answered.at < self.answered.at
    }

    /// Octets that it takes in memory, about; `subject` is the length of what it is about.
    pub(super) fn octets(&self, subject: usize) -> usize {
        const ENTRY: usize = 512;
        const RECORD: usize = 160;
        use crate::policy::facts::Answer;
        let detail = |detail: &Option<String>| detail.as_ref().map_or(0, String::len);
        let answer = match &self.answered.answer {
            Answer::Records(records) => records.len() * RECORD,
            Answer::Yes(told) | Answer::No(_, told) => detail(told),
            Answer::NoData | Answer::NxDomain | Answer::Unknown(_) => 0,
        };
        ENTRY + 2 * subject + answer
    }
}

impl Lives {
    /// How long an answer is kept; `ttl` is what the DNS says. `None` is not at all: what a limit kept from being asked.
    pub(super) fn of(
        &self,
        kind: LookupKind,
        answered: &LookupResult,
        ttl: Option<Duration>,
    ) -> Option<Duration> {
        use crate::policy::facts::Answer::Unknown;
        use LookupKind::{Callout, Connect, Greet, ReceivePath, Recipient};
        let (yes, no) = match (kind, &answered.answer) {
            (ReceivePath, _) | (_, Unknown(Reason::Limited | Reason::NoSource)) => return None,
            (_, Unknown(Reason::UpstreamDown)) => return Some(UPSTREAM_DOWN.min(self.unknown)),
            (_, Unknown(_)) => return Some(self.unknown),
            (Connect | Greet, _) => (self.probe_yes, self.probe_no),
            (Callout, _) => (self.callout_yes, self.callout_no),
            (Recipient, _) => (self.recipient_yes, self.recipient_no),
            _ => {
                let ttl = ttl.unwrap_or(self.dns_min).max(self.dns_min);
                (ttl.min(self.dns_max), ttl.min(self.dns_negative_max).max(self.dns_min))
            }
        };
        Some(if answered.answer.told() == Told::Positive { yes } else { no })
    }
}

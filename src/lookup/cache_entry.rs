//! How long an answer is good: by who gave it, and by what it says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::Ttls;
use crate::policy::facts::{AnswerKind, LookupKind, LookupResult, Reason};
use crate::time::Timestamp;

/// Upstream comes back soon, and mail waits for it.
const UPSTREAM_DOWN: Duration = Duration::from_secs(2);

/// An answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEntry {
    #[serde(flatten)]
    pub answered: LookupResult,
    /// Expiry time.
    #[serde(rename = "until")]
    pub expires_at: Timestamp,
    /// From this time on the first reader triggers a refresh in the background.
    #[serde(rename = "renew")]
    pub refresh_at: Timestamp,
}

impl CacheEntry {
    /// Good from `now` on for `life`, due in its last fifth.
    pub(super) fn new(answered: LookupResult, now: Timestamp, life: Duration) -> Self {
        Self { answered, expires_at: now + life, refresh_at: now + life * 4 / 5 }
    }

    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    pub(super) fn needs_refresh(&self, now: Timestamp) -> bool {
        self.refresh_at <= now
    }

    /// It came after `other`.
    pub(super) fn is_newer(&self, other: &Self) -> bool {
        other.expires_at < self.expires_at || other.answered.at < self.answered.at
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

impl Ttls {
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
            (ReceivePath, _) | (_, Unknown(Reason::RateLimited | Reason::NoResolver)) => {
                return None;
            }
            (_, Unknown(Reason::UpstreamDown)) => return Some(UPSTREAM_DOWN.min(self.unknown)),
            (_, Unknown(_)) => return Some(self.unknown),
            (Connect | Greet, _) => (self.probe_positive, self.probe_negative),
            (Callout, _) => (self.callout_positive, self.callout_negative),
            (Recipient, _) => (self.recipient_positive, self.recipient_negative),
            _ => {
                let ttl = ttl.unwrap_or(self.dns_min).max(self.dns_min);
                (ttl.min(self.dns_max), ttl.min(self.dns_negative_max).max(self.dns_min))
            }
        };
        Some(if answered.answer.kind() == AnswerKind::Positive { yes } else { no })
    }
}

//! A cached answer, and how long answers are cached: depending on their source and content.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::Ttls;
use crate::policy::facts::{Answer, AnswerKind, LookupKind, LookupResult, Reason};
use crate::time::Timestamp;

/// Short: upstream is usually back soon, and mail waits for it.
const UPSTREAM_DOWN: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEntry {
    #[serde(flatten)]
    pub result: LookupResult,
    #[serde(rename = "until")]
    pub expires_at: Timestamp,
    /// From this time on a reader starts a refresh in the background.
    #[serde(rename = "renew")]
    pub refresh_at: Timestamp,
}

impl CacheEntry {
    /// Expires `ttl` after `now`; refreshed in the last fifth of that time.
    pub(super) fn new(result: LookupResult, now: Timestamp, ttl: Duration) -> Self {
        Self { result, expires_at: now + ttl, refresh_at: now + ttl * 4 / 5 }
    }

    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    pub(super) fn needs_refresh(&self, now: Timestamp) -> bool {
        self.refresh_at <= now
    }

    pub(super) fn is_newer(&self, other: &Self) -> bool {
        other.expires_at < self.expires_at || other.result.at < self.result.at
    }

    /// Estimated memory in bytes; `subject` is the length of the lookup's subject.
    pub(super) fn size(&self, subject: usize) -> usize {
        const ENTRY: usize = 512;
        const RECORD: usize = 160;
        let answer = match &self.result.answer {
            Answer::Records(records) => records.len() * RECORD,
            Answer::Yes(detail) | Answer::No(_, detail) => detail.as_ref().map_or(0, String::len),
            Answer::NoData | Answer::NxDomain | Answer::Unknown(_) => 0,
        };
        ENTRY + 2 * subject + answer
    }
}

impl Ttls {
    /// How long a result is cached; `dns_ttl` is the TTL from the DNS. `None`: not at all, since no server was queried.
    pub(super) fn of(
        &self,
        kind: LookupKind,
        result: &LookupResult,
        dns_ttl: Option<Duration>,
    ) -> Option<Duration> {
        use Answer::Unknown;
        use LookupKind::{Callout, Connect, Greet, ReceivePath, Recipient};
        let (positive, negative) = match (kind, &result.answer) {
            (ReceivePath, _) | (_, Unknown(Reason::RateLimited | Reason::NoResolver)) => {
                return None;
            }
            (_, Unknown(Reason::UpstreamDown)) => return Some(UPSTREAM_DOWN.min(self.unknown)),
            (_, Unknown(_)) => return Some(self.unknown),
            (Connect | Greet, _) => (self.probe_positive, self.probe_negative),
            (Callout, _) => (self.callout_positive, self.callout_negative),
            (Recipient, _) => (self.recipient_positive, self.recipient_negative),
            _ => {
                let ttl = dns_ttl.unwrap_or(self.dns_min).max(self.dns_min);
                (ttl.min(self.dns_max), ttl.min(self.dns_negative_max).max(self.dns_min))
            }
        };
        Some(if result.answer.kind() == AnswerKind::Positive { positive } else { negative })
    }
}

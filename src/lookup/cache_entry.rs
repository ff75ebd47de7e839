//! A cached answer, and how long answers are cached: depending on their source and content.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::Ttls;
use crate::policy::facts::{Answer, AnswerKind, LookupKind, LookupResult, Reason, Source};
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

    /// An entry of another gateway, for a lookup of `kind`, as this gateway would have it: it expires no later, its time is not in the
    /// future, and its evidence is a short line. `None` if it has expired, or is no answer to a probe.
    pub(super) fn limited_to(self, kind: LookupKind, now: Timestamp, ttls: &Ttls) -> Option<Self> {
        use Reason::{
            EstablishedButStalled, NoResponse, NoSuchMailbox, NoUsableAddress, Refused,
            RejectedBeforeRcpt,
        };
        let answer = match self.result.answer {
            Answer::Yes(detail) => Answer::Yes(detail.map(limited_detail)),
            Answer::No(
                reason @ (EstablishedButStalled
                | NoResponse
                | NoSuchMailbox
                | NoUsableAddress
                | Refused
                | RejectedBeforeRcpt),
                detail,
            ) => Answer::No(reason, detail.map(limited_detail)),
            Answer::Unknown(reason) => Answer::Unknown(reason),
            Answer::No(..) | Answer::Records(_) | Answer::NoData | Answer::NxDomain => return None,
        };
        let at = self.result.at.unwrap_or(now).min(now);
        let result = LookupResult { answer, source: Source::Probe, at: Some(at) };
        let ttl = ttls.of(kind, &result, None)?;
        let limit = Self::new(result, at, ttl);
        let limited = Self {
            expires_at: self.expires_at.min(limit.expires_at),
            refresh_at: self.refresh_at.min(limit.refresh_at),
            ..limit
        };
        limited.is_fresh(now).then_some(limited)
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
            Answer::Records(records) => {
                records.iter().map(|record| RECORD + record.text().map_or(0, <[u8]>::len)).sum()
            }
            Answer::Yes(detail) | Answer::No(_, detail) => detail.as_ref().map_or(0, String::len),
            Answer::NoData | Answer::NxDomain | Answer::Unknown(_) => 0,
        };
        ENTRY + 2 * subject + answer
    }
}

/// A line of printable characters, at most as long as an SMTP reply line (RFC 5321 §4.5.3.1.5).
fn limited_detail(detail: String) -> String {
    const LONGEST: usize = 512;
    let is_plain = |text: &str| text.len() <= LONGEST && !text.chars().any(char::is_control);
    if is_plain(&detail) {
        return detail;
    }
    detail.chars().filter(|c| !c.is_control()).take(LONGEST / 4).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn entry(answer: Answer, at: Timestamp, ttl: Duration) -> CacheEntry {
        let result = LookupResult { answer, source: Source::Upstream, at: Some(at) };
        CacheEntry::new(result, at, ttl)
    }

    #[test]
    fn an_entry_of_another_gateway_lives_no_longer_than_an_own_one() {
        let (ttls, now) = (Ttls::default(), Timestamp::from_nanos(1_767_322_800_000_000_000));
        let century = 24 * 365 * 100 * HOUR;
        let limited = |kind, entry: CacheEntry| entry.limited_to(kind, now, &ttls);
        let greet = LookupKind::Greet;
        for (answer, most) in [
            (Answer::Yes(None), ttls.probe_positive),
            (Answer::No(Reason::Refused, None), ttls.probe_negative),
            (Answer::Unknown(Reason::Timeout), ttls.unknown),
        ] {
            // Eternal, and made tomorrow.
            for at in [now, now + 24 * HOUR] {
                let eternal = limited(greet, entry(answer.clone(), at, century)).unwrap();
                let own = entry(answer.clone(), now, most);
                assert_eq!(eternal.expires_at, own.expires_at, "{answer:?}");
                assert_eq!(eternal.refresh_at, own.refresh_at, "{answer:?}");
                assert_eq!((eternal.result.at, eternal.result.source), (Some(now), Source::Probe));
            }
        }
        // One that expires earlier does so here; one that an own gateway would not have any more is gone.
        let brief = limited(greet, entry(Answer::Yes(None), now, HOUR)).unwrap();
        assert_eq!(brief.expires_at, now + HOUR);
        let old = CacheEntry {
            expires_at: now + HOUR,
            ..entry(Answer::Yes(None), Timestamp::from_nanos(1), century)
        };
        assert_eq!(limited(greet, old), None);
        let callout = limited(LookupKind::Callout, entry(Answer::Yes(None), now, century)).unwrap();
        assert_eq!(callout.expires_at, now + ttls.callout_positive);
    }

    #[test]
    fn an_entry_that_no_probe_could_give_is_not_believed() {
        let (ttls, now) = (Ttls::default(), Timestamp::from_nanos(1_767_322_800_000_000_000));
        for answer in [
            Answer::Records(Vec::new()),
            Answer::NxDomain,
            Answer::NoData,
            Answer::No(Reason::NullMx, None),
            Answer::No(Reason::NoProof, None),
            Answer::Unknown(Reason::RateLimited),
            Answer::Unknown(Reason::NoResolver),
        ] {
            let limited =
                entry(answer.clone(), now, HOUR).limited_to(LookupKind::Greet, now, &ttls);
            assert_eq!(limited, None, "{answer:?}");
        }
    }

    #[test]
    fn the_evidence_of_another_gateway_is_a_short_line() {
        let (ttls, now) = (Ttls::default(), Timestamp::from_nanos(1_767_322_800_000_000_000));
        let detail = |text: &str| {
            let answer = Answer::No(Reason::NoSuchMailbox, Some(text.to_owned()));
            let entry = entry(answer, now, HOUR).limited_to(LookupKind::Callout, now, &ttls);
            match entry.unwrap().result.answer {
                Answer::No(_, Some(detail)) => detail,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(detail("550 5.1.1 no such user"), "550 5.1.1 no such user");
        assert_eq!(detail("550 no\r\n250 yes\u{1b}[2J"), "550 no250 yes[2J");
        assert_eq!(detail(&"x".repeat(100_000)).len(), 128);
        assert!(detail(&"\u{1f4a9}".repeat(100_000)).len() <= 512);
    }
}

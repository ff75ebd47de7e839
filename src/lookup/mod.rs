//! Answers to what the policy asks: from the DNS in a capture, from a master file, from a live resolver; and for a running
//! gateway ([`LookupService`]) from passing traffic, a cache, the DNS, calls of other servers and our own upstream.
//!
//! Layer 4. A source that has nothing to say of a lookup leaves it to the next; one that heard the DNS fail does not: at
//! that time the answer *was* unknown, and a replay must decide as the gateway did.

mod cache_entry;
mod cache_view;
mod call_ahead;
mod cname;
mod disk_cache;
mod dns;
mod limits;
mod memory_cache;
mod passive_dns;
mod probe;
mod records;
mod redis_store;
mod service;
mod settings;
mod single_flight;
mod traffic_hints;
pub mod vantage;
mod zone_file;

use std::time::SystemTime;

use futures_util::future::join_all;
use hickory_proto::rr::{RData, RecordType};

pub use self::cache_entry::CacheEntry;
pub use self::cache_view::{CacheRow, matches_pattern, subject};
pub use self::disk_cache::{DiskCacheError, purge_disk_cache, read_disk_cache};
pub use self::dns::{Dns, DnsError, parse_server};
pub use self::passive_dns::{MAX_BYTES, PassiveDns, ServerNames};
pub use self::probe::{SurveySettings, survey};
pub use self::redis_store::check_redis_url;
pub use self::service::{LookupError, LookupService};
pub use self::settings::{CacheLimits, LookupSettings, ProbeSettings, Ttls};
pub use self::zone_file::{ZoneFile, ZoneFileError};
use crate::addr::Family;
use crate::policy::facts::{
    Answer, Answers, DnsRecord, DomainName, Evaluation, Fact, Lookup, LookupResult, Reason, Source,
};
use crate::time::Timestamp;

/// Whom to ask, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// A capture, as far as it had been heard at that time.
    pub passive_dns: Option<(&'a PassiveDns, Timestamp)>,
    pub zone: Option<&'a ZoneFile>,
    pub dns: Option<&'a Dns>,
}

impl Sources<'_> {
    /// Asks one source after the other. Waits only for [`Self::dns`], and no longer than its deadline.
    pub async fn answer(&self, lookup: &Lookup) -> LookupResult {
        let silent = Answer::Unknown(Reason::NoResolver);
        if let Some((capture, at)) = self.passive_dns {
            let answer = capture.answer(lookup, at);
            if answer != silent {
                return LookupResult { answer, source: Source::Capture, at: Some(at) };
            }
        }
        if let Some(zone) = self.zone {
            let answer = zone.answer(lookup);
            if answer != silent {
                return LookupResult { answer, source: Source::Zone, at: None };
            }
        }
        match self.dns {
            Some(dns) => {
                let answer = dns.answer(lookup).await;
                let at = Some(now());
                LookupResult { answer, source: Source::Dns, at }
            }
            None => LookupResult { answer: silent, source: Source::None, at: None },
        }
    }

    /// Drives one of the functions of [`crate::policy::facts`] to its fact. What is learnt stays in `known`, so nothing is
    /// asked twice for one session. Ends: each round answers all that is needed, and no fact needs more than a few rounds.
    pub async fn resolve(
        &self,
        known: &mut Answers,
        fact: impl Fn(&Answers) -> Evaluation,
    ) -> Fact {
        loop {
            let lookups = match fact(known) {
                Evaluation::Known(fact) => return fact,
                Evaluation::NeedsLookups(lookups) => lookups,
            };
            self.fetch(known, lookups).await;
        }
    }

    /// Asks all of `lookups` at once and adds their answers to what is known.
    pub async fn fetch(&self, known: &mut Answers, lookups: Vec<Lookup>) {
        let answers = join_all(lookups.iter().map(|lookup| self.answer(lookup))).await;
        for (lookup, answered) in lookups.into_iter().zip(answers) {
            known.insert(lookup, answered);
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

/// The owner name and the type of the records that answer `lookup`; `None` if it is no question to the DNS.
fn question(lookup: &Lookup) -> Option<(DomainName, RecordType)> {
    Some(match lookup {
        Lookup::Reverse(ip) => (DomainName::reverse(*ip), RecordType::PTR),
        Lookup::Addresses(name, Family::Ipv4) => (name.clone(), RecordType::A),
        Lookup::Addresses(name, Family::Ipv6) => (name.clone(), RecordType::AAAA),
        Lookup::MailExchanges(domain) => (domain.clone(), RecordType::MX),
        Lookup::Connect(_)
        | Lookup::Greet(_)
        | Lookup::Callout(..)
        | Lookup::Recipient(_)
        | Lookup::ReceivePath(_) => return None,
    })
}

/// A record of one of the types that a [`Lookup`] asks for.
fn record(data: &RData) -> Option<DnsRecord> {
    Some(match data {
        RData::A(a) => DnsRecord::Address(a.0.into()),
        RData::AAAA(aaaa) => DnsRecord::Address(aaaa.0.into()),
        RData::PTR(ptr) => DnsRecord::Name(ptr.0.clone().into()),
        RData::MX(mx) => {
            DnsRecord::Exchange { preference: mx.preference, host: mx.exchange.clone().into() }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;

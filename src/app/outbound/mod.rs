//! Which addresses of other hosts Postfix uses: the answers to its questions about their A and AAAA records.

mod recent_hosts;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time::timeout;

use self::recent_hosts::RecentHosts;
use crate::addr::Family;
use crate::lookup::LookupService;
use crate::outbound::{Pin, Pins};
use crate::policy::facts::{Answer, DomainName, Lookup};
use crate::postfix::socketmap::{FilteredRecord, MapAnswer, QUESTION_TIMEOUT};

/// Time for the lookup of a host's A records. The helper waits for the whole answer.
const LOOKUP_TIMEOUT: Duration = QUESTION_TIMEOUT.saturating_sub(Duration::from_millis(50));

/// The answers to Postfix, shared by all connections.
#[derive(Clone)]
pub(super) struct Steering(Arc<SteeringState>);

struct SteeringState {
    pins: ArcSwap<Pins>,
    /// Hosts with an A record. Postfix asks about A records just before it asks about AAAA records.
    with_ipv4: Mutex<RecentHosts>,
    /// `None` if lookups are disabled.
    lookup: Option<LookupService>,
}

impl Steering {
    pub(super) fn new(pins: Pins, lookup: Option<LookupService>) -> Self {
        let pins = ArcSwap::from_pointee(pins);
        Self(Arc::new(SteeringState { pins, with_ipv4: Mutex::default(), lookup }))
    }

    /// Replaces the operator's pins.
    pub(super) fn set_pins(&self, pins: Pins) {
        self.0.pins.store(Arc::new(pins));
    }

    /// Whether mail to `host` avoids its IPv6 addresses, if it has an IPv4 address too. The only place where this is decided.
    fn avoids_ipv6(&self, host: &DomainName) -> bool {
        match self.0.pins.load().of(host) {
            Some(Pin::Ipv4Only) => true,
            Some(Pin::KeepIpv6) | None => false,
        }
    }

    /// The answer to a question of `smtp_dns_reply_filter`. In doubt the record stays.
    pub(super) async fn answer(&self, record: FilteredRecord) -> MapAnswer {
        match record.family() {
            Family::Ipv4 => self.recent().insert(record.host, Instant::now()),
            Family::Ipv6 => {
                if self.avoids_ipv6(&record.host) && self.has_ipv4(&record.host).await {
                    return MapAnswer::Ok(MapAnswer::IGNORE.to_owned());
                }
            }
        }
        MapAnswer::NotFound
    }

    /// Whether the host is known to have an A record.
    async fn has_ipv4(&self, host: &DomainName) -> bool {
        if self.recent().contains(host, Instant::now()) {
            return true;
        }
        let Some(lookup) = &self.0.lookup else { return false };
        let query = Lookup::Addresses(host.clone(), Family::Ipv4);
        // A late answer is cached, and serves the next question.
        let result = timeout(LOOKUP_TIMEOUT, lookup.lookup(&query)).await;
        matches!(result, Ok(result) if matches!(result.answer, Answer::Records(_)))
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, RecentHosts> {
        self.0.with_ipv4.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rules::Domains;

    fn record(key: &str) -> FilteredRecord {
        FilteredRecord::parse(key).unwrap()
    }

    #[tokio::test]
    async fn only_an_aaaa_record_beside_an_a_record_is_omitted() {
        let pinned = DomainName::parse("mx.a.example").unwrap();
        let ipv4_only = Domains { exact: vec![pinned], below: Vec::new() };
        let pins = Pins { ipv4_only, ..Pins::default() };
        let steering = Steering::new(pins, None);
        let ipv6 = || record("mx.a.example. 60 IN AAAA 2001:db8::1");
        let ignore = MapAnswer::Ok("IGNORE".to_owned());
        assert_eq!(steering.answer(ipv6()).await, MapAnswer::NotFound, "no A record is known");
        let ipv4 = record("mx.a.example. 60 IN A 192.0.2.1");
        assert_eq!(steering.answer(ipv4).await, MapAnswer::NotFound);
        assert_eq!(steering.answer(ipv6()).await, ignore);
        let other = record("mx.b.example. 60 IN AAAA 2001:db8::1");
        assert_eq!(steering.answer(other).await, MapAnswer::NotFound);
        steering.set_pins(Pins::default());
        assert_eq!(steering.answer(ipv6()).await, MapAnswer::NotFound);
    }
}

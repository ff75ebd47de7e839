//! Our own mail to other hosts: what the mail log proves about them, and the answers to Postfix's questions about their A and
//! AAAA records. `gatepost outbound`.

mod command;
mod evidence;
mod expire;
mod mail_log;
mod recent_hosts;
mod requeue;
mod service;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time::timeout;

pub(super) use self::command::{outbound, serve};
pub(super) use self::evidence::OutboundEvidence;
pub(super) use self::expire::expire;
use self::recent_hosts::RecentHosts;
pub(super) use self::service::OutboundService;
use crate::addr::Family;
use crate::lookup::LookupService;
use crate::metrics::{MapMetric, Metrics};
use crate::outbound::{Pin, Pins, SteeringDecision};
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
    evidence: OutboundEvidence,
    metrics: Arc<Metrics>,
}

impl Steering {
    pub(super) fn new(
        pins: Pins,
        lookup: Option<LookupService>,
        evidence: OutboundEvidence,
        metrics: Arc<Metrics>,
    ) -> Self {
        let pins = ArcSwap::from_pointee(pins);
        let with_ipv4 = Mutex::default();
        Self(Arc::new(SteeringState { pins, with_ipv4, lookup, evidence, metrics }))
    }

    /// Replaces the operator's pins.
    pub(super) fn set_pins(&self, pins: Pins) {
        self.0.pins.store(Arc::new(pins));
    }

    /// Whether mail to `host` uses an IPv6 address, if the host has an IPv4 address too. The only place where this is decided.
    fn decide(&self, host: &DomainName, ip: Ipv6Addr) -> MapMetric {
        match self.0.pins.load().of(host) {
            Some(Pin::Ipv4Only) => MapMetric::Omitted,
            Some(Pin::KeepIpv6) => MapMetric::Kept,
            None => match self.0.evidence.decide(host, ip) {
                SteeringDecision::Use => MapMetric::Kept,
                SteeringDecision::Try(_) => MapMetric::Tried,
                SteeringDecision::Avoid(_) => MapMetric::Omitted,
            },
        }
    }

    /// The answer to a question of `smtp_dns_reply_filter`. In doubt the record stays.
    pub(super) async fn answer(&self, record: FilteredRecord) -> MapAnswer {
        let ip = match record.address {
            IpAddr::V4(_) => {
                self.recent().insert(record.host, Instant::now());
                return MapAnswer::NotFound;
            }
            IpAddr::V6(ip) => ip,
        };
        let mut answer = self.decide(&record.host, ip);
        if answer == MapMetric::Omitted && !self.has_ipv4(&record.host).await {
            answer = MapMetric::Kept;
        }
        self.0.metrics.on_map_answer(answer);
        match answer {
            MapMetric::Omitted => MapAnswer::Ok(MapAnswer::IGNORE.to_owned()),
            MapMetric::Kept | MapMetric::Tried => MapAnswer::NotFound,
        }
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
    use tokio::sync::mpsc;

    use super::*;
    use crate::outbound::{OutboundAttempt, OutboundOutcome, SteeringSettings};
    use crate::policy::rules::Domains;
    use crate::report::{LogSettings, SessionLog};
    use crate::time::Timestamp;

    fn record(key: &str) -> FilteredRecord {
        FilteredRecord::parse(key).unwrap()
    }

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn steering(pins: Pins) -> Steering {
        let metrics = Arc::new(Metrics::new().unwrap());
        let log = SessionLog::start(&LogSettings::default(), Box::new(|_| {})).unwrap();
        let (queue, _events) = mpsc::channel(1);
        let settings = SteeringSettings::default();
        let evidence = OutboundEvidence::new(settings, queue, Arc::clone(&metrics), Arc::new(log));
        Steering::new(pins, None, evidence, metrics)
    }

    #[tokio::test]
    async fn only_an_aaaa_record_beside_an_a_record_is_omitted() {
        let ipv4_only = Domains { exact: vec![name("mx.a.example")], below: Vec::new() };
        let steering = steering(Pins { ipv4_only, ..Pins::default() });
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

    #[tokio::test]
    async fn an_address_that_failed_is_omitted_unless_the_host_is_pinned() {
        let steering = steering(Pins::default());
        steering.0.evidence.on_attempt(&OutboundAttempt {
            at: Timestamp::from_system_time(std::time::SystemTime::now()),
            host: Some(name("mx.a.example")),
            address: "[2001:db8::1]:25".parse().unwrap(),
            domain: None,
            outcome: OutboundOutcome::TimedOut,
            reply: None,
            delays: None,
            queue_id: None,
        });
        steering.answer(record("mx.a.example. 60 IN A 192.0.2.1")).await;
        let ipv6 = |last| record(&format!("mx.a.example. 60 IN AAAA 2001:db8::{last}"));
        let ignore = MapAnswer::Ok("IGNORE".to_owned());
        assert_eq!(steering.answer(ipv6(1)).await, ignore);
        assert_eq!(steering.answer(ipv6(2)).await, MapAnswer::NotFound);
        let keep_ipv6 = Domains { exact: vec![name("mx.a.example")], below: Vec::new() };
        steering.set_pins(Pins { keep_ipv6, ..Pins::default() });
        assert_eq!(steering.answer(ipv6(1)).await, MapAnswer::NotFound);
    }
}

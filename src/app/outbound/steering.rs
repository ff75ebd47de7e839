//! Which addresses of other hosts our mail uses: the pins of the operator, canaries and the evidence, for Postfix's questions and for the
//! kernel.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::timeout;

use super::evidence::OutboundEvidence;
use super::recent_hosts::RecentHosts;
use crate::addr::Family;
use crate::lookup::LookupService;
use crate::metrics::{MapMetric, Metrics};
use crate::outbound::{CanaryPreference, Pin, Pins, SteeringDecision, TrialBy};
use crate::policy::facts::{Answer, DomainName, Lookup};
use crate::postfix::socketmap::{FilteredRecord, MapAnswer, QUESTION_TIMEOUT};
use crate::time::Timestamp;

/// Time for the lookup of a host's A records. The helper waits for the whole answer.
const LOOKUP_TIMEOUT: Duration = QUESTION_TIMEOUT.saturating_sub(Duration::from_millis(50));

/// An attempt over IPv4 shows for so long that a host has an IPv4 address, where its A records cannot be looked up.
const ATTEMPT_MAX_AGE: Duration = Duration::from_secs(86_400);

/// What mail to a host does with one of its IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressDecision {
    Keep,
    /// As a trial.
    Try,
    /// Not to be used if the host has an IPv4 address too; until then, or while the operator pins the host.
    Omit {
        until: Option<Timestamp>,
    },
}

impl AddressDecision {
    const fn metric(self) -> MapMetric {
        match self {
            Self::Keep => MapMetric::Kept,
            Self::Try => MapMetric::Tried,
            Self::Omit { .. } => MapMetric::Omitted,
        }
    }
}

/// An address that mail to none of its hosts should use, if they have IPv4 addresses too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AvoidedAddress {
    pub(super) ip: Ipv6Addr,
    pub(super) hosts: Vec<DomainName>,
    /// In the past during a trial. `None` for pinned hosts, and for those that filter.
    pub(super) until: Option<Timestamp>,
}

/// The decisions for Postfix and the kernel, shared by all connections.
#[derive(Clone)]
pub(super) struct Steering(Arc<SteeringState>);

struct SteeringState {
    pins: ArcSwap<Pins>,
    /// Hosts that filter mail over IPv6 away.
    filtered: ArcSwapOption<CanaryPreference>,
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
        let filtered = ArcSwapOption::empty();
        Self(Arc::new(SteeringState { pins, filtered, with_ipv4, lookup, evidence, metrics }))
    }

    /// Replaces the operator's pins.
    pub(super) fn set_pins(&self, pins: Pins) {
        self.0.pins.store(Arc::new(pins));
    }

    /// Replaces the hosts to which mail prefers IPv4 because they filter mail over IPv6 away.
    pub(super) fn set_canary(&self, preference: Option<CanaryPreference>) {
        let pins = self.0.pins.load();
        let preference = preference.and_then(|mut preference| {
            preference.hosts.retain(|host| pins.of(host).is_none());
            (!preference.hosts.is_empty()).then(|| Arc::new(preference))
        });
        if *self.0.filtered.load() != preference {
            self.0.filtered.store(preference.clone());
            self.0.evidence.set_canary(preference);
        }
    }

    fn is_filtered(&self, host: &DomainName) -> bool {
        self.0.filtered.load().as_ref().is_some_and(|preference| preference.hosts.contains(host))
    }

    /// Whether mail to `host` uses an IPv6 address, if the host has an IPv4 address too. The only place where this is decided.
    /// Begins a trial that is due.
    fn decide(&self, host: &DomainName, ip: Ipv6Addr, by: TrialBy) -> AddressDecision {
        match self.0.pins.load().of(host) {
            Some(Pin::Ipv4Only) => AddressDecision::Omit { until: None },
            Some(Pin::KeepIpv6) => AddressDecision::Keep,
            None if self.is_filtered(host) => AddressDecision::Omit { until: None },
            None => match self.0.evidence.decide(host, ip, by) {
                SteeringDecision::Use => AddressDecision::Keep,
                SteeringDecision::Try(_) => AddressDecision::Try,
                SteeringDecision::Avoid(avoided) => {
                    AddressDecision::Omit { until: Some(avoided.until) }
                }
            },
        }
    }

    /// All addresses that mail should not use, for the kernel, which asks about none. Trials that are due begin, for any
    /// connection.
    pub(super) fn avoided_addresses(&self) -> Vec<AvoidedAddress> {
        let pins = self.0.pins.load();
        let is_pinned =
            |host: &DomainName| pins.of(host) == Some(Pin::Ipv4Only) || self.is_filtered(host);
        let addresses = self.0.evidence.ipv6_addresses_to_decide(is_pinned);
        let avoided = addresses.into_iter().filter_map(|(ip, hosts)| {
            let mut end = None;
            for host in &hosts {
                match self.decide(host, ip, TrialBy::AnyConnection) {
                    AddressDecision::Omit { until } => {
                        end = end.into_iter().chain(until).min();
                    }
                    AddressDecision::Keep | AddressDecision::Try => return None,
                }
            }
            Some(AvoidedAddress { ip, hosts, until: end })
        });
        avoided.collect()
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
        let mut decision = self.decide(&record.host, ip, TrialBy::Message);
        let is_omitted = |decision| matches!(decision, AddressDecision::Omit { .. });
        if is_omitted(decision) && !self.has_ipv4(&record.host).await {
            decision = AddressDecision::Keep;
        }
        self.0.metrics.on_map_answer(decision.metric());
        match is_omitted(decision) {
            true => MapAnswer::Ok(MapAnswer::IGNORE.to_owned()),
            false => MapAnswer::NotFound,
        }
    }

    /// Whether the host is known to have an A record.
    async fn has_ipv4(&self, host: &DomainName) -> bool {
        self.recent().contains(host, Instant::now()) || self.look_up_ipv4(host).await == Some(true)
    }

    /// The same for an MTA that does not ask: an attempt of the last day shows it too, if its A records cannot be looked up.
    pub(super) async fn is_known_over_ipv4(&self, host: &DomainName) -> bool {
        if let Some(known) = self.look_up_ipv4(host).await {
            return known;
        }
        let now = Timestamp::from_system_time(SystemTime::now());
        let last = self.0.evidence.last_ipv4(host);
        last.is_some_and(|last| now.since(last) < ATTEMPT_MAX_AGE)
    }

    /// `None` if that cannot be found out.
    async fn look_up_ipv4(&self, host: &DomainName) -> Option<bool> {
        let lookup = self.0.lookup.as_ref()?;
        let query = Lookup::Addresses(host.clone(), Family::Ipv4);
        // A late answer is cached, and serves the next question.
        let result = timeout(LOOKUP_TIMEOUT, lookup.lookup(&query)).await.ok()?;
        match result.answer {
            Answer::Records(_) => Some(true),
            Answer::NoData | Answer::NxDomain => Some(false),
            Answer::Yes(_) | Answer::No(..) | Answer::Unknown(_) => None,
        }
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, RecentHosts> {
        self.0.with_ipv4.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::SocketAddr;

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
        let resets = Arc::default();
        let evidence =
            OutboundEvidence::new(settings, queue, resets, Arc::clone(&metrics), Arc::new(log));
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
    async fn a_host_that_filters_ipv6_mail_gets_it_over_ipv4_unless_it_is_pinned() {
        let steering = steering(Pins::default());
        steering.answer(record("mx.a.example. 60 IN A 192.0.2.1")).await;
        let ipv6 = || record("mx.a.example. 60 IN AAAA 2001:db8::1");
        assert_eq!(steering.answer(ipv6()).await, MapAnswer::NotFound);
        let preference = || {
            Some(CanaryPreference {
                domain: "a.example".to_owned(),
                hosts: BTreeSet::from([name("mx.a.example"), name("mx.pinned.example")]),
                reason: "the message over IPv6 was marked as spam".to_owned(),
                since: ago(5),
            })
        };
        let shown = |pattern: Option<&str>| {
            let pattern = pattern.map(name);
            let report = steering.0.evidence.report(pattern.as_ref());
            let hosts = report.canary_preference.map(|it| it.hosts.into_iter().collect::<Vec<_>>());
            hosts.unwrap_or_default()
        };
        let keep_ipv6 = Domains { exact: vec![name("mx.pinned.example")], below: Vec::new() };
        steering.set_pins(Pins { keep_ipv6, ..Pins::default() });
        steering.set_canary(preference());
        for pattern in [None, Some("a.example"), Some("mx.a.example")] {
            assert_eq!(shown(pattern), [name("mx.a.example")], "{pattern:?}");
        }
        for pattern in ["b.example", "pinned.example"] {
            assert!(shown(Some(pattern)).is_empty(), "{pattern}");
        }
        let delivered = attempt("mx.a.example", "2001:db8::1", OutboundOutcome::Delivered, 9);
        steering
            .0
            .evidence
            .on_attempt(&OutboundAttempt { domain: Some(name("b.example")), ..delivered });
        let report = steering.0.evidence.report(Some(&name("b.example")));
        assert!(report.hosts[0].ipv4_by_canary && report.canary_preference.is_some());
        assert_eq!(steering.answer(ipv6()).await, MapAnswer::Ok("IGNORE".to_owned()));
        let alone = record("mx.b.example. 60 IN AAAA 2001:db8::1");
        assert_eq!(steering.answer(alone).await, MapAnswer::NotFound);
        let keep_ipv6 = Domains { exact: vec![name("mx.a.example")], below: Vec::new() };
        steering.set_pins(Pins { keep_ipv6, ..Pins::default() });
        assert_eq!(steering.answer(ipv6()).await, MapAnswer::NotFound);
        // Once a second.
        steering.set_canary(preference());
        assert_eq!(shown(None), [name("mx.pinned.example")], "the pin decides");
        steering.set_pins(Pins::default());
        steering.set_canary(None);
        assert!(shown(None).is_empty());
        assert_eq!(steering.answer(ipv6()).await, MapAnswer::NotFound);
    }

    #[tokio::test]
    async fn an_address_that_failed_is_omitted_unless_the_host_is_pinned() {
        let steering = steering(Pins::default());
        let failed = attempt("mx.a.example", "2001:db8::1", OutboundOutcome::TimedOut, 0);
        steering.0.evidence.on_attempt(&failed);
        steering.answer(record("mx.a.example. 60 IN A 192.0.2.1")).await;
        let ipv6 = |last| record(&format!("mx.a.example. 60 IN AAAA 2001:db8::{last}"));
        let ignore = MapAnswer::Ok("IGNORE".to_owned());
        assert_eq!(steering.answer(ipv6(1)).await, ignore);
        assert_eq!(steering.answer(ipv6(2)).await, MapAnswer::NotFound);
        let keep_ipv6 = Domains { exact: vec![name("mx.a.example")], below: Vec::new() };
        steering.set_pins(Pins { keep_ipv6, ..Pins::default() });
        assert_eq!(steering.answer(ipv6(1)).await, MapAnswer::NotFound);
    }

    /// `seconds` ago.
    fn attempt(host: &str, ip: &str, outcome: OutboundOutcome, seconds: u64) -> OutboundAttempt {
        OutboundAttempt {
            at: ago(seconds),
            host: Some(name(host)),
            address: SocketAddr::new(ip.parse().unwrap(), 25),
            domain: None,
            outcome,
            reply: None,
            delays: None,
            queue_id: None,
        }
    }

    fn ago(seconds: u64) -> Timestamp {
        Timestamp::from_system_time(SystemTime::now() - Duration::from_secs(seconds))
    }

    #[tokio::test]
    async fn the_kernel_avoids_an_address_only_as_long_as_each_of_its_hosts_does() {
        let steering = steering(Pins::default());
        let (ip, now) = ("2001:db8::1", ago(0));
        let add = |host, outcome, seconds| {
            steering.0.evidence.on_attempt(&attempt(host, ip, outcome, seconds));
        };
        let until = || steering.avoided_addresses().first().map(|avoided| avoided.until);
        let in_the_future = |until: Option<Option<Timestamp>>| until.unwrap().unwrap() > now;
        assert_eq!(until(), None);
        add("mx.a.example", OutboundOutcome::TimedOut, 60);
        assert!(in_the_future(until()));
        // Another name of the same address, which works, and then does not.
        add("mx.b.example", OutboundOutcome::Delivered, 700);
        assert_eq!(until(), None);
        add("mx.b.example", OutboundOutcome::Stalled, 50);
        assert!(in_the_future(until()));
        let below = vec![name("b.example")];
        let keep_ipv6 = Domains { exact: Vec::new(), below: below.clone() };
        steering.set_pins(Pins { keep_ipv6, ..Pins::default() });
        assert_eq!(until(), None);
        let ipv4_only = Domains { exact: vec![name("mx.a.example")], below };
        steering.set_pins(Pins { ipv4_only, ..Pins::default() });
        assert_eq!(until(), Some(None), "for as long as it is pinned");
    }

    /// Otherwise the failure of the trial would be taken for that of a message on its way before.
    #[tokio::test]
    async fn after_its_time_an_address_is_tried_and_avoided_again_if_it_fails() {
        let steering = steering(Pins::default());
        let evidence = &steering.0.evidence;
        let failed =
            |seconds| attempt("mx.a.example", "2001:db8::1", OutboundOutcome::TimedOut, seconds);
        evidence.on_attempt(&failed(700));
        assert!(steering.avoided_addresses().is_empty(), "the trial begins");
        let on_trial = steering.avoided_addresses();
        assert!(on_trial[0].until.unwrap() < ago(0), "{on_trial:?}");
        evidence.on_attempt(&failed(0));
        let again = steering.avoided_addresses();
        assert!(again[0].until.unwrap() > ago(0) + Duration::from_secs(1100), "{again:?}");
    }

    #[tokio::test]
    async fn resets_by_this_host_are_no_evidence() {
        let steering = steering(Pins::default());
        let evidence = &steering.0.evidence;
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let until = ago(0) + Duration::from_secs(60);
        evidence.resets().set_addresses(&BTreeMap::from([(ip, until)]), ago(0));
        let count = || evidence.report(None).ipv6.total();
        let add = |ip: &str, outcome| evidence.on_attempt(&attempt("mx.a.example", ip, outcome, 0));
        add("2001:db8::1", OutboundOutcome::Refused);
        assert_eq!(count(), 0);
        // What the kernel does not cause.
        add("2001:db8::1", OutboundOutcome::TimedOut);
        add("2001:db8::2", OutboundOutcome::Refused);
        assert_eq!(count(), 2);
    }

    #[tokio::test]
    async fn without_lookups_an_attempt_of_the_last_day_shows_an_ipv4_address() {
        let steering = steering(Pins::default());
        let host = name("mx.a.example");
        assert!(!steering.is_known_over_ipv4(&host).await);
        for (seconds, known) in [(90_000, false), (80_000, true)] {
            let delivered = OutboundOutcome::Delivered;
            let attempt = attempt("mx.a.example", "192.0.2.1", delivered, seconds);
            steering.0.evidence.on_attempt(&attempt);
            assert_eq!(steering.is_known_over_ipv4(&host).await, known);
        }
    }
}

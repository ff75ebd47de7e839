//! `[canary]`: collects the reports about canaries, asks the vantage to send some, and sends some to its side.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::addr::Family;
use crate::canary::{
    CanaryAddresses, CanaryDirection, CanaryMonitor, CanaryPair, CanaryReport, CanaryStatus,
    CanaryToken, Comparison, PairResult, PassedMessage,
};
use crate::config::{CanaryConfig, Config};
use crate::engine::{Event, Observe, SessionRecord};
use crate::hmac_key::HmacKey;
use crate::lookup::vantage::{SharedKey, Vantage};
use crate::lookup::{LookupService, exchange_addresses};
use crate::metrics::Metrics;
use crate::policy::facts::{DomainName, Lookup};
use crate::report::{LogLevel, SessionLog, canary};
use crate::smtp_connection::{CanarySender, CanaryTarget, PairOrder};
use crate::time::Timestamp;
use crate::tls::{UpstreamVerification, upstream_config};

const DAY: Duration = Duration::from_secs(24 * 3_600);
const SMTP: u16 = 25;
/// For each connection and reply of an outbound canary.
const STEP: Duration = Duration::from_secs(15);
/// Interval at which the reports about an outbound pair are fetched.
const POLL: Duration = Duration::from_secs(10);
/// Time from the start to the first request, so that upstreams and mailbox are up.
const FIRST: Duration = Duration::from_secs(5);

/// Clones share everything.
#[derive(Clone)]
pub(in crate::app) struct CanaryService(Arc<CanaryState>);

struct CanaryState {
    key: HmacKey,
    config: CanaryConfig,
    monitor: Mutex<CanaryMonitor>,
    /// Exchange hosts that the latest outbound pair was sent to.
    outbound_hosts: Mutex<BTreeSet<DomainName>>,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
}

impl CanaryService {
    /// `None` without `[canary]`. The tasks send on schedule.
    ///
    /// # Errors
    /// A key cannot be read.
    pub(super) fn start(
        config: &Config,
        lookup: Option<&LookupService>,
        metrics: &Arc<Metrics>,
        log: &Arc<SessionLog>,
    ) -> anyhow::Result<Option<(Self, Vec<JoinHandle<()>>)>> {
        let Some(settings) = config.canary.clone() else { return Ok(None) };
        let key = SharedKey::read(&settings.key).context("canary.key_file")?.hmac().clone();
        let monitor = Mutex::new(CanaryMonitor::new(settings.timeout, settings.max_age));
        let (metrics, log) = (Arc::clone(metrics), Arc::clone(log));
        let (interval, outbound) = (settings.interval, settings.outbound.clone());
        let state = CanaryState {
            key,
            config: settings,
            monitor,
            outbound_hosts: Mutex::default(),
            metrics,
            log,
        };
        let service = Self(Arc::new(state));
        let mut tasks = Vec::new();
        if let (Some(interval), Some(vantage)) = (interval, &config.vantage) {
            let vantage = Vantage::new(vantage, config.relay.mark).context("[vantage]")?;
            if let (Some(addresses), Some(lookup)) = (outbound, lookup) {
                let tls = upstream_config(&UpstreamVerification::None)?;
                let hostname = config.relay.smtp.hostname.clone();
                let sender = CanarySender { hostname, timeout: STEP, tls };
                let outbound = OutboundCanaries {
                    vantage: vantage.clone(),
                    sender,
                    addresses,
                    lookup: lookup.clone(),
                };
                tasks.push(tokio::spawn(service.clone().send_outbound(outbound, interval)));
            }
            tasks.push(tokio::spawn(service.clone().ask(vantage, interval)));
        }
        Ok(Some((service, tasks)))
    }

    /// A mailbox reports a canary.
    ///
    /// # Errors
    /// It is none of this site; the reason is for people.
    pub(super) fn on_report(&self, report: CanaryReport) -> Result<(), String> {
        let now = wall_clock();
        let token = report.token(&self.0.key, now).map_err(|reason| {
            format!("the report is about no canary of canary.key_file: {reason}")
        })?;
        let to = match token.direction {
            CanaryDirection::Inbound => Some(self.0.config.inbound_to.as_str()),
            CanaryDirection::Outbound => {
                self.0.config.outbound.as_ref().map(|addresses| addresses.to.as_str())
            }
        };
        if !to.is_some_and(|to| report.recipient.eq_ignore_ascii_case(to)) {
            let reason = "the report is about another mailbox than those in [canary]";
            return Err(reason.to_owned());
        }
        let result = self.monitor().on_received(token, report.judgement, report.received, now);
        self.publish(result, now);
        Ok(())
    }

    /// A message with the Message-ID of a canary passed the gateway.
    fn on_passed(&self, message: &PassedMessage) {
        let (now, state) = (wall_clock(), &*self.0);
        let to = &state.config.inbound_to;
        let token = CanaryToken::recognise(&message.message_id, to, &state.key, now);
        // Somebody else's, or forged.
        let Ok(token) = token else { return };
        let result = self.monitor().on_passed(token, message.judgement.clone(), now);
        self.publish(result, now);
    }

    /// Once a second.
    pub(super) fn on_tick(&self) {
        let now = wall_clock();
        let results = self.monitor().expire(now);
        for result in results {
            self.publish(Some(result), now);
        }
        for status in self.status() {
            self.0.metrics.set_canary_parity(&status);
        }
    }

    pub(super) fn status(&self) -> Vec<CanaryStatus> {
        let now = wall_clock();
        let monitor = self.monitor();
        CanaryDirection::ALL.map(|direction| monitor.status(direction, now)).to_vec()
    }

    /// Why mail of this family is filtered away, if it is.
    pub(super) fn filtered(&self, family: Family) -> Option<String> {
        let status = self.monitor().status(CanaryDirection::Inbound, wall_clock());
        status.is_filtered(family).then(|| canary::detail(&status))
    }

    fn publish(&self, result: Option<PairResult>, now: Timestamp) {
        let Some(result) = result else { return };
        self.0.metrics.on_canaries(&result);
        let status = self.monitor().status(result.pair.direction, now);
        self.0.metrics.set_canary_parity(&status);
        let comparison = result.pair.comparison();
        let level = match comparison {
            Comparison::Ipv6Worse | Comparison::Ipv4Worse => LogLevel::Warn,
            Comparison::Equal | Comparison::Unknown => LogLevel::Info,
        };
        let (ipv4, ipv6) = (result.pair.ipv4.outcome(), result.pair.ipv6.outcome());
        let sentence = canary::sentence(comparison, ipv4, ipv6);
        let direction = result.pair.direction;
        let notice = format!("canaries {}, {direction}: {sentence}", result.pair.id);
        self.0.log.notice(level, &notice);
    }

    /// Hosts of the outbound canaries' destination, while it filters mail over IPv6 away and mail should prefer IPv4 for that.
    pub(super) fn hosts_without_ipv6(&self) -> BTreeSet<DomainName> {
        let status = self.monitor().status(CanaryDirection::Outbound, wall_clock());
        if !self.0.config.prefer_ipv4 || !status.is_filtered(Family::Ipv6) {
            return BTreeSet::new();
        }
        self.0.outbound_hosts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the vantage for a pair at each interval.
    async fn ask(self, vantage: Vantage, interval: Duration) {
        let mut schedule = Schedule::new(interval, self.0.config.per_day);
        let mut failure = FailureLog::new("the vantage sends no canaries", &self.0.log);
        loop {
            schedule.wait().await;
            match vantage.send_canaries(&self.0.config.inbound_to).await {
                Ok(pair) => {
                    failure.on_result(None);
                    self.on_sent(&pair);
                }
                Err(error) => failure.on_result(Some(error.to_string())),
            }
        }
    }

    /// Sends a pair to the vantage's side at each interval, and fetches the reports about it.
    async fn send_outbound(self, outbound: OutboundCanaries, interval: Duration) {
        let mut schedule = Schedule::new(interval, self.0.config.per_day);
        let mut failure = FailureLog::new("no canaries are sent to outbound_to", &self.0.log);
        let mut reports = FailureLog::new("the vantage hands out no reports", &self.0.log);
        loop {
            schedule.wait().await;
            let pair = match outbound.send(&self.0.key).await {
                Ok((pair, hosts)) => {
                    failure.on_result(None);
                    *self.0.outbound_hosts.lock().unwrap_or_else(PoisonError::into_inner) = hosts;
                    pair
                }
                Err(reason) => {
                    failure.on_result(Some(reason));
                    continue;
                }
            };
            self.on_sent(&pair);
            let poll = POLL.min(interval);
            while self.monitor().is_waiting(pair.id) {
                sleep(poll).await;
                match outbound.vantage.canary_reports(pair.id).await {
                    Ok(found) => {
                        reports.on_result(None);
                        for report in found {
                            // Whatever is not of this site counts for nothing.
                            let _not_ours = self.on_report(report);
                        }
                    }
                    Err(error) => reports.on_result(Some(error.to_string())),
                }
            }
        }
    }

    fn on_sent(&self, pair: &CanaryPair) {
        for family in Family::ALL {
            let Some(delivery) = pair.half(family).delivery.clone() else { continue };
            let now = wall_clock();
            let result = self.monitor().on_delivery(pair.token(family), delivery, now);
            self.publish(result, now);
        }
    }

    fn monitor(&self) -> MutexGuard<'_, CanaryMonitor> {
        self.0.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receives canaries from the relay, which starts before the service.
#[derive(Clone, Default)]
pub(super) struct PassedCanaries(Arc<OnceLock<CanaryService>>);

impl PassedCanaries {
    pub(super) fn set(&self, service: CanaryService) {
        let _set_before = self.0.set(service);
    }
}

impl Observe for PassedCanaries {
    fn event(&self, _: Family, _: Event) {}

    fn session(&self, _: &SessionRecord) {}

    fn canary(&self, message: &PassedMessage) {
        if let Some(service) = self.0.get() {
            service.on_passed(message);
        }
    }
}

/// What outbound canaries need.
struct OutboundCanaries {
    vantage: Vantage,
    sender: CanarySender,
    addresses: CanaryAddresses,
    lookup: LookupService,
}

impl OutboundCanaries {
    /// The pair with the replies of the mail servers, and the exchange hosts.
    ///
    /// # Errors
    /// Why nothing was sent, for people.
    async fn send(&self, key: &HmacKey) -> Result<(CanaryPair, BTreeSet<DomainName>), String> {
        let to = &self.addresses.to;
        let domain = to.rsplit_once('@').and_then(|(_, domain)| DomainName::parse(domain));
        let domain = domain.ok_or_else(|| format!("{to} has no domain name"))?;
        let targets = async |family: Family| {
            let answer = |lookup: Lookup| {
                let service = self.lookup.clone();
                async move { service.lookup(&lookup).await.answer }
            };
            let found = exchange_addresses(answer, &domain, family).await;
            found.map_err(|reason| format!("cannot look up the exchanges of {domain} ({reason})"))
        };
        let (ipv4, ipv6) = (targets(Family::Ipv4).await?, targets(Family::Ipv6).await?);
        let hosts = ipv4.iter().chain(&ipv6).map(|(host, _)| host.clone()).collect();
        let target = |(name, ip): &(DomainName, IpAddr)| CanaryTarget {
            name: name.to_string(),
            address: SocketAddr::new(*ip, SMTP),
        };
        let [ipv4, ipv6] = [ipv4, ipv6].map(|all| all.iter().map(target).collect::<Vec<_>>());
        let order = PairOrder {
            direction: CanaryDirection::Outbound,
            addresses: &self.addresses,
            key,
            ipv4: &ipv4,
            ipv6: &ipv6,
        };
        let pair = self.sender.send_pair(order, wall_clock()).await;
        let pair = pair.map_err(|error| format!("cannot read random bytes: {error}"))?;
        Ok((pair, hosts))
    }
}

/// The times of pairs, of which there are no more than a number in 24 hours.
struct Schedule {
    interval: Duration,
    per_day: usize,
    sent: VecDeque<Timestamp>,
}

impl Schedule {
    fn new(interval: Duration, per_day: u32) -> Self {
        let per_day = usize::try_from(per_day).unwrap_or(usize::MAX);
        Self { interval, per_day, sent: VecDeque::new() }
    }

    /// Returns when a pair is due.
    async fn wait(&mut self) {
        let first = self.sent.is_empty();
        sleep(if first { FIRST.min(self.interval) } else { with_jitter(self.interval) }).await;
        while !self.admit(wall_clock()) {
            sleep(with_jitter(self.interval)).await;
        }
    }

    fn admit(&mut self, now: Timestamp) -> bool {
        self.sent.retain(|at| now - *at < DAY);
        let is_free = self.sent.len() < self.per_day;
        if is_free {
            self.sent.push_back(now);
        }
        is_free
    }
}

/// Logs a failure when it begins and when it is over.
struct FailureLog<'l> {
    what: &'static str,
    log: &'l SessionLog,
    fails: bool,
}

impl<'l> FailureLog<'l> {
    const fn new(what: &'static str, log: &'l SessionLog) -> Self {
        Self { what, log, fails: false }
    }

    fn on_result(&mut self, failure: Option<String>) {
        match (&failure, self.fails) {
            (Some(reason), false) => {
                self.log.notice(LogLevel::Warn, &format!("{}: {reason}", self.what));
            }
            (None, true) => {
                self.log.notice(LogLevel::Info, &format!("no longer: {}", self.what));
            }
            _ => {}
        }
        self.fails = failure.is_some();
    }
}

/// Between 0.9 and 1.1 times as long: filters know mail that comes on the dot.
fn with_jitter(interval: Duration) -> Duration {
    let mut random = [0; 1];
    let read =
        std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    let [byte] = if read.is_ok() { random } else { [128] };
    interval.mul_f64(0.9 + 0.2 * f64::from(byte) / 255.0)
}

fn wall_clock() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_limited_per_day() {
        let mut schedule = Schedule::new(Duration::from_secs(1), 2);
        let start = Timestamp::from_nanos(1_767_323_045_000_000_000);
        let admitted: Vec<_> = [Duration::ZERO, DAY / 2, DAY / 2, DAY, DAY]
            .map(|after| schedule.admit(start + after))
            .to_vec();
        assert_eq!(admitted, [true, true, false, true, false]);
    }

    #[test]
    fn jitter_is_a_tenth() {
        let second = Duration::from_secs(1);
        for _ in 0..100 {
            let interval = with_jitter(second);
            assert!(interval >= second.mul_f64(0.9) && interval <= second.mul_f64(1.1001));
        }
    }
}

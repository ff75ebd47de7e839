//! `[canary]`: collects the reports about canaries, asks the vantage to send some, and sends some to its side.
//!
//! The results, and how many pairs were sent, are saved in the cache file of `[lookup]`.

mod failure_log;
mod outbound;
mod passed;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use rustls::ClientConfig;
use tokio::task::JoinHandle;

pub(super) use self::passed::PassedCanaries;
use crate::addr::Family;
use crate::canary::{
    CanaryDirection, CanaryMonitor, CanaryReport, CanaryStatus, CanaryToken, Comparison,
    DailyLimit, PairResult, PassedMessage, SavedCanaries,
};
use crate::config::{CanaryConfig, Config};
use crate::hmac_key::HmacKey;
use crate::lookup::LookupService;
use crate::lookup::vantage::{SharedKey, Vantage};
use crate::metrics::Metrics;
use crate::outbound::CanaryPreference;
use crate::policy::facts::DomainName;
use crate::report::{LogLevel, SessionLog, canary};
use crate::time::Timestamp;
use crate::tls::{UpstreamVerification, upstream_config};

/// Name of the saved state.
const STATE: &str = "canary";

/// Clones share everything.
#[derive(Clone)]
pub(in crate::app) struct CanaryService(Arc<CanaryState>);

struct CanaryState {
    /// `None` without `[canary]`.
    active: ArcSwapOption<ActiveCanaries>,
    monitor: Mutex<CanaryMonitor>,
    /// By [`CanaryDirection::index`].
    limits: Mutex<[DailyLimit; CanaryDirection::ALL.len()]>,
    /// Exchange hosts that the latest outbound pair was sent to.
    outbound_hosts: Mutex<BTreeSet<DomainName>>,
    /// Held while the state is saved, so that an older one never replaces a newer one.
    saving: Mutex<()>,
    /// Those of the schedule.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Of the start, as `[vantage]` is not reloaded.
    vantage: Option<Vantage>,
    /// `None` if lookups are disabled.
    lookup: Option<LookupService>,
    /// Of outbound pairs.
    tls: Arc<ClientConfig>,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
}

/// The configuration in force, with the key.
pub(in crate::app) struct ActiveCanaries {
    key: HmacKey,
    config: CanaryConfig,
    /// Of EHLO, and of Message-IDs.
    hostname: String,
}

impl ActiveCanaries {
    /// `None` without `[canary]`.
    ///
    /// # Errors
    /// The key cannot be read.
    pub(super) fn new(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(settings) = config.canary.clone() else { return Ok(None) };
        let key = SharedKey::read(&settings.key).context("canary.key_file")?.hmac().clone();
        let hostname = config.relay.smtp.hostname.clone();
        Ok(Some(Self { key, config: settings, hostname }))
    }

    /// The mailbox that canaries of a direction are sent to.
    fn recipient(&self, direction: CanaryDirection) -> Option<&str> {
        match direction {
            CanaryDirection::Inbound => Some(&self.config.inbound_to),
            CanaryDirection::Outbound => {
                self.config.outbound.as_ref().map(|addresses| addresses.to.as_str())
            }
        }
    }
}

impl CanaryService {
    /// Starts the schedule of the configuration, if it has one. A reload may add the section later.
    ///
    /// # Errors
    /// A key cannot be read.
    pub(super) fn start(
        config: &Config,
        lookup: Option<&LookupService>,
        metrics: &Arc<Metrics>,
        log: &Arc<SessionLog>,
    ) -> anyhow::Result<Self> {
        let active = ActiveCanaries::new(config)?;
        let vantage = config.vantage.as_ref();
        let vantage = vantage.map(|vantage| Vantage::new(vantage, config.relay.mark));
        let state = CanaryState {
            active: ArcSwapOption::empty(),
            monitor: Mutex::new(CanaryMonitor::new(Duration::ZERO, Duration::ZERO)),
            limits: Mutex::default(),
            outbound_hosts: Mutex::default(),
            saving: Mutex::default(),
            tasks: Mutex::default(),
            vantage: vantage.transpose().context("[vantage]")?,
            lookup: lookup.cloned(),
            tls: upstream_config(&UpstreamVerification::None)?,
            metrics: Arc::clone(metrics),
            log: Arc::clone(log),
        };
        let service = Self(Arc::new(state));
        service.apply(active);
        Ok(service)
    }

    /// Puts a configuration into force. Results about another mailbox than before are dropped.
    pub(super) fn apply(&self, active: Option<ActiveCanaries>) {
        let active = active.map(Arc::new);
        let old = self.0.active.swap(active.clone());
        if let Some(active) = &active {
            self.monitor().set_times(active.config.timeout, active.config.max_age);
            self.restore(active);
        }
        for direction in CanaryDirection::ALL {
            let recipient = |of: &Option<Arc<ActiveCanaries>>| {
                of.as_ref().and_then(|of| of.recipient(direction).map(str::to_owned))
            };
            if old.is_some() && recipient(&old) != recipient(&active) {
                self.forget(direction);
            }
        }
        let schedule = |of: &Option<Arc<ActiveCanaries>>| {
            of.as_ref().map(|of| (of.config.clone(), of.hostname.clone()))
        };
        if schedule(&old) != schedule(&active) {
            self.stop();
            *self.tasks() = self.start_tasks();
        }
        if active.is_none() {
            self.0.metrics.clear_canary_parity();
        }
        if old.is_some() {
            self.save();
        }
        self.on_tick();
    }

    /// Ends the schedule.
    pub(super) fn stop(&self) {
        for task in self.tasks().drain(..) {
            task.abort();
        }
    }

    /// A mailbox reports a canary.
    ///
    /// # Errors
    /// It is none of this site; the reason is for people.
    pub(super) fn on_report(&self, report: CanaryReport) -> Result<(), String> {
        let Some(active) = self.active() else {
            return Err("its configuration has no [canary]".to_owned());
        };
        let now = wall_clock();
        let token = report.token(&active.key, now).map_err(|reason| {
            format!("the report is about no canary of canary.key_file: {reason}")
        })?;
        let to = active.recipient(token.direction);
        if !to.is_some_and(|to| report.recipient.eq_ignore_ascii_case(to)) {
            let reason = "the report is about another mailbox than those in [canary]";
            return Err(reason.to_owned());
        }
        let result = self.monitor().on_received(token, report.judgement, report.received, now);
        self.publish(result, now);
        self.save();
        Ok(())
    }

    /// A message with the Message-ID of a canary passed the gateway.
    fn on_passed(&self, message: &PassedMessage) {
        let Some(active) = self.active() else { return };
        let now = wall_clock();
        let to = &active.config.inbound_to;
        let token = CanaryToken::recognise(&message.message_id, to, &active.key, now);
        // Somebody else's, or forged.
        let Ok(token) = token else { return };
        let result = self.monitor().on_passed(token, message.judgement.clone(), now);
        self.publish(result, now);
        self.save();
    }

    /// Once a second.
    pub(super) fn on_tick(&self) {
        let now = wall_clock();
        let results = self.monitor().expire(now);
        let is_changed = !results.is_empty();
        for result in results {
            self.publish(Some(result), now);
        }
        if is_changed {
            self.save();
        }
        for status in self.status().into_iter().flatten() {
            self.0.metrics.set_canary_parity(&status);
        }
    }

    /// By direction; `None` without `[canary]`.
    pub(super) fn status(&self) -> Option<Vec<CanaryStatus>> {
        self.active()?;
        let now = wall_clock();
        let monitor = self.monitor();
        Some(CanaryDirection::ALL.map(|direction| monitor.status(direction, now)).to_vec())
    }

    /// Why mail of this family is filtered away, if it is.
    pub(super) fn filtered(&self, family: Family) -> Option<String> {
        self.active()?;
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

    /// The hosts of the outbound canaries' destination, while it filters mail over IPv6 away and mail should prefer IPv4 for that.
    pub(super) fn ipv4_preference(&self) -> Option<CanaryPreference> {
        let active = self.active().filter(|active| active.config.prefer_ipv4)?;
        let (_, domain) = active.config.outbound.as_ref()?.to.rsplit_once('@')?;
        let status = self.monitor().status(CanaryDirection::Outbound, wall_clock());
        let since = status.at.filter(|_| status.is_filtered(Family::Ipv6))?;
        let (domain, reason) = (domain.to_owned(), canary::detail(&status));
        let hosts = self.outbound_hosts().clone();
        Some(CanaryPreference { domain, hosts, reason, since })
    }

    fn forget(&self, direction: CanaryDirection) {
        self.monitor().forget(direction);
        if direction == CanaryDirection::Outbound {
            self.outbound_hosts().clear();
        }
    }

    /// Writes the state to the cache file, if there is one.
    fn save(&self) {
        let Some(active) = self.active() else { return };
        let Some(lookup) = self.0.lookup.as_ref().filter(|lookup| lookup.keeps_states()) else {
            return;
        };
        let _one_at_a_time = self.0.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut saved = SavedCanaries::default();
        self.monitor().save(&mut saved);
        for (direction, limit) in CanaryDirection::ALL.into_iter().zip(self.limits().iter()) {
            let of_direction = saved.direction_mut(direction);
            of_direction.to = active.recipient(direction).map(str::to_owned);
            of_direction.sent = limit.times().collect();
        }
        saved.outbound_hosts = self.outbound_hosts().iter().cloned().collect();
        if let Ok(bytes) = serde_json::to_vec(&saved) {
            lookup.save_state(STATE, bytes);
        }
    }

    /// Goes on from the state that an earlier process saved, when the first configuration comes into force.
    fn restore(&self, active: &ActiveCanaries) {
        let saved = self.0.lookup.as_ref().and_then(|lookup| lookup.take_saved_state(STATE));
        let Some(saved) = saved else { return };
        let saved: SavedCanaries = match serde_json::from_slice(&saved) {
            Ok(saved) => saved,
            Err(error) => {
                let notice = format!(
                    "the saved results of canaries cannot be read, so that nothing is known until the next pair: {error}"
                );
                self.0.log.notice(LogLevel::Warn, &notice);
                return;
            }
        };
        let now = wall_clock();
        for (direction, limit) in CanaryDirection::ALL.into_iter().zip(self.limits().iter_mut()) {
            *limit = DailyLimit::restored(saved.direction(direction).sent.iter().copied(), now);
        }
        *self.outbound_hosts() = saved.outbound_hosts.iter().cloned().collect();
        let is_same =
            |direction| saved.direction(direction).to.as_deref() == active.recipient(direction);
        let others: Vec<_> =
            CanaryDirection::ALL.into_iter().filter(|direction| !is_same(*direction)).collect();
        self.monitor().restore(saved, now);
        others.into_iter().for_each(|direction| self.forget(direction));
    }

    fn active(&self) -> Option<Arc<ActiveCanaries>> {
        self.0.active.load_full()
    }

    fn monitor(&self) -> MutexGuard<'_, CanaryMonitor> {
        self.0.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> MutexGuard<'_, [DailyLimit; CanaryDirection::ALL.len()]> {
        self.0.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbound_hosts(&self) -> MutexGuard<'_, BTreeSet<DomainName>> {
        self.0.outbound_hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wall_clock() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

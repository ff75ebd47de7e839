//! `[canary]`: collects the reports about canaries, and asks the vantage to send some.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::addr::Family;
use crate::canary::{
    CanaryDirection, CanaryMonitor, CanaryReport, CanaryStatus, Comparison, PairResult,
};
use crate::config::{CanaryConfig, Config};
use crate::hmac_key::HmacKey;
use crate::lookup::vantage::{SharedKey, Vantage};
use crate::metrics::Metrics;
use crate::report::{LogLevel, SessionLog, canary};
use crate::time::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Time from the start to the first request, so that upstreams and mailbox are up.
const FIRST: Duration = Duration::from_secs(5);

/// Clones share everything.
#[derive(Clone)]
pub(in crate::app) struct CanaryService(Arc<CanaryState>);

struct CanaryState {
    key: HmacKey,
    config: CanaryConfig,
    monitor: Mutex<CanaryMonitor>,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
}

impl CanaryService {
    /// `None` without `[canary]`. The task, if there is one, asks the vantage.
    ///
    /// # Errors
    /// A key cannot be read.
    pub(super) fn start(
        config: &Config,
        metrics: &Arc<Metrics>,
        log: &Arc<SessionLog>,
    ) -> anyhow::Result<Option<(Self, Option<JoinHandle<()>>)>> {
        let Some(settings) = config.canary.clone() else { return Ok(None) };
        let key = SharedKey::read(&settings.key).context("canary.key_file")?.hmac().clone();
        let monitor = Mutex::new(CanaryMonitor::new(settings.timeout, settings.max_age));
        let (metrics, log) = (Arc::clone(metrics), Arc::clone(log));
        let interval = settings.interval;
        let service = Self(Arc::new(CanaryState { key, config: settings, monitor, metrics, log }));
        let task = match (interval, &config.vantage) {
            (Some(interval), Some(vantage)) => {
                let vantage = Vantage::new(vantage, config.relay.mark).context("[vantage]")?;
                Some(tokio::spawn(service.clone().ask(vantage, interval)))
            }
            _ => None,
        };
        Ok(Some((service, task)))
    }

    /// A mailbox reports a canary.
    ///
    /// # Errors
    /// It is none of this site; the reason is for people.
    pub(super) fn on_report(&self, report: CanaryReport) -> Result<(), String> {
        let state = &*self.0;
        let now = wall_clock();
        if !report.recipient.eq_ignore_ascii_case(&state.config.inbound_to) {
            let to = &state.config.inbound_to;
            return Err(format!(
                "canary.inbound_to is {to}, and the report is about another mailbox"
            ));
        }
        let token = report.token(&state.key, now).map_err(|reason| {
            format!("the report is about no canary of canary.key_file: {reason}")
        })?;
        let result = self.monitor().on_received(token, report.judgement, report.received, now);
        self.publish(result, now);
        Ok(())
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

    /// Asks the vantage for a pair at each interval.
    async fn ask(self, vantage: Vantage, interval: Duration) {
        let mut asked: VecDeque<Timestamp> = VecDeque::new();
        let mut is_failing = false;
        sleep(FIRST.min(interval)).await;
        loop {
            let now = wall_clock();
            asked.retain(|at| now - *at < DAY);
            let limit = usize::try_from(self.0.config.per_day).unwrap_or(usize::MAX);
            if asked.len() < limit {
                asked.push_back(now);
                let pair = vantage.send_canaries(&self.0.config.inbound_to).await;
                match pair {
                    Ok(pair) => {
                        if is_failing {
                            let notice = "the vantage sends canaries again";
                            self.0.log.notice(LogLevel::Info, notice);
                        }
                        is_failing = false;
                        for family in Family::ALL {
                            let Some(delivery) = pair.half(family).delivery.clone() else {
                                continue;
                            };
                            let (token, now) = (pair.token(family), wall_clock());
                            let result = self.monitor().on_delivery(token, delivery, now);
                            self.publish(result, now);
                        }
                    }
                    Err(error) => {
                        if !is_failing {
                            let notice = format!("the vantage sends no canaries: {error}");
                            self.0.log.notice(LogLevel::Warn, &notice);
                        }
                        is_failing = true;
                    }
                }
            }
            sleep(with_jitter(interval)).await;
        }
    }

    fn monitor(&self) -> MutexGuard<'_, CanaryMonitor> {
        self.0.monitor.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn jitter_is_a_tenth() {
        let second = Duration::from_secs(1);
        for _ in 0..100 {
            let interval = with_jitter(second);
            assert!(interval >= second.mul_f64(0.9) && interval <= second.mul_f64(1.1001));
        }
    }
}

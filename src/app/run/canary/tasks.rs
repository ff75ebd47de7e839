//! The schedule: asks the vantage for inbound pairs, sends outbound pairs, and fetches the reports about them.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use super::failure_log::FailureLog;
use super::outbound::send_pair;
use super::{ActiveCanaries, CanaryService, wall_clock};
use crate::addr::Family;
use crate::canary::{CanaryDirection, CanaryPair};
use crate::lookup::LookupService;
use crate::lookup::vantage::Vantage;

/// Interval at which the reports about outbound pairs are fetched.
const POLL: Duration = Duration::from_secs(10);
/// Pairs whose reports are fetched each time, the latest: the vantage limits its requests.
const FETCHED: usize = 4;
/// Time from the start to the first request at least, so that upstreams and mailbox are up.
const FIRST: Duration = Duration::from_secs(5);

impl CanaryService {
    /// The tasks of the configuration in force.
    pub(super) fn start_tasks(&self) -> Vec<JoinHandle<()>> {
        let Some(active) = self.active() else { return Vec::new() };
        let (Some(_), Some(vantage)) = (active.config.interval, &self.0.vantage) else {
            return Vec::new();
        };
        let mut tasks = vec![tokio::spawn(self.clone().ask(vantage.clone()))];
        if let (Some(_), Some(lookup)) = (&active.config.outbound, &self.0.lookup) {
            let tls = Arc::clone(&self.0.tls);
            let task = self.clone().send_outbound(vantage.clone(), lookup.clone(), tls);
            tasks.push(tokio::spawn(task));
        }
        tasks
    }

    /// Asks the vantage for a pair at each interval.
    async fn ask(self, vantage: Vantage) {
        let mut failure = FailureLog::new("the vantage sends no canaries", &self.0.log);
        let mut is_first = true;
        while let Some(active) = self.wait_until_due(CanaryDirection::Inbound, is_first).await {
            is_first = false;
            match vantage.send_canaries(&active.config.inbound_to).await {
                Ok(pair) => {
                    failure.on_result(None);
                    self.on_sent(&pair);
                }
                Err(error) => failure.on_result(Some(error.to_string())),
            }
        }
    }

    /// Sends a pair to the vantage's side at each interval, and fetches the reports about it.
    async fn send_outbound(self, vantage: Vantage, lookup: LookupService, tls: Arc<ClientConfig>) {
        let mut failure = FailureLog::new("no canaries are sent to outbound_to", &self.0.log);
        let mut reports = FailureLog::new("the vantage hands out no reports", &self.0.log);
        // Pairs of an earlier process may wait.
        self.fetch_reports(&vantage, &mut reports).await;
        let mut is_first = true;
        while let Some(active) = self.wait_until_due(CanaryDirection::Outbound, is_first).await {
            is_first = false;
            let Some(addresses) = &active.config.outbound else { return };
            match send_pair(&active, addresses, &lookup, &tls).await {
                Ok((pair, hosts)) => {
                    failure.on_result(None);
                    *self.outbound_hosts() = hosts;
                    self.on_sent(&pair);
                    self.fetch_reports(&vantage, &mut reports).await;
                }
                Err(reason) => failure.on_result(Some(reason)),
            }
        }
    }

    /// Fetches reports until no outbound pair waits for one.
    async fn fetch_reports(&self, vantage: &Vantage, failure: &mut FailureLog<'_>) {
        loop {
            let waiting = self.monitor().waiting(CanaryDirection::Outbound);
            let interval = self.active().and_then(|active| active.config.interval);
            let (false, Some(interval)) = (waiting.is_empty(), interval) else { return };
            sleep(POLL.min(interval)).await;
            for pair in waiting.into_iter().take(FETCHED) {
                match vantage.canary_reports(pair).await {
                    Ok(found) => {
                        failure.on_result(None);
                        for report in found {
                            // Whatever is not of this site counts for nothing.
                            let _not_ours = self.on_report(report);
                        }
                    }
                    Err(error) => failure.on_result(Some(error.to_string())),
                }
            }
        }
    }

    /// Returns when a pair is due. It counts as sent from then on, also if the process ends now. `None` without a schedule.
    async fn wait_until_due(
        &self,
        direction: CanaryDirection,
        is_first: bool,
    ) -> Option<Arc<ActiveCanaries>> {
        let active = self.active()?;
        let interval = active.config.interval?;
        let last = self.limits().get(direction.index()).and_then(|limit| limit.last());
        let wait = last.map_or(Duration::ZERO, |last| {
            with_jitter(interval).saturating_sub(wall_clock() - last)
        });
        sleep(if is_first { wait.max(FIRST.min(interval)) } else { wait }).await;
        while !self.admit(direction, active.config.per_day) {
            sleep(with_jitter(interval)).await;
        }
        self.save();
        if let Some(lookup) = self.0.lookup.clone() {
            let _panicked = spawn_blocking(move || lookup.flush()).await;
        }
        Some(active)
    }

    fn admit(&self, direction: CanaryDirection, per_day: u32) -> bool {
        let per_day = usize::try_from(per_day).unwrap_or(usize::MAX);
        let mut limits = self.limits();
        let limit = limits.get_mut(direction.index());
        limit.is_some_and(|limit| limit.admit(per_day, wall_clock()))
    }

    fn on_sent(&self, pair: &CanaryPair) {
        for family in Family::ALL {
            let Some(delivery) = pair.half(family).delivery.clone() else { continue };
            let now = wall_clock();
            let result = self.monitor().on_delivery(pair.token(family), delivery, now);
            self.publish(result, now);
        }
        self.save();
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

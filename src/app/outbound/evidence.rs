//! What the mail log proves about other hosts, shared by its reader, the answers to Postfix, and `gatepost outbound`.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::reset_record::ResetRecord;
use crate::addr::Family;
use crate::humanize::clock;
use crate::metrics::Metrics;
use crate::outbound::{
    Avoidance, CanaryPreference, Hosts, OutboundAttempt, OutboundReport, RefusedMessage,
    RefusedMessages, SteeringDecision, SteeringSettings, TrialBy, WorkingPath,
};
use crate::policy::facts::DomainName;
use crate::report::outbound::words;
use crate::report::{LogLevel, SessionLog};
use crate::stream::StreamCounters;
use crate::time::Timestamp;
use crate::traffic::fallback::Fallback;
use crate::traffic::{ConnectionResponse, FlowObserver, FlowSummary};

/// Events that wait while a retry is requested; one that finds no room is left to Postfix's own schedule.
pub(super) const QUEUE_EVENTS: usize = 1024;

/// A message that should be tried again at once, or that left the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QueueEvent {
    Retry(String),
    /// It was tried again, or it is gone.
    Tried(String),
}

/// The evidence since the start, and of the part of the log that was read then.
#[derive(Clone)]
pub(in crate::app) struct OutboundEvidence(Arc<Shared>);

struct Shared {
    hosts: Mutex<Hosts>,
    messages: Mutex<RefusedMessages>,
    /// Attempts before this are in no counter.
    started: Timestamp,
    queue: mpsc::Sender<QueueEvent>,
    /// The last retry found no room in `queue`.
    queue_is_full: AtomicBool,
    resets: Arc<ResetRecord>,
    /// For the report only; `None` while no canary decides.
    canary: ArcSwapOption<CanaryPreference>,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
}

impl OutboundEvidence {
    pub(super) fn new(
        settings: SteeringSettings,
        queue: mpsc::Sender<QueueEvent>,
        resets: Arc<ResetRecord>,
        metrics: Arc<Metrics>,
        log: Arc<SessionLog>,
    ) -> Self {
        Self(Arc::new(Shared {
            hosts: Mutex::new(Hosts::new(settings)),
            messages: Mutex::new(RefusedMessages::with_history()),
            started: whole_second(now()),
            queue,
            queue_is_full: AtomicBool::new(false),
            resets,
            canary: ArcSwapOption::empty(),
            metrics,
            log,
        }))
    }

    pub(super) fn set_settings(&self, settings: SteeringSettings) {
        self.hosts().set_settings(settings);
    }

    /// The hosts whose IPv4 is preferred for a canary, without pinned ones.
    pub(super) fn set_canary(&self, preference: Option<Arc<CanaryPreference>>) {
        self.0.canary.store(preference);
    }

    /// An attempt of our MTA ended. One that this host reset shows nothing.
    pub(super) fn on_attempt(&self, attempt: &OutboundAttempt) {
        if self.0.resets.explains(attempt) {
            return;
        }
        let change = self.change(attempt.host.as_ref(), |hosts| hosts.add(attempt));
        let refused = self.messages().add(attempt, change.1.is_some());
        match (refused, &attempt.queue_id) {
            (RefusedMessage::Retry, Some(queue_id)) => {
                self.send(QueueEvent::Retry(queue_id.clone()));
            }
            (RefusedMessage::Retried | RefusedMessage::Return, Some(queue_id)) => {
                self.send(QueueEvent::Tried(queue_id.clone()));
            }
            _ => {}
        }
        if attempt.at < self.0.started {
            return;
        }
        self.0.metrics.on_outbound_attempt(attempt);
        let Some(host) = &attempt.host else { return };
        match change {
            (None, Some(avoided)) => self.0.log.notice(
                LogLevel::Info,
                &format!(
                    "outbound: {host}: IPv6 is avoided until {} UTC: {}",
                    clock(avoided.until),
                    words(avoided.cause)
                ),
            ),
            (Some(_), None) if attempt.family() == Family::Ipv6 => self.log_recovery(host),
            _ => {}
        }
        if let (RefusedMessage::Return, Some(queue_id)) = (refused, &attempt.queue_id) {
            let notice = format!(
                "outbound: {queue_id}: refused over IPv6 again and again; `gatepost postfix expire` returns it to its sender"
            );
            self.0.log.notice(LogLevel::Warn, &notice);
        }
    }

    /// The avoidance of a host's IPv6 before and after a change.
    fn change(
        &self,
        host: Option<&DomainName>,
        change: impl FnOnce(&mut Hosts),
    ) -> (Option<Avoidance>, Option<Avoidance>) {
        let mut hosts = self.hosts();
        let before = host.and_then(|host| hosts.avoided(host));
        change(&mut hosts);
        (before, host.and_then(|host| hosts.avoided(host)))
    }

    fn on_working_path(&self, path: &WorkingPath) {
        let change = self.change(Some(&path.host), |hosts| hosts.on_working_path(path));
        if let (Some(_), None) = change {
            self.log_recovery(&path.host);
        }
    }

    fn log_recovery(&self, host: &DomainName) {
        self.0.log.notice(LogLevel::Info, &format!("outbound: {host}: IPv6 is used again"));
    }

    /// A message was delivered or returned.
    pub(super) fn on_message_done(&self, queue_id: &str) {
        if self.messages().remove(queue_id) {
            self.send(QueueEvent::Tried(queue_id.to_owned()));
        }
    }

    /// The log has been read as far as it was at the start.
    pub(super) fn on_end_of_history(&self) {
        let retries = self.messages().end_history();
        retries.into_iter().for_each(|queue_id| self.send(QueueEvent::Retry(queue_id)));
    }

    pub(super) fn decide(&self, host: &DomainName, ip: Ipv6Addr, by: TrialBy) -> SteeringDecision {
        self.hosts().decide(host, ip, now(), by)
    }

    /// See [`Hosts::ipv6_addresses_to_decide`].
    pub(super) fn ipv6_addresses_to_decide(
        &self,
        is_pinned: impl Fn(&DomainName) -> bool,
    ) -> BTreeMap<Ipv6Addr, Vec<DomainName>> {
        self.hosts().ipv6_addresses_to_decide(is_pinned)
    }

    /// See [`Hosts::last_ipv4`].
    pub(super) fn last_ipv4(&self, host: &DomainName) -> Option<Timestamp> {
        self.hosts().last_ipv4(host)
    }

    /// See [`Hosts::report`].
    pub(in crate::app) fn report(&self, name: Option<&DomainName>) -> OutboundReport {
        let now = now();
        let report = self.hosts().report(name, now);
        let canary =
            self.0.canary.load_full().map(|preference| CanaryPreference::clone(&preference));
        OutboundReport { resets: self.0.resets.report(now), ..report.with_canary(canary, name) }
    }

    /// Passes on to `observer` what shows the paths to others: no refusals by this host.
    pub(super) fn without_own_resets(
        &self,
        observer: Arc<dyn FlowObserver>,
    ) -> Arc<dyn FlowObserver> {
        Arc::new(WithoutOwnResets { resets: Arc::clone(&self.0.resets), observer })
    }

    /// Queue ids of messages that should be returned to their senders.
    pub(in crate::app) fn messages_to_return(&self) -> Vec<String> {
        self.messages().due()
    }

    /// Once a second or less often.
    pub(super) fn on_tick(&self) {
        let now = now();
        self.hosts().forget_old(now);
        self.messages().forget_old(now);
        let summary = self.hosts().summary(now);
        self.0.metrics.set_outbound(&summary, self.messages().due().len());
    }

    #[cfg(test)]
    pub(super) fn resets(&self) -> &ResetRecord {
        &self.0.resets
    }

    /// Never waits: the log is read on.
    fn send(&self, event: QueueEvent) {
        match self.0.queue.try_send(event) {
            Ok(()) => self.0.queue_is_full.store(false, Ordering::Relaxed),
            Err(TrySendError::Full(QueueEvent::Retry(queue_id))) => {
                let was_full = self.0.queue_is_full.swap(true, Ordering::Relaxed);
                no_room(&self.0.metrics, &self.0.log, was_full, &queue_id);
            }
            // Without it a retry is requested again, which changes nothing.
            Err(TrySendError::Full(QueueEvent::Tried(_))) => {}
            // The gateway stops.
            Err(TrySendError::Closed(_)) => {}
        }
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn messages(&self) -> MutexGuard<'_, RefusedMessages> {
        self.0.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a retry that is not requested, and logs the first one in a row.
pub(super) fn no_room(metrics: &Metrics, log: &SessionLog, is_known: bool, queue_id: &str) {
    metrics.on_outbound_retry(false);
    if !is_known {
        let notice = format!(
            "outbound: {queue_id}: its retry is not requested, as too many messages wait for one; it waits for Postfix's own \
             retry"
        );
        log.notice(LogLevel::Warn, &notice);
    }
}

/// The watched traffic is a source where no mail log is.
impl FlowObserver for OutboundEvidence {
    fn on_flow(&self, flow: &FlowSummary<'_>) {
        if let Some(attempt) = OutboundAttempt::of_flow(flow) {
            self.on_attempt(&attempt);
        } else if let Some(path) = WorkingPath::of_flow(flow) {
            self.on_working_path(&path);
        }
    }
}

struct WithoutOwnResets {
    resets: Arc<ResetRecord>,
    observer: Arc<dyn FlowObserver>,
}

impl FlowObserver for WithoutOwnResets {
    fn on_flow(&self, flow: &FlowSummary<'_>) {
        let is_refused = flow.response() == Some(ConnectionResponse::Refused);
        if !(is_refused && self.resets.resets(flow.flow.start.server.ip(), flow.flow.end)) {
            self.observer.on_flow(flow);
        }
    }

    fn on_fallback(&self, fallback: &Fallback) {
        self.observer.on_fallback(fallback);
    }

    fn on_stream_counts(&self, before: &StreamCounters, now: &StreamCounters) {
        self.observer.on_stream_counts(before, now);
    }
}

/// The second in which it is. Many logs have no smaller unit, so what happened just after the start seems to be before it.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_nanos(at.as_nanos() / 1_000_000_000 * 1_000_000_000)
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::ExpositionFormat;
    use crate::outbound::OutboundOutcome;
    use crate::report::LogSettings;

    #[test]
    fn the_second_of_the_start_counts_as_after_it() {
        let started = Timestamp::from_nanos(1_700_000_014_616_000_000);
        let logged = Timestamp::from_nanos(1_700_000_014_000_000_000);
        assert!(logged < started && logged >= whole_second(started));
        assert!(Timestamp::from_nanos(1_700_000_013_999_999_999) < whole_second(started));
    }

    fn evidence(room: usize) -> (OutboundEvidence, mpsc::Receiver<QueueEvent>) {
        let log = SessionLog::start(&LogSettings::default(), Box::new(|_| {})).unwrap();
        let (queue, events) = mpsc::channel(room);
        let (settings, metrics) = (SteeringSettings::default(), Metrics::new().unwrap());
        let (metrics, log) = (Arc::new(metrics), Arc::new(log));
        (OutboundEvidence::new(settings, queue, Arc::default(), metrics, log), events)
    }

    fn refused(queue_id: &str, before: Duration) -> OutboundAttempt {
        OutboundAttempt {
            at: Timestamp::from_system_time(SystemTime::now() - before),
            host: DomainName::parse("mx.a.example"),
            address: "[2001:db8::1]:25".parse().unwrap(),
            domain: None,
            outcome: OutboundOutcome::PolicyRefused,
            reply: None,
            delays: None,
            queue_id: Some(queue_id.to_owned()),
        }
    }

    fn retry(queue_id: &str) -> Option<QueueEvent> {
        Some(QueueEvent::Retry(queue_id.to_owned()))
    }

    #[tokio::test]
    async fn a_message_refused_before_the_start_is_retried_once_when_the_log_has_been_read() {
        let (evidence, mut events) = evidence(8);
        let hour = Duration::from_secs(3600);
        evidence.on_attempt(&refused("4X1", hour));
        evidence.on_attempt(&refused("4GONE", hour));
        evidence.on_message_done("4GONE");
        assert!(events.try_recv().is_err(), "later lines may show that it is gone");
        evidence.on_end_of_history();
        assert_eq!(events.try_recv().ok(), retry("4X1"));
        // The parser waits for further lines about the last attempt of the history.
        evidence.on_attempt(&refused("4LATE", hour));
        assert_eq!(events.try_recv().ok(), retry("4LATE"));
        evidence.on_attempt(&refused("4X1", Duration::ZERO));
        assert_eq!(events.try_recv().ok(), Some(QueueEvent::Tried("4X1".to_owned())));
        assert!(events.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_retry_without_room_is_counted_and_the_log_is_read_on() {
        let (evidence, mut events) = evidence(2);
        evidence.on_end_of_history();
        for number in 0..5 {
            evidence.on_attempt(&refused(&format!("4X{number}"), Duration::ZERO));
        }
        let failed = |evidence: &OutboundEvidence| {
            let text = evidence.0.metrics.encode(ExpositionFormat::Text);
            let line = text.lines().find(|line| {
                line.starts_with("gatepost_outbound_retries_total{result=\"failed\"}")
            });
            line.unwrap().rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(failed(&evidence), "3");
        assert_eq!(events.try_recv().ok(), retry("4X0"));
        evidence.on_attempt(&refused("4X9", Duration::ZERO));
        assert_eq!(events.try_recv().ok(), retry("4X1"));
        assert_eq!(events.try_recv().ok(), retry("4X9"));
    }
}

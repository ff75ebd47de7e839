//! What the mail log proves about other hosts, shared by its reader, the answers to Postfix, and `gatepost outbound`.

use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::addr::Family;
use crate::humanize::clock;
use crate::metrics::Metrics;
use crate::outbound::{
    Hosts, OutboundAttempt, OutboundReport, RefusedMessage, RefusedMessages, SteeringDecision,
    SteeringSettings,
};
use crate::policy::facts::DomainName;
use crate::report::outbound::words;
use crate::report::{LogLevel, SessionLog};
use crate::time::Timestamp;
use crate::traffic::{FlowObserver, FlowSummary};

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
    /// Attempts before this are in no counter, and their messages are not retried.
    started: Timestamp,
    queue: mpsc::UnboundedSender<QueueEvent>,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
}

impl OutboundEvidence {
    pub(super) fn new(
        settings: SteeringSettings,
        queue: mpsc::UnboundedSender<QueueEvent>,
        metrics: Arc<Metrics>,
        log: Arc<SessionLog>,
    ) -> Self {
        Self(Arc::new(Shared {
            hosts: Mutex::new(Hosts::new(settings)),
            messages: Mutex::default(),
            started: whole_second(now()),
            queue,
            metrics,
            log,
        }))
    }

    pub(super) fn set_settings(&self, settings: SteeringSettings) {
        self.hosts().set_settings(settings);
    }

    /// An attempt of our MTA ended.
    pub(super) fn on_attempt(&self, attempt: &OutboundAttempt) {
        let change = {
            let mut hosts = self.hosts();
            let name = attempt.host.as_ref();
            let before = name.and_then(|name| hosts.avoided(name));
            hosts.add(attempt);
            (before, name.and_then(|name| hosts.avoided(name)))
        };
        let refused = self.messages().add(attempt, change.1.is_some());
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
            (Some(_), None) if attempt.family() == Family::Ipv6 => {
                self.0.log.notice(LogLevel::Info, &format!("outbound: {host}: IPv6 is used again"));
            }
            _ => {}
        }
        let Some(queue_id) = attempt.queue_id.clone() else { return };
        match refused {
            RefusedMessage::Retry => self.send(QueueEvent::Retry(queue_id)),
            RefusedMessage::Return => {
                let notice = format!(
                    "outbound: {queue_id}: refused over IPv6 again and again; `gatepost postfix expire` returns it to its sender"
                );
                self.0.log.notice(LogLevel::Warn, &notice);
            }
            RefusedMessage::Wait => self.send(QueueEvent::Tried(queue_id)),
        }
    }

    /// A message was delivered or returned.
    pub(super) fn on_message_done(&self, queue_id: &str) {
        self.messages().remove(queue_id);
        self.send(QueueEvent::Tried(queue_id.to_owned()));
    }

    pub(super) fn decide(&self, host: &DomainName, ip: Ipv6Addr) -> SteeringDecision {
        self.hosts().decide(host, ip, now())
    }

    /// See [`Hosts::report`].
    pub(in crate::app) fn report(&self, name: Option<&DomainName>) -> OutboundReport {
        self.hosts().report(name, now())
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

    fn send(&self, event: QueueEvent) {
        let _stopping = self.0.queue.send(event);
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn messages(&self) -> MutexGuard<'_, RefusedMessages> {
        self.0.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watched traffic is a source where no mail log is.
impl FlowObserver for OutboundEvidence {
    fn on_flow(&self, flow: &FlowSummary<'_>) {
        if let Some(attempt) = OutboundAttempt::of_flow(flow) {
            self.on_attempt(&attempt);
        }
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
    use super::*;

    #[test]
    fn the_second_of_the_start_counts_as_after_it() {
        let started = Timestamp::from_nanos(1_700_000_014_616_000_000);
        let logged = Timestamp::from_nanos(1_700_000_014_000_000_000);
        assert!(logged < started && logged >= whole_second(started));
        assert!(Timestamp::from_nanos(1_700_000_013_999_999_999) < whole_second(started));
    }
}

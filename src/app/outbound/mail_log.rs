//! Reads the mail log of `[outbound] mail_log`, and logs whether it can.

use std::sync::Arc;

use super::OutboundEvidence;
use crate::metrics::Metrics;
use crate::postfix::mail_log::{
    DeliveryStatus, MailLogEvent, MailLogFollower, MailLogState, MailLogStatus,
};
use crate::report::{LogLevel, SessionLog};

pub(super) struct MailLogReader {
    pub(super) follower: MailLogFollower,
    pub(super) evidence: OutboundEvidence,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: Arc<SessionLog>,
}

impl MailLogReader {
    /// Until standard input ends, or the gateway stops.
    pub(super) async fn run(mut self) {
        let mut status = self.follower.status();
        let mut last = MailLogStatus::default();
        self.metrics.set_mail_log_up(Some(false));
        loop {
            tokio::select! {
                batch = self.follower.next() => match batch {
                    Some(events) if events.is_empty() => self.evidence.on_end_of_history(),
                    Some(events) => events.iter().for_each(|event| self.on_event(event)),
                    None => break,
                },
                changed = status.changed() => if changed.is_err() { break },
            }
            let now = status.borrow_and_update().clone();
            self.report(&last, &now);
            last = now;
        }
        self.metrics.set_mail_log_up(Some(false));
        self.log.notice(
            LogLevel::Warn,
            "outbound: the mail log has ended, and with it the evidence of new attempts",
        );
    }

    fn on_event(&self, event: &MailLogEvent) {
        match event {
            MailLogEvent::Attempt(attempt) => self.evidence.on_attempt(attempt),
            MailLogEvent::Delivery(delivery) => match delivery.status {
                DeliveryStatus::Sent | DeliveryStatus::Bounced => {
                    self.evidence.on_message_done(&delivery.queue_id);
                }
                DeliveryStatus::Deferred
                | DeliveryStatus::Deliverable
                | DeliveryStatus::Undeliverable => {}
            },
        }
    }

    fn report(&self, last: &MailLogStatus, now: &MailLogStatus) {
        let (before, counts) = (last.counts, now.counts);
        let unknown = counts.not_understood.saturating_sub(before.not_understood);
        let lines = counts.smtp_lines.saturating_sub(before.smtp_lines);
        self.metrics.add_mail_log_lines(lines.saturating_sub(unknown), unknown);
        if before.not_understood == 0 && unknown > 0 {
            self.log.notice(
                LogLevel::Warn,
                "outbound: lines of smtp(8) in the mail log are not understood and do not count; please report one of them \
                 (gatepost_outbound_log_lines_total has their number)",
            );
        }
        if last.state == now.state {
            return;
        }
        self.metrics.set_mail_log_up(Some(now.state == MailLogState::Reading));
        let level = match now.state {
            MailLogState::Reading => LogLevel::Info,
            _ => LogLevel::Warn,
        };
        self.log.notice(level, &format!("outbound: mail log: {}", now.state));
    }
}

//! Our own mail to other hosts: attempts, hosts whose IPv6 is avoided, answers to Postfix, the mail log.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::families::Families;
use super::{Metrics, MetricsError, array};
use crate::addr::Family;
use crate::outbound::{OutboundAttempt, OutboundOutcome, OutboundReport};

/// Values of the label `state` of hosts.
const HOSTS: [&str; 5] = ["known", "avoided", "ipv6_delivered", "ipv6_refused", "ipv6_failed"];
/// Values of the label `answer`: what became of an AAAA record.
const ANSWERS: [&str; 3] = ["kept", "tried", "omitted"];
/// Values of the label `result` of requested retries.
const RESULTS: [&str; 2] = ["requested", "failed"];

/// Values of the label `kind` of lines.
const LINES: [&str; 2] = ["understood", "not_understood"];

/// What became of an AAAA record about which Postfix asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapMetric {
    Kept,
    /// Kept for one message, which tries an avoided address.
    Tried,
    Omitted,
}

pub(super) struct OutboundSeries {
    /// By family.
    families: [FamilySeries; Family::ALL.len()],
    /// In the order of [`HOSTS`].
    hosts: [IntGauge; HOSTS.len()],
    /// In the order of [`ANSWERS`].
    answers: [IntCounter; ANSWERS.len()],
    /// In the order of [`RESULTS`].
    retries: [IntCounter; RESULTS.len()],
    messages_to_return: IntGauge,
    log_up: IntGauge,
    /// In the order of [`LINES`].
    log_lines: [IntCounter; LINES.len()],
}

struct FamilySeries {
    /// By [`OutboundOutcome::index`].
    attempts: [IntCounter; OutboundOutcome::ALL.len()],
    connection: Histogram,
    transmission: Histogram,
}

impl FamilySeries {
    fn resolve(families: &Families, family: Family) -> Result<Self, MetricsError> {
        let family = family.as_str();
        Ok(Self {
            attempts: array(OutboundOutcome::ALL.iter().map(|outcome| {
                families.outbound_attempts.get_metric_with_label_values(&[family, outcome.as_str()])
            }))?,
            connection: families.outbound_connection.get_metric_with_label_values(&[family])?,
            transmission: families.outbound_transmission.get_metric_with_label_values(&[family])?,
        })
    }
}

impl OutboundSeries {
    pub(super) fn resolve(families: &Families) -> Result<Self, MetricsError> {
        Ok(Self {
            families: [
                FamilySeries::resolve(families, Family::Ipv4)?,
                FamilySeries::resolve(families, Family::Ipv6)?,
            ],
            hosts: array(
                HOSTS
                    .iter()
                    .map(|state| families.outbound_hosts.get_metric_with_label_values(&[*state])),
            )?,
            answers: array(
                ANSWERS.iter().map(|answer| {
                    families.outbound_answers.get_metric_with_label_values(&[*answer])
                }),
            )?,
            retries: array(
                RESULTS.iter().map(|result| {
                    families.outbound_retries.get_metric_with_label_values(&[*result])
                }),
            )?,
            messages_to_return: families.outbound_messages_to_return.clone(),
            log_up: families.outbound_log_up.clone(),
            log_lines: array(
                LINES
                    .iter()
                    .map(|kind| families.outbound_log_lines.get_metric_with_label_values(&[*kind])),
            )?,
        })
    }
}

impl Metrics {
    /// An attempt of our MTA ended.
    pub fn on_outbound_attempt(&self, attempt: &OutboundAttempt) {
        let series = &self.outbound.families[attempt.family() as usize];
        series.attempts[attempt.outcome.index()].inc();
        if let (Some(delays), OutboundOutcome::Delivered) = (attempt.delays, attempt.outcome) {
            series.connection.observe(delays.connection.as_secs_f64());
            series.transmission.observe(delays.transmission.as_secs_f64());
        }
    }

    /// The state of all hosts, and messages that wait for `gatepost postfix expire`.
    pub fn set_outbound(&self, report: &OutboundReport, messages_to_return: usize) {
        let counts = [
            report.hosts_total,
            report.hosts_avoided,
            report.hosts_ipv6_delivered,
            report.hosts_ipv6_refused,
            report.hosts_ipv6_failed,
        ];
        let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
        for (series, count) in self.outbound.hosts.iter().zip(counts) {
            series.set(gauge(count));
        }
        self.outbound.messages_to_return.set(gauge(messages_to_return));
    }

    /// Postfix got an answer about an AAAA record.
    pub fn on_map_answer(&self, answer: MapMetric) {
        self.outbound.answers[answer as usize].inc();
    }

    /// Whether the mail log is read; `None` without one.
    pub fn set_mail_log_up(&self, up: Option<bool>) {
        self.outbound.log_up.set(up.map_or(-1, i64::from));
    }

    /// Lines of smtp(8) since the last call.
    pub fn add_mail_log_lines(&self, understood: u64, not_understood: u64) {
        let [known, unknown] = &self.outbound.log_lines;
        known.inc_by(understood);
        unknown.inc_by(not_understood);
    }

    /// A retry of a refused message was requested.
    pub fn on_outbound_retry(&self, accepted: bool) {
        let [requested, failed] = &self.outbound.retries;
        if accepted { requested.inc() } else { failed.inc() }
    }
}

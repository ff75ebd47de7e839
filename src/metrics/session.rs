//! Session events, live and captured, by the client's address family.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::families::Families;
use super::{Metrics, MetricsError, array, reply_code};
use crate::addr::{ClientAddr, Family};
use crate::engine::{
    Anomaly, AttemptOutcome, DelegationEvent, Desync, Direction, Event, Observe, Outcome, Phase,
    Refusal, ReplySource, SessionRecord, Starttls, TlsHandshake, TlsVersion, UpstreamTlsResult,
};
use crate::policy::PolicyAction;
use crate::policy::rules::RuleMode;
use crate::smtp::{TlsState, Verb};

/// The handles of one address family's series, in arrays by the `index()` of their label.
pub(super) struct SessionSeries {
    sessions_total: [IntCounter; Outcome::ALL.len()],
    sessions: IntGauge,
    commands: [IntCounter; Verb::ALL.len()],
    /// By source, then by [`reply_code::slot`].
    replies: [[IntCounter; reply_code::SLOTS]; ReplySource::ALL.len()],
    /// By [`reply_code::class`].
    messages: [IntCounter; reply_code::CLASSES.len()],
    message_bytes: IntCounter,
    relayed_bytes: [IntCounter; Direction::ALL.len()],
    phase_duration: [Histogram; Phase::ALL.len()],
    refusals: [IntCounter; Refusal::ALL.len()],
    upstream_attempts: [IntCounter; AttemptOutcome::ALL.len()],
    starttls: [IntCounter; Starttls::ALL.len()],
    /// By version, then by result.
    tls_handshakes: [[IntCounter; TlsHandshake::ALL.len()]; TlsVersion::ALL.len()],
    starttls_hidden_sessions: IntCounter,
    starttls_hidden_clients: IntCounter,
    upstream_tls: [IntCounter; UpstreamTlsResult::ALL.len()],
    session_tls: [IntCounter; TlsState::ALL.len()],
    anomalies: [IntCounter; Anomaly::ALL.len()],
    parser_desyncs: [IntCounter; Desync::ALL.len()],
}

impl SessionSeries {
    /// Creates every series of `family`, at zero.
    pub(super) fn resolve(families: &Families, family: Family) -> Result<Self, MetricsError> {
        let family = family.as_str();
        /// The series of a `{family, <label>}` counter, one for each value of the label.
        macro_rules! each {
            ($vec:ident, $values:expr) => {
                array($values.iter().map(|value| {
                    let labels = [family, value.as_str()];
                    families.$vec.get_metric_with_label_values(&labels)
                }))?
            };
        }
        let replies = |source: ReplySource| {
            array(reply_code::labels().map(|(class, code)| {
                let labels = [family, source.as_str(), class, code];
                families.replies.get_metric_with_label_values(&labels)
            }))
        };
        let handshakes = |version: TlsVersion| {
            array(TlsHandshake::ALL.iter().map(|result| {
                let labels = [family, version.as_str(), result.as_str()];
                families.tls_handshakes.get_metric_with_label_values(&labels)
            }))
        };
        Ok(Self {
            sessions_total: each!(sessions_total, Outcome::ALL),
            sessions: families.sessions.get_metric_with_label_values(&[family])?,
            commands: each!(commands, Verb::ALL),
            // In the order of their index.
            replies: [replies(ReplySource::Upstream)?, replies(ReplySource::Gateway)?],
            messages: array(
                reply_code::CLASSES
                    .iter()
                    .map(|class| families.messages.get_metric_with_label_values(&[family, class])),
            )?,
            message_bytes: families.message_bytes.get_metric_with_label_values(&[family])?,
            relayed_bytes: each!(relayed_bytes, Direction::ALL),
            phase_duration: each!(phase_duration, Phase::ALL),
            refusals: each!(refusals, Refusal::ALL),
            upstream_attempts: each!(upstream_attempts, AttemptOutcome::ALL),
            starttls: each!(starttls, Starttls::ALL),
            // In the order of their index.
            tls_handshakes: [
                handshakes(TlsVersion::Tls12)?,
                handshakes(TlsVersion::Tls13)?,
                handshakes(TlsVersion::Unknown)?,
            ],
            starttls_hidden_sessions: families
                .starttls_hidden_sessions
                .get_metric_with_label_values(&[family])?,
            starttls_hidden_clients: families
                .starttls_hidden_clients
                .get_metric_with_label_values(&[family])?,
            upstream_tls: each!(upstream_tls, UpstreamTlsResult::ALL),
            session_tls: each!(session_tls, TlsState::ALL),
            anomalies: each!(anomalies, Anomaly::ALL),
            parser_desyncs: each!(parser_desyncs, Desync::ALL),
        })
    }
}

impl Observe for Metrics {
    fn event(&self, family: Family, event: Event) {
        let of = &self.sessions[family as usize];
        match event {
            Event::SessionOpened => of.sessions.inc(),
            Event::SessionClosed(outcome) => {
                // It is open at the mail server, and was not counted here.
                if outcome != Outcome::Delegated {
                    of.sessions.dec();
                }
                of.sessions_total[outcome.index()].inc();
            }
            Event::Command(verb) => of.commands[verb.index()].inc(),
            Event::Reply { code, source } => {
                of.replies[source.index()][reply_code::slot(code)].inc();
            }
            Event::Message { code, bytes } => {
                of.messages[reply_code::class(code)].inc();
                if (200..300).contains(&code) {
                    of.message_bytes.inc_by(bytes);
                }
            }
            Event::Anomaly(anomaly) => of.anomalies[anomaly.index()].inc(),
            Event::Refusal(reason) => {
                of.refusals[reason.index()].inc();
                if reason == Refusal::Door {
                    self.on_smtp_door_refusal(family);
                }
            }
            Event::Desync(reason) => of.parser_desyncs[reason.index()].inc(),
            Event::Starttls(outcome) => of.starttls[outcome.index()].inc(),
            Event::TlsHandshake { version, result } => {
                of.tls_handshakes[version.index()][result.index()].inc();
            }
            Event::StarttlsHidden => of.starttls_hidden_sessions.inc(),
            Event::UpstreamTls(result) => of.upstream_tls[result.index()].inc(),
            Event::SessionTls(state) => of.session_tls[state.index()].inc(),
            Event::Attempt { family: upstream, outcome } => {
                self.sessions[upstream as usize].upstream_attempts[outcome.index()].inc()
            }
            Event::Phase { phase, duration } => {
                of.phase_duration[phase.index()].observe(duration.as_secs_f64());
            }
            // Counted by `policy`, which has the rule's name.
            Event::Policy { .. } => {}
            Event::Fact { name, state, source } => {
                self.policy[family as usize].on_fact(name, state, source);
            }
            Event::Waited(wait) => self.policy[family as usize].on_wait(wait.as_secs_f64()),
            Event::Bytes { direction, count } => of.relayed_bytes[direction.index()].inc_by(count),
        }
    }

    fn policy(&self, family: Family, rule: &str, action: PolicyAction, mode: RuleMode) {
        self.verdicts.on_verdict(family, rule, action, mode);
    }

    /// All else in the record was already counted by its event.
    fn session(&self, record: &SessionRecord) {
        self.listeners.on_session(record);
    }

    fn starttls_hidden(&self, client: ClientAddr, _: u32) {
        self.sessions[client.family() as usize].starttls_hidden_clients.inc();
    }

    fn delegation(&self, event: DelegationEvent) {
        self.delegation.on_event(event);
    }

    fn accept_error(&self, _: &str) {
        self.accept_errors.inc();
    }
}

//! One row of the latest sessions.

use std::sync::Arc;
use std::time::Duration;

use super::masking::AddressMasking;
use crate::addr::Family;
use crate::engine::{Outcome, SessionRecord, TlsState};
use crate::policy::PolicyAction;
use crate::report::session::{SessionResult, SessionSummary, SignificantCode};
use crate::report::wording;
use crate::time::Timestamp;

/// Listed shadow rules.
const SHADOWS: usize = 2;

/// The tone of a text, for its colour; the text itself says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    /// Neutral.
    Plain,
    Good,
    /// A warning.
    Fair,
    Bad,
}

impl Tone {
    /// The CSS class.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Bad => "bad",
        }
    }
}

/// A session as text, not yet escaped for HTML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionRow {
    pub(super) end: Timestamp,
    pub(super) duration: Duration,
    pub(super) family: Family,
    pub(super) listener: Option<Arc<str>>,
    /// `None` if addresses are hidden.
    pub(super) client: Option<String>,
    pub(super) tone: Tone,
    pub(super) verdict: &'static str,
    pub(super) reason: String,
    pub(super) helo: Option<String>,
    /// Of the last transaction.
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) code: Option<SignificantCode>,
    /// Accepted messages.
    pub(super) messages: u32,
    /// Postfix's name of the last message, where it asked the policy about it.
    pub(super) queue_id: Option<String>,
}

impl SessionRow {
    pub(super) fn new(record: &SessionRecord, masking: AddressMasking) -> Self {
        let smtp = &record.smtp;
        let summary = SessionSummary::new(record);
        let last = smtp.transactions.last();
        let to = last.and_then(|last| {
            let first = masking.path(&last.rcpt_to.first()?.address);
            let more = last.rcpt_total.saturating_sub(1);
            Some(if more > 0 { format!("{first} and {more} more") } else { first })
        });
        let (tone, verdict) = verdict(record, &summary);
        Self {
            end: summary.end,
            duration: record.duration,
            family: record.family,
            listener: record.listener.clone(),
            client: masking.show_addresses.then(|| masking.address(record.client.address)),
            tone,
            verdict,
            reason: reason(record, &summary, masking),
            helo: smtp.helo.as_deref().map(|helo| masking.text(helo)),
            from: last.map(|last| masking.path(&last.mail_from)),
            to,
            code: summary.code,
            messages: summary.messages.accepted,
            queue_id: last
                .and_then(|last| last.queue_id.as_deref())
                .map(|queue_id| masking.text(queue_id)),
        }
    }
}

fn verdict(record: &SessionRecord, summary: &SessionSummary) -> (Tone, &'static str) {
    let SessionSummary { messages, result, .. } = summary;
    let accepted = messages.accepted > 0;
    match record.verdict.action {
        PolicyAction::Tempfail | PolicyAction::Reject if accepted => {
            return (Tone::Fair, "partly accepted");
        }
        PolicyAction::Tempfail => return (Tone::Fair, "deferred"),
        PolicyAction::Reject => return (Tone::Bad, "rejected"),
        PolicyAction::Tag if accepted => return (Tone::Fair, "accepted, tagged"),
        PolicyAction::Accept | PolicyAction::Tag => {}
    }
    match result {
        SessionResult::Refused => (Tone::Fair, "deferred"),
        SessionResult::Failed if record.outcome == Outcome::TlsFailed => (Tone::Bad, "TLS failed"),
        SessionResult::Failed => (Tone::Bad, "failed"),
        SessionResult::Succeeded if accepted => (Tone::Good, "accepted"),
        SessionResult::Succeeded if messages.refused() > 0 => (Tone::Fair, "refused by the MTA"),
        SessionResult::Succeeded if messages.received > 0 => (Tone::Good, "received under TLS"),
        SessionResult::Succeeded if record.smtp.tls == TlsState::Started => {
            (Tone::Plain, "relayed under TLS")
        }
        SessionResult::Succeeded => (Tone::Plain, "no message"),
    }
}

/// What the verdict leaves open about the end.
fn ending(record: &SessionRecord, summary: &SessionSummary) -> Option<String> {
    match record.outcome {
        Outcome::Quit | Outcome::TlsCompleted => None,
        Outcome::TlsFailed => {
            record.tcp.closed_by.map(|by| format!("{} closed", wording::side(by)))
        }
        _ => Some(summary.ending.to_owned()),
    }
}

fn reason(record: &SessionRecord, summary: &SessionSummary, masking: AddressMasking) -> String {
    let text = |label: &str| match wording::refusal(label) {
        Some(text) => text.to_owned(),
        None => masking.text(&wording::verdict_reason(label)),
    };
    let verdict = &record.verdict;
    let mut parts = Vec::new();
    if let Some(rule) = &verdict.rule {
        parts.push(format!("rule “{}”", masking.text(rule)));
    }
    // The rule's name already says it.
    let by_access_rule = |label: &&str| verdict.rule.is_some() && label.starts_with("access_");
    let label = verdict.reason.as_deref().filter(|label| !by_access_rule(label));
    parts.extend(label.map(text));
    if parts.is_empty() {
        parts.extend(ending(record, summary));
    }
    for shadow in verdict.shadow.iter().take(SHADOWS) {
        let reason = shadow.reason.as_deref().map(text);
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let effect = match shadow.action {
            PolicyAction::Accept => "accepted",
            PolicyAction::Tag => "tagged",
            PolicyAction::Tempfail => "deferred",
            PolicyAction::Reject => "rejected",
        };
        let rule = masking.text(&shadow.rule);
        parts.push(format!("shadow rule “{rule}” would have {effect} it{reason}"));
    }
    parts.join("; ")
}

//! One row of the latest sessions.

use std::time::Duration;

use super::hour::{Went, messages};
use super::masking::AddressMasking;
use super::text::refusal;
use crate::addr::Family;
use crate::engine::{Outcome, SessionRecord, TlsState};
use crate::policy::PolicyAction;
use crate::report::replay::words::{ending, reason};
use crate::time::Timestamp;

/// Rules in shadow that are named.
const SHADOWS: usize = 2;

/// How something is, for its colour; words say it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    /// Neither good nor bad.
    Plain,
    Good,
    /// Worth a look.
    Fair,
    Bad,
}

impl Tone {
    /// The class in the style sheet.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Bad => "bad",
        }
    }
}

/// A session as the page shows it, but for what HTML needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionRow {
    pub(super) end: Timestamp,
    pub(super) duration: Duration,
    pub(super) family: Family,
    /// Only where addresses are shown.
    pub(super) client: Option<String>,
    pub(super) tone: Tone,
    pub(super) verdict: &'static str,
    pub(super) why: String,
    pub(super) helo: Option<String>,
    /// Of the last transaction.
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) code: Option<u16>,
    /// Messages that were taken.
    pub(super) messages: u32,
}

impl SessionRow {
    pub(super) fn new(record: &SessionRecord, masking: AddressMasking) -> Self {
        let smtp = &record.smtp;
        let last = smtp.transactions.last();
        let to = last.and_then(|last| {
            let first = masking.path(&last.rcpt_to.first()?.address);
            let more = last.rcpt_total.saturating_sub(1);
            Some(if more > 0 { format!("{first} and {more} more") } else { first })
        });
        let (tone, verdict) = verdict(record);
        Self {
            end: record.start + record.duration,
            duration: record.duration,
            family: record.family,
            client: masking.open.then(|| masking.address(record.client.address)),
            tone,
            verdict,
            why: why(record, masking),
            helo: smtp.helo.as_deref().map(|helo| masking.words(helo)),
            from: last.map(|last| masking.path(&last.mail_from)),
            to,
            code: last
                .and_then(|last| last.deciding_code())
                .or_else(|| smtp.greeting.filter(|code| *code != 220)),
            messages: messages(record).0,
        }
    }
}

fn verdict(record: &SessionRecord) -> (Tone, &'static str) {
    let (taken, refused) = messages(record);
    match record.verdict.action {
        PolicyAction::Tempfail | PolicyAction::Reject if taken > 0 => {
            return (Tone::Fair, "accepted in part");
        }
        PolicyAction::Tempfail => return (Tone::Fair, "refused for now"),
        PolicyAction::Reject => return (Tone::Bad, "refused"),
        PolicyAction::Tag if taken > 0 => return (Tone::Fair, "accepted, tagged"),
        PolicyAction::Accept | PolicyAction::Tag => {}
    }
    match Went::of(record) {
        Went::Refused => (Tone::Fair, "refused for now"),
        Went::Failed => (Tone::Bad, "failed"),
        Went::Well if taken > 0 => (Tone::Good, "accepted"),
        Went::Well if refused > 0 => (Tone::Fair, "refused by the MTA"),
        Went::Well if record.smtp.tls == TlsState::Started => (Tone::Plain, "passed on under TLS"),
        Went::Well => (Tone::Plain, "no message"),
    }
}

fn why(record: &SessionRecord, masking: AddressMasking) -> String {
    let because = |cause: &str| match refusal(cause) {
        Some(words) => words.to_owned(),
        None => masking.words(&reason(cause)),
    };
    let verdict = &record.verdict;
    let mut parts = Vec::new();
    if let Some(rule) = &verdict.rule {
        parts.push(format!("rule “{}”", masking.words(rule)));
    }
    // That it was the rule is said.
    let by_rule = |cause: &&str| verdict.rule.is_some() && cause.starts_with("access_");
    let cause = verdict.reason.as_deref().filter(|cause| !by_rule(cause));
    parts.extend(cause.map(because));
    if parts.is_empty() && record.outcome != Outcome::Quit {
        parts.push(ending(record).to_owned());
    }
    for shadow in verdict.shadow.iter().take(SHADOWS) {
        let cause = shadow.reason.as_deref().map(because);
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        let would = match shadow.action {
            PolicyAction::Accept => "accepted",
            PolicyAction::Tag => "tagged",
            PolicyAction::Tempfail => "refused it for now",
            PolicyAction::Reject => "refused it",
        };
        let rule = masking.words(&shadow.rule);
        parts.push(format!("in shadow, rule “{rule}” would have {would}{cause}"));
    }
    parts.join("; ")
}

//! The summary of a session: shared by the log, the tables of sessions and the status page.

use std::fmt;

use super::wording;
use crate::engine::{MessageProgress, Outcome, SessionRecord};
use crate::policy::PolicyAction;
use crate::smtp::{EnhancedCode, Verb};
use crate::stream::FlowOutcome;
use crate::time::Timestamp;

/// Everything that a reader needs first. Transactions that the record only counts are not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionSummary {
    pub(super) end: Timestamp,
    pub(super) messages: TransactionCounts,
    pub(super) code: Option<SignificantCode>,
    pub(super) result: SessionResult,
    /// In two or three words.
    pub(super) ending: &'static str,
}

impl SessionSummary {
    pub(super) fn new(record: &SessionRecord) -> Self {
        let messages = TransactionCounts::new(record);
        Self {
            end: end(record),
            messages,
            code: SignificantCode::new(record),
            result: SessionResult::new(record, messages),
            ending: wording::ending(record),
        }
    }
}

/// Transactions by their deciding reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TransactionCounts {
    pub(super) accepted: u32,
    /// 4xx.
    pub(super) deferred: u32,
    /// 5xx.
    pub(super) rejected: u32,
    /// Arrived in full where the reply is not visible: under TLS that passes through, by Postfix's question at its end.
    pub(super) received: u32,
    /// Aborted by the client, or cut off.
    pub(super) incomplete: u32,
}

impl TransactionCounts {
    fn new(record: &SessionRecord) -> Self {
        let mut counts = Self::default();
        for transaction in &record.smtp.transactions {
            *match transaction.deciding_code() {
                Some(200..300) => &mut counts.accepted,
                Some(400..500) => &mut counts.deferred,
                Some(500..) => &mut counts.rejected,
                None if transaction.progress == Some(MessageProgress::Received) => {
                    &mut counts.received
                }
                _ => &mut counts.incomplete,
            } += 1;
        }
        counts
    }

    pub(super) const fn refused(self) -> u32 {
        self.deferred + self.rejected
    }

    /// Any transaction was accepted or refused.
    pub(super) const fn any_decided(self) -> bool {
        self.accepted + self.refused() > 0
    }
}

/// The reply that decided the session: of the last decided transaction, otherwise a refused greeting, otherwise the lowest
/// refusing reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SignificantCode {
    pub(super) code: u16,
    /// Of the recipient whose reply it is.
    pub(super) enhanced: Option<EnhancedCode>,
}

impl SignificantCode {
    fn new(record: &SessionRecord) -> Option<Self> {
        let smtp = &record.smtp;
        let decided = smtp.transactions.iter().rev().find_map(|transaction| {
            let code = transaction.deciding_code()?;
            let mut recipients = transaction.rcpt_to.iter().rev();
            let same =
                recipients.find(|to| transaction.data_code.is_none() && to.code == Some(code));
            Some(Self { code, enhanced: same.and_then(|to| to.enhanced) })
        });
        let refusal = || {
            let greeting = smtp.greeting.filter(|&code| is_refusal(code));
            let reply = || smtp.replies.keys().copied().find(|&code| is_refusal(code));
            Some(Self { code: greeting.or_else(reply)?, enhanced: None })
        };
        decided.or_else(refusal)
    }

    pub(super) const fn is_refusal(self) -> bool {
        is_refusal(self.code)
    }
}

/// `550 5.7.25`
impl fmt::Display for SignificantCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        self.enhanced.map_or(Ok(()), |enhanced| write!(f, " {enhanced}"))
    }
}

/// When the session ended.
pub(super) fn end(record: &SessionRecord) -> Timestamp {
    record.start + record.duration
}

/// 4xx or 5xx.
pub(super) const fn is_refusal(code: u16) -> bool {
    code >= 400
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionResult {
    Succeeded,
    /// By the gateway.
    Refused,
    /// It ended before either side wanted it to.
    Failed,
}

impl SessionResult {
    fn new(record: &SessionRecord, messages: TransactionCounts) -> Self {
        if messages.accepted > 0 {
            return Self::Succeeded;
        }
        let refused = matches!(record.outcome, Outcome::Refused | Outcome::Limit);
        if refused || record.verdict.action >= PolicyAction::Tempfail {
            return Self::Refused;
        }
        match record.outcome {
            Outcome::Quit
            | Outcome::TlsCompleted
            | Outcome::Shutdown
            | Outcome::Delegated
            | Outcome::CaptureEnded => Self::Succeeded,
            // A client that disconnects before MAIL, such as a monitoring probe, lost nothing.
            Outcome::ClientClosed if !record.smtp.commands.contains_key(&Verb::Mail) => {
                Self::Succeeded
            }
            _ => Self::Failed,
        }
    }
}

/// Whether the capture shows that no connection was established.
pub(super) const fn is_unconnected(record: &SessionRecord) -> bool {
    matches!(
        record.tcp.outcome,
        Some(FlowOutcome::Unanswered | FlowOutcome::Refused | FlowOutcome::Unreachable)
    )
}

/// Whether either side sent SMTP.
pub(super) fn has_smtp(record: &SessionRecord) -> bool {
    let smtp = &record.smtp;
    smtp.greeting.is_some() || !smtp.commands.is_empty() || !smtp.replies.is_empty()
}

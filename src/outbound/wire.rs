//! Attempts as the wire shows them (`[watch]`): for an MTA whose log is not read.

use super::{OutboundAttempt, OutboundOutcome};
use crate::policy::facts::DomainName;
use crate::traffic::fallback::DeliveryOutcome;
use crate::traffic::{ConnectionResponse, FlowSummary, MailDirection, StarttlsState};

impl OutboundAttempt {
    /// The attempt of a flow. `None` for mail to us, and where the wire does not show what became of the message: inside TLS,
    /// or in a connection that was captured from its middle.
    ///
    /// Replies are known by code only, so a refusal for the sending address is not told from another.
    pub fn of_flow(summary: &FlowSummary<'_>) -> Option<Self> {
        let response = summary.response()?;
        if summary.direction != MailDirection::Outbound {
            return None;
        }
        let outcome = match (response, summary.outcome) {
            (ConnectionResponse::Refused, _) => OutboundOutcome::Refused,
            (ConnectionResponse::Unreachable, _) => OutboundOutcome::Unreachable,
            (ConnectionResponse::NoResponse, DeliveryOutcome::Unanswered) => {
                OutboundOutcome::TimedOut
            }
            (ConnectionResponse::NoResponse | ConnectionResponse::BlackHole, _) => {
                OutboundOutcome::Stalled
            }
            (ConnectionResponse::Answered, DeliveryOutcome::Accepted) => OutboundOutcome::Delivered,
            (ConnectionResponse::Answered, DeliveryOutcome::GreetingRefused(_)) => {
                OutboundOutcome::GreetingRefused
            }
            (ConnectionResponse::Answered, DeliveryOutcome::EnvelopeRefused(500..)) => {
                OutboundOutcome::Rejected
            }
            (ConnectionResponse::Answered, DeliveryOutcome::EnvelopeRefused(_)) => {
                OutboundOutcome::Deferred
            }
            (ConnectionResponse::Answered, DeliveryOutcome::Reset) => OutboundOutcome::Lost,
            (ConnectionResponse::Answered, _) if summary.tls == StarttlsState::Failed => {
                OutboundOutcome::TlsFailed
            }
            (ConnectionResponse::Answered, _) => return None,
        };
        let host = summary.name.as_deref().and_then(DomainName::parse);
        Some(Self {
            at: summary.flow.end,
            host,
            address: summary.flow.start.server,
            domain: None,
            outcome,
            reply: None,
            delays: None,
            queue_id: None,
        })
    }
}

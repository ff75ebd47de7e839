//! A finished flow and its SMTP session: the input of windows, evidence and metrics.

use std::time::Duration;

use super::direction::MailDirection;
use super::fallback::DeliveryOutcome;
use super::response::ConnectionResponse;
use crate::addr::{Family, Side};
use crate::label::labels;
use crate::stream::{FlowFacts, FlowOutcome};

/// Without a greeting for this long after the handshake, a server does not respond; one whose client left sooner may only
/// have lost a race. RFC 5321 §4.5.3.2.1 allows five minutes, but a working MTA is never that slow.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// A finished flow.
#[derive(Clone, Debug)]
pub struct FlowSummary<'a> {
    pub flow: &'a FlowFacts,
    pub direction: MailDirection,
    /// The server's name, if DNS answers contained one.
    pub name: Option<String>,
    /// At least one SMTP command or reply was seen.
    pub is_smtp: bool,
    /// Code of the greeting.
    pub greeting: Option<u16>,
    pub messages: MessageCounts,
    /// Replies by class: 2xx, 3xx, 4xx, 5xx.
    pub replies: [u64; 4],
    pub tls: StarttlsState,
    /// A session under TLS that completed, with as many bytes of both sides as a delivery takes: mail arrives, although its
    /// messages are not known.
    pub tls_proof: bool,
    pub outcome: DeliveryOutcome,
}

/// Messages by the class of the deciding reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// 2xx after the end of data.
    pub accepted: u64,
    /// 4xx, after the end of data or earlier.
    pub tempfailed: u64,
    /// 5xx, after the end of data or earlier.
    pub rejected: u64,
}

labels! {
    /// How far a session got with STARTTLS.
    #[derive(Default)]
    pub enum StarttlsState {
        #[default]
        NotOffered = "not_offered",
        Offered = "offered",
        /// Nothing more is known of its TLS.
        Started = "started",
        /// The handshake of its TLS completed; its messages are not known.
        Completed = "completed",
        /// The handshake of its TLS failed.
        Failed = "failed",
        Refused = "refused",
    }
}

impl FlowSummary<'_> {
    pub fn family(&self) -> Family {
        Family::of(self.flow.start.server.ip())
    }

    /// Retransmitted SYNs.
    pub fn syn_retransmits(&self) -> u64 {
        u64::from(self.flow.syns.saturating_sub(1))
    }

    /// The server's response, as evidence of the path to it; `None` if the flow is no evidence. Silence is none where the
    /// source lost packets: they may have been the answer.
    pub fn response(&self) -> Option<ConnectionResponse> {
        let flow = self.flow;
        let [_, from_server] = flow.bytes;
        match flow.outcome {
            FlowOutcome::Refused => Some(ConnectionResponse::Refused),
            FlowOutcome::Unreachable => Some(ConnectionResponse::Unreachable),
            // An evicted flow might have been answered later.
            FlowOutcome::Unanswered => (!flow.evicted).then_some(ConnectionResponse::NoResponse),
            FlowOutcome::Unknown => None,
            _ if self.outcome == DeliveryOutcome::BlackHole => Some(ConnectionResponse::BlackHole),
            // Data, not only a handshake, which passes where large segments do not.
            _ if from_server > 0 => Some(ConnectionResponse::Answered),
            FlowOutcome::Established | FlowOutcome::Reset => {
                let waited = flow.end.since(flow.start.at) >= GREETING_TIMEOUT;
                (waited && !flow.evicted && !flow.incomplete && flow.reset_by != Some(Side::Server))
                    .then_some(ConnectionResponse::NoResponse)
            }
            FlowOutcome::Midstream => None,
        }
    }
}

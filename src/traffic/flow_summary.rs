//! One flow and what was said on it, when it is over: what windows, evidence and metrics are made of.

use std::time::Duration;

use super::ServerResponse;
use super::direction::MailDirection;
use super::fallback::DeliveryOutcome;
use crate::addr::{Family, Side};
use crate::label::labels;
use crate::stream::{FlowFacts, FlowOutcome};

/// A server that took the connection and said nothing for so long is silent; one that was left sooner may only have lost
/// a race. RFC 5321 §4.5.3.2.1 gives it five minutes, but no MTA next door or far away is that slow when it works.
const GREETING: Duration = Duration::from_secs(5);

/// A flow that is over.
#[derive(Clone, Debug)]
pub struct FlowSummary<'a> {
    pub flow: &'a FlowFacts,
    pub direction: MailDirection,
    /// The server's name, where the DNS gave one.
    pub name: Option<String>,
    /// Either side said something of SMTP.
    pub spoke: bool,
    /// Code of the server's greeting.
    pub greeting: Option<u16>,
    pub messages: MessageCounts,
    /// Replies of the server: 2xx, 3xx, 4xx, 5xx.
    pub replies: [u64; 4],
    pub tls: StarttlsState,
    pub ended: DeliveryOutcome,
}

/// Messages by the class of the reply that decided their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// 2xx in answer to the end of data.
    pub accepted: u64,
    /// 4xx, to the end of data or before.
    pub tempfailed: u64,
    /// 5xx.
    pub rejected: u64,
}

labels! {
    /// How far a session got with STARTTLS.
    #[derive(Default)]
    pub enum StarttlsState {
        #[default]
        NotOffered = "not_offered",
        Offered = "offered",
        Started = "started",
        Refused = "refused",
    }
}

impl FlowSummary<'_> {
    pub fn family(&self) -> Family {
        Family::of(self.flow.start.server.ip())
    }

    /// SYNs that the client had to send again.
    pub fn syn_retransmits(&self) -> u64 {
        u64::from(self.flow.syns.saturating_sub(1))
    }

    /// What the server did, as far as that says something of the way to it; `None` where it says nothing.
    pub fn response(&self) -> Option<ServerResponse> {
        let flow = self.flow;
        let [_, said] = flow.bytes;
        match flow.outcome {
            FlowOutcome::Refused => Some(ServerResponse::Refused),
            FlowOutcome::Unreachable => Some(ServerResponse::Unreachable),
            // What was given up for want of room might have been answered.
            FlowOutcome::Unanswered => (!flow.evicted).then_some(ServerResponse::NoResponse),
            _ if self.ended == DeliveryOutcome::BlackHole => Some(ServerResponse::BlackHole),
            // Octets both ways: a handshake alone passes where large segments do not.
            _ if said > 0 => Some(ServerResponse::Answered),
            FlowOutcome::Established | FlowOutcome::Reset => {
                let waited = flow.end.since(flow.start.at) >= GREETING;
                (waited && !flow.evicted && flow.reset_by != Some(Side::Server))
                    .then_some(ServerResponse::NoResponse)
            }
            FlowOutcome::Midstream => None,
        }
    }
}

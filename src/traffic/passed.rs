//! One flow and what was said on it, when it is over: what windows, evidence and metrics are made of.

use std::time::Duration;

use super::Response;
use super::bound::Bound;
use super::pairs::Ended;
use crate::addr::{Family, Side};
use crate::stream::{FlowFacts, FlowOutcome};

/// A server that took the connection and said nothing for so long is silent; one that was left sooner may only have lost
/// a race. RFC 5321 §4.5.3.2.1 gives it five minutes, but no MTA next door or far away is that slow when it works.
const GREETING: Duration = Duration::from_secs(5);

/// A flow that is over.
#[derive(Clone, Debug)]
pub struct Passed<'a> {
    pub flow: &'a FlowFacts,
    pub bound: Bound,
    /// The server's name, where the DNS gave one.
    pub name: Option<String>,
    /// Either side said something of SMTP.
    pub spoke: bool,
    /// Code of the server's greeting.
    pub greeting: Option<u16>,
    pub messages: Messages,
    /// Replies of the server: 2xx, 3xx, 4xx, 5xx.
    pub replies: [u64; 4],
    pub tls: Tls,
    pub ended: Ended,
}

/// Messages by the class of the reply that decided their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// 2xx in answer to the end of data.
    pub accepted: u64,
    /// 4xx, to the end of data or before.
    pub tempfailed: u64,
    /// 5xx.
    pub rejected: u64,
}

/// How far STARTTLS came in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    #[default]
    None,
    Offered,
    Started,
    Refused,
}

impl Tls {
    pub const ALL: [Self; 4] = [Self::None, Self::Offered, Self::Started, Self::Refused];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Passed<'_> {
    pub fn family(&self) -> Family {
        Family::of(self.flow.start.server.ip())
    }

    /// SYNs that the client had to send again.
    pub fn syn_retransmits(&self) -> u64 {
        u64::from(self.flow.syns.saturating_sub(1))
    }

    /// What the server did, as far as that says something of the way to it; `None` where it says nothing.
    pub fn response(&self) -> Option<Response> {
        let flow = self.flow;
        let [_, said] = flow.octets;
        match flow.outcome {
            FlowOutcome::Refused => Some(Response::Refused),
            FlowOutcome::Unreachable => Some(Response::Unreachable),
            // What was given up for want of room might have been answered.
            FlowOutcome::Unanswered => (!flow.evicted).then_some(Response::Silent),
            _ if self.ended == Ended::BlackHole => Some(Response::BlackHole),
            // Octets both ways: a handshake alone passes where large segments do not.
            _ if said > 0 => Some(Response::LookupResult),
            FlowOutcome::Established | FlowOutcome::Reset => {
                let waited = flow.end.since(flow.start.at) >= GREETING;
                (waited && !flow.evicted && flow.reset_by != Some(Side::Server))
                    .then_some(Response::Silent)
            }
            FlowOutcome::Midstream => None,
        }
    }
}

//! Delivery attempts, and fallbacks between two of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::addr::Family;
use crate::label::labels;
use crate::time::Timestamp;
use crate::traffic::direction::MailDirection;

/// The last packets of an attempt that the server ended may follow the client's next attempt.
const SLACK: Duration = Duration::from_secs(1);

/// A finished attempt of a client to deliver mail to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Number of the flow, unique.
    pub number: u64,
    pub client: IpAddr,
    pub server: SocketAddr,
    pub start: Timestamp,
    /// The last packet.
    pub end: Timestamp,
    pub direction: MailDirection,
    pub outcome: DeliveryOutcome,
    /// The argument of HELO or EHLO, if there was one.
    pub helo: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// No answer to the SYN.
    Unanswered,
    /// RST in answer to the SYN.
    Refused,
    /// An ICMP error in answer to the SYN.
    Unreachable,
    /// Large segments were lost repeatedly.
    BlackHole,
    /// RST after the handshake.
    Reset,
    /// The greeting was this 4xx or 5xx.
    GreetingRefused(u16),
    /// No recipient or message was accepted, and this was the reply.
    EnvelopeRefused(u16),
    /// A message was accepted.
    Accepted,
    /// The source lost packets, so how it ended was not seen.
    Unknown,
    /// Anything else, such as a session that continued under TLS.
    Other,
}

labels! {
    /// Why a client changed from IPv6 to IPv4.
    pub enum FallbackReason {
        Unanswered = "unanswered",
        Refused = "refused",
        Unreachable = "unreachable",
        BlackHole = "black_hole",
        Reset = "reset",
        Greeting = "greeting",
        Envelope = "envelope",
        /// IPv6 did not fail; IPv4 was faster.
        Race = "race",
    }
}

labels! {
    /// Evidence that both attempts went to the same server.
    pub enum ServerMatch {
        /// Both addresses belong to one name.
        Names = "names",
        /// Only that one attempt followed soon after the other.
        Window = "window",
    }
}

/// A client changed from IPv6 to IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Number of the IPv6 attempt.
    pub from: u64,
    /// Number of the first IPv4 attempt after it.
    pub to: u64,
    /// Start of the IPv4 attempt.
    pub at: Timestamp,
    /// Of the IPv6 attempt.
    pub direction: MailDirection,
    /// From the start of the IPv6 attempt to the start of the IPv4 attempt: the delay of the mail.
    pub after: Duration,
    pub why: FallbackReason,
    /// The reply, if one was the reason.
    pub code: Option<u16>,
    pub by: ServerMatch,
}

impl Attempt {
    pub fn family(&self) -> Family {
        Family::of(self.server.ip())
    }

    /// The reason for a fallback from this attempt, and the reply; `None` if it succeeded or its outcome is not visible.
    pub(super) fn fallback_reason(&self) -> Option<(FallbackReason, Option<u16>)> {
        Some(match self.outcome {
            DeliveryOutcome::Unanswered => (FallbackReason::Unanswered, None),
            DeliveryOutcome::Refused => (FallbackReason::Refused, None),
            DeliveryOutcome::Unreachable => (FallbackReason::Unreachable, None),
            DeliveryOutcome::BlackHole => (FallbackReason::BlackHole, None),
            DeliveryOutcome::Reset => (FallbackReason::Reset, None),
            DeliveryOutcome::GreetingRefused(code) => (FallbackReason::Greeting, Some(code)),
            DeliveryOutcome::EnvelopeRefused(code) => (FallbackReason::Envelope, Some(code)),
            DeliveryOutcome::Other if self.helo.is_none() => (FallbackReason::Race, None),
            DeliveryOutcome::Other | DeliveryOutcome::Accepted | DeliveryOutcome::Unknown => {
                return None;
            }
        })
    }

    /// It ended while the client was waiting for an answer.
    const fn ended_waiting(&self) -> bool {
        matches!(
            self.outcome,
            DeliveryOutcome::Unanswered | DeliveryOutcome::Unreachable | DeliveryOutcome::BlackHole
        )
    }

    /// The earliest start of an attempt made instead of this one.
    pub(super) fn earliest_next(&self) -> Timestamp {
        if self.ended_waiting() || self.outcome == DeliveryOutcome::Other {
            return self.start;
        }
        self.start + self.end.since(self.start).saturating_sub(SLACK)
    }

    /// The latest time at which the client gave up.
    pub(super) fn given_up(&self) -> Timestamp {
        if self.ended_waiting() {
            self.end + self.end.since(self.start) + Duration::from_secs(1)
        } else {
            self.end
        }
    }
}

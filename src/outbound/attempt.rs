//! One attempt to deliver mail to one address of a host.

use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::Family;
use crate::label::labels;
use crate::policy::facts::DomainName;
use crate::time::Timestamp;

labels! {
    /// How an attempt ended.
    pub enum OutboundOutcome {
        /// The server accepted the message.
        Delivered = "delivered",
        /// No answer to the SYN.
        TimedOut = "timed_out",
        /// RST in answer to the SYN.
        Refused = "refused",
        /// No route, or an ICMP error in answer to the SYN.
        Unreachable = "unreachable",
        /// A greeting or a reply to EHLO of 4xx or 5xx, for no reason of policy.
        GreetingRefused = "greeting_refused",
        /// Connected, and then a reply did not arrive in time.
        Stalled = "stalled",
        /// Connected, and the connection was lost before the message was decided.
        Lost = "lost",
        /// STARTTLS or its handshake failed.
        TlsFailed = "tls_failed",
        /// A 4xx or 5xx for the sending address or its authentication, at any stage: see [`super::is_policy_refusal`].
        PolicyRefused = "policy_refused",
        /// Another 5xx, such as an unknown recipient.
        Rejected = "rejected",
        /// Another 4xx.
        Deferred = "deferred",
    }
}

/// What an outcome means for the path that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Delivered,
    /// The path works; this message was not accepted.
    Answered,
    /// No session came to a decision.
    PathFailed,
    /// The server accepts no such mail from our address of this family.
    SenderRefused,
}

impl OutboundOutcome {
    pub const fn effect(self) -> Effect {
        match self {
            Self::Delivered => Effect::Delivered,
            Self::Rejected | Self::Deferred => Effect::Answered,
            Self::PolicyRefused => Effect::SenderRefused,
            Self::TimedOut
            | Self::Refused
            | Self::Unreachable
            | Self::GreetingRefused
            | Self::Stalled
            | Self::Lost
            | Self::TlsFailed => Effect::PathFailed,
        }
    }
}

/// Where Postfix says that the time went (`delays=a/b/c/d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// `c`: DNS lookup, connection, greeting, EHLO and TLS.
    pub connection: Duration,
    /// `d`: the transaction.
    pub transmission: Duration,
}

/// A finished attempt of our MTA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundAttempt {
    /// When it ended.
    pub at: Timestamp,
    /// The exchange host. `None` if the source knows only the address.
    pub host: Option<DomainName>,
    pub address: SocketAddr,
    /// The domain of the recipients, if the source knows it.
    pub domain: Option<DomainName>,
    pub outcome: OutboundOutcome,
    /// The reply that decided, as the server sent it: `550 5.7.1 …`.
    pub reply: Option<String>,
    pub delays: Option<Delays>,
    /// The message in the MTA's queue, if the source knows it.
    pub queue_id: Option<String>,
}

impl OutboundAttempt {
    pub const fn family(&self) -> Family {
        match self.address {
            SocketAddr::V4(_) => Family::Ipv4,
            SocketAddr::V6(_) => Family::Ipv6,
        }
    }
}

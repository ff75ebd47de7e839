//! Events of the policy service that a mail server asks, as closed sets.

use std::time::Duration;

use crate::label::labels;

labels! {
    /// The reply to a mail server's question (Postfix: access(5)).
    pub enum DelegatedAction {
        /// No objection; the mail server's other restrictions decide.
        Dunno = "dunno",
        /// The same, and the mail server logs a rule in shadow mode that matches.
        Warn = "warn",
        /// The same, and the message gets a header field.
        Prepend = "prepend",
        /// Refused for now, unless another restriction refuses it for good.
        DeferIfPermit = "defer_if_permit",
        Reject = "reject",
    }
}

labels! {
    /// Why the gateway closed a mail server's connection, or did not accept it.
    pub enum DelegationFault {
        /// The request is none of the protocol.
        Malformed = "malformed",
        /// The request is too long.
        TooLong = "too_long",
        /// Nothing was asked for too long, or a request was not completed.
        Idle = "idle",
        /// Too many connections.
        Connections = "connections",
    }
}

/// What happens at the policy service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelegationEvent {
    Connected,
    Disconnected,
    /// `took`: from the complete question to the reply.
    Answered {
        action: DelegatedAction,
        took: Duration,
    },
    Fault(DelegationFault),
}

//! What the receiving server replied to the sender of a canary.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outcome::CanaryOutcome;
use crate::label::labels;

labels! {
    /// How far the sending of a canary came.
    pub enum DeliveryStage {
        /// The recipient's domain has no mail server with an address of this family, or none could be looked up.
        NoAddress = "no_address",
        /// The sending host has no route or no address of this family: nothing is known of the receiving server.
        NoRoute = "no_route",
        Connect = "connect",
        Greeting = "greeting",
        Hello = "hello",
        Sender = "mail",
        Recipient = "rcpt",
        Data = "data",
        /// After the final dot.
        Content = "content",
    }
}

/// The result of the only attempt to send a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryDelivery {
    pub stage: DeliveryStage,
    /// The server that was tried last.
    pub server: Option<String>,
    /// The reply that ended the attempt; none if the server did not reply.
    pub code: Option<u16>,
    /// The last line of that reply, or the error.
    pub text: String,
    pub tls: bool,
    /// From connecting to that reply.
    pub took: Duration,
}

impl CanaryDelivery {
    /// Whether the server has taken the message.
    pub fn is_accepted(&self) -> bool {
        self.stage == DeliveryStage::Content && matches!(self.code, Some(200..=299))
    }

    /// The outcome that needs no report of the recipient; `None` for an accepted message.
    pub fn outcome(&self) -> Option<CanaryOutcome> {
        match (self.stage, self.code) {
            (DeliveryStage::Content, Some(200..=299)) => None,
            (DeliveryStage::NoAddress | DeliveryStage::NoRoute, _) => Some(CanaryOutcome::Unknown),
            // Postfix and others give up on a server only if a reply has a class of 5.
            (_, Some(500..=599)) => Some(CanaryOutcome::Refused),
            (_, Some(400..=499)) => Some(CanaryOutcome::Deferred),
            (DeliveryStage::Content, None) => Some(CanaryOutcome::Unknown),
            _ => Some(CanaryOutcome::Unreachable),
        }
    }
}

//! The parser's results.

use std::net::SocketAddr;

use crate::label::labels;
use crate::outbound::{OutboundAttempt, OutboundOutcome};
use crate::policy::facts::DomainName;
use crate::smtp::EnhancedCode;
use crate::time::Timestamp;

/// One result of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailLogEvent {
    Attempt(OutboundAttempt),
    Delivery(RecipientDelivery),
}

labels! {
    /// `status=` of a delivery line.
    pub enum DeliveryStatus {
        Sent = "sent",
        /// It stays in the queue (`deferred`, `SOFTBOUNCE`).
        Deferred = "deferred",
        /// It is returned to the sender (`bounced`, `expired`).
        Bounced = "bounced",
        /// An address probe that succeeded (ADDRESS_VERIFICATION_README); no message.
        Deliverable = "deliverable",
        /// An address probe that failed; no message.
        Undeliverable = "undeliverable",
    }
}

/// A line about one recipient of a message: `to=<…>, relay=…, status=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientDelivery {
    pub at: Timestamp,
    pub queue_id: String,
    /// The domain of the recipient.
    pub domain: Option<DomainName>,
    /// `None` for `relay=none` and for a Unix socket.
    pub relay: Option<SocketAddr>,
    pub status: DeliveryStatus,
    /// `dsn=`, after `smtp_delivery_status_filter`.
    pub dsn: Option<EnhancedCode>,
    /// The outcome for this recipient at `relay`. `None` if there was no dialogue, or it failed for a reason of our own.
    pub outcome: Option<OutboundOutcome>,
    /// The message went over a connection of an earlier one (`conn_use=`).
    pub is_reused: bool,
}

/// Counts of lines since the parser began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailLogCounts {
    /// Lines of smtp(8).
    pub smtp_lines: u64,
    /// Those among them whose form the parser does not know; they lead to no event.
    pub not_understood: u64,
}

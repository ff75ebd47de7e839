//! What became of a canary, and which of two was treated worse.

use std::cmp::Ordering;

use crate::label::labels;

labels! {
    /// What became of one canary, from best to worst; `unknown` is outside of this order.
    pub enum CanaryOutcome {
        /// Received, and no filter wrote anything against it.
        Clean = "clean",
        /// Received; a server recorded that SPF, DKIM or DMARC failed.
        AuthenticationFailed = "authentication_failed",
        /// Received; a filter marked it as spam.
        MarkedSpam = "marked_spam",
        /// Not accepted, with a 4xx reply to the only attempt.
        Deferred = "deferred",
        /// Not accepted, with a 5xx reply.
        Refused = "refused",
        /// No reply of a mail server.
        Unreachable = "unreachable",
        /// Accepted and not received in time.
        Lost = "lost",
        /// Not sent, or nothing is known of it yet.
        Unknown = "unknown",
    }
}

labels! {
    /// Comparison of the two messages of a pair.
    pub enum Comparison {
        Equal = "equal",
        Ipv6Worse = "ipv6_worse",
        Ipv4Worse = "ipv4_worse",
        /// The outcome of at least one is unknown.
        Unknown = "unknown",
    }
}

impl Comparison {
    pub fn of(ipv4: CanaryOutcome, ipv6: CanaryOutcome) -> Self {
        if ipv4 == CanaryOutcome::Unknown || ipv6 == CanaryOutcome::Unknown {
            return Self::Unknown;
        }
        match ipv6.cmp(&ipv4) {
            Ordering::Less => Self::Ipv4Worse,
            Ordering::Equal => Self::Equal,
            Ordering::Greater => Self::Ipv6Worse,
        }
    }
}

//! What the evidence of all hosts together says first.

use super::OutboundReport;

/// Hosts that must agree before this host itself is suspected.
const MANY: usize = 3;

/// The first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundFinding {
    NoAttempts,
    /// At least half of the hosts that were tried over IPv6 refuse our address, and at least three.
    RefusedByMany {
        refused: usize,
        tried: usize,
    },
    /// No host was reached over IPv6, and at least three were tried.
    NoPath {
        tried: usize,
    },
    Avoided {
        avoided: usize,
        known: usize,
    },
    NothingAvoided {
        ipv6: usize,
        known: usize,
    },
}

impl OutboundFinding {
    /// Whether the cause is probably this host.
    pub const fn suspects_us(self) -> bool {
        matches!(self, Self::RefusedByMany { .. } | Self::NoPath { .. })
    }
}

impl OutboundReport {
    pub const fn finding(&self) -> OutboundFinding {
        let Self { hosts_total: known, hosts_avoided: avoided, .. } = *self;
        let (refused, failed) = (self.hosts_ipv6_refused, self.hosts_ipv6_failed);
        let tried = self.hosts_ipv6_tried;
        if known == 0 {
            OutboundFinding::NoAttempts
        } else if refused >= MANY && refused * 2 >= tried {
            OutboundFinding::RefusedByMany { refused, tried }
        } else if failed >= MANY && failed == tried {
            OutboundFinding::NoPath { tried }
        } else if avoided > 0 {
            OutboundFinding::Avoided { avoided, known }
        } else {
            OutboundFinding::NothingAvoided { ipv6: self.hosts_ipv6_delivered, known }
        }
    }
}

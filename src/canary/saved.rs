//! What outlives a restart: the latest results, the pairs that wait for reports, and when pairs were sent.

use serde::{Deserialize, Serialize};

use super::pairs::{CanaryPair, PairResult};
use super::token::{CanaryDirection, PairId};
use crate::policy::facts::DomainName;
use crate::time::Timestamp;

/// The serde form is the one on disk. Of about 2 MB at most: see [`super::CanaryPairs`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCanaries {
    pub inbound: SavedDirection,
    pub outbound: SavedDirection,
    pub pairs: SavedPairs,
    /// Exchange hosts that the latest outbound pair was sent to.
    pub outbound_hosts: Vec<DomainName>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDirection {
    /// The mailbox that the results are about; they say nothing about another one.
    pub to: Option<String>,
    pub latest: Option<PairResult>,
    /// When pairs were sent in the last 24 hours.
    pub sent: Vec<Timestamp>,
}

/// Pairs of both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPairs {
    pub open: Vec<CanaryPair>,
    /// With the time at which they were sent.
    pub ended: Vec<(PairId, Timestamp)>,
}

impl SavedCanaries {
    pub const fn direction(&self, direction: CanaryDirection) -> &SavedDirection {
        match direction {
            CanaryDirection::Inbound => &self.inbound,
            CanaryDirection::Outbound => &self.outbound,
        }
    }

    pub const fn direction_mut(&mut self, direction: CanaryDirection) -> &mut SavedDirection {
        match direction {
            CanaryDirection::Inbound => &mut self.inbound,
            CanaryDirection::Outbound => &mut self.outbound,
        }
    }
}

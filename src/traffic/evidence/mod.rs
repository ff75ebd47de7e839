//! Evidence of the mail paths from observed traffic (rule 14 of ARCHITECTURE.md).
//!
//! - *Receive path*: an outside host sent a message that our server accepted (250 after data). Connections from our own
//!   addresses prove only a socket, so only foreign global addresses count.
//! - *Return path*: the outcomes of our own connections to others, by family.
//!
//! The serde form is the public JSON form. Counts run from the start, and end only with the eviction of a destination.

mod destinations;
mod receive;

use std::net::IpAddr;

use serde::Serialize;

pub(super) use self::destinations::Destinations;
pub use self::destinations::{
    Destination, DestinationKey, FamilyResponses, MAX_DESTINATIONS, ResponseCount,
    ReturnPathEvidence,
};
pub(super) use self::receive::ReceiveTracker;
pub use self::receive::{AcceptedCounts, ReceivePathEvidence};
use super::per::PerFamily;
use crate::addr::{Networks, is_global};
use crate::time::Timestamp;

/// The evidence at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence<'a> {
    pub at: Timestamp,
    pub receive: PerFamily<ReceivePathEvidence>,
    #[serde(rename = "return")]
    pub return_path: ReturnPathEvidence<'a>,
}

/// Whether flows of `foreign` are evidence.
pub(super) fn counts(foreign: IpAddr, ours: &Networks, exclude: &Networks) -> bool {
    is_global(foreign) && !ours.contains(foreign) && !exclude.contains(foreign)
}

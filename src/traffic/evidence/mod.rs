//! What passing traffic proves of the ways that mail takes.
//!
//! - *Receive path*: somebody outside brought us a message and our server took it (250 after data). A connection of our
//!   own proves a socket, so only global addresses that are not ours count.
//! - *Return path*: what became of our own connections to others, by family.
//!
//! The serde form is the public JSON form. Counts go on from the start and are only forgotten with their destination;
//! they saturate nowhere that a host's life reaches.

mod destinations;
mod receive;

use std::net::IpAddr;

use serde::Serialize;

pub(super) use self::destinations::Destinations;
pub use self::destinations::{
    Destination, DestinationKey, FamilyResponses, MAX_DESTINATIONS, ResponseCount, ResponseTotals,
    ReturnPathEvidence, ServerResponse,
};
pub(super) use self::receive::Received;
pub use self::receive::{AcceptedCounts, ReceivePathEvidence};
use super::per::PerFamily;
use crate::addr::{Networks, is_global};
use crate::time::Timestamp;

/// What is proven at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence<'a> {
    pub at: Timestamp,
    pub receive: PerFamily<ReceivePathEvidence>,
    #[serde(rename = "return")]
    pub return_path: ReturnPathEvidence<'a>,
}

/// Whether what `foreign` does proves anything.
pub(super) fn counts(foreign: IpAddr, ours: &Networks, exclude: &Networks) -> bool {
    is_global(foreign) && !ours.contains(foreign) && !exclude.contains(foreign)
}

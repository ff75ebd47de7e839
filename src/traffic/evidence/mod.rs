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
    Destination, MAX_DESTINATIONS, Response, Responses, ReturnPath, Seen, Server, Tries,
};
pub(super) use self::receive::Received;
pub use self::receive::{Accepted, ReceivePath};
use crate::addr::{Family, Networks, is_global};
use crate::time::Timestamp;

/// What is proven at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence<'a> {
    pub at: Timestamp,
    pub receive: ByFamily<ReceivePath>,
    #[serde(rename = "return")]
    pub return_path: ReturnPath<'a>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByFamily<T> {
    pub ipv4: T,
    pub ipv6: T,
}

impl<T> ByFamily<T> {
    pub const fn of(&self, family: Family) -> &T {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    pub(super) const fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

/// Whether what `foreign` does proves anything.
pub(super) fn counts(foreign: IpAddr, ours: &Networks, exclude: &Networks) -> bool {
    is_global(foreign) && !ours.contains(foreign) && !exclude.contains(foreign)
}

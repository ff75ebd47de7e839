//! Which way a connection goes, seen from our side.

use std::net::IpAddr;

use crate::addr::Networks;
use crate::label::labels;

labels! {
    /// The direction of a connection: who opened it.
    pub enum MailDirection {
        /// To us, or past us; also where it is not known which side is ours.
        Inbound = "in",
        /// From one of ours to somebody else.
        Outbound = "out",
    }
}

impl MailDirection {
    /// `Out` if `client` is ours and `server` is not, else `In`: between two of ours, mail comes to us.
    pub fn of(client: IpAddr, server: IpAddr, ours: &Networks) -> Self {
        if ours.contains(client) && !ours.contains(server) { Self::Outbound } else { Self::Inbound }
    }
}

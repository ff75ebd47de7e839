//! The direction of mail, from our point of view.

use std::net::IpAddr;

use crate::addr::Networks;
use crate::label::labels;

labels! {
    /// The direction of a connection, by its client.
    pub enum MailDirection {
        /// To us or past us; also if our own addresses are not known.
        Inbound = "in",
        /// From one of our addresses to a foreign one.
        Outbound = "out",
    }
}

impl MailDirection {
    /// `Outbound` if `client` is ours and `server` is not, else `Inbound`: mail between two of our hosts arrives here.
    pub fn of(client: IpAddr, server: IpAddr, ours: &Networks) -> Self {
        if ours.contains(client) && !ours.contains(server) { Self::Outbound } else { Self::Inbound }
    }
}

//! Options of the return path check.

use crate::addr::Family;
use crate::label::labels;

labels! {
    /// The families over which mail must be able to return.
    #[derive(Default)]
    pub enum FamilyRequirement {
        /// Either family.
        #[default]
        Any = "any",
        /// The client's family.
        SameFamily = "same-family",
        Ipv6 = "ipv6",
        Ipv4 = "ipv4",
    }
}

impl FamilyRequirement {
    pub(super) const fn families(self, client: Family) -> &'static [Family] {
        match (self, client) {
            (Self::Any, _) => &[Family::Ipv6, Family::Ipv4],
            (Self::Ipv6, _) | (Self::SameFamily, Family::Ipv6) => &[Family::Ipv6],
            (Self::Ipv4, _) | (Self::SameFamily, Family::Ipv4) => &[Family::Ipv4],
        }
    }
}

labels! {
    /// How far the return path is tested.
    #[derive(Default)]
    pub enum ReturnPathLevel {
        /// The DNS names an address where mail can go.
        #[default]
        Dns = "dns",
        /// A server there accepts a connection.
        Tcp = "tcp",
        /// It sends a greeting and replies to EHLO.
        Smtp = "smtp",
        /// It accepts mail for the sender's address.
        Rcpt = "rcpt",
    }
}

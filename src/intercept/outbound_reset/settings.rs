//! Whose connections are reset, and the name of the table.

use crate::addr::Networks;

/// Name of the nftables table, family `inet`.
pub const OUTBOUND_TABLE: &str = "gatepost_outbound";

/// `[outbound] reset_users` and `reset_sources`, checked by `config/`; at least one of them has an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundResetSettings {
    /// User ids of MTAs on this host, in order; never root's.
    pub users: Vec<u32>,
    /// IPv6 networks of MTAs for which this host is a router.
    pub sources: Networks,
}

impl OutboundResetSettings {
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.sources.is_empty()
    }
}

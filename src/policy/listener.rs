//! The condition of a rule on the listener of a session.

use std::net::SocketAddr;
use std::sync::Arc;

/// Listeners by name, and addresses that clients connect to. Empty matches every session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerCondition {
    pub names: Vec<Arc<str>>,
    pub addresses: Vec<SocketAddr>,
}

impl ListenerCondition {
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty() && self.addresses.is_empty()
    }

    /// A listener that is not known matches no name: like every condition on what is not known, it makes no rule match.
    pub fn matches(&self, name: Option<&str>, destination: SocketAddr) -> bool {
        self.is_empty()
            || name.is_some_and(|name| self.names.iter().any(|one| **one == *name))
            || self.addresses.contains(&destination)
    }
}

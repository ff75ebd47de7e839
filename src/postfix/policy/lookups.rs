//! The lookups that questions need: who answers them is the gateway's affair.

use std::net::IpAddr;
use std::pin::Pin;

use crate::policy::facts::{Lookup, LookupResult};

pub type PolicyLookupFuture = Pin<Box<dyn Future<Output = LookupResult> + Send>>;

/// Answers lookups, with a deadline of its own. A future that is no longer needed is dropped.
pub trait PolicyLookups: Send + Sync {
    /// For a question about `client`, whose share of the budgets it uses.
    fn lookup_for(&self, lookup: Lookup, client: IpAddr) -> PolicyLookupFuture;
}

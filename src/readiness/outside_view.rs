//! What a vantage sees of the exchanges.

use std::net::IpAddr;

/// What the vantage saw of the exchanges over one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutsideView {
    Seen(Vec<(IpAddr, OutsideResult)>),
    /// Why there is no result; a sentence without a full stop.
    Failed(String),
}

/// What came of its connection to one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutsideResult {
    Greeted,
    /// Why not, in the words of the vantage.
    NotReached(String),
    Unknown,
}

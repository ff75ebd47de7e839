//! Mail of an MTA beside gatepost, or behind it, to other hosts, which it finds in DNS.

pub(crate) mod comparison;
mod destinations;
pub(crate) mod dsn_filter;
pub(crate) mod evidence;
pub(crate) mod failures;
pub(crate) mod install;
pub(crate) mod pins;
pub(crate) mod resets;

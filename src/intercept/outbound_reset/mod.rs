//! Resets for our own mail to IPv6 addresses that are avoided: an nftables table of its own, `inet gatepost_outbound`.
//!
//! The SYN of an MTA to such an address is answered with a reset, so that the MTA takes the next address at once; for MTAs that
//! cannot ask as Postfix does. Open connections are never touched. The table is independent of the interception. Each element of
//! its set has a timeout: after a kill -9 the rules match less and less, and soon nothing.

mod ruleset;
mod settings;

use std::net::Ipv6Addr;
use std::time::Duration;

use serde_json::Value;

pub use self::ruleset::MAX_ADDRESSES;
pub use self::settings::{OUTBOUND_TABLE, OutboundResetSettings};
use super::error::InterceptError;
use super::nft;

/// Replaces the table in one transaction, whatever an earlier run left. Its set is empty then, and its counter zero.
///
/// # Errors
/// The earlier table, if any, stays in force.
pub async fn install(settings: &OutboundResetSettings) -> Result<(), InterceptError> {
    let result = nft::apply(&[], ruleset::replace(settings)).await?;
    let what = "install the table `inet gatepost_outbound`";
    result.map(drop).map_err(|stderr| nft::refused(what, stderr, &[]))
}

/// Replaces the elements of the set in one transaction: at most [`MAX_ADDRESSES`] addresses, each with the time until it
/// expires. Returns whether there is a table.
///
/// # Errors
/// The earlier elements stay.
pub async fn set_addresses(addresses: &[(Ipv6Addr, Duration)]) -> Result<bool, InterceptError> {
    let result = nft::run(&["-f", "-"], Some(ruleset::set_addresses(addresses))).await?;
    Ok(if_present(result, "set the addresses that are avoided")?.is_some())
}

/// Connections that were reset since the installation; `None` without a table.
///
/// # Errors
/// `nft` cannot be run, or the kernel refuses.
pub async fn count() -> Result<Option<u64>, InterceptError> {
    let result = nft::run(&["-j", "list", "counters", "table", "inet", OUTBOUND_TABLE], None);
    match if_present(result.await?, "list the counter of resets")? {
        Some(listing) => packets(&listing).map(Some).map_err(InterceptError::NftOutput),
        None => Ok(None),
    }
}

/// Removes the table. Not an error if there is none.
///
/// # Errors
/// `nft` cannot be run, or the kernel refuses.
pub async fn remove() -> Result<(), InterceptError> {
    let result = nft::apply(&[], ruleset::delete()).await?;
    if_present(result, "remove the table `inet gatepost_outbound`").map(drop)
}

/// `None` if the table is missing.
fn if_present(
    result: Result<String, String>,
    what: &'static str,
) -> Result<Option<String>, InterceptError> {
    match result {
        Ok(stdout) => Ok(Some(stdout)),
        Err(stderr) if nft::is_absent(&stderr) => Ok(None),
        Err(stderr) => Err(nft::refused(what, stderr, &[])),
    }
}

fn packets(listing: &str) -> Result<u64, serde_json::Error> {
    let value: Value = serde_json::from_str(listing)?;
    let counters = value["nftables"].as_array().into_iter().flatten();
    Ok(counters.filter_map(|object| object["counter"]["packets"].as_u64()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_read() {
        let listing = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"counter": {"family": "inet",
            "name": "resets", "table": "gatepost_outbound", "handle": 2, "packets": 7, "bytes": 560}}]}"#;
        assert_eq!(packets(listing).unwrap(), 7);
        assert_eq!(packets(r#"{"nftables": []}"#).unwrap(), 0);
        assert!(packets("no JSON").is_err());
    }
}

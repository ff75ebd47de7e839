//! The sets of our table that rules fill: from where SYNs came.

use std::collections::HashSet;

use nftables::expr::Expression;
use nftables::schema::{NfListObject, Set, SetFlag, SetType, SetTypeValue};
use nftables::stmt::{self, Statement};
use nftables::types::NfFamily;

use super::settings::TABLE;
use crate::addr::Family;

/// A set that rules fill, with the seconds that its elements stay.
fn dynamic_set(
    name: &'static str,
    set_type: SetTypeValue<'static>,
    timeout: u32,
) -> NfListObject<'static> {
    NfListObject::Set(Box::new(Set {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        handle: None,
        set_type,
        policy: None,
        // That rules update it follows from the rule; nft 1.0.6 rejects the flag in JSON.
        flags: Some(HashSet::from([SetFlag::Timeout])),
        elem: None,
        timeout: Some(timeout),
        gc_interval: None,
        size: Some(65_535),
        comment: None,
    }))
}

const fn address(family: Family) -> SetType {
    match family {
        Family::Ipv4 => SetType::Ipv4Addr,
        Family::Ipv6 => SetType::Ipv6Addr,
    }
}

/// The set of addresses and ports from which SYNs of the last minute came.
pub(super) const fn opening(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "opening_ipv4",
        Family::Ipv6 => "opening_ipv6",
    }
}

/// The set of addresses from which SYNs came in the last [`SOURCES_KEPT`] seconds.
pub(super) const fn sources(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "sources_ipv4",
        Family::Ipv6 => "sources_ipv6",
    }
}

/// In seconds.
pub(super) const SOURCES_KEPT: u32 = 3600;

/// The declaration of [`sources`].
pub(super) fn add_sources(family: Family) -> NfListObject<'static> {
    dynamic_set(sources(family), SetTypeValue::Single(address(family)), SOURCES_KEPT)
}

/// The declaration of [`opening`].
pub(super) fn add_opening(family: Family) -> NfListObject<'static> {
    let parts = vec![address(family), SetType::InetService];
    dynamic_set(opening(family), SetTypeValue::Concatenated(parts.into()), 60)
}

/// Adds `elem` to the set, or renews it.
pub(super) fn update(set: &str, elem: Expression<'static>) -> Statement<'static> {
    Statement::Set(stmt::Set { op: stmt::SetOp::Update, elem, set: format!("@{set}").into() })
}

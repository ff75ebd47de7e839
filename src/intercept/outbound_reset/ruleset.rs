//! The table as data:
//!
//! ```text
//! set avoided         IPv6 addresses, each with its timeout
//! counter resets
//! chain output        of this host's own connections
//!   a user of ours, a SYN to port 25 of an avoided address     count, reject with tcp reset
//! chain forward       of connections that pass this router
//!   a source of ours, a SYN to port 25 of an avoided address   count, reject with tcp reset
//! ```
//!
//! The output hook has the socket of a connection's first packet, and with it its user.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::time::Duration;

use nftables::batch::Batch;
use nftables::expr::{Expression, MetaKey};
use nftables::schema::{
    Chain, Counter, NfListObject, Nftables, Rule, Set, SetFlag, SetType, SetTypeValue, Table,
};
use nftables::stmt::{Counter as CounterStatement, Reject, RejectType, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::settings::{OUTBOUND_TABLE, OutboundResetSettings};
use crate::addr::Family;
use crate::intercept::ruleset::{field, is, meta, networks, set, syn, text};

/// Elements of the set.
pub const MAX_ADDRESSES: usize = 4096;

const AVOIDED: &str = "avoided";
const RESETS: &str = "resets";
const OUTPUT: &str = "output";
const FORWARD: &str = "forward";
/// Of SMTP between mail servers.
const PORT: u32 = 25;
/// The kernel's priority "filter".
const FILTER: i32 = 0;

/// A batch that replaces the table.
pub(super) fn replace(settings: &OutboundResetSettings) -> Nftables<'static> {
    let mut batch = Batch::new();
    // `delete` fails without a table, and nft has `destroy` only since 1.0.7.
    batch.add(table());
    batch.delete(table());
    batch.add(table());
    batch.add(avoided());
    batch.add(NfListObject::Counter(Counter {
        family: NfFamily::INet,
        table: OUTBOUND_TABLE.into(),
        name: RESETS.into(),
        handle: None,
        packets: Some(0),
        bytes: Some(0),
    }));
    if !settings.users.is_empty() {
        let users = settings.users.iter().map(|user| Expression::Number(*user));
        let of_user = is(meta(MetaKey::Skuid), set(users));
        batch.add(chain(OUTPUT, NfHook::Output));
        batch.add(rule(OUTPUT, "connections of the MTA on this host: reset", of_user));
    }
    if let Some(sources) = networks(&settings.sources, Family::Ipv6) {
        let of_source = is(field("ip6", "saddr"), sources);
        batch.add(chain(FORWARD, NfHook::Forward));
        batch.add(rule(FORWARD, "connections of the MTA behind this router: reset", of_source));
    }
    batch.to_nftables()
}

/// A batch that removes the table; fails without one.
pub(super) fn delete() -> Nftables<'static> {
    let mut batch = Batch::new();
    batch.delete(table());
    batch.to_nftables()
}

/// A script that replaces the elements of the set; fails without the table. In JSON a timeout has whole seconds only.
pub(super) fn set_addresses(addresses: &[(Ipv6Addr, Duration)]) -> String {
    let mut script = format!("flush set inet {OUTBOUND_TABLE} {AVOIDED}\n");
    if addresses.is_empty() {
        return script;
    }
    let elements = addresses.iter().take(MAX_ADDRESSES);
    let elements: Vec<String> =
        elements.map(|(ip, left)| format!("{ip} timeout {}ms", left.as_millis().max(1))).collect();
    let elements = elements.join(",\n");
    // Writing to a string never fails.
    let _ = writeln!(script, "add element inet {OUTBOUND_TABLE} {AVOIDED} {{ {elements} }}");
    script
}

fn table() -> NfListObject<'static> {
    let name = OUTBOUND_TABLE.into();
    NfListObject::Table(Table { family: NfFamily::INet, name, handle: None })
}

fn avoided() -> NfListObject<'static> {
    NfListObject::Set(Box::new(Set {
        family: NfFamily::INet,
        table: OUTBOUND_TABLE.into(),
        name: AVOIDED.into(),
        handle: None,
        set_type: SetTypeValue::Single(SetType::Ipv6Addr),
        policy: None,
        flags: Some(HashSet::from([SetFlag::Timeout])),
        elem: None,
        timeout: None,
        gc_interval: None,
        size: u32::try_from(MAX_ADDRESSES).ok(),
        comment: None,
    }))
}

fn chain(name: &'static str, hook: NfHook) -> NfListObject<'static> {
    NfListObject::Chain(Chain {
        family: NfFamily::INet,
        table: OUTBOUND_TABLE.into(),
        name: name.into(),
        _type: Some(NfChainType::Filter),
        hook: Some(hook),
        prio: Some(FILTER),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    })
}

fn rule(
    chain: &'static str,
    comment: &'static str,
    of_mta: Statement<'static>,
) -> NfListObject<'static> {
    let expr = vec![
        of_mta,
        is(field("tcp", "dport"), Expression::Number(PORT)),
        is(syn(), text("syn")),
        is(field("ip6", "daddr"), text(format!("@{AVOIDED}"))),
        Statement::Counter(CounterStatement::Named(RESETS.into())),
        Statement::Reject(Some(Reject::new(Some(RejectType::TCPReset), None))),
    ];
    NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: OUTBOUND_TABLE.into(),
        chain: chain.into(),
        expr: expr.into(),
        comment: Some(comment.into()),
        ..Rule::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Networks;

    fn rules(users: &[u32], sources: &[&str]) -> String {
        let sources = Networks::new(sources.iter().map(|network| network.parse().unwrap()));
        let settings = OutboundResetSettings { users: users.to_vec(), sources };
        let batch = serde_json::to_value(replace(&settings)).unwrap();
        let commands = batch["nftables"].as_array().unwrap().iter();
        commands.map(|command| format!("{command}\n")).collect()
    }

    #[test]
    fn the_table_of_a_host_and_of_a_router() {
        insta::assert_snapshot!(rules(&[101, 1000], &["2001:db8:1::25/128", "2001:db8:2::/64"]));
        assert!(!rules(&[101], &[]).contains("forward"));
        assert!(!rules(&[], &["2001:db8::/64"]).contains("output"));
    }

    #[test]
    fn elements_have_their_timeouts_and_are_limited() {
        let one =
            |n: u128| (Ipv6Addr::from_bits((0x2001_0db8 << 96) + n), Duration::from_millis(1500));
        assert_eq!(set_addresses(&[]), "flush set inet gatepost_outbound avoided\n");
        assert_eq!(
            set_addresses(&[one(1), one(2)]),
            "flush set inet gatepost_outbound avoided\n\
             add element inet gatepost_outbound avoided { 2001:db8::1 timeout 1500ms,\n2001:db8::2 timeout 1500ms }\n"
        );
        let many: Vec<_> = (0..5000).map(one).collect();
        assert_eq!(set_addresses(&many).matches("timeout").count(), MAX_ADDRESSES);
    }
}

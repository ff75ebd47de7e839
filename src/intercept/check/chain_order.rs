//! Chains of others that run where gatepost has to be last, or first.

use serde_json::Value;

use super::finding::{InterceptCheckName, InterceptCheckReport};
use super::listing::{Base, Chain, Hook, Listing};
use crate::addr::Family;
use crate::intercept::ruleset::{BEFORE_NAT, LAST};
use crate::readiness::CheckStatus;

pub(super) fn check(families: &[Family], listing: &Listing, report: &mut InterceptCheckReport) {
    marks(families, listing, report);
    translation(families, listing, report);
    for flowtable in listing.flowtables() {
        let seen = format!(
            "flowtable {flowtable} takes packets past every rule: sessions that began while the gateway was \
             stopped stay past it"
        );
        report.warn(InterceptCheckName::Flowtable, seen, "nft list flowtables");
    }
}

/// Chains behind ours that set marks: the route of an intercepted packet depends on its mark.
fn marks(families: &[Family], listing: &Listing, report: &mut InterceptCheckReport) {
    const NAME: InterceptCheckName = InterceptCheckName::ChainOrder;
    let mut is_fine = true;
    for (chain, base) in at(families, listing, Hook::Prerouting) {
        if base.priority < i64::from(LAST) || !reaches(listing, chain, sets_mark) {
            continue;
        }
        is_fine = false;
        let seen = format!(
            "chain {} sets marks after gatepost's (priority {} and {LAST}): intercepted mail may lose its \
             mark, and be lost; give it a lower priority",
            name(chain),
            base.priority
        );
        report.add(NAME, CheckStatus::Fail, seen, [show(chain)]);
    }
    if is_fine {
        report.pass(NAME, "no chain sets marks after gatepost's");
    }
}

/// The first NAT chain that decides is the only one.
fn translation(families: &[Family], listing: &Listing, report: &mut InterceptCheckReport) {
    const NAME: InterceptCheckName = InterceptCheckName::Nat;
    let mut is_fine = true;
    for (chain, base) in at(families, listing, Hook::Postrouting) {
        if base.kind != "nat" || base.priority > i64::from(BEFORE_NAT) {
            continue;
        }
        if !reaches(listing, chain, translates_source) {
            continue;
        }
        is_fine = false;
        let seen = format!(
            "chain {} translates sources before gatepost exempts its own connections (priority {} and \
             {BEFORE_NAT}): servers may see this host instead of the client; use priority srcnat",
            name(chain),
            base.priority
        );
        report.warn(NAME, seen, show(chain));
    }
    if is_fine {
        report.pass(NAME, "no chain translates the gateway's connections in the clients' names");
    }
}

/// Each once, also those of both families.
fn at<'a>(families: &[Family], listing: &'a Listing, hook: Hook) -> Vec<(&'a Chain, &'a Base)> {
    let mut chains: Vec<(&Chain, &Base)> = Vec::new();
    for found in families.iter().flat_map(|&family| listing.at(hook, family)) {
        if !chains.iter().any(|(chain, _)| std::ptr::eq(*chain, found.0)) {
            chains.push(found);
        }
    }
    chains
}

/// Whether `wanted` holds for a rule of the chain or of one that it calls.
fn reaches(listing: &Listing, chain: &Chain, wanted: fn(&Value) -> bool) -> bool {
    let mut pending = vec![chain];
    let mut visited: Vec<&str> = Vec::new();
    while let Some(chain) = pending.pop() {
        if visited.contains(&chain.name.as_str()) {
            continue;
        }
        visited.push(&chain.name);
        for rule in &chain.rules {
            if wanted(rule) {
                return true;
            }
            pending.extend(targets(rule).filter_map(|target| listing.chain(&chain.table, target)));
        }
    }
    false
}

fn targets(rule: &Value) -> impl Iterator<Item = &str> {
    let statements = rule["expr"].as_array().into_iter().flatten();
    statements.filter_map(|statement| {
        let jump = statement.get("jump").or_else(|| statement.get("goto"))?;
        jump["target"].as_str()
    })
}

fn sets_mark(rule: &Value) -> bool {
    statements(rule).any(|one| {
        one["mangle"]["key"]["meta"]["key"] == "mark" || is_target(one, &["MARK", "CONNMARK"])
    })
}

fn translates_source(rule: &Value) -> bool {
    statements(rule).any(|one| {
        one.get("snat").or_else(|| one.get("masquerade")).is_some()
            || is_target(one, &["SNAT", "MASQUERADE", "NETMAP"])
    })
}

/// Whether it is one of these targets of iptables.
fn is_target(statement: &Value, names: &[&str]) -> bool {
    statement["xt"]["name"].as_str().is_some_and(|name| names.contains(&name))
}

fn statements(rule: &Value) -> impl Iterator<Item = &Value> {
    rule["expr"].as_array().into_iter().flatten()
}

fn name(chain: &Chain) -> String {
    format!("{} {} {}", chain.table.family, chain.table.name, chain.name)
}

fn show(chain: &Chain) -> String {
    format!("nft list chain {}", name(chain))
}

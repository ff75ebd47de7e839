//! Our table as `nft -j` lists it: its chains for people, its counters, and its shape, by which a change by others is found.

use std::collections::BTreeMap;

use serde_json::Value;

use super::counters::InterceptCounters;
use super::report::{ChainReport, RuleReport};
use super::ruleset;
use crate::addr::Family;

/// The objects of our table, without the elements of sets.
#[derive(Clone, Debug)]
pub(super) struct TableListing(Value);

impl TableListing {
    pub(super) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        Ok(Self(serde_json::from_str(json)?))
    }

    pub(super) fn chains(&self) -> Vec<ChainReport> {
        ChainReport::parse_all(&self.0)
    }

    pub(super) fn counters(&self) -> InterceptCounters {
        let mut counters = InterceptCounters::default();
        for chain in self.chains() {
            for rule in &chain.rules {
                count(&chain.name, rule, &mut counters);
            }
        }
        counters
    }

    /// By family, whether the rule of its closed door is there.
    pub(super) fn refuses(&self) -> [bool; 2] {
        let chains = self.chains();
        Family::ALL.map(|family| {
            let mut doors = chains.iter().filter(|chain| chain.name == ruleset::door(family));
            doors.any(|chain| chain.rules.iter().any(is_closed_door))
        })
    }

    pub(super) fn shape(&self) -> TableShape {
        let mut shape = TableShape::default();
        for object in self.0["nftables"].as_array().into_iter().flatten() {
            if let Some(chain) = object.get("chain") {
                shape.chains.entry(name(chain)).or_default().0 =
                    normalised(chain, &["handle", "family", "table"]);
            } else if let Some(rule) = object.get("rule") {
                let chain = rule["chain"].as_str().unwrap_or_default().to_owned();
                let rule = normalised(rule, &["handle", "family", "table", "chain", "index"]);
                shape.chains.entry(chain).or_default().1.push(rule);
            } else if let Some(set) = object.get("set") {
                let set_name = name(set);
                shape.sets.insert(set_name, normalised(set, &["handle", "elem"]));
            }
        }
        shape
    }
}

fn count(chain: &str, rule: &RuleReport, counters: &mut InterceptCounters) {
    let description = rule.description.as_str();
    let packets = rule.packets.unwrap_or_default();
    if description == ruleset::TAKEN
        && let Some(tproxy) = &rule.tproxy
    {
        counters.taken[tproxy.family as usize] += packets;
    }
    if description == ruleset::EARLIER {
        counters.earlier += packets;
    }
    for family in Family::ALL {
        let of_family = family as usize;
        if description == ruleset::bypassed(family) {
            counters.bypassed[of_family] += packets;
        }
        if description == ruleset::arrived(family) {
            counters.arrived[of_family] += packets;
        }
        if chain == ruleset::door(family) && is_closed_door(rule) {
            counters.refused[of_family] += packets;
        }
    }
}

fn is_closed_door(rule: &RuleReport) -> bool {
    rule.description == ruleset::REFUSED
}

/// What is compared: chains with their hooks and rules, and sets; no handles, counters or elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TableShape {
    /// By name: the chain itself, and its rules.
    chains: BTreeMap<String, (Value, Vec<Value>)>,
    sets: BTreeMap<String, Value>,
}

impl TableShape {
    /// The differences to a later listing, in words.
    pub(super) fn changes(&self, later: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (name, (chain, rules)) in &self.chains {
            let Some((chain_now, rules_now)) = later.chains.get(name) else {
                changes.push(format!("chain {name} is missing"));
                continue;
            };
            if chain != chain_now {
                changes.push(format!(
                    "chain {name} is at {} instead of {}",
                    hook(chain_now),
                    hook(chain)
                ));
            }
            if rules != rules_now {
                let change = match rules_now.len().cmp(&rules.len()) {
                    std::cmp::Ordering::Less => "lacks rules",
                    std::cmp::Ordering::Equal => "has other rules",
                    std::cmp::Ordering::Greater => "has more rules",
                };
                changes.push(format!("chain {name} {change}"));
            }
        }
        for name in later.chains.keys().filter(|name| !self.chains.contains_key(*name)) {
            changes.push(format!("chain {name} was added"));
        }
        if self.sets != later.sets {
            changes.push("its sets were changed".to_owned());
        }
        changes
    }
}

/// `prerouting, priority 1000`
fn hook(chain: &Value) -> String {
    match chain["hook"].as_str() {
        Some(hook) => format!("{hook}, priority {}", chain["prio"]),
        None => "no hook".to_owned(),
    }
}

fn name(object: &Value) -> String {
    object["name"].as_str().unwrap_or_default().to_owned()
}

/// Without those keys and the values of counters, and with anonymous sets sorted.
fn normalised(object: &Value, without: &[&str]) -> Value {
    let mut object = object.clone();
    if let Some(keys) = object.as_object_mut() {
        keys.retain(|key, _| !without.contains(&key.as_str()));
    }
    normalise(&mut object);
    object
}

fn normalise(value: &mut Value) {
    match value {
        Value::Object(keys) => {
            if let Some(counter) = keys.get_mut("counter") {
                *counter = Value::Null;
            }
            keys.values_mut().for_each(normalise);
            if let Some(Value::Array(items)) = keys.get_mut("set") {
                items.sort_by_cached_key(Value::to_string);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listing(priority: i32, packets: u64, ports: &[u16], chains: &[&str]) -> TableListing {
        let mut objects = vec![
            json!({ "metainfo": { "version": "1.0.6" } }),
            json!({ "table": { "name": "gatepost", "handle": packets } }),
            json!({ "set": { "name": "opening_ipv4", "handle": packets, "elem": [packets] } }),
        ];
        for name in chains {
            objects.push(json!({ "chain": {
                "name": name, "handle": packets, "hook": "prerouting", "prio": priority } }));
        }
        objects.push(json!({ "rule": {
            "chain": "intercept", "handle": packets, "comment": ruleset::EARLIER,
            "expr": [
                { "match": { "op": "==", "right": { "set": ports } } },
                { "counter": { "packets": packets, "bytes": 60 * packets } },
            ] } }));
        TableListing(json!({ "nftables": objects }))
    }

    #[test]
    fn counters_handles_and_the_order_of_sets_are_no_change() {
        let before = listing(1000, 1, &[25, 587], &["intercept"]);
        let after = listing(1000, 7, &[587, 25], &["intercept"]);
        assert_eq!(before.shape().changes(&after.shape()), Vec::<String>::new());
        assert_eq!(after.counters().earlier, 7);
    }

    #[test]
    fn each_change_has_words() {
        let shape = listing(1000, 1, &[25], &["intercept", "arrived"]).shape();
        let changes = |later: &TableListing| shape.changes(&later.shape()).join("; ");
        assert_eq!(changes(&listing(1000, 1, &[25], &["intercept"])), "chain arrived is missing");
        assert_eq!(
            changes(&listing(-150, 1, &[25], &["intercept", "arrived"])),
            "chain arrived is at prerouting, priority -150 instead of prerouting, priority 1000; chain intercept is at \
             prerouting, priority -150 instead of prerouting, priority 1000"
        );
        assert_eq!(
            changes(&listing(1000, 1, &[26], &["intercept", "arrived"])),
            "chain intercept has other rules"
        );
        assert_eq!(
            changes(&listing(1000, 1, &[25], &["intercept", "arrived", "more"])),
            "chain more was added"
        );
    }
}

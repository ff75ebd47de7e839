//! The nftables ruleset of this host, as nft lists it: chains, sets, and the text of rules.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::addr::Family;
use crate::label::labels;

labels! {
    pub(super) enum Hook {
        Prerouting = "prerouting",
        Input = "input",
        Forward = "forward",
        Output = "output",
        Postrouting = "postrouting",
    }
}

/// A table: its family, as `inet`, and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableName {
    pub(super) family: String,
    pub(super) name: String,
}

impl TableName {
    pub(super) fn sees(&self, family: Family) -> bool {
        match self.family.as_str() {
            "inet" => true,
            "ip" => family == Family::Ipv4,
            "ip6" => family == Family::Ipv6,
            _ => false,
        }
    }

    /// Made by iptables-nft, or for it.
    pub(super) fn is_of_iptables(&self) -> bool {
        self.family != "inet"
            && ["filter", "mangle", "nat", "raw", "security"].contains(&self.name.as_str())
    }
}

#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) table: TableName,
    pub(super) name: String,
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Value>,
}

/// Where the kernel calls a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) kind: String,
    pub(super) hook: String,
    pub(super) priority: i64,
    pub(super) drops: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    chains: Vec<Chain>,
    /// Elements of sets, and key and value of maps, by table and name.
    sets: BTreeMap<(TableName, String), Vec<Value>>,
    /// As text, by table and handle.
    texts: BTreeMap<(TableName, u64), String>,
    flowtables: Vec<String>,
    statements: BTreeSet<String>,
}

impl Listing {
    /// Parses `nft -j list ruleset`. Tables of the names in `but` are left out.
    pub(super) fn parse(listing: &Value, but: &[&str]) -> Self {
        let mut parsed = Self::default();
        for object in listing["nftables"].as_array().into_iter().flatten() {
            let Some((kind, object)) = object.as_object().and_then(|object| object.iter().next())
            else {
                continue;
            };
            let name = if kind == "table" { &object["name"] } else { &object["table"] };
            let table = TableName { family: text(&object["family"]), name: text(name) };
            if but.contains(&table.name.as_str()) {
                continue;
            }
            match kind.as_str() {
                "chain" => parsed.chains.push(Chain {
                    table,
                    name: text(&object["name"]),
                    base: base(object),
                    rules: Vec::new(),
                }),
                "rule" => parsed.add_rule(&table, object),
                "set" | "map" => {
                    let elements = object["elem"].as_array().cloned().unwrap_or_default();
                    parsed.sets.insert((table, text(&object["name"])), elements);
                }
                "flowtable" => {
                    let name = text(&object["name"]);
                    parsed.flowtables.push(format!("{} {} {name}", table.family, table.name));
                }
                _ => {}
            }
        }
        parsed
    }

    fn add_rule(&mut self, table: &TableName, rule: &Value) {
        let statements = rule["expr"].as_array().into_iter().flatten();
        for statement in statements.filter_map(Value::as_object) {
            self.statements.extend(statement.keys().cloned());
            // Targets of iptables, by their names.
            let target = statement.get("xt").filter(|xt| xt["type"] == "target");
            self.statements.extend(target.map(|target| text(&target["name"])));
        }
        let chain = text(&rule["chain"]);
        if let Some(chain) =
            self.chains.iter_mut().find(|other| other.table == *table && other.name == chain)
        {
            chain.rules.push(rule.clone());
        }
    }

    /// Adds what `nft -a list ruleset` prints: only there stand the matches of iptables.
    pub(super) fn add_texts(&mut self, listing: &str) {
        let mut table = None;
        for line in listing.lines() {
            let mut words = line.split_whitespace();
            if line.starts_with("table ") {
                table = words.nth(1).zip(words.next()).map(|(family, name)| TableName {
                    family: family.to_owned(),
                    name: name.to_owned(),
                });
            } else if let Some((text, handle)) = line.rsplit_once(" # handle ")
                && let (Some(table), Ok(handle)) = (&table, handle.trim().parse())
                && !text.ends_with('{')
            {
                self.texts.insert((table.clone(), handle), text.trim().to_owned());
            }
        }
    }

    pub(super) fn text_of(&self, table: &TableName, handle: u64) -> Option<&str> {
        self.texts.get(&(table.clone(), handle)).map(String::as_str)
    }

    /// Whether a rule has one of these statements, or targets of iptables.
    pub(super) fn uses(&self, names: &[&str]) -> bool {
        names.iter().any(|&name| self.statements.contains(name))
    }

    pub(super) fn set(&self, table: &TableName, name: &str) -> Option<&[Value]> {
        self.sets.get(&(table.clone(), name.to_owned())).map(Vec::as_slice)
    }

    pub(super) fn chain(&self, table: &TableName, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.table == *table && chain.name == name)
    }

    /// Chains that the kernel calls at `hook` for packets of `family`, in their order.
    pub(super) fn at(&self, hook: Hook, family: Family) -> Vec<(&Chain, &Base)> {
        let chains = self.chains.iter().filter(|chain| chain.table.sees(family));
        let mut chains: Vec<(&Chain, &Base)> = chains
            .filter_map(|chain| Some((chain, chain.base.as_ref()?)))
            .filter(|(_, base)| base.hook == hook.as_str())
            .collect();
        chains.sort_by_key(|(_, base)| base.priority);
        chains
    }

    pub(super) fn flowtables(&self) -> &[String] {
        &self.flowtables
    }
}

fn base(chain: &Value) -> Option<Base> {
    Some(Base {
        kind: text(&chain["type"]),
        hook: chain["hook"].as_str()?.to_owned(),
        priority: chain["prio"].as_i64().unwrap_or_default(),
        drops: chain["policy"] == "drop",
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

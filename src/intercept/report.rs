//! Reports of the installed and of the removed state, for an operator at 3 a.m.

use std::fmt;

use serde_json::Value;

use super::routing::RoutingEntry;
use super::settings::TABLE;
use crate::addr::Family;
use crate::humanize;

/// The result of [`remove`](super::remove).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovalReport {
    /// Whether there was a table `inet gatepost`.
    pub table: bool,
    /// The ip rules and routes, as text.
    pub routing: Vec<String>,
}

impl fmt::Display for RemovalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.table && self.routing.is_empty() {
            return f.write_str("nothing to remove: no interception is installed");
        }
        let mut lines = Vec::new();
        if self.table {
            lines.push(format!("removed nftables table inet {TABLE}"));
        }
        lines.extend(self.routing.iter().map(|entry| format!("removed {entry}")));
        f.write_str(&lines.join("\n"))
    }
}

/// The result of [`show`](super::show).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterceptReport {
    /// The chains of table `inet gatepost`; `None` if there is no table.
    pub chains: Option<Vec<ChainReport>>,
    /// Our ip rules and routes, as text.
    pub routing: Vec<String>,
    /// Problems, each with its remedy.
    pub warnings: Vec<String>,
}

/// One chain of our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainReport {
    pub name: String,
    /// `prerouting, priority 1000`; `None` for a chain without a hook.
    pub hook: Option<String>,
    pub rules: Vec<RuleReport>,
}

/// One rule of our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleReport {
    /// The rule's comment.
    pub description: String,
    /// `None` for a rule that does not count.
    pub packets: Option<u64>,
    /// For a rule that intercepts.
    pub tproxy: Option<TproxyReport>,
    /// Ports that are intercepted, named by the rule.
    pub ports: Vec<u16>,
    /// Interfaces named by the rule.
    pub interfaces: Vec<String>,
    /// Networks of mail servers named by the rule.
    pub destinations: Vec<String>,
}

/// The TPROXY statement of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TproxyReport {
    pub family: Family,
    pub listen: u16,
    pub mark: Option<u32>,
}

impl InterceptReport {
    /// With warnings about inconsistencies between rules and routes; without those of `kernel`.
    pub(super) fn new(chains: Option<Vec<ChainReport>>, routing: &[RoutingEntry]) -> Self {
        let mut report = Self {
            chains,
            routing: routing.iter().map(ToString::to_string).collect(),
            warnings: Vec::new(),
        };
        let mut warnings = Vec::new();
        for tproxy in report.tproxies() {
            let rule = routing.iter().find(|entry| {
                entry.family() == tproxy.family
                    && entry.mark().is_some()
                    && entry.mark() == tproxy.mark
            });
            let route = rule.is_some_and(|rule| {
                routing.iter().any(|entry| {
                    matches!(entry, RoutingEntry::Route(_))
                        && entry.family() == tproxy.family
                        && entry.table() == rule.table()
                })
            });
            if !route {
                warnings.push(format!(
                    "{} mail is lost: its packets are marked, but the ip rule or route is missing; restart the \
                     gateway, or run `gatepost intercept clean`",
                    humanize::family(tproxy.family)
                ));
            }
        }
        if !routing.is_empty() && report.tproxies().next().is_none() {
            warnings.push(
                "nothing is intercepted: there are ip rules or routes, but no nftables rule for \
                 them; restart the gateway, or run `gatepost intercept clean`"
                    .to_owned(),
            );
        }
        report.warnings = warnings;
        report
    }

    pub fn is_empty(&self) -> bool {
        self.chains.is_none() && self.routing.is_empty()
    }

    /// One of each family.
    pub(super) fn tproxies(&self) -> impl Iterator<Item = &TproxyReport> {
        let of = |family| {
            self.rules().filter_map(|rule| rule.tproxy.as_ref()).find(move |t| t.family == family)
        };
        Family::ALL.into_iter().filter_map(of)
    }

    pub(super) fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.rules().flat_map(|rule| &rule.interfaces).map(String::as_str)
    }

    fn rules(&self) -> impl Iterator<Item = &RuleReport> {
        self.chains.iter().flatten().flat_map(|chain| &chain.rules)
    }
}

impl fmt::Display for InterceptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no interception is installed");
        }
        match &self.chains {
            None => write!(f, "nftables table inet {TABLE}: missing")?,
            Some(chains) => {
                write!(f, "nftables table inet {TABLE} (packets, rule)")?;
                for chain in chains {
                    write!(f, "\n  chain {}", chain.name)?;
                    if let Some(hook) = &chain.hook {
                        write!(f, ", at {hook}")?;
                    }
                    for rule in &chain.rules {
                        let packets =
                            rule.packets.map_or("-".to_owned(), |count| count.to_string());
                        write!(f, "\n    {packets:>10}  {rule}")?;
                    }
                }
            }
        }
        write!(f, "\nrouting")?;
        if self.routing.is_empty() {
            write!(f, "\n  none")?;
        }
        for entry in &self.routing {
            write!(f, "\n  {entry}")?;
        }
        for warning in &self.warnings {
            write!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RuleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)?;
        if let Some(TproxyReport { family, listen, .. }) = &self.tproxy {
            write!(f, " ({}, local port {listen})", humanize::family(*family))?;
        }
        if !self.ports.is_empty() {
            let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
            write!(f, " (intercepted: {})", ports.join(", "))?;
        }
        if !self.interfaces.is_empty() {
            write!(f, " (intercepted on: {})", self.interfaces.join(", "))?;
        }
        if !self.destinations.is_empty() {
            write!(f, " (intercepted to: {})", self.destinations.join(", "))?;
        }
        Ok(())
    }
}

/// Parsed from the JSON value rather than by the schema of crate `nftables`, which may reject the output of a newer nft.
impl ChainReport {
    pub(super) fn parse_all(listing: &Value) -> Vec<Self> {
        let objects = listing["nftables"].as_array().map_or(&[][..], Vec::as_slice);
        let mut chains: Vec<Self> = objects
            .iter()
            .filter_map(|object| object.get("chain"))
            .map(|chain| Self {
                name: text(&chain["name"]),
                hook: chain["hook"]
                    .as_str()
                    .map(|hook| format!("{hook}, priority {}", chain["prio"])),
                rules: Vec::new(),
            })
            .collect();
        for rule in objects.iter().filter_map(|object| object.get("rule")) {
            let name = text(&rule["chain"]);
            if let Some(chain) = chains.iter_mut().find(|chain| chain.name == name) {
                chain.rules.push(RuleReport::parse(rule));
            }
        }
        chains
    }
}

impl RuleReport {
    fn parse(rule: &Value) -> Self {
        let mut report = Self {
            description: rule["comment"].as_str().unwrap_or("not a rule of gatepost").to_owned(),
            ..Self::default()
        };
        let (mut mark, mut tproxy) = (None, None);
        let mut accepts = false;
        for statement in rule["expr"].as_array().into_iter().flatten() {
            if let Some(counter) = statement.get("counter") {
                report.packets = Some(counter["packets"].as_u64().unwrap_or_default());
            }
            if let Some(mangle) = statement.get("mangle") {
                // The bits of others, and ours.
                let ours = &mangle["value"]["|"][1];
                mark = ours.as_u64().and_then(|mark| u32::try_from(mark).ok());
            }
            tproxy = tproxy.or(statement.get("tproxy"));
            accepts |= statement.get("accept").is_some();
            let Some(matched) = statement.get("match") else {
                continue;
            };
            if matched["left"]["payload"]["field"] == "daddr" && matched["op"] == "!=" {
                report.destinations = items(&matched["right"]).iter().map(network).collect();
            }
            if matched["left"]["payload"]["field"] == "dport" && matched["op"] == "!=" {
                let numbers = items(&matched["right"]).iter().filter_map(Value::as_u64);
                report.ports = numbers.filter_map(|port| u16::try_from(port).ok()).collect();
            }
            if matched["left"]["meta"]["key"] == "iifname" && matched["op"] == "!=" {
                report.interfaces = items(&matched["right"]).iter().map(text).collect();
            }
        }
        // A closed door's rule has `tproxy` and rejects; others only remember the packet.
        report.tproxy = tproxy.filter(|_| accepts).map(|tproxy| TproxyReport {
            family: if tproxy["family"] == "ip" { Family::Ipv4 } else { Family::Ipv6 },
            listen: tproxy["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
            mark,
        });
        report
    }
}

/// nft prints a set of one element as the element.
fn items(value: &Value) -> &[Value] {
    value["set"].as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// `2001:db8::25`, or `2001:db8::/64`.
fn network(value: &Value) -> String {
    match value.get("prefix") {
        Some(prefix) => format!("{}/{}", text(&prefix["addr"]), prefix["len"]),
        None => text(value),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Networks;
    use crate::intercept::ruleset::Ruleset;

    /// nft prints its input, with counters and handles added.
    fn listing() -> Vec<ChainReport> {
        let settings = super::super::settings::tests::settings();
        let interfaces = settings.interfaces.clone();
        let ruleset = Ruleset {
            settings,
            interfaces,
            translates: true,
            spares_earlier: false,
            closed: [false, true],
            exempt: Networks::default(),
        };
        let given = serde_json::to_value(ruleset.replace()).unwrap();
        let objects = given["nftables"].as_array().unwrap();
        let added: Vec<&Value> = objects.iter().filter_map(|object| object.get("add")).collect();
        ChainReport::parse_all(&serde_json::json!({ "nftables": added }))
    }

    #[test]
    fn report_text() {
        let report = InterceptReport {
            chains: Some(listing()),
            routing: vec!["IPv4 rule: fwmark 0x40/0xc0 lookup table 26480".into()],
            warnings: vec!["something is wrong; do this".into()],
        };
        insta::assert_snapshot!(report);
    }

    #[test]
    fn an_empty_report_is_one_line() {
        assert_eq!(InterceptReport::default().to_string(), "no interception is installed");
        assert_eq!(
            RemovalReport::default().to_string(),
            "nothing to remove: no interception is installed"
        );
    }

    #[test]
    fn rules_without_routes_cause_warnings() {
        let warnings = InterceptReport::new(Some(listing()), &[]).warnings;
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("IPv4 mail is lost"), "{warnings:?}");
    }
}

//! Access rules: accept, tempfail or reject a client by family, network and listener. The first matching rule decides.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::listener::ListenerCondition;
use crate::addr::{Family, Networks};
use crate::label::labels;

labels! {
    /// The verdict on a session or message, from the mildest to the strictest.
    #[derive(Default)]
    pub enum PolicyAction {
        #[default]
        Accept = "accept",
        /// Accept, and add a header field with the reason.
        Tag = "tag",
        /// A 4xx reply: the client retries, or tries another server.
        Tempfail = "tempfail",
        /// A 5xx reply: permanent failure.
        Reject = "reject",
    }
}

/// One `[[access]]` rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Shown in replies and logs.
    pub name: Arc<str>,
    /// `None` matches both families.
    pub family: Option<Family>,
    /// Empty matches every address.
    pub networks: Networks,
    pub listeners: ListenerCondition,
    pub action: PolicyAction,
}

impl AccessRule {
    fn matches(&self, arrival: &ClientArrival<'_>) -> bool {
        let &ClientArrival { client, listener, destination } = arrival;
        self.family.is_none_or(|family| family == Family::of(client))
            && (self.networks.is_empty() || self.networks.contains(client))
            && self.listeners.matches(listener, destination)
    }
}

/// The connection that access rules decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientArrival<'a> {
    pub client: IpAddr,
    /// The name of the listener that accepted it; `None` if it is not known.
    pub listener: Option<&'a str>,
    /// The address that the client connected to.
    pub destination: SocketAddr,
}

/// The action and the rule it comes from; without a rule it is the default, accept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub action: PolicyAction,
    pub rule: Option<Arc<str>>,
}

/// The `[[access]]` rules in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules(Vec<AccessRule>);

impl AccessRules {
    pub fn new(rules: Vec<AccessRule>) -> Self {
        Self(rules)
    }

    /// The first matching rule decides; without one the client is accepted.
    pub fn decide(&self, arrival: &ClientArrival<'_>) -> Verdict {
        self.0.iter().find(|rule| rule.matches(arrival)).map_or_else(Verdict::default, |rule| {
            Verdict { action: rule.action, rule: Some(Arc::clone(&rule.name)) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        name: &str,
        family: Option<Family>,
        networks: &[&str],
        action: PolicyAction,
    ) -> AccessRule {
        let networks = Networks::new(networks.iter().map(|n| n.parse().unwrap()));
        let listeners = ListenerCondition::default();
        AccessRule { name: name.into(), family, networks, listeners, action }
    }

    fn from<'a>(client: &str, listener: Option<&'a str>) -> ClientArrival<'a> {
        let destination = "[2001:db8::25]:587".parse().unwrap();
        ClientArrival { client: client.parse().unwrap(), listener, destination }
    }

    #[test]
    fn a_rule_names_listeners_or_addresses() {
        let only = |names: &[&str], addresses: &[&str]| {
            let names = names.iter().map(|&name| name.into()).collect();
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let listeners = ListenerCondition { names, addresses };
            AccessRules::new(vec![AccessRule {
                listeners,
                ..rule("r", None, &[], PolicyAction::Reject)
            }])
        };
        let rejects = |rules: &AccessRules, listener| {
            rules.decide(&from("192.0.2.1", listener)).action == PolicyAction::Reject
        };
        let named = only(&["submission"], &[]);
        assert!(rejects(&named, Some("submission")));
        assert!(!rejects(&named, Some("mx")));
        assert!(!rejects(&named, None), "a listener that is not known");
        let there = only(&["mx"], &["[2001:db8::25]:587"]);
        assert!(rejects(&there, None) && rejects(&there, Some("submission")));
        assert!(!rejects(&only(&["mx"], &["[2001:db8::25]:25"]), Some("submission")));
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let rules = AccessRules::new(vec![
            rule("ours", None, &["192.0.2.0/24", "2001:db8:1::/48"], PolicyAction::Accept),
            rule("documentation", None, &["192.0.0.0/16", "2001:db8::/32"], PolicyAction::Reject),
            rule("no ipv6 yet", Some(Family::Ipv6), &[], PolicyAction::Tempfail),
        ]);
        let decide = |ip: &str| {
            let verdict = rules.decide(&from(ip, None));
            (verdict.action, verdict.rule.as_deref().map(str::to_owned))
        };
        let by = |rule: &str| Some(rule.to_owned());
        assert_eq!(decide("192.0.2.1"), (PolicyAction::Accept, by("ours")));
        assert_eq!(decide("::ffff:192.0.2.1"), (PolicyAction::Accept, by("ours")));
        assert_eq!(decide("192.0.3.1"), (PolicyAction::Reject, by("documentation")));
        assert_eq!(decide("2001:db8:1::9"), (PolicyAction::Accept, by("ours")));
        assert_eq!(decide("2001:db8:2::9"), (PolicyAction::Reject, by("documentation")));
        assert_eq!(decide("2001:db9::1"), (PolicyAction::Tempfail, by("no ipv6 yet")));
        assert_eq!(decide("198.51.100.1"), (PolicyAction::Accept, None));
    }
}

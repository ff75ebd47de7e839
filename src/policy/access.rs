//! Access rules: accept, tempfail or reject a client by family and network, in file order, the first that fires wins.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::addr::{Family, Networks};

/// What to do with a session, from the mildest to the strictest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    #[default]
    Accept,
    /// The message gets a header field that says why.
    Tag,
    /// A 4xx: the client tries again, or elsewhere.
    Tempfail,
    /// A 5xx: the client gives up.
    Reject,
}

impl Action {
    pub const ALL: [Self; 4] = [Self::Accept, Self::Tag, Self::Tempfail, Self::Reject];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Tag => "tag",
            Self::Tempfail => "tempfail",
            Self::Reject => "reject",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One `[[access]]` rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Shown in replies and logs.
    pub name: Arc<str>,
    /// `None` is either family.
    pub family: Option<Family>,
    /// Empty is every address.
    pub networks: Networks,
    pub action: Action,
}

impl AccessRule {
    fn matches(&self, client: IpAddr) -> bool {
        self.family.is_none_or(|family| family == Family::of(client))
            && (self.networks.is_empty() || self.networks.contains(client))
    }
}

/// What was decided and by which rule; no rule means the default, accept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub action: Action,
    pub rule: Option<Arc<str>>,
}

/// The `[[access]]` rules in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules(Vec<AccessRule>);

impl AccessRules {
    pub fn new(rules: Vec<AccessRule>) -> Self {
        Self(rules)
    }

    /// The first rule that fires decides; without one the client is accepted.
    pub fn decide(&self, client: IpAddr) -> Verdict {
        self.0.iter().find(|rule| rule.matches(client)).map_or_else(Verdict::default, |rule| {
            Verdict { action: rule.action, rule: Some(Arc::clone(&rule.name)) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, family: Option<Family>, networks: &[&str], action: Action) -> AccessRule {
        let networks = Networks::new(networks.iter().map(|n| n.parse().unwrap()));
        AccessRule { name: name.into(), family, networks, action }
    }

    #[test]
    fn the_first_rule_that_fires_wins() {
        let rules = AccessRules::new(vec![
            rule("ours", None, &["192.0.2.0/24", "2001:db8:1::/48"], Action::Accept),
            rule("documentation", None, &["192.0.0.0/16", "2001:db8::/32"], Action::Reject),
            rule("no ipv6 yet", Some(Family::Ipv6), &[], Action::Tempfail),
        ]);
        let decide = |ip: &str| {
            let verdict = rules.decide(ip.parse().unwrap());
            (verdict.action, verdict.rule.as_deref().map(str::to_owned))
        };
        let by = |rule: &str| Some(rule.to_owned());
        assert_eq!(decide("192.0.2.1"), (Action::Accept, by("ours")));
        assert_eq!(decide("::ffff:192.0.2.1"), (Action::Accept, by("ours")));
        assert_eq!(decide("192.0.3.1"), (Action::Reject, by("documentation")));
        assert_eq!(decide("2001:db8:1::9"), (Action::Accept, by("ours")));
        assert_eq!(decide("2001:db8:2::9"), (Action::Reject, by("documentation")));
        assert_eq!(decide("2001:db9::1"), (Action::Tempfail, by("no ipv6 yet")));
        assert_eq!(decide("198.51.100.1"), (Action::Accept, None));
    }
}

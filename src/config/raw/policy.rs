//! The keys of `[[policy]]` and `[site]`.

use std::net::SocketAddr;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::net::{domain, listener, network};
use super::reader::{Fault, Field, Read, Section, Value};
use super::sections::{can_match, own_name, rule_name};
use super::unknown::{closest, listed, printable};
use super::values::{fault, list, one_of, plain, some, text, truth};
use crate::addr::{Family, Networks};
use crate::config::Site;
use crate::policy::PolicyAction;
use crate::policy::facts::{DomainName, FamilyRequirement, ReturnPathLevel};
use crate::policy::rules::{
    Domains, Exemption, FactName, PolicyRule, PolicyStage, Requirement, RuleMode, When,
};

/// Rules that a file may have: their names become labels of metrics.
const MAX_RULES: usize = 64;

/// One `[[policy]]` rule and what has to agree with other sections; `None` when it is wrong.
pub(super) struct Policy {
    pub(super) rule: Option<PolicyRule>,
    /// Of `when`.
    pub(super) listeners: Field<Vec<Spanned<SocketAddr>>>,
}

/// `names` are those of the access and policy rules before it, with their places; `count` is how many policy rules there were.
pub(super) fn policy(
    section: &mut Section<'_, '_, '_>,
    names: &mut Vec<Spanned<String>>,
    count: &mut usize,
) -> Policy {
    let words =
        |actions: &[PolicyAction]| actions.iter().map(|a| (a.as_str(), *a)).collect::<Vec<_>>();
    let any =
        [PolicyAction::Accept, PolicyAction::Tag, PolicyAction::Tempfail, PolicyAction::Reject];
    let modes = [("enforce", RuleMode::Enforce), ("shadow", RuleMode::Shadow)];
    let exempt = Exemption::ALL.map(|exempt| (exempt.as_str(), exempt));
    let name = section.require("name", r#"name = "ipv6 needs a name""#, rule_name);
    let when = conditions(&mut section.section("when"));
    let exempt = section.read("exempt", list(one_of(&exempt)));
    let requirements =
        section.read("require", some(requirement, "leave it out if nothing is required"));
    let otherwise = section.read("otherwise", one_of(&words(&any)));
    let on_unknown = section.read("on_unknown", when_unknown);
    let mode = section.read("mode", one_of(&modes));
    let url = section.read("url", url);

    own_name(section, &name, names);
    let begins = section.begins();
    if let Some(at) = begins {
        *count += 1;
        if *count == MAX_RULES + 1 {
            let problem = format!("more than {MAX_RULES} rules");
            let advice = "put several into one: each has lists of networks and domains";
            section.notes.mistake(at, "[[policy]]", problem, advice);
        }
    }
    let bare = when.is_absent() && requirements.is_absent();
    if let (true, Some(at)) = (bare, begins) {
        let advice = "add `when`, to say whom it is about, or `require`";
        let problem = "the rule has neither a condition nor a requirement";
        section.notes.mistake(at, "[[policy]]", problem, advice);
    }
    let require = plain(requirements.or(Vec::new()));
    let asked = when.at.clone();
    let facts = require.iter().map(|require| (require.fact.stage(), require.fact.as_str()));
    let latest = facts.chain(when.needs()).max_by_key(|(moment, _)| *moment);
    let (earliest, needs) = latest.unwrap_or((PolicyStage::Connect, ""));
    if let Some(at) = asked.given().filter(|at| *at.get_ref() < earliest) {
        let problem = format!("at \"{}\" nobody knows `{needs}`", at.get_ref().as_str());
        let advice = format!("write \"{}\", or leave it out", earliest.as_str());
        let field = section.field("when.at");
        section.notes.mistake(at.span().start, &field, problem, advice);
    }
    let rule = name.given().map(|name| PolicyRule {
        name: name.get_ref().as_str().into(),
        at: asked.or(earliest),
        when: when.checked(),
        exempt: exempt
            .given()
            .map_or(Exemption::ALL.to_vec(), |exempt| plain(exempt.get_ref().clone())),
        require,
        otherwise: otherwise.or(PolicyAction::Tempfail),
        on_unknown: on_unknown.or(PolicyAction::Tempfail),
        mode: mode.or(RuleMode::Enforce),
        url: url.given().map(|url| url.get_ref().as_str().into()),
    });
    Policy { rule, listeners: when.listeners }
}

/// What stands in `when`.
struct Conditions {
    at: Field<PolicyStage>,
    family: Field<Family>,
    networks: Field<Vec<Spanned<IpNet>>>,
    listeners: Field<Vec<Spanned<SocketAddr>>>,
    helo: Field<Vec<Spanned<Pattern>>>,
    sender: Field<Vec<Spanned<Pattern>>>,
    recipient: Field<Vec<Spanned<Pattern>>>,
    tls: Field<bool>,
    auth: Field<bool>,
}

fn conditions(section: &mut Section<'_, '_, '_>) -> Conditions {
    const ANY: &str = "leave it out for any";
    let moments = PolicyStage::ALL.map(|moment| (moment.as_str(), moment));
    let families = Family::ALL.map(|family| (family.as_str(), family));
    let family = section.read("family", one_of(&families));
    let networks = section.read("networks", some(network, ANY));
    can_match(section, &family, &networks);
    Conditions {
        at: section.read("at", one_of(&moments)),
        family,
        networks,
        listeners: section.read("listeners", some(listener, ANY)),
        helo: section.read("helo", some(pattern, ANY)),
        sender: section.read("sender", some(pattern, ANY)),
        recipient: section.read("recipient", some(pattern, ANY)),
        tls: section.read("tls", truth),
        auth: section.read("auth", truth),
    }
}

impl Conditions {
    /// Whether nothing stands there that would keep the rule from anybody.
    const fn is_absent(&self) -> bool {
        self.family.is_absent()
            && self.networks.is_absent()
            && self.listeners.is_absent()
            && self.helo.is_absent()
            && self.sender.is_absent()
            && self.recipient.is_absent()
            && self.tls.is_absent()
            && self.auth.is_absent()
    }

    /// When what it asks about is known, by the names of the keys.
    fn needs(&self) -> impl Iterator<Item = (PolicyStage, &'static str)> {
        let keys = [
            ("helo", !self.helo.is_absent(), PolicyStage::Helo),
            ("tls", !self.tls.is_absent(), PolicyStage::Mail),
            ("auth", !self.auth.is_absent(), PolicyStage::Mail),
            ("sender", !self.sender.is_absent(), PolicyStage::Mail),
            ("recipient", !self.recipient.is_absent(), PolicyStage::Rcpt),
        ];
        keys.into_iter().filter(|(_, asked, _)| *asked).map(|(key, _, moment)| (moment, key))
    }

    fn checked(&self) -> When {
        let networks = self.networks.given().into_iter().flat_map(Spanned::get_ref);
        When {
            family: self.family.given().map(|family| *family.get_ref()),
            networks: Networks::new(networks.map(|network| *network.get_ref())),
            listeners: plain(self.listeners.clone().or(Vec::new())),
            helo: domains(&self.helo),
            sender: domains(&self.sender),
            recipient: domains(&self.recipient),
            tls: self.tls.given().map(|tls| *tls.get_ref()),
            auth: self.auth.given().map(|auth| *auth.get_ref()),
        }
    }
}

/// `"a.example"`, or `".a.example"` for all below it.
#[derive(Clone, Debug, PartialEq)]
enum Pattern {
    Exact(DomainName),
    Below(DomainName),
}

fn pattern(value: &Value<'_>) -> Read<Pattern> {
    let written = text(value, "a domain", "\"sender.example\"")?;
    let found = match written.strip_prefix('.') {
        Some(above) => DomainName::parse(above).map(Pattern::Below),
        None => DomainName::parse(written).map(Pattern::Exact),
    };
    let Some(found) = found else {
        let problem = format!("\"{}\" is not a domain", printable(written));
        let advice = match written.strip_prefix("*.") {
            Some(above) => format!("write \".{}\" for all below it", printable(above)),
            None => String::from(
                "write one such as \"sender.example\", or \".sender.example\" for all below it",
            ),
        };
        return fault(value, problem, advice);
    };
    Ok(found)
}

fn domains(patterns: &Field<Vec<Spanned<Pattern>>>) -> Domains {
    let mut domains = Domains::default();
    for pattern in patterns.given().into_iter().flat_map(Spanned::get_ref) {
        match pattern.get_ref().clone() {
            Pattern::Exact(domain) => domains.exact.push(domain),
            Pattern::Below(domain) => domains.below.push(domain),
        }
    }
    domains
}

/// `"fcrdns"`, or `{ fact = "return_path", level = "smtp", over = "any" }`.
fn requirement(value: &Value<'_>) -> Read<Requirement> {
    const KEYS: [&str; 3] = ["fact", "level", "over"];
    let facts = FactName::ALL.map(|fact| (fact.as_str(), fact));
    let levels = ReturnPathLevel::ALL.map(|level| (level.as_str(), level));
    let overs = FamilyRequirement::ALL.map(|over| (over.as_str(), over));
    let DeValue::Table(table) = value.get_ref() else {
        let fact = one_of(&facts)(value)?;
        return Ok(Requirement {
            fact,
            level: ReturnPathLevel::default(),
            over: FamilyRequirement::default(),
        });
    };
    let mut faults: Vec<Fault> = Vec::new();
    for (key, _) in table {
        if !KEYS.contains(&key.get_ref().as_ref()) {
            let advice = match closest(key.get_ref(), KEYS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => {
                    format!("a requirement has {}", listed(KEYS.map(|key| format!("`{key}`"))))
                }
            };
            let problem = format!("there is no key `{}`", printable(key.get_ref()));
            faults.push(Fault { span: key.span(), problem, advice });
        }
    }
    let fact = match table.get("fact") {
        Some(fact) => keep(one_of(&facts)(fact), &mut faults),
        None => {
            let problem = "the requirement names no fact".to_owned();
            let advice = "add `fact = \"return_path\"`".to_owned();
            faults.push(Fault { span: value.span(), problem, advice });
            None
        }
    };
    let level = table.get("level").map(|level| keep(one_of(&levels)(level), &mut faults));
    let over = table.get("over").map(|over| keep(one_of(&overs)(over), &mut faults));
    for (key, given) in [("level", table.get("level")), ("over", table.get("over"))] {
        if let (Some(given), Some(fact)) = (given, fact.filter(|f| *f != FactName::ReturnPath)) {
            let problem = format!("`{}` has no `{key}`", fact.as_str());
            let advice = "remove it; only `return_path` has one".to_owned();
            faults.push(Fault { span: given.span(), problem, advice });
        }
    }
    match fact {
        Some(fact) if faults.is_empty() => Ok(Requirement {
            fact,
            level: level.flatten().unwrap_or_default(),
            over: over.flatten().unwrap_or_default(),
        }),
        _ => Err(faults),
    }
}

fn keep<T>(read: Read<T>, faults: &mut Vec<Fault>) -> Option<T> {
    read.map_err(|wrong| faults.extend(wrong)).ok()
}

/// What is done where nobody can say: anything but a 5xx.
fn when_unknown(value: &Value<'_>) -> Read<PolicyAction> {
    let actions =
        [PolicyAction::Accept, PolicyAction::Tag, PolicyAction::Tempfail].map(|a| (a.as_str(), a));
    if matches!(value.get_ref(), DeValue::String(word) if word == "reject") {
        let problem = "\"reject\" would turn mail away for good because a lookup failed here";
        let advice = "write \"tempfail\": the sender tries again when the lookup works";
        return fault(value, problem, advice);
    }
    one_of(&actions)(value)
}

/// It is said in replies.
fn url(value: &Value<'_>) -> Read<String> {
    const LONGEST: usize = 128;
    let url = text(value, "an address on the web", "\"https://mx.example.org/policy\"")?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let graphic = |url: &str| url.bytes().all(|byte| byte.is_ascii_graphic());
    if url.len() <= LONGEST && rest.is_some_and(|rest| !rest.is_empty() && graphic(rest)) {
        return Ok(url.to_owned());
    }
    let problem = format!("\"{}\" cannot be said in a reply", printable(url));
    let advice = format!(
        "write one that begins with https:// or http://, at most {LONGEST} ASCII characters"
    );
    fault(value, problem, advice)
}

/// `[site]`
pub(super) fn site(section: &mut Section<'_, '_, '_>) -> Site {
    Site {
        addresses: Networks::new(plain(section.read("addresses", list(network)).or(Vec::new()))),
        domains: plain(section.read("domains", list(domain)).or(Vec::new())),
    }
}

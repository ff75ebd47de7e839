//! `[[policy]]` and `[site]`.

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::listeners::{ListenerReference, listener_or_address, named_listeners};
use super::net::{domain, network};
use super::reader::{Field, List, Section};
use super::sections::{check_networks_of_family, check_unique_name, rule_name};
use super::text::{closest, listed, printable};
use super::value::{Value, ValueError, ValueResult, invalid};
use super::values::{boolean, into_values, list, non_empty, one_of, string};
use crate::addr::{Family, Networks};
use crate::config::Site;
use crate::policy::PolicyAction;
use crate::policy::facts::dmarc::DmarcPolicy;
use crate::policy::facts::spf::SpfLevel;
use crate::policy::facts::{DomainName, FamilyRequirement, ReturnPathLevel};
use crate::policy::rules::{
    CertificateCondition, Domains, Exemption, FactName, PolicyRule, PolicyStage, Requirement,
    RuleMode, When,
};

/// The names of the rules become labels of metrics.
const MAX_RULES: usize = 64;

/// One `[[policy]]` rule, `None` if it is invalid, and its conditions for cross-checks.
pub(super) struct PolicySection {
    pub(super) rule: Option<PolicyRule>,
    /// `when.listeners`
    pub(super) listeners: List<ListenerReference>,
    /// Byte offset of `when.client_certificate`.
    pub(super) client_certificate: Option<usize>,
    /// Byte offset.
    pub(super) start: Option<usize>,
}

/// `names` are those of the access and policy rules before it, with their positions; `count` is the number of policy rules.
pub(super) fn policy(
    section: &mut Section<'_, '_, '_>,
    names: &mut Vec<Spanned<String>>,
    count: &mut usize,
) -> PolicySection {
    use PolicyAction::{Accept, Reject, Tag, Tempfail};
    let actions = [Accept, Tag, Tempfail, Reject].map(|action| (action.as_str(), action));
    let modes = [("enforce", RuleMode::Enforce), ("shadow", RuleMode::Shadow)];
    let name = section.require("name", rule_name);
    let when = conditions(&mut section.section("when"));
    let exempt = section.read("exempt", list(exemption));
    let requirements =
        section.read("require", non_empty(requirement, "leave it out if nothing is required"));
    let otherwise = section.read("otherwise", one_of(&actions));
    let on_unknown = section.read("on_unknown", unknown_action);
    let mode = section.read("mode", one_of(&modes));
    let url = section.read("url", url);

    check_unique_name(section, &name, names);
    let start = section.start();
    if let Some(at) = start {
        *count += 1;
        if *count == MAX_RULES + 1 {
            let problem = format!("more than {MAX_RULES} rules");
            let remedy = "merge some: each takes lists of networks and domains";
            section.diagnostics.error(at, "[[policy]]", problem, remedy);
        }
    }
    if let (true, Some(at)) = (when.is_absent() && requirements.is_absent(), start) {
        let problem = "the rule has neither a condition nor a requirement";
        section.diagnostics.error(at, "[[policy]]", problem, "add `when` or `require`");
    }
    let require = into_values(requirements.or_default());
    let facts = require.iter().map(|require| (require.fact.stage(), require.fact.as_str()));
    let last = facts.chain(when.stages()).max_by_key(|(stage, _)| *stage);
    let (earliest, needed) = last.unwrap_or((PolicyStage::Connect, ""));
    if let Some(at) = when.at.given().filter(|at| *at.get_ref() < earliest) {
        let problem = format!("`{needed}` is not known at \"{}\"", at.get_ref().as_str());
        let remedy = format!("write \"{}\", or leave it out", earliest.as_str());
        let field = section.field("when.at");
        section.diagnostics.error(at.span().start, &field, problem, remedy);
    }
    let stage = when.at.clone().or(earliest);
    if stage == PolicyStage::Data {
        check_data_rule(section, &require, [&otherwise, &on_unknown]);
    }
    let rule = name.into_option().map(|name| PolicyRule {
        name: name.into(),
        at: stage,
        when: when.checked(),
        exempt: exempt.into_option().map_or(Exemption::ALL.to_vec(), into_values),
        require,
        otherwise: otherwise.or(Tempfail),
        on_unknown: on_unknown.or(Tempfail),
        mode: mode.or(RuleMode::Enforce),
        url: url.into_option().map(Into::into),
    });
    let client_certificate = when.client_certificate.start();
    PolicySection { rule, listeners: when.listeners, client_certificate, start }
}

/// At the end of the data there is one reply for all recipients, and the header has been passed on.
fn check_data_rule(
    section: &mut Section<'_, '_, '_>,
    require: &[Requirement],
    actions: [&Field<PolicyAction>; 2],
) {
    let of_data = require.iter().find(|one| one.fact.stage() == PolicyStage::Data);
    let why = match of_data {
        Some(one) => format!("`{}` is known at the end of the data", one.fact.as_str()),
        None => String::from("the rule is evaluated at the end of the data"),
    };
    let recipient = require.iter().any(|one| one.fact == FactName::Recipient);
    if let (true, Some(at)) = (recipient, section.start()) {
        let problem = format!("{why}, where one reply answers for all recipients");
        let remedy = "require `recipient` in a rule of its own";
        let field = section.field("require");
        section.diagnostics.error(at, &field, problem, remedy);
    }
    for (key, action) in ["otherwise", "on_unknown"].into_iter().zip(actions) {
        if let Some(given) = action.given().filter(|one| *one.get_ref() == PolicyAction::Tag) {
            let problem = format!("{why}, where the header of the message has been passed on");
            let remedy = "write \"tempfail\", or require facts that are known before the message";
            let field = section.field(key);
            section.diagnostics.error(given.span().start, &field, problem, remedy);
        }
    }
}

fn exemption(value: &Value<'_>) -> ValueResult<Exemption> {
    let exemptions = Exemption::ALL.map(|exemption| (exemption.as_str(), exemption));
    if matches!(value.get_ref(), DeValue::String(word) if word == "null-sender") {
        let problem = "\"null-sender\" is no exemption";
        let remedy = "remove it: bounces always pass `return_path`, and have to pass all else";
        return invalid(value, problem, remedy);
    }
    one_of(&exemptions)(value)
}

/// `[policy.when]`
struct Conditions {
    at: Field<PolicyStage>,
    family: Field<Family>,
    networks: List<IpNet>,
    listeners: List<ListenerReference>,
    helo: List<Pattern>,
    sender: List<Pattern>,
    recipient: List<Pattern>,
    tls: Field<bool>,
    auth: Field<bool>,
    client_certificate: List<CertificatePattern>,
}

fn conditions(section: &mut Section<'_, '_, '_>) -> Conditions {
    const ANY: &str = "leave it out for any";
    let stages = PolicyStage::ALL.map(|stage| (stage.as_str(), stage));
    let families = Family::ALL.map(|family| (family.as_str(), family));
    let family = section.read("family", one_of(&families));
    let networks = section.read("networks", non_empty(network, ANY));
    check_networks_of_family(section, &family, &networks);
    Conditions {
        at: section.read("at", one_of(&stages)),
        family,
        networks,
        listeners: section.read("listeners", non_empty(listener_or_address, ANY)),
        helo: section.read("helo", non_empty(pattern, ANY)),
        sender: section.read("sender", non_empty(pattern, ANY)),
        recipient: section.read("recipient", non_empty(pattern, ANY)),
        tls: section.read("tls", boolean),
        auth: section.read("auth", boolean),
        client_certificate: section.read("client_certificate", non_empty(certificate_pattern, ANY)),
    }
}

impl Conditions {
    /// Whether the rule applies to every session.
    const fn is_absent(&self) -> bool {
        self.family.is_absent()
            && self.networks.is_absent()
            && self.listeners.is_absent()
            && self.helo.is_absent()
            && self.sender.is_absent()
            && self.recipient.is_absent()
            && self.tls.is_absent()
            && self.auth.is_absent()
            && self.client_certificate.is_absent()
    }

    /// The stage at which each key can be evaluated.
    fn stages(&self) -> impl Iterator<Item = (PolicyStage, &'static str)> {
        let keys = [
            ("helo", !self.helo.is_absent(), PolicyStage::Helo),
            ("tls", !self.tls.is_absent(), PolicyStage::Mail),
            ("auth", !self.auth.is_absent(), PolicyStage::Mail),
            ("client_certificate", !self.client_certificate.is_absent(), PolicyStage::Mail),
            ("sender", !self.sender.is_absent(), PolicyStage::Mail),
            ("recipient", !self.recipient.is_absent(), PolicyStage::Rcpt),
        ];
        keys.into_iter().filter(|(_, is_given, _)| *is_given).map(|(key, _, stage)| (stage, key))
    }

    fn checked(&self) -> When {
        When {
            family: self.family.clone().into_option(),
            networks: Networks::new(into_values(self.networks.clone().or_default())),
            listeners: named_listeners(&self.listeners),
            helo: domains(&self.helo),
            sender: domains(&self.sender),
            recipient: domains(&self.recipient),
            tls: self.tls.clone().into_option(),
            auth: self.auth.clone().into_option(),
            client_certificate: certificate_condition(&self.client_certificate),
        }
    }
}

/// `"a.example"`, or `".a.example"` for all subdomains.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pattern {
    Exact(DomainName),
    Below(DomainName),
}

impl Pattern {
    fn add_to(self, domains: &mut Domains) {
        match self {
            Self::Exact(domain) => domains.exact.push(domain),
            Self::Below(domain) => domains.below.push(domain),
        }
    }
}

pub(super) fn pattern(value: &Value<'_>) -> ValueResult<Pattern> {
    let written = string(value, "a domain", "\"sender.example\"")?;
    let found = match written.strip_prefix('.') {
        Some(above) => DomainName::parse(above).map(Pattern::Below),
        None => DomainName::parse(written).map(Pattern::Exact),
    };
    let Some(found) = found else {
        let problem = format!("\"{}\" is not a domain", printable(written));
        let remedy = match written.strip_prefix("*.") {
            Some(above) => format!("write \".{}\" for all subdomains", printable(above)),
            None => String::from(
                "write one such as \"sender.example\", or \".sender.example\" for all subdomains",
            ),
        };
        return invalid(value, problem, remedy);
    };
    Ok(found)
}

pub(super) fn domains(patterns: &List<Pattern>) -> Domains {
    let mut domains = Domains::default();
    for pattern in patterns.items() {
        pattern.get_ref().clone().add_to(&mut domains);
    }
    domains
}

/// `"sha256:HEX"` of a certificate or its public key, or a name in a verified certificate.
#[derive(Clone, Debug, PartialEq)]
enum CertificatePattern {
    Fingerprint(String),
    Name(Pattern),
}

fn certificate_pattern(value: &Value<'_>) -> ValueResult<CertificatePattern> {
    const DIGITS: usize = 64;
    let written = string(value, "a fingerprint or a name", "\"sha256:…\"")?;
    let Some(digest) = written.strip_prefix("sha256:") else {
        return pattern(value).map(CertificatePattern::Name);
    };
    // Postfix and openssl write colons.
    let digits: String = digest.chars().filter(|letter| *letter != ':').collect();
    if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        let problem = format!("\"{}\" is not a SHA-256 fingerprint", printable(written));
        let remedy = format!("write \"sha256:\" and {DIGITS} hexadecimal digits");
        return invalid(value, problem, remedy);
    }
    Ok(CertificatePattern::Fingerprint(digits.to_ascii_lowercase()))
}

fn certificate_condition(patterns: &List<CertificatePattern>) -> CertificateCondition {
    let mut condition = CertificateCondition::default();
    for pattern in patterns.items() {
        match pattern.get_ref().clone() {
            CertificatePattern::Fingerprint(fingerprint) => {
                condition.fingerprints.push(fingerprint);
            }
            CertificatePattern::Name(name) => name.add_to(&mut condition.names),
        }
    }
    condition
}

/// The options of a requirement, and the facts that have them.
const OPTIONS: [(&str, &[FactName]); 3] = [
    ("level", &[FactName::ReturnPath, FactName::Spf]),
    ("over", &[FactName::ReturnPath]),
    ("policy", &[FactName::Dmarc]),
];

/// `"fcrdns"`, or `{ fact = "return_path", level = "smtp", over = "any" }`.
fn requirement(value: &Value<'_>) -> ValueResult<Requirement> {
    const KEYS: [&str; 4] = ["fact", "level", "over", "policy"];
    let facts = FactName::ALL.map(|fact| (fact.as_str(), fact));
    let DeValue::Table(table) = value.get_ref() else {
        return one_of(&facts)(value).map(Requirement::new);
    };
    let mut errors: Vec<ValueError> = Vec::new();
    for (key, _) in table {
        if !KEYS.contains(&key.get_ref().as_ref()) {
            let remedy = match closest(key.get_ref(), KEYS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => {
                    format!("a requirement has {}", listed(KEYS.map(|key| format!("`{key}`"))))
                }
            };
            let problem = format!("unknown key `{}`", printable(key.get_ref()));
            errors.push(ValueError { span: key.span(), problem, remedy });
        }
    }
    let fact = match table.get("fact") {
        Some(fact) => collect_errors(one_of(&facts)(fact), &mut errors),
        None => {
            let problem = "the requirement names no fact".to_owned();
            let remedy = "add `fact = \"return_path\"`".to_owned();
            errors.push(ValueError { span: value.span(), problem, remedy });
            None
        }
    };
    let Some(fact) = fact else { return Err(errors) };
    let mut requirement = Requirement::new(fact);
    for (key, having) in OPTIONS {
        let Some(given) = table.get(key) else { continue };
        if !having.contains(&fact) {
            let problem = format!("`{}` has no `{key}`", fact.as_str());
            let names = having.iter().map(|fact| format!("`{}`", fact.as_str()));
            let verb = if having.len() == 1 { "has" } else { "have" };
            let remedy = format!("remove it; only {} {verb} one", listed(names));
            errors.push(ValueError { span: given.span(), problem, remedy });
            continue;
        }
        if let Some(found) = collect_errors(option(requirement, key, given), &mut errors) {
            requirement = found;
        }
    }
    if errors.is_empty() { Ok(requirement) } else { Err(errors) }
}

/// `requirement` with the option `key`, which its fact has.
fn option(requirement: Requirement, key: &str, value: &Value<'_>) -> ValueResult<Requirement> {
    let levels = ReturnPathLevel::ALL.map(|level| (level.as_str(), level));
    let overs = FamilyRequirement::ALL.map(|over| (over.as_str(), over));
    let spf_levels = SpfLevel::ALL.map(|level| (level.as_str(), level));
    let policies = DmarcPolicy::ALL.map(|policy| (policy.as_str(), policy));
    Ok(match (key, requirement.fact) {
        ("level", FactName::Spf) => Requirement { spf: one_of(&spf_levels)(value)?, ..requirement },
        ("level", _) => Requirement { level: one_of(&levels)(value)?, ..requirement },
        ("over", _) => Requirement { over: one_of(&overs)(value)?, ..requirement },
        _ => Requirement { policy: one_of(&policies)(value)?, ..requirement },
    })
}

fn collect_errors<T>(read: ValueResult<T>, errors: &mut Vec<ValueError>) -> Option<T> {
    read.map_err(|found| errors.extend(found)).ok()
}

/// A fact that is unknown never leads to a 5xx (rule 6 of ARCHITECTURE.md).
fn unknown_action(value: &Value<'_>) -> ValueResult<PolicyAction> {
    let actions =
        [PolicyAction::Accept, PolicyAction::Tag, PolicyAction::Tempfail].map(|a| (a.as_str(), a));
    if matches!(value.get_ref(), DeValue::String(word) if word == "reject") {
        let problem = "\"reject\" would bounce mail because a lookup failed";
        let remedy = "write \"tempfail\", so that the sender retries";
        return invalid(value, problem, remedy);
    }
    one_of(&actions)(value)
}

/// A URL that fits in a reply.
fn url(value: &Value<'_>) -> ValueResult<String> {
    const LONGEST: usize = 128;
    let url = string(value, "a URL", "\"https://mx.example.org/policy\"")?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let graphic = |url: &str| url.bytes().all(|byte| byte.is_ascii_graphic());
    if url.len() <= LONGEST && rest.is_some_and(|rest| !rest.is_empty() && graphic(rest)) {
        return Ok(url.to_owned());
    }
    let problem = format!("\"{}\" cannot be part of a reply", printable(url));
    let remedy = format!(
        "write one that begins with https:// or http://, at most {LONGEST} ASCII characters"
    );
    invalid(value, problem, remedy)
}

/// `[site]`
pub(super) fn site(section: &mut Section<'_, '_, '_>) -> Site {
    Site {
        addresses: Networks::new(into_values(
            section.read("addresses", list(network)).or_default(),
        )),
        domains: into_values(section.read("domains", list(domain)).or_default()),
    }
}

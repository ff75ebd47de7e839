//! `[postfix]`: the policy service that Postfix asks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostics::Diagnostics;
use super::listeners::ListenerSection;
use super::policy::PolicySection;
use super::reader::{Field, Section};
use super::text::printable;
use super::value::{Value, ValueResult, invalid};
use super::values::{duration, integer, string};
use crate::policy::rules::FactName;
use crate::postfix::policy::{PolicyAddress, PolicySettings};

/// Of `[postfix]`, not checked against other sections yet.
pub(super) struct PostfixSection {
    policy: Field<PolicyAddress>,
    connections: Field<usize>,
    deadline: Field<Duration>,
}

pub(super) fn postfix(section: &mut Section<'_, '_, '_>) -> PostfixSection {
    // Postfix gives up after 100 s, unless the line in main.cf has another time.
    let deadline = Duration::from_millis(100)..=Duration::from_secs(60);
    PostfixSection {
        policy: section.read("policy", address),
        connections: section.read("policy_connections", integer(1..=100_000)),
        deadline: section.read("policy_deadline", duration(deadline)),
    }
}

impl PostfixSection {
    /// Whether Postfix asks; also where the address is invalid.
    pub(super) fn has_policy(&self) -> bool {
        !self.policy.is_absent()
    }

    pub(super) fn settings(self) -> Option<PolicySettings> {
        Some(PolicySettings {
            address: self.policy.into_option()?,
            connections: self.connections.or(PolicySettings::CONNECTIONS),
            deadline: self.deadline.or(PolicySettings::DEADLINE),
        })
    }
}

fn address(value: &Value<'_>) -> ValueResult<PolicyAddress> {
    const UNIX: &str = "\"unix:/var/spool/postfix/private/gatepost\"";
    const INET: &str = "\"inet:127.0.0.1:10040\"";
    let written = string(value, "an address", UNIX)?;
    let shown = printable(written);
    if let Some(path) = written.strip_prefix("unix:") {
        return unix(value, path);
    }
    let inet = written.strip_prefix("inet:").unwrap_or(written);
    if let Ok(address) = inet.parse::<SocketAddr>() {
        return Ok(PolicyAddress::Inet(crate::addr::canonical(address)));
    }
    if written.starts_with('/') {
        let problem = format!("\"{shown}\" has no type");
        return invalid(value, problem, format!("write \"unix:{shown}\" for that socket"));
    }
    let problem = format!("\"{shown}\" is neither a Unix socket nor an address with a port");
    invalid(value, problem, format!("write one such as {UNIX} or {INET}"))
}

fn unix(value: &Value<'_>, path: &str) -> ValueResult<PolicyAddress> {
    // unix(7): sun_path, with its final NUL.
    const LONGEST: usize = 107;
    if !path.starts_with('/') || path.contains('\0') || path.ends_with('/') {
        let shown = printable(path);
        let problem = format!("\"{shown}\" is not the absolute path of a Unix socket");
        let remedy = "write it in full, \"unix:/var/spool/postfix/private/gatepost\"; only in main.cf it begins at Postfix's \
                      queue directory (unix:private/gatepost)";
        return invalid(value, problem, remedy);
    }
    if path.len() > LONGEST {
        let problem =
            format!("the path has {} bytes, that of a socket at most {LONGEST}", path.len());
        return invalid(value, problem, "write a shorter one");
    }
    Ok(PolicyAddress::Unix(PathBuf::from(path)))
}

/// The address is free, and a gateway without listeners needs none.
pub(super) fn check(
    postfix: &PostfixSection,
    listeners: &[ListenerSection],
    metrics: &Field<SocketAddr>,
    policies: &[PolicySection],
    diagnostics: &mut Diagnostics<'_>,
) {
    let Some(policy) = postfix.policy.given() else {
        if let (true, Some(at)) =
            (postfix.policy.is_absent(), postfix.connections.start().or(postfix.deadline.start()))
        {
            let problem = "the section has no `policy`: nothing is answered";
            let remedy =
                "add policy = \"unix:/var/spool/postfix/private/gatepost\", or remove the section";
            diagnostics.error(at, "[postfix]", problem, remedy);
        }
        return;
    };
    if let PolicyAddress::Inet(address) = policy.get_ref() {
        let own = listeners.iter().flat_map(|listener| listener.addresses.items());
        let taken = own.map(|own| *own.get_ref()).chain(metrics.given().map(|own| *own.get_ref()));
        if taken.into_iter().any(|own| own == *address && own.port() != 0) {
            let problem = format!("{address} is already used by the gateway itself");
            let remedy = "write another port, such as 10040";
            diagnostics.error(policy.span().start, "postfix.policy", problem, remedy);
        }
    }
    if !listeners.is_empty() {
        return;
    }
    for policy in policies {
        let (Some(rule), Some(at)) = (&policy.rule, policy.start) else { continue };
        if rule.require.iter().any(|require| require.fact == FactName::Recipient) {
            let problem = format!(
                "rule \"{}\" requires `recipient`, and there is no [upstream] to ask: every recipient would be unknown",
                rule.name
            );
            let remedy = "remove the fact: Postfix rejects unknown recipients itself (reject_unlisted_recipient)";
            diagnostics.error(at, "[[policy]]", problem, remedy);
        }
        if let Some(fact) = rule.needs_content() {
            let problem = format!(
                "rule \"{}\" requires `{fact}`, which needs the content of messages, and the questions of Postfix have none: \
                 it would be unknown",
                rule.name
            );
            let remedy = "remove the fact or put the gateway in front of Postfix; a rule on `authenticated` may stay with \
                          on_unknown = \"accept\", and then SPF alone decides";
            diagnostics.error(at, "[[policy]]", problem, remedy);
        }
    }
}

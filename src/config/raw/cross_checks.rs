//! Contradictions between sections whose values are each valid.
//!
//! A check runs only if every value it needs is valid, so that one error does not lead to a second.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::diagnostics::Diagnostics;
use super::listeners::{
    ATTEMPT_DELAY, CONNECT_TIMEOUT, ListenerReference, ListenerSection, Mode, UpstreamSection,
};
use super::policy::PolicySection;
use super::reader::Field;
use super::sections::{AccessSection, TimeoutSection, TimeoutsSection};
use super::text::{closest, listed};
use super::values::{format_duration, into_values};
use crate::addr::Family;
use crate::engine::{self, PathSyntax, TlsMode};
use crate::policy::ListenerCondition;
use crate::policy::rules::{Exemption, FactName};
use crate::relay::{ListenerSettings, ListenerTls, UpstreamIdentity};

/// No two listeners have a common address.
pub(super) fn addresses(listeners: &[ListenerSection], diagnostics: &mut Diagnostics<'_>) {
    for (n, listener) in listeners.iter().enumerate() {
        let earlier = listeners.iter().take(n).flat_map(|one| one.addresses.items());
        let earlier: Vec<_> = earlier.collect();
        for addr in listener.addresses.items() {
            let Some(other) = earlier.iter().find(|one| one.get_ref() == addr.get_ref()) else {
                continue;
            };
            let line = diagnostics.position(other.span().start).line;
            let problem =
                format!("the listener on line {line} listens on {} as well", addr.get_ref());
            let (field, at) = (listener.field("addresses"), addr.span().start);
            diagnostics.error(at, &field, problem, "remove one of them");
        }
    }
}

/// The upstream must not be the gateway itself, and must be reachable with `identity`.
pub(super) fn upstreams(listeners: &[ListenerSection], diagnostics: &mut Diagnostics<'_>) {
    for listener in listeners {
        let upstream = &listener.upstream;
        for (at, addr) in upstream.literal() {
            let mut all = listeners.iter().flat_map(|one| one.addresses.items());
            if let Some(own) = all.find(|own| reaches(addr, *own.get_ref())) {
                let problem =
                    format!("{addr} is the gateway itself (it listens on {})", own.get_ref());
                let remedy = "write the address and port of the MTA behind it";
                diagnostics.error(at, &upstream.field("addresses"), problem, remedy);
            }
        }
        attempt_delay(upstream, diagnostics);
        if let (Some((at, socket)), true) =
            (upstream.socket(), upstream.addresses.items().count() > 1)
        {
            let problem = format!("{socket} is listed with other addresses");
            let remedy = "write the Unix socket alone: it has no others to fall back on";
            diagnostics.error(at, &upstream.field("addresses"), problem, remedy);
        }
        if listener.identity() == Some(UpstreamIdentity::Transparent) {
            transparent_identity(listener, diagnostics);
        }
    }
}

fn attempt_delay(upstream: &UpstreamSection, diagnostics: &mut Diagnostics<'_>) {
    let delays = (
        upstream.attempt_delay.effective(ATTEMPT_DELAY),
        upstream.connect_timeout.effective(CONNECT_TIMEOUT),
    );
    if let (Some(delay), Some(timeout)) = delays
        && delay >= timeout
        && let Some(at) = upstream.connect_timeout.start().or(upstream.attempt_delay.start())
    {
        let problem = format!(
            "{} ends before a second address is tried (attempt_delay is {})",
            format_duration(timeout),
            format_duration(delay)
        );
        let remedy = "make it longer than attempt_delay";
        diagnostics.error(at, &upstream.field("connect_timeout"), problem, remedy);
    }
}

/// A connection from the client's own address reaches neither loopback nor the other family.
fn transparent_identity(listener: &ListenerSection, diagnostics: &mut Diagnostics<'_>) {
    let upstream = &listener.upstream;
    let field = upstream.field("addresses");
    let why = if upstream.identity.is_absent() && listener.mode() == Some(Mode::Tproxy) {
        "identity = \"transparent\", the default with mode = \"tproxy\","
    } else {
        "identity = \"transparent\""
    };
    for (at, addr) in upstream.literal().filter(|(_, addr)| addr.ip().is_loopback()) {
        let problem = format!("{why} cannot reach the loopback address {addr}");
        let remedy =
            "write another address of the MTA, or set identity = \"proxy-v2\" or \"xclient\"";
        diagnostics.error(at, &field, problem, remedy);
    }
    for (at, host) in upstream.hosts() {
        let problem = format!(
            "{why} needs an MTA whose family is the client's and whose replies are routed through this host, and the addresses \
             of the host name {host} may change"
        );
        let remedy = "write the addresses of the MTA, or set identity = \"proxy-v2\"";
        diagnostics.error(at, &field, problem, remedy);
    }
    if let Some((at, socket)) = upstream.socket() {
        let problem = format!("{why} cannot reach {socket}: a Unix socket has no source address");
        let remedy = "set identity = \"proxy-v2\" or \"xclient\", or write an address of the MTA";
        diagnostics.error(at, &field, problem, remedy);
    }
    if upstream.hosts().next().is_some() || upstream.socket().is_some() {
        return;
    }
    // A trusted proxy may carry clients of one family over the other.
    let (Some(own), Some(peers)) = (listener.addresses.given(), upstream.addresses.given()) else {
        return;
    };
    if !listener.proxy_trusted.is_empty() {
        return;
    }
    for family in Family::ALL {
        let is_of = |addr: SocketAddr| Family::of(addr.ip()) == family;
        let listens = own.get_ref().iter().any(|addr| is_of(*addr.get_ref()));
        if listens && !upstream.literal().any(|(_, addr)| is_of(addr)) {
            let problem =
                format!("{why} keeps the client's family, and no address here is {family}");
            let remedy = format!("add an {family} address, or set identity = \"proxy-v2\"");
            diagnostics.error(peers.span().start, &field, problem, remedy);
        }
    }
}

/// The address of the metrics must be free.
pub(super) fn metrics(
    listeners: &[ListenerSection],
    metrics: &Field<SocketAddr>,
    diagnostics: &mut Diagnostics<'_>,
) {
    let Some(metrics) = metrics.given() else {
        return;
    };
    let (at, address) = (metrics.span().start, *metrics.get_ref());
    for listener in listeners {
        let taken = listener.addresses.items().map(|own| *own.get_ref()).find(|own| {
            let overlap = own.ip() == address.ip()
                || (own.ip().is_unspecified() || address.ip().is_unspecified())
                    && Family::of(own.ip()) == Family::of(address.ip());
            overlap && own.port() == address.port() && own.port() != 0
        });
        if let Some(own) = taken {
            let problem =
                format!("{address} is already used by {own} in {}", listener.field("addresses"));
            diagnostics.error(at, "metrics.address", problem, "write another port, such as 9625");
        }
    }
}

/// A rule on a listener needs that listener. Behind a trusted proxy or with interception, the original destination of a client can
/// be any address, and where Postfix asks (`has_policy`) its own.
pub(super) fn rule_listeners(
    listeners: &[ListenerSection],
    (access, policies): (&[AccessSection], &[PolicySection]),
    has_policy: bool,
    diagnostics: &mut Diagnostics<'_>,
) {
    let of_access = access.iter().map(|rule| ("access.listeners", &rule.listeners));
    let of_policies = policies.iter().map(|rule| ("policy.when.listeners", &rule.listeners));
    for (field, references) in of_access.chain(of_policies) {
        for reference in references.items() {
            let at = reference.span().start;
            let error = match reference.get_ref() {
                ListenerReference::Name(_) if listeners.is_empty() && has_policy => {
                    let problem = "there is no listener: Postfix has the sessions";
                    let remedy = "write an address that Postfix listens on, or leave it out";
                    Some((problem.to_owned(), remedy.to_owned()))
                }
                ListenerReference::Name(name) => unknown_name(name, listeners),
                ListenerReference::Address(_) if has_policy => None,
                ListenerReference::Address(address) => unknown_address(*address, listeners),
            };
            if let Some((problem, remedy)) = error {
                diagnostics.error(at, field, problem, remedy);
            }
        }
    }
}

/// A problem and its remedy.
fn unknown_name(name: &str, listeners: &[ListenerSection]) -> Option<(String, String)> {
    if listeners.iter().any(|listener| matches!(listener.name, Field::Invalid)) {
        return None;
    }
    let names = || {
        listeners.iter().map(|listener| {
            let name = listener.name.given().map(|name| name.get_ref().as_str());
            name.unwrap_or(ListenerSettings::DEFAULT_NAME)
        })
    };
    if names().any(|known| known == name) {
        return None;
    }
    let remedy = match closest(name, names()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("write one of {}", listed(names().map(|name| format!("\"{name}\"")))),
    };
    Some((format!("no listener has the name \"{name}\""), remedy))
}

/// A problem and its remedy.
fn unknown_address(address: SocketAddr, listeners: &[ListenerSection]) -> Option<(String, String)> {
    let is_certain = listeners.iter().all(|listener| {
        listener.mode() == Some(Mode::Proxy)
            && listener.proxy_trusted.is_empty()
            && listener.addresses.given().is_some()
    });
    if !is_certain || listeners.iter().any(|listener| listens_at(listener, address)) {
        return None;
    }
    let place = listeners.first().map(|listener| listener.field("addresses")).unwrap_or_default();
    let problem = format!("the gateway does not listen on {address}");
    Some((problem, format!("write one of {place}, or leave it out for any")))
}

/// Whether sessions of `listener` may match the condition.
fn may_match(condition: &ListenerCondition, listener: &ListenerSection) -> bool {
    let name = listener.name.given().map(|name| name.get_ref().as_str());
    let name = name.unwrap_or(ListenerSettings::DEFAULT_NAME);
    let is_certain = listener.mode() == Some(Mode::Proxy) && listener.proxy_trusted.is_empty();
    condition.is_empty()
        || condition.names.iter().any(|one| **one == *name)
        || condition.addresses.iter().any(|address| !is_certain || listens_at(listener, *address))
}

/// Whether clients can connect to `address` there. Only those of trusted proxies and intercepted ones have other destinations.
fn listens_at(listener: &ListenerSection, address: SocketAddr) -> bool {
    let wildcard = SocketAddr::new(wildcard(Family::of(address.ip())), address.port());
    listener.addresses.items().any(|own| [address, wildcard].contains(own.get_ref()))
}

/// The listener whose upstream answers for recipients: one MTA does not know those of another. Rules that ask must concern
/// sessions of listeners with the same upstream.
pub(super) fn call_ahead(
    listeners: &[ListenerSection],
    policies: &[PolicySection],
    diagnostics: &mut Diagnostics<'_>,
) -> usize {
    let mut chosen: Option<usize> = None;
    for policy in policies {
        let Some(rule) = &policy.rule else { continue };
        if !rule.require.iter().any(|require| require.fact == FactName::Recipient) {
            continue;
        }
        for (n, listener) in listeners.iter().enumerate() {
            if !may_match(&rule.when.listeners, listener) {
                continue;
            }
            if listener.mode() == Some(Mode::Tproxy)
                && listener.upstream.addresses.given().is_none()
                && let Some(at) = policy.start
            {
                let problem = format!(
                    "rule \"{}\" requires `recipient`, and [{}] names no mail server to ask: every recipient would be unknown",
                    rule.name, listener.upstream.path
                );
                let remedy =
                    "write the mail server's addresses there; mode \"tproxy\" accepts them";
                diagnostics.error(at, "[[policy]]", problem, remedy);
                return n;
            }
            let first = *chosen.get_or_insert(n);
            if let (Some((_, socket)), Some(at)) = (listener.upstream.socket(), policy.start) {
                let problem = format!(
                    "rule \"{}\" requires `recipient`, and no recipient can be verified through {socket}",
                    rule.name
                );
                let remedy = "write an address of the MTA, or limit the rule by `when.listeners`";
                diagnostics.error(at, "[[policy]]", problem, remedy);
                return first;
            }
            let same = listeners.get(first).is_none_or(|first| {
                let (one, other) = (&first.upstream, &listener.upstream);
                let targets = |section: &UpstreamSection| {
                    section.addresses.given().map(|list| into_values(list.get_ref().clone()))
                };
                targets(one) == targets(other) && first.identity() == listener.identity()
            });
            if let (false, Some(at)) = (same, policy.start) {
                let problem = format!(
                    "rule \"{}\" requires `recipient`, and its sessions go to upstreams that differ: only one can be asked \
                     whether it has a recipient",
                    rule.name
                );
                let remedy =
                    "limit all such rules by `when.listeners` to listeners with the same upstream";
                diagnostics.error(at, "[[policy]]", problem, remedy);
                return first;
            }
        }
    }
    chosen.unwrap_or_default()
}

/// With lenient paths the gateway and the server may read different senders and recipients, so no rule may depend on one.
pub(super) fn paths(
    paths: &Field<PathSyntax>,
    policies: &[PolicySection],
    diagnostics: &mut Diagnostics<'_>,
) {
    let Some(at) = paths.given().filter(|paths| *paths.get_ref() == PathSyntax::Lenient) else {
        return;
    };
    for policy in policies {
        let Some(rule) = &policy.rule else { continue };
        let mut keys = Vec::new();
        if !rule.when.sender.is_empty() {
            keys.push("`when.sender`");
        }
        if !rule.when.recipient.is_empty() {
            keys.push("`when.recipient`");
        }
        let requires = |fact| rule.require.iter().any(|require| require.fact == fact);
        for (fact, key) in [
            (FactName::ReturnPath, "`require` of return_path"),
            (FactName::Recipient, "`require` of recipient"),
            (FactName::Spf, "`require` of spf"),
            (FactName::Dmarc, "`require` of dmarc"),
            (FactName::Authenticated, "`require` of authenticated"),
        ] {
            if requires(fact) {
                keys.push(key);
            }
        }
        let by_recipient = [Exemption::Postmaster, Exemption::Abuse];
        if rule.exempt.iter().any(|exemption| by_recipient.contains(exemption)) {
            keys.push("`exempt` of postmaster or abuse");
        }
        if keys.is_empty() {
            continue;
        }
        let problem = format!(
            "\"lenient\" lets clients bypass rule \"{}\": the mail server may read another sender or recipient than the \
             rule does ({})",
            rule.name,
            keys.join(", ")
        );
        let remedy = "write \"strict\", or remove these conditions (`exempt = [\"authenticated\"]` removes the exemptions)";
        diagnostics.error(at.span().start, "smtp.paths", problem, remedy);
    }
}

/// No time limit under stress is longer than the normal one.
pub(super) fn timeouts(timeouts: &TimeoutsSection, diagnostics: &mut Diagnostics<'_>) {
    let default = engine::Timeouts::RFC_5321;
    let mut check = |key: &str, default: Duration, of: fn(&TimeoutSection) -> &Field<Duration>| {
        let normal = of(&timeouts.normal).effective(default);
        if let (Some(stress), Some(normal)) = (of(&timeouts.stress).given(), normal)
            && *stress.get_ref() > normal
        {
            let problem = format!(
                "{} is longer than timeouts.{key}, which is {}",
                format_duration(*stress.get_ref()),
                format_duration(normal)
            );
            let (at, field) = (stress.span().start, format!("timeouts.stress.{key}"));
            diagnostics.error(at, &field, problem, "make it shorter, or leave it out");
        }
    };
    check("greeting", default.greeting, |set| &set.greeting);
    check("command", default.command, |set| &set.command);
    check("data", default.data, |set| &set.data);
    check("reply", default.reply, |set| &set.reply);
    check("acceptance", default.acceptance, |set| &set.acceptance);
    check("passthrough_idle", default.opaque, |set| &set.passthrough_idle);
    let normal = timeouts.normal.min_data_rate.effective(default.min_data_rate);
    if let (Some(stress), Some(normal)) = (timeouts.stress.min_data_rate.given(), normal)
        && *stress.get_ref() < normal
    {
        let problem =
            format!("{} is lower than timeouts.min_data_rate, which is {normal}", stress.get_ref());
        let (at, field) = (stress.span().start, "timeouts.stress.min_data_rate");
        diagnostics.error(at, field, problem, "make it higher, or leave it out");
    }
}

/// Whether a connection to `peer` ends at the listener `own`. For a wildcard listener only loopback is certain: the other addresses
/// of this host are not known here.
fn reaches(peer: SocketAddr, own: SocketAddr) -> bool {
    let same_family = Family::of(peer.ip()) == Family::of(own.ip());
    let same_host = peer.ip() == own.ip()
        || own.ip().is_unspecified() && peer.ip().is_loopback() && same_family;
    same_host && peer.port() == own.port()
}

/// The unspecified address of `family`.
pub(super) fn wildcard(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// TLS with the MTA, once for each `[upstream]`: several listeners may share it.
pub(super) fn upstream_tls(
    listeners: &[ListenerSection],
    tls: TlsMode,
    diagnostics: &mut Diagnostics<'_>,
) {
    let mut checked = Vec::new();
    for upstream in listeners.iter().map(|listener| &listener.upstream) {
        let at = upstream.tls.start();
        if at.is_some() && !checked.contains(&at) {
            checked.push(at);
            let mut sharing = listeners.iter().filter(|one| one.upstream.tls.start() == at);
            let passes_through = sharing.any(|one| passes_tls_through(one, tls));
            upstream.tls.check(upstream.path, passes_through, diagnostics);
        }
    }
}

/// A client's TLS with this listener ends at the MTA; `shared` is the mode of `[tls]`.
pub(super) fn passes_tls_through(listener: &ListenerSection, shared: TlsMode) -> bool {
    listener.tls(shared) == ListenerTls::Passthrough
}

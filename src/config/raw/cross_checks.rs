//! Contradictions between sections whose values are each valid.
//!
//! A check runs only if every value it needs is valid, so that one error does not lead to a second.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use toml::Spanned;

use super::diagnostics::Diagnostics;
use super::policy::PolicySection;
use super::reader::Field;
use super::sections::{
    ATTEMPT_DELAY, CONNECT_TIMEOUT, ListenSection, Mode, TimeoutSection, TimeoutsSection,
    UpstreamSection,
};
use super::values::format_duration;
use crate::addr::{Family, Networks};
use crate::engine::{self, PathSyntax};
use crate::policy::rules::{Exemption, FactName};
use crate::relay::UpstreamIdentity;

/// The mode in force; `None` if it is invalid.
fn mode(listen: &ListenSection) -> Option<Mode> {
    listen.mode.effective(Mode::default())
}

/// The upstream must not be the gateway itself, and must be reachable with `identity`.
pub(super) fn upstream(
    listen: &ListenSection,
    upstream: &UpstreamSection,
    trusted: &Networks,
    diagnostics: &mut Diagnostics<'_>,
) {
    const FIELD: &str = "upstream.addresses";
    for addr in upstream.addresses.items() {
        let (at, addr) = (addr.span().start, *addr.get_ref());
        if let Some(own) = listen.addresses.items().find(|own| reaches(addr, *own.get_ref())) {
            let problem = format!("{addr} is the gateway itself (it listens on {})", own.get_ref());
            diagnostics.error(
                at,
                FIELD,
                problem,
                "write the address and port of the MTA behind it",
            );
        }
    }
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
        diagnostics.error(at, "upstream.connect_timeout", problem, remedy);
    }
    let Some(mode) = mode(listen) else { return };
    if upstream.identity.effective(mode.default_identity()) == Some(UpstreamIdentity::Transparent) {
        transparent_identity(mode, listen, upstream, trusted, diagnostics);
    }
}

/// A connection from the client's own address reaches neither loopback nor the other family.
fn transparent_identity(
    mode: Mode,
    listen: &ListenSection,
    upstream: &UpstreamSection,
    trusted: &Networks,
    diagnostics: &mut Diagnostics<'_>,
) {
    const FIELD: &str = "upstream.addresses";
    let why = if upstream.identity.is_absent() && mode == Mode::Tproxy {
        "identity = \"transparent\", the default with mode = \"tproxy\","
    } else {
        "identity = \"transparent\""
    };
    for addr in upstream.addresses.items().filter(|addr| addr.get_ref().ip().is_loopback()) {
        let problem = format!("{why} cannot reach the loopback address {}", addr.get_ref());
        let remedy =
            "write another address of the MTA, or set identity = \"proxy-v2\" or \"xclient\"";
        diagnostics.error(addr.span().start, FIELD, problem, remedy);
    }
    // A trusted proxy may carry clients of one family over the other.
    let (Some(own), Some(peers)) = (listen.addresses.given(), upstream.addresses.given()) else {
        return;
    };
    if !trusted.is_empty() {
        return;
    }
    for family in Family::ALL {
        let has = |list: &[Spanned<SocketAddr>]| {
            list.iter().any(|addr| Family::of(addr.get_ref().ip()) == family)
        };
        if has(own.get_ref()) && !has(peers.get_ref()) {
            let problem =
                format!("{why} keeps the client's family, and no address here is {family}");
            let remedy = format!("add an {family} address, or set identity = \"proxy-v2\"");
            diagnostics.error(peers.span().start, FIELD, problem, remedy);
        }
    }
}

/// The address of the metrics must be free.
pub(super) fn metrics(
    listen: &ListenSection,
    metrics: &Field<SocketAddr>,
    diagnostics: &mut Diagnostics<'_>,
) {
    let Some(metrics) = metrics.given() else {
        return;
    };
    let (at, address) = (metrics.span().start, *metrics.get_ref());
    let taken = listen.addresses.items().map(|own| *own.get_ref()).find(|own| {
        let overlap = own.ip() == address.ip()
            || (own.ip().is_unspecified() || address.ip().is_unspecified())
                && Family::of(own.ip()) == Family::of(address.ip());
        overlap && own.port() == address.port() && own.port() != 0
    });
    if let Some(own) = taken {
        let problem = format!("{address} is already used by {own} in listen.addresses");
        diagnostics.error(at, "metrics.address", problem, "write another port, such as 9625");
    }
}

/// A rule on a listener needs that listener. Behind a trusted proxy or with interception, the original destination of a client can
/// be any address.
pub(super) fn policies(
    listen: &ListenSection,
    policies: &[PolicySection],
    trusted: &Networks,
    diagnostics: &mut Diagnostics<'_>,
) {
    if mode(listen) != Some(Mode::Proxy) || !trusted.is_empty() {
        return;
    }
    let Some(own) = listen.addresses.given() else { return };
    for addr in policies.iter().flat_map(|policy| policy.listeners.items()) {
        let (at, addr) = (addr.span().start, *addr.get_ref());
        let takes = |own: &Spanned<SocketAddr>| {
            let own = *own.get_ref();
            own == addr || own == SocketAddr::new(wildcard(Family::of(addr.ip())), addr.port())
        };
        if !own.get_ref().iter().any(takes) {
            let problem = format!("the gateway does not listen on {addr}");
            let remedy = "write one of listen.addresses, or leave it out for any";
            diagnostics.error(at, "policy.when.listeners", problem, remedy);
        }
    }
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

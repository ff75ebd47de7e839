//! What the sections of a file must agree on: each value is right by itself, together they cannot work.
//!
//! A rule speaks only when it knows all that it needs: what is wrong already leads to no second mistake.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use toml::Spanned;

use super::policy::Policy;
use super::reader::{Field, Notes};
use super::sections::{Intercept, Listen, Mode, TimeoutSet, Timeouts, Upstream};
use super::values::spoken;
use crate::addr::{Family, Networks};
use crate::engine;
use crate::relay::UpstreamIdentity;

/// The mode in force; `None` when it cannot be known.
pub(super) fn mode(listen: &Listen) -> Option<Mode> {
    listen.mode.in_force(Mode::default())
}

/// The default of `upstream.identity`: interception is worth its trouble only when the MTA sees the client.
pub(super) const fn default_identity(mode: Mode) -> UpstreamIdentity {
    match mode {
        Mode::Proxy => UpstreamIdentity::None,
        Mode::Tproxy => UpstreamIdentity::Transparent,
    }
}

/// Interception needs transparent listeners, and those need interception.
pub(super) fn interception(listen: &Listen, intercept: &Intercept, notes: &mut Notes<'_>) {
    match (mode(listen), intercept.begins) {
        (Some(Mode::Proxy), Some(at)) => {
            let problem = "only listen.mode = \"tproxy\" intercepts";
            let advice = "remove the section, or set mode = \"tproxy\" in [listen]";
            notes.mistake(at, "[intercept]", problem, advice);
        }
        (Some(Mode::Tproxy), _) => transparent_listeners(listen, notes),
        (Some(Mode::Proxy) | None, _) => {}
    }
}

fn transparent_listeners(listen: &Listen, notes: &mut Notes<'_>) {
    const FIELD: &str = "listen.addresses";
    let mut families = Vec::new();
    for addr in each(&listen.addresses) {
        let (at, addr) = (addr.span().start, *addr.get_ref());
        let family = Family::of(addr.ip());
        let wildcard = SocketAddr::new(wildcard(family), addr.port());
        if !addr.ip().is_unspecified() {
            let problem = format!("mode = \"tproxy\" takes every address, {addr} is one");
            notes.mistake(at, FIELD, problem, format!("write \"{wildcard}\""));
        } else if addr.port() == 0 {
            let problem = "mode = \"tproxy\" needs a port that is known beforehand";
            notes.mistake(at, FIELD, problem, "write a free port, such as 2525");
        }
        if families.contains(&family) {
            let problem =
                format!("mode = \"tproxy\" has one listener for {family}, this is another");
            notes.mistake(at, FIELD, problem, "keep one of them");
        }
        families.push(family);
    }
}

/// The upstream must be another than ourselves, and reachable as `identity` wants it.
pub(super) fn upstream(
    listen: &Listen,
    upstream: &Upstream,
    trusted: &Networks,
    notes: &mut Notes<'_>,
) {
    const FIELD: &str = "upstream.addresses";
    for addr in each(&upstream.addresses) {
        let (at, addr) = (addr.span().start, *addr.get_ref());
        if let Some(own) = each(&listen.addresses).find(|own| reaches(addr, *own.get_ref())) {
            let problem = format!("{addr} is the gateway itself (it listens on {})", own.get_ref());
            notes.mistake(at, FIELD, problem, "write the address and port of the MTA behind it");
        }
    }
    let delays = (
        upstream.attempt_delay.in_force(ATTEMPT_DELAY),
        upstream.connect_timeout.in_force(CONNECT_TIMEOUT),
    );
    if let (Some(delay), Some(timeout)) = delays
        && delay >= timeout
        && let Some(at) = begins(&upstream.connect_timeout).or(begins(&upstream.attempt_delay))
    {
        let problem = format!(
            "{} is over before a second address is tried (attempt_delay is {})",
            spoken(timeout),
            spoken(delay)
        );
        let advice = "make it longer than attempt_delay";
        notes.mistake(at, "upstream.connect_timeout", problem, advice);
    }
    let Some(mode) = mode(listen) else { return };
    if upstream.identity.in_force(default_identity(mode)) == Some(UpstreamIdentity::Transparent) {
        transparent_identity(mode, listen, upstream, trusted, notes);
    }
}

pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection made from the client's own address goes neither to loopback nor to another family.
fn transparent_identity(
    mode: Mode,
    listen: &Listen,
    upstream: &Upstream,
    trusted: &Networks,
    notes: &mut Notes<'_>,
) {
    const FIELD: &str = "upstream.addresses";
    let why = if upstream.identity.is_absent() && mode == Mode::Tproxy {
        "identity = \"transparent\", the default with mode = \"tproxy\","
    } else {
        "identity = \"transparent\""
    };
    for addr in each(&upstream.addresses).filter(|addr| addr.get_ref().ip().is_loopback()) {
        let problem = format!("{why} cannot reach the loopback address {}", addr.get_ref());
        let advice =
            "write another address of the MTA, or set identity = \"proxy-v2\" or \"xclient\"";
        notes.mistake(addr.span().start, FIELD, problem, advice);
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
            let advice = format!("add an {family} address, or set identity = \"proxy-v2\"");
            notes.mistake(peers.span().start, FIELD, problem, advice);
        }
    }
}

/// The metrics' address must be free.
pub(super) fn metrics(listen: &Listen, metrics: &Field<SocketAddr>, notes: &mut Notes<'_>) {
    let Some(metrics) = metrics.given() else {
        return;
    };
    let (at, address) = (metrics.span().start, *metrics.get_ref());
    let taken = each(&listen.addresses).map(|own| *own.get_ref()).find(|own| {
        let overlap = own.ip() == address.ip()
            || (own.ip().is_unspecified() || address.ip().is_unspecified())
                && Family::of(own.ip()) == Family::of(address.ip());
        overlap && own.port() == address.port() && own.port() != 0
    });
    if let Some(own) = taken {
        let problem = format!("{address} is taken by {own} in listen.addresses");
        notes.mistake(at, "metrics.address", problem, "write another port, such as 9625");
    }
}

/// A rule about a listener is about one that there is. Behind a trusted proxy or intercepted, clients meant to go anywhere.
pub(super) fn policies(
    listen: &Listen,
    policies: &[Policy],
    trusted: &Networks,
    notes: &mut Notes<'_>,
) {
    if mode(listen) != Some(Mode::Proxy) || !trusted.is_empty() {
        return;
    }
    let Some(own) = listen.addresses.given() else { return };
    for addr in policies.iter().flat_map(|policy| each(&policy.listeners)) {
        let (at, addr) = (addr.span().start, *addr.get_ref());
        let takes = |own: &Spanned<SocketAddr>| {
            let own = *own.get_ref();
            own == addr || own == SocketAddr::new(wildcard(Family::of(addr.ip())), addr.port())
        };
        if !own.get_ref().iter().any(takes) {
            let problem = format!("the gateway does not listen on {addr}");
            let advice = "write one of listen.addresses, or leave it out for any";
            notes.mistake(at, "policy.when.listeners", problem, advice);
        }
    }
}

/// Under stress nobody gets more time than without.
pub(super) fn timeouts(timeouts: &Timeouts, notes: &mut Notes<'_>) {
    let default = engine::Timeouts::RFC_5321;
    let mut check = |key: &str, default: Duration, of: fn(&TimeoutSet) -> &Field<Duration>| {
        let normal = of(&timeouts.normal).in_force(default);
        if let (Some(stress), Some(normal)) = (of(&timeouts.stress).given(), normal)
            && *stress.get_ref() > normal
        {
            let problem = format!(
                "{} is longer than timeouts.{key}, which is {}",
                spoken(*stress.get_ref()),
                spoken(normal)
            );
            let (at, field) = (stress.span().start, format!("timeouts.stress.{key}"));
            notes.mistake(at, &field, problem, "make it shorter, or leave it out");
        }
    };
    check("greeting", default.greeting, |set| &set.greeting);
    check("command", default.command, |set| &set.command);
    check("data", default.data, |set| &set.data);
    check("reply", default.reply, |set| &set.reply);
    check("acceptance", default.acceptance, |set| &set.acceptance);
    check("passthrough_idle", default.opaque, |set| &set.opaque);
}

/// Whether a connection to `peer` ends at the listener `own`. A wildcard listener takes loopback surely; which other
/// addresses are this host's is not known here.
fn reaches(peer: SocketAddr, own: SocketAddr) -> bool {
    let same_family = Family::of(peer.ip()) == Family::of(own.ip());
    let same_host = peer.ip() == own.ip()
        || own.ip().is_unspecified() && peer.ip().is_loopback() && same_family;
    same_host && peer.port() == own.port()
}

fn wildcard(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn each<T>(list: &Field<Vec<Spanned<T>>>) -> impl Iterator<Item = &Spanned<T>> {
    list.given().into_iter().flat_map(Spanned::get_ref)
}

fn begins<T>(field: &Field<T>) -> Option<usize> {
    field.given().map(|value| value.span().start)
}

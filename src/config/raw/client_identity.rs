//! What the MTA takes a client for: it must never take a stranger for a trusted host.
//!
//! An MTA relays for hosts that it trusts by their address (Postfix: `mynetworks`), usually its own and its neighbours. Without an
//! identity it sees the gateway's address in place of every client's. With XCLIENT it trusts whoever can reach it through
//! the gateway unseen, and inside TLS the gateway sees nothing.

use std::net::{IpAddr, SocketAddr};

use super::cross_checks::passes_tls_through;
use super::diagnostics::Diagnostics;
use super::listeners::{ListenerSection, Mode, UpstreamSection};
use super::reader::Field;
use crate::config::UpstreamTrust;
use crate::config::host::HostAddresses;
use crate::engine::TlsMode;
use crate::relay::UpstreamIdentity;
use crate::smtp::Keyword;

/// Strangers reach the gateway, and the MTA would see all of them as a host that it may trust: an open relay.
pub(super) fn check_open_relay(
    listeners: &[ListenerSection],
    host: &dyn HostAddresses,
    diagnostics: &mut Diagnostics<'_>,
) {
    for listener in listeners {
        let upstream = &listener.upstream;
        // Only a chosen identity makes the statement valid.
        let is_denied = upstream.trusted_by_address.effective(true) != Some(true)
            && !upstream.identity.is_absent();
        if trust(listener) != UpstreamTrust::Irrelevant && !is_denied {
            open_relay(listener, listeners, host, diagnostics);
        }
    }
}

fn open_relay(
    listener: &ListenerSection,
    listeners: &[ListenerSection],
    host: &dyn HostAddresses,
    diagnostics: &mut Diagnostics<'_>,
) {
    let upstream = &listener.upstream;
    let identity = match upstream.identity.is_absent() {
        true => "identity = \"none\", the default,",
        false => "identity = \"none\"",
    };
    let danger = format!(
        "with {identity} the MTA sees every client as this host, and strangers can relay mail through it (open relay)"
    );
    let remedy = format!(
        "set identity = \"proxy-v2\" or \"xclient\", or let the client's address reach the MTA by mode = \"tproxy\"; if the \
         MTA trusts no client by its address (Postfix: mynetworks), write both identity = \"none\" and \
         trusted_by_address = false in [{}]",
        upstream.path
    );
    let field = upstream.field("addresses");
    for (at, addr) in upstream.literal() {
        if let Some(place) = trusting_place(addr.ip(), listeners, upstream, host) {
            diagnostics.error(at, &field, format!("{addr} is {place}: {danger}"), &remedy);
        }
    }
    if let Some((at, socket)) = upstream.socket() {
        let problem = format!("{socket} is on this host, and its clients are localhost: {danger}");
        diagnostics.error(at, &field, problem, &remedy);
    }
    // Containers of one network usually trust each other.
    for (at, name) in upstream.hosts() {
        let problem = format!(
            "the addresses of the host name {name} may be of this host or a network that the MTA trusts: {danger}"
        );
        diagnostics.error(at, &field, problem, &remedy);
    }
    // The MTA is whichever host the client connects to.
    if upstream.addresses.is_absent()
        && listener.mode() == Some(Mode::Tproxy)
        && let Some(first) = upstream.trusted_networks.items().next()
    {
        let problem = format!("the MTA trusts {}: {danger}", first.get_ref());
        let field = upstream.field("trusted_networks");
        diagnostics.error(first.span().start, &field, problem, &remedy);
    }
}

/// Whether others than this host can be clients: also those of a trusted proxy, whatever address it connects from.
fn is_reachable(listener: &ListenerSection) -> bool {
    let beyond = |addr: &SocketAddr| !addr.ip().is_loopback();
    listener.mode() == Some(Mode::Tproxy)
        || !listener.proxy_trusted.is_empty()
        || listener.addresses.items().any(|addr| beyond(addr.get_ref()))
}

/// Why an MTA at `ip` is likely to trust this host, in words that follow "is".
fn trusting_place(
    ip: IpAddr,
    listeners: &[ListenerSection],
    upstream: &UpstreamSection,
    host: &dyn HostAddresses,
) -> Option<String> {
    if ip.is_loopback() {
        return Some("a loopback address".to_owned());
    }
    let mut all = listeners.iter().flat_map(|listener| listener.addresses.items());
    if all.any(|own| own.get_ref().ip() == ip) || host.contains(ip) {
        return Some("an address of this host".to_owned());
    }
    let trusted = |ip: IpAddr| {
        let mut networks = upstream.trusted_networks.items().map(|network| *network.get_ref());
        networks.find(|network| network.contains(&ip))
    };
    if let Some(network) = trusted(ip) {
        return Some(format!("in {network} of trusted_networks"));
    }
    let source = host.source_to(ip)?;
    if source == ip {
        return Some("an address of this host".to_owned());
    }
    let network = trusted(source)?;
    Some(format!("reached from {source}, which is in {network} of trusted_networks"))
}

/// XCLIENT inside TLS reaches an MTA that accepts it from the gateway: any client could claim any address.
pub(super) fn check_impersonation(
    listeners: &[ListenerSection],
    hidden: &[Keyword],
    tls: TlsMode,
    diagnostics: &mut Diagnostics<'_>,
) {
    for listener in listeners {
        let upstream = &listener.upstream;
        let Some(identity) = upstream.identity.given() else { continue };
        let is_xclient = *identity.get_ref() == UpstreamIdentity::Xclient;
        // With an invalid list it is not known what is hidden, with invalid addresses not from whom.
        let is_unknown =
            diagnostics.has("smtp.hide") || matches!(upstream.addresses, Field::Invalid);
        if !is_xclient
            || is_unknown
            || hidden.contains(&Keyword::Starttls)
            || !passes_tls_through(listener, tls)
        {
            continue;
        }
        let problem = "identity = \"xclient\" while STARTTLS is passed through: a client can send XCLIENT inside TLS and claim any \
                       address (impersonation)";
        let remedy = "set identity = \"proxy-v2\", or have the gateway end TLS ([tls])";
        diagnostics.error(identity.span().start, &upstream.field("identity"), problem, remedy);
    }
}

/// `trusted_by_address` of the upstream, as far as it matters: whether strangers would be local if the MTA trusted this host.
pub(super) fn trust(listener: &ListenerSection) -> UpstreamTrust {
    if listener.identity() != Some(UpstreamIdentity::None) || !is_reachable(listener) {
        return UpstreamTrust::Irrelevant;
    }
    match listener.upstream.trusted_by_address.effective(true) {
        Some(false) => UpstreamTrust::Denied,
        Some(true) | None => UpstreamTrust::Unknown,
    }
}

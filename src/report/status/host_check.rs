//! The `Host` of a request (RFC 9110 §7.2): only names and addresses of this gateway.
//!
//! A web page elsewhere can have its name resolve to the gateway's address (DNS rebinding). The browser of an operator then
//! sends that page's requests here, and hands the answers to its script. It still sends the page's name as `Host`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::addr::OriginalDst;

const REJECTED: &str = "the Host of this request is not a name of this gateway; use its address, or add the name to hosts in \
                        [status]\n";

/// Names by which the page may be requested, besides the address that the connection was made to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// Names and addresses; upper and lower case are the same.
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(canonical).collect())
    }

    /// `host` is that of a request, with or without a port; `local` the address that the connection was made to.
    fn allow(&self, host: &str, local: Option<IpAddr>) -> bool {
        let Some(name) = without_port(host) else { return false };
        let name = canonical(name);
        let is_loopback = local.is_some_and(|local| local.is_loopback());
        // By an SSH tunnel a connection to 127.0.0.1 arrives at ::1.
        let is_own = match name.parse::<IpAddr>() {
            Ok(ip) => Some(ip) == local || is_loopback && ip.is_loopback(),
            Err(_) => is_loopback && name == "localhost",
        };
        is_own || self.0.contains(&name)
    }
}

/// In lower case, without the brackets of an IPv6 address and without a final dot; an address in its usual form.
fn canonical(name: &str) -> String {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    match bare.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().to_string(),
        Err(_) => name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase(),
    }
}

/// `None` if what follows the name is not a port.
fn without_port(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at_checked(end)?;
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

/// Answers 421 unless the request is for this gateway. A request without `Host`, or with several, is for none.
pub(super) async fn check(
    State(allowed): State<Arc<AllowedHosts>>,
    request: Request,
    next: Next,
) -> Response {
    let local = request.extensions().get::<OriginalDst>().map(|local| local.socket().ip());
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    // The absolute form of a request's target has a name too (RFC 9112 §3.2.2).
    let target = request.uri().authority().map(|authority| authority.as_str());
    let is_allowed = |host: &str| allowed.allow(host, local);
    if host.is_some_and(is_allowed) && target.is_none_or(is_allowed) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, REJECTED).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_gateway_are_allowed() {
        let allowed = AllowedHosts::new(["mx.example.org", "Status.Example.org.", "192.0.2.80"]);
        let allow = |host: &str, local: &str| allowed.allow(host, local.parse().ok());
        for (host, local) in [
            ("[::1]:9625", "::1"),
            ("[::1]", "::1"),
            ("localhost:9625", "::1"),
            ("LOCALHOST", "127.0.0.1"),
            ("localhost.:9625", "127.0.0.1"),
            ("127.0.0.1:8080", "::1"),
            ("[0:0:0:0:0:0:0:1]:9625", "::1"),
            ("192.0.2.1:9625", "192.0.2.1"),
            ("[2001:DB8::1]:9625", "2001:db8::1"),
            ("[::ffff:192.0.2.1]:9625", "192.0.2.1"),
            ("mx.example.org:9625", "2001:db8::1"),
            ("MX.EXAMPLE.ORG.", "2001:db8::1"),
            ("status.example.org", "2001:db8::1"),
            ("192.0.2.80", "2001:db8::1"),
        ] {
            assert!(allow(host, local), "{host} at {local}");
        }
        for (host, local) in [
            ("", "::1"),
            ("rebound.example", "::1"),
            ("rebound.example:9625", "127.0.0.1"),
            ("localhost.rebound.example", "::1"),
            ("mx.example.org.rebound.example", "::1"),
            ("mx.example.org:9625.rebound.example", "::1"),
            ("mx.example.org@rebound.example", "::1"),
            ("localhost", "2001:db8::1"),
            ("127.0.0.1", "192.0.2.1"),
            ("192.0.2.2", "192.0.2.1"),
            ("[::1", "::1"),
            ("[::1]x", "::1"),
            ("localhost:port", "::1"),
            ("2130706433", "127.0.0.1"),
        ] {
            assert!(!allow(host, local), "{host} at {local}");
        }
        assert!(!allowed.allow("localhost", None), "the address is not known");
        assert!(allowed.allow("mx.example.org", None));
    }
}

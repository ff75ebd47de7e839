//! Values about the network: socket addresses, networks, host names, interfaces, EHLO keywords.
//!
//! RFC 5321 §4.1.2 (Domain) and §4.1.3 (address literals).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;

use super::text::{closest, listed, printable};
use super::value::{Value, ValueResult, invalid};
use super::values::string;
use crate::addr::{canonical, canonical_network};
use crate::policy::facts::DomainName;
use crate::readiness::Control;
use crate::relay::{UpstreamHost, UpstreamSocket, UpstreamTarget};
use crate::smtp::Keyword;

/// An address to listen on; port 0 lets the kernel choose.
pub(super) fn listener(value: &Value<'_>) -> ValueResult<SocketAddr> {
    socket(value)
}

/// An address to connect to.
pub(super) fn peer(value: &Value<'_>) -> ValueResult<SocketAddr> {
    let addr = socket(value)?;
    if addr.ip().is_unspecified() || addr.ip().is_multicast() {
        let problem = format!("{} is not the address of a host", addr.ip());
        return invalid(value, problem, "write the address that the MTA listens on");
    }
    if addr.port() == 0 {
        let remedy = "write the port that the MTA listens on, usually 25";
        return invalid(value, "nothing listens on port 0", remedy);
    }
    Ok(addr)
}

/// An entry of `[upstream] addresses`: an address or a host name, with a port.
pub(super) fn upstream_target(value: &Value<'_>) -> ValueResult<UpstreamTarget> {
    let written = string(value, "an address with a port", "\"[::1]:25\"")?;
    let shown = printable(written);
    if let Some(path) = written.strip_prefix("unix:").filter(|rest| rest.parse::<u16>().is_err()) {
        let socket = unix_socket(value, path, "unix:/var/spool/postfix/public/smtpd");
        return socket.map(|path| UpstreamTarget::Socket(UpstreamSocket { path: path.into() }));
    }
    if is_host_name(written) {
        let problem = format!("\"{shown}\" has no port");
        return invalid(value, problem, format!("write \"{shown}:25\" for port 25"));
    }
    let Some((name, port)) = written.rsplit_once(':').filter(|(name, _)| is_host_name(name)) else {
        return peer(value).map(UpstreamTarget::Address);
    };
    match port.parse() {
        Ok(port) if port > 0 => {
            Ok(UpstreamTarget::Host(UpstreamHost { name: name.to_ascii_lowercase().into(), port }))
        }
        _ => {
            let problem = format!("\"{}\" is not a port", printable(port));
            invalid(value, problem, "write a number from 1 to 65535, usually 25")
        }
    }
}

/// `path` is what follows `unix:`.
pub(super) fn unix_socket<'p>(
    value: &Value<'_>,
    path: &'p str,
    example: &str,
) -> ValueResult<&'p Path> {
    // unix(7): sun_path, with its final NUL.
    const LONGEST: usize = 107;
    if !path.starts_with('/') || path.contains('\0') || path.ends_with('/') {
        let problem = format!("\"{}\" is not the absolute path of a Unix socket", printable(path));
        return invalid(value, problem, format!("write it as \"{example}\""));
    }
    if path.len() > LONGEST {
        let problem =
            format!("the path has {} bytes, that of a socket at most {LONGEST}", path.len());
        return invalid(value, problem, "write a shorter one");
    }
    Ok(Path::new(path))
}

/// A name that resolvers look up: one label or several, of which the last is not a number; underscores are common among
/// containers. A final dot makes it complete.
fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or_default();
    is_domain(&name.replace('_', "-")) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn socket(value: &Value<'_>) -> ValueResult<SocketAddr> {
    let written = string(value, "an address with a port", "\"[::1]:25\"")?;
    if let Ok(addr) = written.parse::<SocketAddr>() {
        return Ok(canonical(addr));
    }
    let shown = printable(written);
    let bare = written.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        let remedy = match ip {
            IpAddr::V4(ip) => format!("write \"{ip}:25\" for port 25"),
            IpAddr::V6(ip) => format!("write \"[{ip}]:25\" for port 25"),
        };
        return invalid(value, format!("\"{shown}\" has no port"), remedy);
    }
    let (host, port) = written.rsplit_once(':').unwrap_or((written, ""));
    let (problem, remedy) = if host.is_empty() || host == "*" {
        let remedy = format!("write both \"[::]:{port}\" and \"0.0.0.0:{port}\" for every address");
        (format!("\"{shown}\" names no address"), remedy)
    } else if host.parse::<Ipv4Addr>().is_ok() || host.starts_with('[') && host.ends_with(']') {
        let problem = format!("\"{shown}\" is not an address with a port");
        let remedy = "write an address such as \"[2001:db8::1]:25\", its port at most 65535";
        (problem, remedy.to_owned())
    } else if is_domain(host) && host.contains(|c: char| c.is_ascii_alphabetic()) {
        let problem = format!("\"{shown}\" is a host name, not an address");
        let remedy = "write the addresses of that host, such as \"[2001:db8::1]:25\"";
        (problem, remedy.to_owned())
    } else {
        let problem = format!("\"{shown}\" is not an address with a port");
        let remedy = "write one such as \"[2001:db8::1]:25\" or \"192.0.2.1:25\"";
        (problem, remedy.to_owned())
    };
    invalid(value, problem, remedy)
}

/// A network. A bare address is a network of one.
pub(super) fn network(value: &Value<'_>) -> ValueResult<IpNet> {
    let written = string(value, "a network", "\"2001:db8::/32\"")?;
    let shown = printable(written);
    if let Ok(ip) = written.parse::<IpAddr>() {
        return Ok(canonical_network(ip.into()));
    }
    if let Ok(net) = written.parse::<IpNet>() {
        if net.addr() == net.network() {
            return Ok(canonical_network(net));
        }
        let network = net.trunc();
        let remedy = format!("write \"{network}\", or \"{}\" for that one address", net.addr());
        return invalid(value, format!("\"{shown}\" has bits set after its prefix"), remedy);
    }
    let ip = written.split_once('/').and_then(|(ip, _)| ip.parse::<IpAddr>().ok());
    let (problem, remedy) = match ip {
        Some(ip) => {
            let longest = if ip.is_ipv4() { 32 } else { 128 };
            let remedy = format!("write a number from 0 to {longest} after the slash");
            (format!("\"{shown}\" has no valid prefix length"), remedy)
        }
        None => {
            let remedy = "write one such as \"2001:db8::/32\" or \"192.0.2.0/24\"".to_owned();
            (format!("\"{shown}\" is not a network"), remedy)
        }
    };
    invalid(value, problem, remedy)
}

/// The argument of EHLO: a domain or an address literal.
pub(super) fn hostname(value: &Value<'_>) -> ValueResult<String> {
    let name = string(value, "a name", "\"mx.example.org\"")?;
    if is_domain(name) && name.parse::<IpAddr>().is_err() || is_literal(name) {
        return Ok(name.to_owned());
    }
    let remedy = match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => format!("write an address as \"[{ip}]\""),
        Ok(IpAddr::V6(ip)) => format!("write an address as \"[IPv6:{ip}]\""),
        Err(_) if name.strip_suffix('.').is_some_and(is_domain) => "remove the last dot".to_owned(),
        Err(_) => "write a name such as \"mx.example.org\": letters, digits, hyphens and dots \
             (an international name in its xn-- form)"
            .to_owned(),
    };
    invalid(value, format!("\"{}\" is not a domain or address literal", printable(name)), remedy)
}

/// The `Host` of an HTTP request, without a port.
pub(super) fn host_name_or_address(value: &Value<'_>) -> ValueResult<String> {
    let name = string(value, "a host name", "\"status.example.org\"")?;
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if is_domain(name.strip_suffix('.').unwrap_or(name)) || bare.parse::<IpAddr>().is_ok() {
        return Ok(name.to_owned());
    }
    let problem = format!("\"{}\" is not a host name or address", printable(name));
    invalid(value, problem, "write one such as \"status.example.org\", without a port")
}

/// A host that answers on port 25.
pub(super) fn control_host(value: &Value<'_>) -> ValueResult<Control> {
    let name = string(value, "a host name or address", "\"mx.example.net\"")?;
    match Control::parse(name) {
        Some(control) => Ok(control),
        None => {
            let problem = format!("\"{}\" is not a host name or address", printable(name));
            invalid(value, problem, "write one such as \"mx.example.net\", without a port")
        }
    }
}

/// A mail domain.
pub(super) fn domain(value: &Value<'_>) -> ValueResult<DomainName> {
    let name = string(value, "a domain", "\"example.org\"")?;
    match DomainName::parse(name) {
        Some(domain) => Ok(domain),
        None => {
            let problem = format!("\"{}\" is not a domain", printable(name));
            invalid(value, problem, "write one such as \"example.org\"")
        }
    }
}

/// RFC 5321 §4.1.2, with the lengths of §4.5.3.1.2 and RFC 1035 §2.3.4.
pub(super) fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 255 && name.split('.').all(label)
}

/// RFC 5321 §4.1.3.
fn is_literal(name: &str) -> bool {
    let inside = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|inside| match inside.strip_prefix("IPv6:") {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => inside.parse::<Ipv4Addr>().is_ok(),
    })
}

/// An interface name that the kernel accepts (`dev_valid_name`).
pub(super) fn interface(value: &Value<'_>) -> ValueResult<String> {
    let name = string(value, "an interface", "\"eth0\"")?;
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(forbidden) {
        return Ok(name.to_owned());
    }
    let problem = format!("\"{}\" cannot be the name of an interface", printable(name));
    invalid(value, problem, "write a name as `ip link` shows it, such as \"eth0\"")
}

/// An EHLO keyword that the gateway may pass on.
pub(super) fn keyword(value: &Value<'_>) -> ValueResult<Keyword> {
    let word = string(value, "an EHLO keyword", "\"CHUNKING\"")?;
    if let Some(keyword) = Keyword::parse(word) {
        return Ok(keyword);
    }
    let remedy = match closest(word, Keyword::names()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!(
            "remove it: the keywords that can be passed on are {}",
            listed(Keyword::names().map(str::to_owned))
        ),
    };
    invalid(value, format!("\"{}\" is never passed on", printable(word)), remedy)
}

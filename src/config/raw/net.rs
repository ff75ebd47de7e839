//! Values of the network: socket addresses, networks, host names, interfaces, EHLO keywords.
//!
//! RFC 5321 §4.1.2 (Domain) and §4.1.3 (address literals).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::reader::{Read, Value};
use super::unknown::{closest, listed, printable};
use super::values::{fault, text};
use crate::addr::{canonical, canonical_network};
use crate::policy::facts::DomainName;
use crate::smtp::Keyword;

/// An address to listen on; port 0 lets the kernel choose.
pub(super) fn listener(value: &Value<'_>) -> Read<SocketAddr> {
    socket(value)
}

/// An address to connect to.
pub(super) fn peer(value: &Value<'_>) -> Read<SocketAddr> {
    let addr = socket(value)?;
    if addr.ip().is_unspecified() || addr.ip().is_multicast() {
        let problem = format!("{} is not the address of a host", addr.ip());
        return fault(value, problem, "write the address that the MTA listens on");
    }
    if addr.port() == 0 {
        let advice = "write the port that the MTA listens on, usually 25";
        return fault(value, "nothing listens on port 0", advice);
    }
    Ok(addr)
}

fn socket(value: &Value<'_>) -> Read<SocketAddr> {
    let written = text(value, "an address with a port", "\"[::1]:25\"")?;
    if let Ok(addr) = written.parse::<SocketAddr>() {
        return Ok(canonical(addr));
    }
    let shown = printable(written);
    let bare = written.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        let advice = match ip {
            IpAddr::V4(ip) => format!("write \"{ip}:25\" for port 25"),
            IpAddr::V6(ip) => format!("write \"[{ip}]:25\" for port 25"),
        };
        return fault(value, format!("\"{shown}\" has no port"), advice);
    }
    let (host, port) = written.rsplit_once(':').unwrap_or((written, ""));
    let (problem, advice) = if host.is_empty() || host == "*" {
        let advice = format!("write both \"[::]:{port}\" and \"0.0.0.0:{port}\" for every address");
        (format!("\"{shown}\" names no address"), advice)
    } else if host.parse::<Ipv4Addr>().is_ok() || host.starts_with('[') && host.ends_with(']') {
        let problem = format!("\"{shown}\" is not an address with a port");
        let advice = "write an address such as \"[2001:db8::1]:25\", its port at most 65535";
        (problem, advice.to_owned())
    } else if is_domain(host) && host.contains(|c: char| c.is_ascii_alphabetic()) {
        let problem = format!("\"{shown}\" is a name, and names are not looked up here");
        let advice = "write the addresses of that host, such as \"[2001:db8::1]:25\"";
        (problem, advice.to_owned())
    } else {
        let problem = format!("\"{shown}\" is not an address with a port");
        let advice = "write one such as \"[2001:db8::1]:25\" or \"192.0.2.1:25\"";
        (problem, advice.to_owned())
    };
    fault(value, problem, advice)
}

/// A network; a bare address is a network of one.
pub(super) fn network(value: &Value<'_>) -> Read<IpNet> {
    let written = text(value, "a network", "\"2001:db8::/32\"")?;
    let shown = printable(written);
    if let Ok(ip) = written.parse::<IpAddr>() {
        return Ok(canonical_network(ip.into()));
    }
    if let Ok(net) = written.parse::<IpNet>() {
        if net.addr() == net.network() {
            return Ok(canonical_network(net));
        }
        let right = net.trunc();
        let advice = format!("write \"{right}\", or \"{}\" for that one address", net.addr());
        return fault(value, format!("\"{shown}\" has bits set after its prefix"), advice);
    }
    let ip = written.split_once('/').and_then(|(ip, _)| ip.parse::<IpAddr>().ok());
    let (problem, advice) = match ip {
        Some(ip) => {
            let longest = if ip.is_ipv4() { 32 } else { 128 };
            let advice = format!("write a number from 0 to {longest} after the slash");
            (format!("\"{shown}\" has no valid prefix length"), advice)
        }
        None => {
            let advice = "write one such as \"2001:db8::/32\" or \"192.0.2.0/24\"".to_owned();
            (format!("\"{shown}\" is not a network"), advice)
        }
    };
    fault(value, problem, advice)
}

/// A domain or an address literal, as EHLO takes it.
pub(super) fn hostname(value: &Value<'_>) -> Read<String> {
    let name = text(value, "a name", "\"mx.example.org\"")?;
    if is_domain(name) && name.parse::<IpAddr>().is_err() || is_literal(name) {
        return Ok(name.to_owned());
    }
    let advice = match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => format!("write an address as \"[{ip}]\""),
        Ok(IpAddr::V6(ip)) => format!("write an address as \"[IPv6:{ip}]\""),
        Err(_) if name.strip_suffix('.').is_some_and(is_domain) => {
            "leave out the last dot".to_owned()
        }
        Err(_) => "write a name such as \"mx.example.org\": letters, digits, hyphens and dots \
             (an international name in its xn-- form)"
            .to_owned(),
    };
    fault(value, format!("\"{}\" is not a domain or address literal", printable(name)), advice)
}

/// A mail domain.
pub(super) fn domain(value: &Value<'_>) -> Read<DomainName> {
    let name = text(value, "a domain", "\"example.org\"")?;
    DomainName::parse(name).map_or_else(
        || {
            let problem = format!("\"{}\" is not a domain", printable(name));
            fault(value, problem, "write one such as \"example.org\"")
        },
        Ok,
    )
}

/// RFC 5321 §4.1.2 with the lengths of §4.5.3.1.2 and RFC 1035.
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

/// The name of an interface, as the kernel takes it (`dev_valid_name`).
pub(super) fn interface(value: &Value<'_>) -> Read<String> {
    let name = text(value, "an interface", "\"eth0\"")?;
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(odd) {
        return Ok(name.to_owned());
    }
    let problem = format!("\"{}\" cannot be the name of an interface", printable(name));
    fault(value, problem, "write a name as `ip link` shows it, such as \"eth0\"")
}

/// An EHLO keyword that the gateway can carry.
pub(super) fn keyword(value: &Value<'_>) -> Read<Keyword> {
    let word = text(value, "an EHLO keyword", "\"CHUNKING\"")?;
    if let Some(keyword) = Keyword::parse(word) {
        return Ok(keyword);
    }
    let advice = match closest(word, Keyword::names()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!(
            "leave it out; those passed on at all are {}",
            listed(Keyword::names().map(str::to_owned))
        ),
    };
    fault(value, format!("\"{}\" is never passed on", printable(word)), advice)
}

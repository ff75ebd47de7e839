//! `[intercept]`, and what it and listeners with `mode = "tproxy"` demand of each other.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::cross_checks::wildcard;
use super::diagnostics::Diagnostics;
use super::listeners::{ListenerSection, Mode};
use super::net::{interface, network};
use super::reader::{Field, List, Section};
use super::value::{Value, ValueResult, invalid};
use super::values::{integer, into_values, list, non_empty};
use crate::addr::{Family, Networks};
use crate::engine::TlsMode;
use crate::intercept::InterceptSettings;
use crate::relay::ListenerTls;
use crate::smtp::SUBMISSIONS;

const PORT: u16 = 25;
/// Two bits that no well-known program takes: Kubernetes 0xc000, mwan3 0x3f00, Tailscale 0xff0000, Calico 0xffff0000; and
/// above the small numbers of hand-made policy routing.
const MARK: u32 = 0x40;
const MASK: u32 = 0xc0;
const TABLE: u32 = 26_480;

pub(super) struct InterceptSection {
    /// Byte offset, if the file has it.
    start: Option<usize>,
    ports: List<u16>,
    destinations: List<IpNet>,
    interfaces: List<String>,
    mark: Field<u32>,
    mask: Field<u32>,
    table: Field<u32>,
}

/// Its destinations are required if connections are intercepted.
pub(super) fn intercept(
    section: &mut Section<'_, '_, '_>,
    listeners: &[ListenerSection],
) -> InterceptSection {
    let networks = non_empty(network, "write the addresses of the mail servers");
    InterceptSection {
        ports: section
            .read("ports", non_empty(integer(1..=u16::MAX), "write [25], or leave it out")),
        destinations: if transparent(listeners).next().is_some() {
            section.require("destinations", networks)
        } else {
            section.read("destinations", networks)
        },
        interfaces: section.read("interfaces", list(interface)),
        mark: section.read("mark", integer(1..=u32::MAX - 1)),
        mask: section.read("mask", integer(3..=u32::MAX)),
        table: section.read("table", routing_table),
        start: section.start(),
    }
}

/// Not one of the kernel's own tables: our routes there would break the host's routing.
fn routing_table(value: &Value<'_>) -> ValueResult<u32> {
    let table = integer(1..=u32::MAX)(value)?;
    let owner = match table {
        253 => "default",
        254 => "main",
        255 => "local",
        _ => return Ok(table),
    };
    let problem = format!("{table} is the kernel's own table `{owner}`");
    invalid(value, problem, "write a number that no other routing uses, or leave it out")
}

impl InterceptSection {
    /// For a gateway whose transparent listeners are at `listen`.
    pub(super) fn settings(self, listen: &[SocketAddr]) -> InterceptSettings {
        let port =
            |family| listen.iter().find(|own| Family::of(own.ip()) == family).map(|own| own.port());
        InterceptSettings {
            ports: self.ports.given().map_or_else(
                || vec![PORT],
                |ports| ports.get_ref().iter().map(|port| *port.get_ref()).collect(),
            ),
            destinations: Networks::new(into_values(self.destinations.or_default())),
            interfaces: into_values(self.interfaces.or_default()),
            mark: self.mark.or(MARK),
            mask: self.mask.or(MASK),
            table: self.table.or(TABLE),
            listen_ipv4: port(Family::Ipv4),
            listen_ipv6: port(Family::Ipv6),
        }
    }
}

fn transparent(listeners: &[ListenerSection]) -> impl Iterator<Item = &ListenerSection> {
    listeners.iter().filter(|listener| listener.mode() == Some(Mode::Tproxy))
}

/// Interception needs transparent listeners, and those need interception.
pub(super) fn check(
    listeners: &[ListenerSection],
    intercept: &InterceptSection,
    tls: TlsMode,
    diagnostics: &mut Diagnostics<'_>,
) {
    if transparent(listeners).next().is_some() {
        transparent_listeners(listeners, diagnostics);
        ports(listeners, &intercept.ports, diagnostics);
        tls_of_ports(listeners, intercept, tls, diagnostics);
        mark(intercept, diagnostics);
        return;
    }
    let all_proxy = listeners.iter().all(|listener| listener.mode() == Some(Mode::Proxy));
    if let (true, Some(at), Some(first)) = (all_proxy, intercept.start, listeners.first()) {
        let (mode, header) = match first.path {
            "listen" => (first.field("mode"), "[listen]"),
            _ => (first.field("mode"), "a [[listener]]"),
        };
        let problem = format!("allowed only with {mode} = \"tproxy\"");
        let remedy = format!("remove the section, or set mode = \"tproxy\" in {header}");
        diagnostics.error(at, "[intercept]", problem, remedy);
    }
}

/// Of each family one, to which the rules of the kernel lead its connections.
fn transparent_listeners(listeners: &[ListenerSection], diagnostics: &mut Diagnostics<'_>) {
    let mut families = Vec::new();
    let all = transparent(listeners)
        .flat_map(|one| one.addresses.items().map(|addr| (one.field("addresses"), addr)));
    for (field, addr) in all {
        let (at, addr) = (addr.span().start, *addr.get_ref());
        let family = Family::of(addr.ip());
        let wildcard = SocketAddr::new(wildcard(family), addr.port());
        if !addr.ip().is_unspecified() {
            let problem = format!("mode = \"tproxy\" needs a wildcard address instead of {addr}");
            diagnostics.error(at, &field, problem, format!("write \"{wildcard}\""));
        } else if addr.port() == 0 {
            let problem = "mode = \"tproxy\" needs a fixed port";
            diagnostics.error(at, &field, problem, "write a free port, such as 2525");
        }
        if families.contains(&family) {
            let problem = format!("mode = \"tproxy\" allows only one listener for {family}");
            diagnostics.error(at, &field, problem, "keep one of them");
        }
        families.push(family);
    }
}

/// A session that was intercepted must be told from one with the listener itself.
fn ports(listeners: &[ListenerSection], ports: &List<u16>, diagnostics: &mut Diagnostics<'_>) {
    let intercepted: Vec<u16> = match ports.given() {
        Some(ports) => ports.get_ref().iter().map(|port| *port.get_ref()).collect(),
        None if ports.is_absent() => vec![PORT],
        None => return,
    };
    let all = transparent(listeners)
        .flat_map(|one| one.addresses.items().map(|addr| (one.field("addresses"), addr)));
    for (field, addr) in all {
        let (at, port) = (addr.span().start, addr.get_ref().port());
        if intercepted.contains(&port) {
            let problem = format!(
                "port {port} is intercepted: a connection to the gateway itself would be sent back to it"
            );
            let remedy = "listen on another port, such as 2525: clients never see it";
            diagnostics.error(at, &field, problem, remedy);
        }
    }
}

/// Connections to all intercepted ports arrive at the same listeners, where TLS comes first in all sessions or in none.
fn tls_of_ports(
    listeners: &[ListenerSection],
    intercept: &InterceptSection,
    tls: TlsMode,
    diagnostics: &mut Diagnostics<'_>,
) {
    let is_implicit = |one: &ListenerSection| one.tls(tls) == ListenerTls::Implicit;
    let all_implicit = transparent(listeners).all(is_implicit);
    for port in intercept.ports.items() {
        if *port.get_ref() == SUBMISSIONS && !all_implicit {
            let problem = "clients of port 465 begin with TLS, for which the listeners with mode = \"tproxy\" do not wait";
            let remedy = "leave 465 out, or set tls = \"implicit\" in each of them";
            diagnostics.error(port.span().start, "intercept.ports", problem, remedy);
        }
    }
    let has_smtp = match intercept.ports.given() {
        Some(ports) => ports.get_ref().iter().any(|port| *port.get_ref() == PORT),
        None => intercept.ports.is_absent(),
    };
    for listener in transparent(listeners).filter(|one| has_smtp && is_implicit(one)) {
        let Some(at) = listener.tls.start() else { continue };
        let problem = "clients of port 25, which is intercepted, do not begin with TLS";
        let remedy = "write ports = [465] in [intercept], or tls = \"starttls\" here";
        diagnostics.error(at, &listener.field("tls"), problem, remedy);
    }
}

fn mark(intercept: &InterceptSection, diagnostics: &mut Diagnostics<'_>) {
    let (Some(mark), Some(mask)) = (intercept.mark.effective(MARK), intercept.mask.effective(MASK))
    else {
        return;
    };
    if mark & !mask == 0 && mask & !mark != 0 {
        return;
    }
    let key = if intercept.mark.given().is_some() { "mark" } else { "mask" };
    let at = intercept.mark.start().or(intercept.mask.start()).unwrap_or_default();
    let problem = format!(
        "mark = {mark:#x} with mask = {mask:#x}: the mark must be some bits of the mask and leave others, which mark the \
         gateway's own connections"
    );
    let remedy = "write two bits that nothing else uses, such as mark = 0x40 and mask = 0xc0, or leave both out";
    diagnostics.error(at, &format!("intercept.{key}"), problem, remedy);
}

//! Whether the servers' replies to clients come back through this host: connects to each server from an address outside, which
//! works only if the reply comes back here.
//!
//! Without a running gateway this needs rules of its own for a moment: table `inet gatepost_check`, and an ip rule and a route
//! in a table of their own. They apply to packets from the servers to a transparent socket of this host only, so a router's
//! other traffic does not change.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::spawn_blocking;

use super::finding::{InterceptCheckName, InterceptCheckReport};
use super::host::Host;
use super::routes::RouteLookup;
use crate::addr::Family;
use crate::intercept::nft;
use crate::intercept::settings::{InterceptSettings, PRIORITY};

pub(super) const TABLE: &str = "gatepost_check";
/// Of our rule and route. Not that of the gateway, which would take them for its own.
const PROTOCOL: &str = "104";
/// Of our rule and route; the second where the gateway uses the first.
const ROUTING_TABLES: [u32; 2] = [26_481, 26_482];
/// Two SYNs.
const TIMEOUT: Duration = Duration::from_millis(2500);
const NAME: InterceptCheckName = InterceptCheckName::ReturnRoute;

/// Addresses for documentation (RFC 5737, RFC 3849, RFC 9637): no client has one.
const CANDIDATES: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 222)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 222)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 222)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0, 0, 0, 0x222)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0xfff, 0xffff, 0, 0, 0, 0, 0x222)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0xffff, 0, 0, 0, 0x222)),
];

/// `runs`: the gateway, with its rules.
pub(super) async fn check(
    host: &Host<'_>,
    routes: &RouteLookup,
    runs: bool,
    report: &mut InterceptCheckReport,
) {
    let settings = host.settings;
    let Some(&port) = settings.ports.first() else { return };
    let mut probes = Vec::new();
    for one in host.destinations.iter().filter(|one| !one.is_local()) {
        let server = SocketAddr::new(one.network.addr(), port);
        if !one.is_one_address() {
            let seen = format!(
                "replies of the servers in {}: not tested, since it is a network; name single addresses in \
                 intercept.destinations",
                one.network
            );
            report.unknown(NAME, seen);
            continue;
        }
        match source(routes, Family::of(server.ip())).await {
            Some(source) => probes.push((server, source)),
            None => {
                report.unknown(NAME, format!("replies of {}: no address to test from", server.ip()))
            }
        }
    }
    if probes.is_empty() {
        return;
    }
    if !runs && let Err(reason) = install(settings, &probes).await {
        report.unknown(NAME, format!("replies of the servers: not tested: {reason}"));
        return;
    }
    let mark = settings.own_mark();
    let mut tasks = Vec::new();
    for (server, source) in probes {
        let probe = move || {
            let foreign = answers(server, Some(source), mark);
            let own = if foreign.is_ok() { Ok(()) } else { answers(server, None, mark) };
            (server, source, foreign, own)
        };
        tasks.push(spawn_blocking(probe));
    }
    let results = async {
        let mut results = Vec::new();
        for task in tasks {
            results.extend(task.await);
        }
        results
    };
    // The rules are removed also after Ctrl-C.
    let results = tokio::select! {
        results = results => Some(results),
        _ = tokio::signal::ctrl_c() => None,
    };
    if !runs {
        remove_leftovers().await;
    }
    for (server, source, foreign, own) in results.unwrap_or_default() {
        add(server, source, foreign, own, report);
    }
}

fn add(
    server: SocketAddr,
    source: IpAddr,
    foreign: io::Result<()>,
    own: io::Result<()>,
    report: &mut InterceptCheckReport,
) {
    let address = server.ip();
    match (foreign, own) {
        (Ok(()), _) => {
            report
                .pass(NAME, format!("replies of {address} to clients come back through this host"));
        }
        (Err(_), Ok(())) => {
            let family = Family::of(address);
            let version = if family == Family::Ipv4 { 4 } else { 6 };
            let seen = format!(
                "{address} does not answer a client's address ({source}), but answers this host: its replies \
                 take another way; make this host its default gateway. On the server, see:"
            );
            report.fail(NAME, seen, format!("ip -{version} route get {source}"));
        }
        (Err(foreign), Err(_)) => {
            let seen = format!(
                "replies of {address}: not tested, since {} does not answer this host either ({foreign})",
                server
            );
            report.unknown(NAME, seen);
        }
    }
}

/// An address from which replies come back by the server's default route: not on a link of this host.
async fn source(routes: &RouteLookup, family: Family) -> Option<IpAddr> {
    for candidate in CANDIDATES.into_iter().filter(|one| Family::of(*one) == family) {
        match routes.route(candidate, None).await {
            Some(route) if route.is_local || !route.has_gateway && !route.is_reject => {}
            _ => return Some(candidate),
        }
    }
    None
}

/// Whether a connection from `source` is accepted or refused: either answer came back.
fn answers(server: SocketAddr, source: Option<IpAddr>, mark: u32) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_mark(mark)?;
    if let Some(source) = source {
        // Linux hands SOL_IP options of an IPv6 TCP socket to the same code: this is IPV6_TRANSPARENT as well.
        socket.set_ip_transparent_v4(true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect_timeout(&server.into(), TIMEOUT) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        connected => connected,
    }
}

/// Removes what a check that was killed left; nothing if there is nothing.
pub async fn remove_leftovers() {
    // `delete` fails without a table.
    let _ = nft::apply_text(format!("table inet {TABLE}\ndelete table inet {TABLE}\n")).await;
    for family in Family::ALL {
        for table in ROUTING_TABLES {
            let _ = ip(&entry("del", Entry::Rule, family, table)).await;
            let _ = ip(&entry("del", Entry::Route, family, table)).await;
        }
    }
}

/// Delivers the servers' replies to the probe, until [`remove_leftovers`].
async fn install(
    settings: &InterceptSettings,
    probes: &[(SocketAddr, IpAddr)],
) -> Result<(), String> {
    // Of a check that was killed.
    remove_leftovers().await;
    let installed = try_install(settings, probes).await;
    if installed.is_err() {
        remove_leftovers().await;
    }
    installed
}

async fn try_install(
    settings: &InterceptSettings,
    probes: &[(SocketAddr, IpAddr)],
) -> Result<(), String> {
    let translates = nft::translates().await.map_err(|error| error.to_string())?;
    let mut tables = ROUTING_TABLES.into_iter().filter(|table| *table != settings.table);
    let table = tables.next().unwrap_or(ROUTING_TABLES[0]);
    let mark = format!("{:#x}/{:#x}", settings.mark, settings.mask);
    for family in settings.families() {
        let number = table.to_string();
        let show = [version(family), "route", "show", "table", &number].map(str::to_owned);
        if ip(&show).await.is_ok_and(|routes| !routes.trim().is_empty()) {
            return Err(format!("routing table {table} is in use"));
        }
        ip(&entry("add", Entry::Route, family, table)).await?;
        let mut rule = entry("add", Entry::Rule, family, table);
        rule.extend(["fwmark".to_owned(), mark.clone()]);
        ip(&rule).await?;
    }
    // Last, so that no packet is marked before it has a route.
    let script = script(settings, probes, translates);
    nft::apply_text(script).await.map_err(|error| error.to_string())
}

#[derive(Clone, Copy)]
enum Entry {
    Rule,
    Route,
}

/// Arguments of ip(8).
fn entry(action: &str, entry: Entry, family: Family, table: u32) -> Vec<String> {
    let priority = PRIORITY - 1;
    let (version, protocol) = (version(family), PROTOCOL);
    let arguments = match entry {
        Entry::Rule => {
            format!("rule {action} lookup {table} priority {priority} protocol {protocol}")
        }
        Entry::Route => {
            format!("route {action} local default dev lo table {table} proto {protocol}")
        }
    };
    [version].into_iter().chain(arguments.split(' ')).map(str::to_owned).collect()
}

fn script(
    settings: &InterceptSettings,
    probes: &[(SocketAddr, IpAddr)],
    translates: bool,
) -> String {
    use std::fmt::Write as _;

    let (mark, mask) = (settings.mark, settings.mask);
    let mut rules = String::new();
    let mut exemptions = String::new();
    for (server, source) in probes {
        let protocol = if server.is_ipv4() { "ip" } else { "ip6" };
        let (server, port) = (server.ip(), server.port());
        let _ = writeln!(
            rules,
            "    {protocol} saddr {server} {protocol} daddr {source} tcp sport {port} socket wildcard 0 socket \
             transparent 1 meta mark set meta mark and {:#x} or {mark:#x} accept",
            !mask
        );
        let _ = writeln!(
            exemptions,
            "    {protocol} saddr {source} {protocol} daddr {server} snat {protocol} to {protocol} saddr"
        );
    }
    let mut script = format!(
        "table inet {TABLE} {{\n  chain prerouting {{\n    type filter hook prerouting priority 1000;\n{rules}  \
         }}\n"
    );
    if translates {
        let _ = write!(
            script,
            "  chain spoofed {{\n    type nat hook postrouting priority 99;\n{exemptions}  }}\n"
        );
    }
    script.push_str("}\n");
    script
}

const fn version(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "-4",
        Family::Ipv6 => "-6",
    }
}

/// Runs ip(8) in the network namespace of this thread.
async fn ip(arguments: &[String]) -> Result<String, String> {
    let arguments = arguments.to_vec();
    let run = move || {
        for program in ["ip", "/usr/sbin/ip", "/sbin/ip"] {
            match Command::new(program).args(&arguments).output() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("cannot run ip(8): {error}")),
                Ok(output) if output.status.success() => {
                    return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
                }
                Ok(output) => {
                    return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
                }
            }
        }
        Err("ip(8) is not installed (package iproute2)".to_owned())
    };
    spawn_blocking(run).await.unwrap_or_else(|panicked| Err(panicked.to_string()))
}

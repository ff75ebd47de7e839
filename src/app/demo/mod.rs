//! `gatepost demo`: an MTA, a DNS zone, a gateway and several clients in one process, on loopback, without root and
//! without configuration. Prints a table of their sessions, then serves the gateway's metrics until Ctrl-C.
//!
//! Layer 5. Each row compares the replies that the client read, the gateway's record of the session and the messages that
//! the MTA stored with the expected ones.

mod clients;
mod dialogue;
mod environment;
mod expectation;
mod gateway;
mod mailbox;
mod mta;
mod ports;
mod result;
mod table;
mod zone;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use self::environment::Environment;
use self::gateway::DemoGateway;
use self::ports::{ReservedPort, ipv6_loopback};
use self::table::{DemoTable, Style, Totals};
use self::zone::{DOMAIN, HALF_DOMAIN};
use crate::addr::Family;

/// Pause between two clients after the table.
const REPEAT: Duration = Duration::from_secs(3);

/// Runs the demo: with `once` to the end of its table, otherwise until Ctrl-C. The exit status is 0 if every row was as
/// expected.
///
/// # Errors
/// The demo cannot be set up.
pub(super) async fn run(once: bool) -> anyhow::Result<ExitCode> {
    let mut table = DemoTable::new(io::stdout(), Style::of_stdout());
    let passed = show(&mut table, once).await?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the whole demo; returns whether every row was as expected.
async fn show<W: Write>(table: &mut DemoTable<W>, once: bool) -> anyhow::Result<bool> {
    let ipv6 = ipv6_loopback();
    let mut environment = Environment::start(ipv6).await?;
    // Reserved to the end, so that no other program gets a port that a client takes for the gateway's.
    let site = ReservedPort::new(ipv6).context("no free port for the gateway")?;
    let half = ReservedPort::new(ipv6).context("no second free port for the gateway")?;
    let gateway = start_gateway(&mut environment, &site, &half, ipv6).await?;

    let mut totals = [Totals::default(); Family::ALL.len()];
    let mut passed = true;
    if !ipv6 {
        table.line("This host has no IPv6 loopback address: only the IPv4 half is shown.")?;
    }
    table.head()?;
    for client in clients::all(ipv6, 0) {
        table.running(&client)?;
        let result = environment.run(&client).await;
        if let Ok(view) = &result.view {
            let totals = &mut totals[Family::of(view.server.ip()) as usize];
            totals.sessions += 1;
            totals.inside_tls += u64::from(view.tls);
            totals.messages += result.arrived.len() as u64;
            totals.rejected += u64::from(view.rejection().is_some());
        }
        passed &= table.row(&client, &result)?;
    }
    for family in families(ipv6) {
        table.totals(family, totals[family as usize])?;
    }
    table.line(&format!("metrics: http://{}/metrics", gateway.metrics))?;
    if !once {
        passed &= stay(table, &mut environment, ipv6).await?;
    }
    gateway.stop().await;
    Ok(passed)
}

/// Starts the gateway in front of the environment's MTA and publishes its ports to the clients.
async fn start_gateway(
    environment: &mut Environment,
    site: &ReservedPort,
    half: &ReservedPort,
    ipv6: bool,
) -> anyhow::Result<DemoGateway> {
    let mut listen = Vec::new();
    for family in families(ipv6) {
        listen.push((loopback(family), site.port).into());
        environment.ports.set(DOMAIN, family, site.port);
        // Reserved in both families, but the gateway listens in IPv4 only: the half site's IPv6 refuses connections.
        environment.ports.set(HALF_DOMAIN, family, half.port);
    }
    listen.push((loopback(Family::Ipv4), half.port).into());
    let metrics_on = loopback(if ipv6 { Family::Ipv6 } else { Family::Ipv4 });
    let settings = gateway::settings(listen, environment.mta.addresses.clone());
    DemoGateway::start(settings, metrics_on, environment.records.clone())
        .await
        .context("the demo's gateway does not start")
}

/// Keeps the metrics moving until Ctrl-C; returns whether every session was as expected.
async fn stay<W: Write>(
    table: &mut DemoTable<W>,
    environment: &mut Environment,
    ipv6: bool,
) -> anyhow::Result<bool> {
    table.line("Press Ctrl-C to stop")?;
    let mut passed = true;
    let mut turns = families(ipv6).into_iter().cycle().zip(1..);
    let ctrl_c = tokio::signal::ctrl_c();
    tokio::pin!(ctrl_c);
    loop {
        tokio::select! {
            signal = &mut ctrl_c => {
                signal.context("cannot wait for Ctrl-C")?;
                return Ok(passed);
            }
            () = tokio::time::sleep(REPEAT) => {}
        }
        let Some((family, run)) = turns.next() else {
            continue;
        };
        let client = clients::plain(family, run);
        let result = environment.run(&client).await;
        if !client.expected.differences(&result).is_empty() {
            passed &= table.row(&client, &result)?;
        }
    }
}

/// The families of this host, IPv6 first.
fn families(ipv6: bool) -> Vec<Family> {
    let six = ipv6.then_some(Family::Ipv6);
    six.into_iter().chain([Family::Ipv4]).collect()
}

const fn loopback(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

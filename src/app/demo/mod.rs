//! `gatepost demo`: an MTA, a DNS zone, a gateway and a handful of senders in this one process, on loopback, without root
//! and without configuration; a table of what happened; then the gateway's metrics until Ctrl-C.
//!
//! Layer 5. The table claims nothing that was not checked: each row compares the replies that the sender read, the
//! gateway's record of the session and what the MTA kept; the sums are compared with `/metrics`.

mod audit;
mod claims;
mod dialogue;
mod gateway;
mod ledger;
mod mailbox;
mod mta;
mod ports;
mod scrape;
mod senders;
mod stage;
mod table;
mod zone;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use self::audit::Sums;
use self::gateway::Gateway;
use self::ports::{Reserved, ipv6_loopback};
use self::stage::Stage;
use self::table::{Style, Table};
use self::zone::{DOMAIN, HALF_DOMAIN};
use crate::addr::Family;

/// Between two senders once the table is done.
const REPEAT: Duration = Duration::from_secs(3);

/// Runs the demo: with `once` to the end of its table, otherwise until Ctrl-C. Fails the exit code if anything was
/// otherwise than the table claims.
///
/// # Errors
/// What kept the demo from being shown at all.
pub(super) async fn run(once: bool) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(io::stdout(), Style::of_stdout());
    let as_claimed = show(&mut table, once).await?;
    Ok(if as_claimed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The whole demo, written to `table`; `false` if anything was not as claimed.
async fn show<W: Write>(table: &mut Table<W>, once: bool) -> anyhow::Result<bool> {
    let ipv6 = ipv6_loopback();
    let mut stage = Stage::set(ipv6).await?;
    // Held to the end, so that no other program takes a port that a sender believes to be the gateway's.
    let site = Reserved::new(ipv6).context("no free port for the gateway")?;
    let half = Reserved::new(ipv6).context("no second free port for the gateway")?;
    let gateway = raise(&mut stage, &site, &half, ipv6).await?;

    let mut sums = Sums::default();
    let mut as_claimed = true;
    if !ipv6 {
        table.say("This host has no IPv6 loopback address: the IPv4 half only, and nothing is claimed of IPv6.")?;
    }
    table.head()?;
    for sender in senders::cast(ipv6, 0) {
        table.under_way(&sender)?;
        let done = stage.perform(&sender).await;
        sums.add(&sender, &done);
        as_claimed &= done.differences.is_empty();
        table.row(&sender, &done)?;
    }
    let total = stage.mta.mailbox.total();
    let differences = sums.differences(&stage.ledger, total, gateway.metrics).await;
    for family in families(ipv6) {
        table.summary(family, sums.of(family))?;
    }
    if !differences.is_empty() {
        as_claimed = false;
        table.not_as_claimed(&differences)?;
    }
    table.say(&format!("metrics: http://{}/metrics", gateway.metrics))?;
    if !once {
        as_claimed &= stay(table, &stage, ipv6).await?;
    }
    gateway.stop().await;
    Ok(as_claimed)
}

/// Starts the gateway before the stage's MTA and tells the senders its ports.
async fn raise(
    stage: &mut Stage,
    site: &Reserved,
    half: &Reserved,
    ipv6: bool,
) -> anyhow::Result<Gateway> {
    let mut listen = Vec::new();
    for family in families(ipv6) {
        listen.push((loopback(family), site.port).into());
        stage.ports.set(DOMAIN, family, site.port);
        // Held in both families, but the gateway listens over IPv4 only: that is what the half site is for.
        stage.ports.set(HALF_DOMAIN, family, half.port);
    }
    listen.push((loopback(Family::Ipv4), half.port).into());
    let metrics_on = loopback(if ipv6 { Family::Ipv6 } else { Family::Ipv4 });
    let settings = gateway::settings(listen, stage.mta.addresses.clone());
    let ledger = stage.ledger.clone();
    Gateway::start(settings, metrics_on, ledger).await.context("the demo's gateway does not start")
}

/// Keeps the metrics moving until Ctrl-C; `false` if a sender met something else than it claims.
async fn stay<W: Write>(table: &mut Table<W>, stage: &Stage, ipv6: bool) -> anyhow::Result<bool> {
    table.say("Ctrl-C ends")?;
    let mut as_claimed = true;
    let mut turns = families(ipv6).into_iter().cycle().zip(1..);
    let ctrl_c = tokio::signal::ctrl_c();
    tokio::pin!(ctrl_c);
    loop {
        tokio::select! {
            signal = &mut ctrl_c => {
                signal.context("cannot wait for Ctrl-C")?;
                return Ok(as_claimed);
            }
            () = tokio::time::sleep(REPEAT) => {}
        }
        let Some((family, run)) = turns.next() else {
            continue;
        };
        let sender = senders::plain(family, run);
        let done = stage.perform(&sender).await;
        if !done.differences.is_empty() {
            as_claimed = false;
            table.row(&sender, &done)?;
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

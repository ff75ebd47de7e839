//! `gatepost canary send`: one pair now.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};

use crate::addr::Family;
use crate::app::hostname::hostname;
use crate::app::output::print;
use crate::canary::{CanaryAddresses, CanaryDirection, CanaryPair, Comparison};
use crate::canary_reports::ReportDirectory;
use crate::cli::{CanarySendArgs, OutputFormat, SendDirection};
use crate::hmac_key::HmacKey;
use crate::lookup::vantage::SharedKey;
use crate::lookup::{Dns, Sources, exchange_addresses};
use crate::policy::facts::DomainName;
use crate::report::canary;
use crate::smtp_connection::{CanarySender, CanaryTarget, PairOrder};
use crate::time::Timestamp;
use crate::tls::{UpstreamVerification, upstream_config};

const SMTP: u16 = 25;
/// Interval of looks at the directory of reports.
const POLL: Duration = Duration::from_millis(500);

pub(super) async fn send(args: CanarySendArgs) -> anyhow::Result<ExitCode> {
    let key = SharedKey::read(&args.key)?.hmac().clone();
    let hostname = match &args.hostname {
        Some(name) => name.to_string(),
        None => hostname("--hostname")?,
    };
    let (ipv4, ipv6) = servers(&args).await?;
    let tls = upstream_config(&UpstreamVerification::None)?;
    let sender = CanarySender { hostname, timeout: args.network.timeout, tls };
    let direction = match args.direction {
        SendDirection::Inbound => CanaryDirection::Inbound,
        SendDirection::Outbound => CanaryDirection::Outbound,
    };
    let addresses = CanaryAddresses { from: args.from, to: args.to };
    let order = PairOrder { direction, addresses: &addresses, key: &key, ipv4: &ipv4, ipv6: &ipv6 };
    let pair = sender.send_pair(order, now()).await.context("cannot read random bytes")?;
    let (pair, comparison) = match args.reports {
        Some(directory) => {
            let pair = wait(pair, &ReportDirectory::new(directory), &key, args.wait).await?;
            let comparison = pair.comparison();
            (pair, comparison)
        }
        None => {
            let comparison = pair.comparison_of_deliveries();
            (pair, comparison)
        }
    };
    print(&match args.format {
        OutputFormat::Text => canary::text(&pair, comparison),
        OutputFormat::Json => canary::json(&pair, comparison)?,
    })?;
    Ok(ExitCode::from(match comparison {
        Comparison::Equal => 0,
        Comparison::Ipv6Worse | Comparison::Ipv4Worse => 1,
        Comparison::Unknown => 4,
    }))
}

/// Waits until no report can change the outcomes.
async fn wait(
    mut pair: CanaryPair,
    reports: &ReportDirectory,
    key: &HmacKey,
    limit: Duration,
) -> anyhow::Result<CanaryPair> {
    let deadline = Instant::now() + limit;
    loop {
        let found = reports.read(key, now());
        let found = found.with_context(|| format!("cannot read {}", reports.path().display()))?;
        for (token, report) in found {
            if token == pair.token(token.family) {
                pair.half_mut(token.family).received = Some((report.received, report.judgement));
            }
        }
        let is_over = Family::ALL.iter().all(|family| pair.half(*family).is_settled());
        if is_over || Instant::now() >= deadline {
            return Ok(pair);
        }
        sleep(POLL).await;
    }
}

/// The servers of each family, in the order of preference.
async fn servers(args: &CanarySendArgs) -> anyhow::Result<(Vec<CanaryTarget>, Vec<CanaryTarget>)> {
    if !args.servers.is_empty() {
        let of = |family| {
            let servers = args.servers.iter().filter(move |it| Family::of(it.ip()) == family);
            let server = |address: &SocketAddr| CanaryTarget {
                name: address.ip().to_canonical().to_string(),
                address: *address,
            };
            servers.map(server).collect::<Vec<_>>()
        };
        return Ok((of(Family::Ipv4), of(Family::Ipv6)));
    }
    let (_, domain) = args.to.rsplit_once('@').unwrap_or_default();
    let Some(domain) = DomainName::parse(domain) else {
        bail!(
            "--to: {domain} is no domain whose mail exchanges can be looked up; name them with --server"
        );
    };
    let dns = Dns::for_domain_check(args.network.dns, args.network.timeout).context("--dns")?;
    let of = async |family| {
        let answer = |lookup| {
            let dns = dns.clone();
            async move { Sources { dns: Some(&dns), ..Sources::default() }.answer(&lookup).await.answer }
        };
        let found = exchange_addresses(answer, &domain, family).await;
        let found = found.map_err(|reason| {
            anyhow::anyhow!("cannot look up the mail exchanges of {domain} ({reason}); try again, or use --server")
        })?;
        let server = |(name, ip): (DomainName, _)| CanaryTarget {
            name: name.to_string(),
            address: SocketAddr::new(ip, SMTP),
        };
        anyhow::Ok(found.into_iter().map(server).collect::<Vec<_>>())
    };
    Ok((of(Family::Ipv4).await?, of(Family::Ipv6).await?))
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

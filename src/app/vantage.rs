//! `gatepost vantage --listen ADDR --key FILE --domain DOMAIN…`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::{Ipv4Net, Ipv6Net};
use tokio::net::TcpListener;

use super::check::{CheckingHost, domain_checks};
use super::hostname::hostname;
use super::metrics_endpoint::{HttpEndpoint, serve_router};
use super::output::note;
use super::signals::Shutdown;
use crate::addr::Networks;
use crate::canary_reports::ReportDirectory;
use crate::cli::VantageArgs;
use crate::lookup::vantage::{
    RequestEvent, RequestLog, SharedKey, VantageCanaries, VantageServer, VantageServerSettings,
    serve,
};
use crate::lookup::{LargeHello, LookupService, LookupSettings, ProbeSettings, Ttls};
use crate::metrics::domain_check::{DomainCheckSettings, DomainChecks, probe};
use crate::policy::facts::DomainName;
use crate::smtp_connection::CanarySender;
use crate::tls::{UpstreamVerification, survey_config, upstream_config};

/// For each connection and reply of a canary; the gateway waits a minute and a half for all of them.
const CANARY_STEP: Duration = Duration::from_secs(15);
/// Time to report a probe that took all of its own time. Without it the requester would time out before it receives the
/// result "stalled".
const REPORT_TIME: Duration = Duration::from_secs(2);

pub(super) async fn vantage(args: VantageArgs) -> anyhow::Result<ExitCode> {
    let key = SharedKey::read(&args.key)?;
    let hostname = args.hostname.map_or_else(|| hostname("--hostname"), Ok)?;
    let canaries = match args.canary_from {
        Some(from) => {
            let tls = upstream_config(&UpstreamVerification::None)?;
            let (hostname, timeout) = (hostname.clone(), CANARY_STEP);
            let sender = CanarySender { hostname, timeout, tls };
            Some(VantageCanaries::new(sender, from, args.canaries_per_day.get()))
        }
        None => None,
    };
    let domains: BTreeSet<DomainName> = args.domains.into_iter().collect();
    let _endpoint = match args.probe_listen {
        Some(address) => {
            let settings =
                DomainCheckSettings { domains: domains.clone(), ..DomainCheckSettings::default() };
            let host = CheckingHost {
                dns: args.network.dns,
                hostname: hostname.clone(),
                controls: args.controls,
                control_socket: None,
                site: Networks::default(),
            };
            let checks = domain_checks(settings, "the options --domain", host);
            Some(serve_probe(address, checks).await?)
        }
        None => None,
    };
    let mut settings = settings(args.network.dns, hostname, args.network.timeout);
    settings.large_hello = Some(LargeHello(survey_config().context("TLS")?));
    let (lookup, _) = LookupService::start(settings, Arc::new(()))?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr().context("cannot read the listening address")?;
    let names: Vec<String> = domains.iter().map(ToString::to_string).collect();
    note(&format!("listening on {address}, probes {}", names.join(", ")));
    let server = VantageServerSettings {
        key,
        domains,
        requests_per_minute: args.requests_per_minute,
        only_global: true,
        canaries,
        reports: args.canary_reports.map(ReportDirectory::new),
    };
    let mut shutdown = Shutdown::new(None)?;
    tokio::select! {
        never = serve(listener, VantageServer::new(server, lookup, Arc::new(StderrLog::default()))) => match never {},
        _ = shutdown.requested() => Ok(ExitCode::SUCCESS),
    }
}

/// `/probe`, for Prometheus.
async fn serve_probe(
    address: SocketAddr,
    checks: Arc<DomainChecks>,
) -> anyhow::Result<HttpEndpoint> {
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.with_context(|| format!("cannot listen on {address}; change --probe-listen"))?;
    let address = listener.local_addr().context("cannot read the listening address")?;
    note(&format!("listening on {address} for Prometheus, at /probe"));
    Ok(serve_router(listener, (probe(checks), "/probe")))
}

/// Rejections that are logged in a minute: strangers cannot fill the disk.
const REJECTIONS: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// One line for each request on standard error, which is the journal under systemd.
#[derive(Default)]
struct StderrLog {
    /// Begin of the present minute, and its rejections.
    rejections: Mutex<Option<(Instant, u32)>>,
}

impl StderrLog {
    /// Counts a rejection. Returns whether it is logged, and how many were not in the minute before.
    fn admit_rejection(&self, now: Instant) -> (bool, u32) {
        let mut rejections = self.rejections.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, count) = rejections.unwrap_or((now, 0));
        let (began, count, omitted) = match now.duration_since(began) < MINUTE {
            true => (began, count.saturating_add(1), 0),
            false => (now, 1, count.saturating_sub(REJECTIONS)),
        };
        *rejections = Some((began, count));
        (count <= REJECTIONS, omitted)
    }
}

impl RequestLog for StderrLog {
    fn log(&self, peer: SocketAddr, event: RequestEvent<'_>) {
        if event.is_rejection() {
            let (is_logged, omitted) = self.admit_rejection(Instant::now());
            if omitted > 0 {
                note(&format!("{omitted} more rejections were not logged"));
            }
            if !is_logged {
                return;
            }
        }
        note(&format!("{peer}: {event}"));
    }
}

/// Each request is about the present, so almost nothing is cached. The probed servers belong to the requester, so large
/// segments may be sent to them.
fn settings(dns: Option<SocketAddr>, hostname: String, timeout: Duration) -> LookupSettings {
    let (zero, minute) = (Duration::ZERO, Duration::from_secs(60));
    let default = LookupSettings::default();
    LookupSettings {
        dns_servers: dns.into_iter().collect(),
        hostname,
        deadline: timeout + REPORT_TIME,
        ttls: Ttls {
            dns_min: zero,
            dns_max: minute,
            dns_negative_max: minute,
            unknown: zero,
            probe_positive: zero,
            probe_negative: zero,
            ..default.ttls
        },
        probes: ProbeSettings {
            timeout,
            large_segments: true,
            // Higher than the limit on requests, which applies instead.
            per_server_per_minute: 1000,
            ..default.probes
        },
        // The server checks each address before it asks for a probe.
        special_networks: Networks::new([Ipv4Net::default().into(), Ipv6Net::default().into()]),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_are_logged_up_to_a_limit_each_minute() {
        let log = StderrLog::default();
        let start = Instant::now();
        let logged = (0..100).filter(|_| log.admit_rejection(start).0).count();
        assert_eq!(logged, 60);
        assert_eq!(log.admit_rejection(start + MINUTE), (true, 40));
        assert_eq!(log.admit_rejection(start + MINUTE), (true, 0));
    }
}

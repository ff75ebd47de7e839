//! `gatepost vantage --listen ADDR --key FILE --domain DOMAIN…`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::hostname::hostname;
use super::output::note;
use super::signals::Shutdown;
use crate::cli::VantageArgs;
use crate::lookup::vantage::{SharedKey, VantageServer, VantageServerSettings, serve};
use crate::lookup::{LookupService, LookupSettings, ProbeSettings, Ttls};

/// Time to report a probe that took all of its own time. Without it the requester would time out before it receives the
/// result "stalled".
const REPORT_TIME: Duration = Duration::from_secs(2);

pub(super) async fn vantage(args: VantageArgs) -> anyhow::Result<ExitCode> {
    let key = SharedKey::read(&args.key)?;
    let hostname = args.hostname.map_or_else(|| hostname("--hostname"), Ok)?;
    let settings = settings(args.dns, hostname, args.timeout);
    let (lookup, _) = LookupService::start(settings, Arc::new(()))?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr().context("cannot read the listening address")?;
    let domains: Vec<String> = args.domains.iter().map(ToString::to_string).collect();
    note(&format!("listening on {address}, probes {}", domains.join(", ")));
    let server = VantageServerSettings {
        key,
        domains: args.domains.into_iter().collect(),
        requests_per_minute: args.requests_per_minute,
        only_global: true,
    };
    let mut shutdown = Shutdown::new(None)?;
    tokio::select! {
        never = serve(listener, VantageServer::new(server, lookup)) => match never {},
        _ = shutdown.requested() => Ok(ExitCode::SUCCESS),
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
        ..default
    }
}

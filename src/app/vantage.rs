//! `gatepost vantage --listen ADDR --key FILE --domain DOMAIN…`

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::VantageArgs;
use crate::lookup::vantage::{SharedKey, VantageServer, VantageServerSettings, serve};
use crate::lookup::{LookupService, LookupSettings, ProbeSettings, Ttls};

/// What is left to tell of a call that took all its time. Were it nothing, whoever asked would have gone before hearing that
/// a server is stalled.
const TO_TELL: Duration = Duration::from_secs(2);

pub(super) async fn vantage(asked: VantageArgs) -> anyhow::Result<ExitCode> {
    let key = SharedKey::read(&asked.key)?;
    let hostname = match asked.hostname {
        Some(hostname) => hostname,
        None => nix::unistd::gethostname()
            .context("cannot learn this host's name; say it with --hostname")?
            .to_string_lossy()
            .into_owned(),
    };
    let settings = settings(asked.dns, hostname, asked.timeout);
    let (reach, _) = LookupService::start(settings, Arc::new(()))?;
    let listener = TcpListener::bind(asked.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", asked.listen))?;
    let address = listener.local_addr().context("cannot learn where it listens")?;
    let domains: Vec<String> = asked.domains.iter().map(ToString::to_string).collect();
    let note = format!("probes {} for whoever asks at {address}", domains.join(", "));
    let _nobody_listens = writeln!(std::io::stderr(), "gatepost: {note}");
    let rules = VantageServerSettings {
        key,
        domains: asked.domains.into_iter().collect(),
        requests_per_minute: asked.requests_per_minute,
        only_global: true,
    };
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    tokio::select! {
        never = serve(listener, VantageServer::new(rules, reach)) => match never {},
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Each question is about now, so next to nothing is kept. The servers that are called belong to whoever asks: something
/// large may be said to them.
fn settings(
    dns: Option<std::net::SocketAddr>,
    hostname: String,
    patience: Duration,
) -> LookupSettings {
    let (zero, minute) = (Duration::ZERO, Duration::from_secs(60));
    let default = LookupSettings::default();
    LookupSettings {
        dns_servers: dns.into_iter().collect(),
        hostname,
        deadline: patience + TO_TELL,
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
            timeout: patience,
            large_segments: true,
            // The rate of questions is what limits.
            per_server_per_minute: 1000,
            ..default.probes
        },
        ..default
    }
}

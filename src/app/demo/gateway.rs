//! The seam: starts a gateway inside this process, from settings, and has it report to the [`Ledger`].
//!
//! Layer 5. Everything else of the demo knows the gateway by its ports only.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::ledger::Ledger;
use super::senders::{LISTED, LISTED_RULE};
use crate::addr::Networks;
use crate::engine::{Limits as SessionLimits, Pregreet, SmtpOptions, Timeouts};
use crate::metrics::Metrics;
use crate::metrics::http::{self, HealthState, ReadyState};
use crate::policy::{AccessRule, AccessRules, PolicyAction};
use crate::relay::{
    InheritedSockets, ListenSettings, Listeners, Relay, RelayLimits, RelaySettings, TimeoutSets,
    UpstreamIdentity, UpstreamSettings,
};

/// A running gateway.
pub(super) struct Gateway {
    /// Where `/metrics` is served.
    pub metrics: SocketAddr,
    relay: Relay,
    /// Dropped, it ends the metrics endpoint.
    _endpoint: oneshot::Sender<()>,
}

impl Gateway {
    /// Starts the relay with `settings`, and its metrics on a port of `metrics_on` that the kernel chooses. Both the
    /// metrics and `ledger` are told of every event.
    pub(super) async fn start(
        settings: RelaySettings,
        metrics_on: IpAddr,
        ledger: Arc<Ledger>,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new()?);
        let listener = TcpListener::bind((metrics_on, 0)).await;
        let listener = listener.context("cannot listen for metrics on loopback")?;
        let address = listener.local_addr()?;
        metrics.set_sessions_limit(settings.limits.sessions);
        let listeners = Listeners::open(&settings, InheritedSockets::default())?;
        let observer = Arc::new((Arc::clone(&metrics), ledger));
        let relay = Relay::start(settings, listeners, observer, Arc::new(()))?;
        tokio::spawn(relay.forget_idle_clients());
        let readiness = HealthState::new();
        readiness.set(ReadyState::Ready);
        let (endpoint, stopped) = oneshot::channel::<()>();
        let router = http::routes(metrics, readiness).merge(http::index());
        tokio::spawn(http::serve(listener, router, async { drop(stopped.await) }));
        Ok(Self { metrics: address, relay, _endpoint: endpoint })
    }

    pub(super) async fn stop(self) {
        self.relay.drain().await;
    }
}

/// What a configuration file would say: listen here, relay there, refuse the listed host and early talkers.
pub(super) fn settings(listen: Vec<SocketAddr>, upstream: Vec<SocketAddr>) -> RelaySettings {
    let listed = AccessRule {
        name: LISTED_RULE.into(),
        family: None,
        networks: Networks::new([IpAddr::from(LISTED).into()]),
        action: PolicyAction::Reject,
    };
    RelaySettings {
        listen: ListenSettings { addresses: listen, transparent: false, threads: 1 },
        upstream: UpstreamSettings {
            addresses: upstream,
            identity: UpstreamIdentity::None,
            attempt_delay: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(30),
            retry_after: Duration::from_secs(10),
            mark: None,
        },
        proxy_trusted: Networks::default(),
        access: AccessRules::new(vec![listed]),
        rules: Arc::default(),
        smtp: SmtpOptions {
            hostname: "mx.demo.test".to_owned(),
            pregreet: Pregreet::Reject,
            ..SmtpOptions::default()
        },
        limits: RelayLimits {
            sessions: 10_000,
            sessions_per_client: 50,
            new_sessions_per_client_per_minute: None,
            session: SessionLimits::default(),
        },
        timeouts: TimeoutSets {
            normal: Timeouts::RFC_5321,
            stress: Timeouts::STRESS,
            stress_above: 80,
        },
        drain: Duration::from_secs(1),
    }
}

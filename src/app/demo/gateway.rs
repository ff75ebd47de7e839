//! Starts a gateway inside this process.
//!
//! Layer 5. The rest of the demo knows only its ports and its session records.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;

use super::clients::{LISTED, LISTED_RULE};
use super::environment::RecordSender;
use crate::addr::Networks;
use crate::app::metrics_endpoint::{HttpEndpoint, serve_with_index};
use crate::engine::{Limits as SessionLimits, Pregreet, SmtpOptions, Timeouts, TlsMode};
use crate::metrics::Metrics;
use crate::policy::{AccessRule, AccessRules, ListenerCondition, PolicyAction};
use crate::relay::{
    AfterTlsFailures, ClientTls, InheritedSockets, ListenerSettings, ListenerTls, Listeners, Relay,
    RelayLimits, RelaySettings, TimeoutSets, TlsConfigs, UpstreamCheck, UpstreamIdentity,
    UpstreamSettings, UpstreamTlsSettings,
};

const HOSTNAME: &str = "mx.demo.test";

pub(super) struct DemoGateway {
    /// Serves `/metrics`.
    pub metrics: SocketAddr,
    relay: Relay,
    _endpoint: HttpEndpoint,
}

impl DemoGateway {
    /// Starts the relay with `settings`, and its metrics on a free port of `metrics_on`.
    pub(super) async fn start(
        settings: RelaySettings,
        metrics_on: IpAddr,
        records: RecordSender,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new()?);
        let listener = TcpListener::bind((metrics_on, 0)).await;
        let listener = listener.context("cannot listen for metrics on loopback")?;
        let address = listener.local_addr()?;
        metrics.set_sessions_limit(settings.limits.sessions);
        let listeners = Listeners::open(&settings, InheritedSockets::default())?;
        let observer = Arc::new((Arc::clone(&metrics), records));
        let clients = ClientTls { config: server_config()?, inspector: None };
        let tls = TlsConfigs { clients: Some(clients), ..TlsConfigs::default() };
        let relay = Relay::start(settings, listeners, tls, observer, Arc::new(()))?;
        tokio::spawn(relay.forget_idle_clients());
        let endpoint = serve_with_index(listener, metrics);
        Ok(Self { metrics: address, relay, _endpoint: endpoint })
    }

    pub(super) async fn stop(self) {
        self.relay.drain().await;
    }
}

/// TLS with a new certificate, signed by itself.
fn server_config() -> anyhow::Result<Arc<ServerConfig>> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([HOSTNAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config =
        versions.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key.into())?;
    Ok(Arc::new(config))
}

/// The configuration: relays from `listen` to `upstream`, rejects the listed host and early talkers.
pub(super) fn settings(listen: Vec<SocketAddr>, upstream: Vec<SocketAddr>) -> RelaySettings {
    let listed = AccessRule {
        name: LISTED_RULE.into(),
        family: None,
        networks: Networks::new([IpAddr::from(LISTED).into()]),
        listeners: ListenerCondition::default(),
        action: PolicyAction::Reject,
    };
    RelaySettings {
        listeners: vec![ListenerSettings {
            name: ListenerSettings::DEFAULT_NAME.into(),
            addresses: listen,
            transparent: false,
            proxy_trusted: Networks::default(),
            tls: ListenerTls::Starttls,
            upstream: UpstreamSettings {
                addresses: upstream.into_iter().map(Into::into).collect(),
                resolve_interval: UpstreamSettings::RESOLVE_INTERVAL,
                identity: UpstreamIdentity::None,
                attempt_delay: Duration::from_millis(250),
                connect_timeout: Duration::from_secs(30),
                retry_after: Duration::from_secs(10),
                check: UpstreamCheck::None,
                check_interval: Duration::from_secs(30),
                tls: UpstreamTlsSettings::default(),
            },
        }],
        threads: 1,
        mark: None,
        access: AccessRules::new(vec![listed]),
        rules: Arc::default(),
        smtp: SmtpOptions {
            hostname: HOSTNAME.to_owned(),
            pregreet: Pregreet::Reject,
            ..SmtpOptions::default()
        },
        limits: RelayLimits {
            sessions: 10_000,
            sessions_per_client: 50,
            new_sessions_per_client_per_minute: None,
            sessions_per_network: 1000,
            new_sessions_per_network_per_minute: None,
            session: SessionLimits::default(),
        },
        timeouts: TimeoutSets {
            normal: Timeouts::RFC_5321,
            stress: Timeouts::STRESS,
            stress_above: 80,
        },
        tls: TlsMode::Terminate { required: false },
        after_tls_failures: AfterTlsFailures::Offer,
        trace_header: false,
        canary_marks: None,
        drain: Duration::from_secs(1),
    }
}

//! The seam: starts a gateway inside this process, from settings, and has it report to the [`Ledger`].
//!
//! Layer 5. Everything else of the demo knows the gateway by its ports only.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::ledger::Ledger;
use super::senders::{LISTED, LISTED_RULE};
use crate::addr::Networks;
use crate::engine::{Limits as SessionLimits, Pregreet, SmtpOptions, Timeouts};
use crate::policy::{AccessRule, AccessRules, Action};
use crate::relay::{Identity, Limits, Listen, Settings, TimeoutSets, Upstream};

/// A running gateway; dropping it stops it.
#[derive(Debug)]
pub(super) struct Gateway {
    /// Where `/metrics` is served.
    pub metrics: SocketAddr,
}

/// Starts the relay with `settings`, its metrics on a port of `metrics_on` that the kernel chooses, and both told of
/// every event: the metrics and `ledger`.
pub(super) async fn start(
    settings: Settings,
    metrics_on: IpAddr,
    ledger: Arc<Ledger>,
) -> anyhow::Result<Gateway> {
    let _ = (settings, metrics_on, ledger);
    anyhow::bail!("this build has no relay yet, so there is no gateway to show; use a later one")
}

/// What a configuration file would say: listen here, relay there, refuse the listed host and early talkers.
pub(super) fn settings(listen: Vec<SocketAddr>, upstream: Vec<SocketAddr>) -> Settings {
    let listed = AccessRule {
        name: LISTED_RULE.into(),
        family: None,
        networks: Networks::new([IpAddr::from(LISTED).into()]),
        action: Action::Reject,
    };
    Settings {
        listen: Listen {
            addresses: listen,
            transparent: false,
            threads: 1,
        },
        upstream: Upstream {
            addresses: upstream,
            identity: Identity::None,
            attempt_delay: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(30),
            retry_after: Duration::from_secs(10),
            mark: None,
        },
        proxy_trusted: Networks::default(),
        access: AccessRules::new(vec![listed]),
        smtp: SmtpOptions {
            hostname: "mx.demo.test".to_owned(),
            pregreet: Pregreet::Reject,
            ..SmtpOptions::default()
        },
        limits: Limits {
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

//! The parts of the status page besides sessions and lookups: doors, upstreams, readiness.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use axum::Router;

use super::canary::CanaryService;
use crate::app::door::DoorHandle;
use crate::config::Config;
use crate::metrics::http::{HealthState, ReadyState};
use crate::relay::{HostReport, RelayHandle, UpstreamHealth};
use crate::report::status::{self, GatewayInfo, LiveState, StatusCollector, UpstreamRow};
use crate::report::upstream_error;
use crate::time::Timestamp;

/// Created before the relay and the doors; clones share it.
#[derive(Clone, Default)]
pub(super) struct StatusSources {
    relay: Arc<OnceLock<RelayHandle>>,
    doors: Arc<OnceLock<DoorHandle>>,
    canary: Arc<OnceLock<CanaryService>>,
    /// About the configuration in force.
    warning: Arc<Mutex<Option<String>>>,
    /// Why mail is not intercepted, if so.
    outage: Arc<Mutex<Option<String>>>,
    /// What is wrong with the certificates.
    certificates: Arc<Mutex<Option<String>>>,
}

impl StatusSources {
    pub(super) fn set_relay(&self, relay: RelayHandle) {
        let _set_before = self.relay.set(relay);
    }

    pub(super) fn set_doors(&self, doors: DoorHandle) {
        let _set_before = self.doors.set(doors);
    }

    pub(super) fn set_canary(&self, canary: CanaryService) {
        let _set_before = self.canary.set(canary);
    }

    pub(super) fn set_warning(&self, warning: Option<String>) {
        *self.warning.lock().unwrap_or_else(PoisonError::into_inner) = warning;
    }

    pub(super) fn set_outage(&self, reason: Option<String>) {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(super) fn set_certificates(&self, warning: Option<String>) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = warning;
    }

    /// The route `/` of a gateway that starts now, with `config` from the file at `path`.
    pub(super) fn page(
        &self,
        status: Arc<StatusCollector>,
        (path, config): (&Path, &Config),
        health: HealthState,
    ) -> Router {
        let gateway = GatewayInfo {
            host: config.relay.smtp.hostname.clone(),
            version: env!("CARGO_PKG_VERSION"),
            config: path.display().to_string(),
            started: wall_clock(),
        };
        let sources = self.clone();
        let collect = move || {
            let (sources, ready) = (sources.clone(), health.get());
            Box::pin(async move { sources.collect(ready).await }) as _
        };
        status::routes(status, gateway, &config.status.hosts, Box::new(collect))
    }

    async fn collect(&self, ready: ReadyState) -> LiveState {
        let doors = match self.doors.get() {
            Some(doors) => doors.report().await.unwrap_or_default(),
            None => Vec::new(),
        };
        let upstreams = self.relay.get().map(upstream_rows).unwrap_or_default();
        let outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let outage = outage.map(|reason| format!("Mail is not intercepted: {reason}"));
        let warning = self.warning.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        LiveState {
            // The relay's clock, by which the session records are dated.
            at: self.relay.get().map_or_else(wall_clock, |relay| relay.clock().now()),
            ready: ready == ReadyState::Ready,
            readiness: ready.sentence(),
            doors,
            upstreams,
            canaries: self.canary.get().and_then(CanaryService::status),
            warning: outage.or(certificates).or(warning),
        }
    }
}

/// The addresses of all upstreams, then the host names without any.
fn upstream_rows(relay: &RelayHandle) -> Vec<UpstreamRow> {
    let address = |health: UpstreamHealth| UpstreamRow {
        name: health.to_string(),
        up: health.up,
        unchanged_for: health.lasts,
        last_error: health.failed.map(|(outcome, age)| (upstream_error(outcome), age)),
    };
    let without_address = |host: &HostReport| host.addresses.is_empty();
    let name = |host: HostReport| UpstreamRow {
        name: host.name.to_string(),
        up: Some(false),
        unchanged_for: host.lasts,
        last_error: host.failure.map(|failure| (failure, host.lasts)),
    };
    let names = relay.upstream_hosts().into_iter().filter(without_address).map(name);
    relay.upstream_health().into_iter().map(address).chain(names).collect()
}

fn wall_clock() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

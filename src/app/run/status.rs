//! What the status page shows of others than sessions and lookups: doors, upstreams, readiness.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use axum::Router;

use crate::app::door::Keeper;
use crate::config::Config;
use crate::metrics::http::{HealthState, ReadyState};
use crate::relay::{RelayHandle, UpstreamHealth};
use crate::report::status::{self, GatewayInfo, LiveState, Status, UpstreamRow};
use crate::time::Timestamp;

/// Given to the page before there is a relay, or a door to keep; clones share it.
#[derive(Clone, Default)]
pub(super) struct Surroundings {
    gate: Arc<OnceLock<RelayHandle>>,
    keeper: Arc<OnceLock<Keeper>>,
}

impl Surroundings {
    /// From now on there is a relay.
    pub(super) fn relayed_by(&self, gate: RelayHandle) {
        let _there_is_one = self.gate.set(gate);
    }

    /// From now on there are doors.
    pub(super) fn kept_by(&self, keeper: Keeper) {
        let _there_is_one = self.keeper.set(keeper);
    }

    /// `/` of a gateway that began now, as `config` in the file at `path` says.
    pub(super) fn page(
        &self,
        status: Arc<Status>,
        (path, config): (&Path, &Config),
        readiness: HealthState,
    ) -> Router {
        let gateway = GatewayInfo {
            host: config.relay.smtp.hostname.clone(),
            version: env!("CARGO_PKG_VERSION"),
            config: path.display().to_string(),
            started: wall_clock(),
        };
        let around = self.clone();
        let gather = move || {
            let (around, readiness) = (around.clone(), readiness.get());
            Box::pin(async move { around.now(readiness).await }) as _
        };
        status::routes(status, gateway, Box::new(gather))
    }

    async fn now(&self, readiness: ReadyState) -> LiveState {
        let doors = match self.keeper.get() {
            Some(keeper) => keeper.shown().await.unwrap_or_default(),
            None => Vec::new(),
        };
        let upstreams = self.gate.get().map(RelayHandle::upstream_health).unwrap_or_default();
        LiveState {
            // That of the records, where there may be any.
            at: self.gate.get().map_or_else(wall_clock, |gate| gate.clock().now()),
            ready: readiness == ReadyState::Ready,
            readiness: readiness.sentence(),
            doors,
            upstreams: upstreams.into_iter().map(upstream).collect(),
        }
    }
}

fn upstream(health: UpstreamHealth) -> UpstreamRow {
    let UpstreamHealth { address, up, lasts, failed } = health;
    UpstreamRow { address, up, lasts, failed }
}

fn wall_clock() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

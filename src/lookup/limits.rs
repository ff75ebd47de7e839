//! Limits of probes: concurrent, per second, and per server and minute.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::settings::ProbeSettings;

/// Probes of one server without a delay between them.
const BURST: u32 = 5;

#[derive(Debug)]
pub(super) struct ProbeLimits {
    concurrent: Arc<Semaphore>,
    total: DefaultDirectRateLimiter,
    per_server: DefaultKeyedRateLimiter<IpAddr>,
}

impl ProbeLimits {
    /// A zero in `settings` counts as one.
    pub(super) fn new(settings: &ProbeSettings) -> Self {
        let count = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let per_server = count(settings.per_server_per_minute);
        let burst = count(BURST).min(per_server);
        Self {
            concurrent: Arc::new(Semaphore::new(settings.max_concurrent.max(1))),
            total: RateLimiter::direct(Quota::per_second(count(settings.per_second))),
            per_server: RateLimiter::keyed(Quota::per_minute(per_server).allow_burst(burst)),
        }
    }

    /// A permit to probe `server` now, valid until it is dropped.
    pub(super) fn acquire(&self, server: IpAddr) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.concurrent).try_acquire_owned().ok()?;
        // The server's own limit first: a server over it must not use up the total.
        let allowed = self.per_server.check_key(&server).is_ok() && self.total.check().is_ok();
        allowed.then_some(permit)
    }

    /// Removes servers whose quota is full again.
    pub(super) fn maintain(&self) {
        self.per_server.retain_recent();
        self.per_server.shrink_to_fit();
    }
}

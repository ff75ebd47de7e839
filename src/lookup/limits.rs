//! How much other servers are called: at once, in a second, and each of them in a minute.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::settings::ProbeSettings;

/// Calls of one server that may come one right after the other.
const BURST: u32 = 5;

#[derive(Debug)]
pub(super) struct Limits {
    max_concurrent: Arc<Semaphore>,
    all: DefaultDirectRateLimiter,
    each: DefaultKeyedRateLimiter<IpAddr>,
}

impl Limits {
    /// Zeros in `settings` count as one.
    pub(super) fn new(settings: &ProbeSettings) -> Self {
        let count = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let each = count(settings.per_server_per_minute);
        Self {
            max_concurrent: Arc::new(Semaphore::new(settings.max_concurrent.max(1))),
            all: RateLimiter::direct(Quota::per_second(count(settings.per_second))),
            each: RateLimiter::keyed(Quota::per_minute(each).allow_burst(count(BURST).min(each))),
        }
    }

    /// Leave to call `server` now, until it is dropped.
    pub(super) fn permit(&self, server: IpAddr) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.max_concurrent).try_acquire_owned().ok()?;
        // The server's own first: one that is asked too often shall not use up what is for all.
        let allowed = self.each.check_key(&server).is_ok() && self.all.check().is_ok();
        allowed.then_some(permit)
    }

    /// Forgets servers that were not called lately.
    pub(super) fn tidy(&self) {
        self.each.retain_recent();
        self.each.shrink_to_fit();
    }
}

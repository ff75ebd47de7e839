//! How long a path is avoided.

use std::time::Duration;

/// `[outbound]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeringSettings {
    /// How long IPv6 is avoided after it failed. Then one message tries it.
    pub retry: Duration,
    /// The wait doubles with each trial that fails, up to this.
    pub retry_max: Duration,
}

impl SteeringSettings {
    pub const RETRY: Duration = Duration::from_secs(10 * 60);
    pub const RETRY_MAX: Duration = Duration::from_secs(2 * 3600);
}

impl Default for SteeringSettings {
    fn default() -> Self {
        Self { retry: Self::RETRY, retry_max: Self::RETRY_MAX }
    }
}

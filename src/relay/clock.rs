//! The relay's clock: monotonic, anchored to the wall clock once.

use std::time::{Instant, SystemTime};

use crate::time::Timestamp;

/// Gives timestamps whose differences stay right when the wall clock is set.
#[derive(Clone, Copy, Debug)]
pub struct RelayClock {
    wall: Timestamp,
    anchor: Instant,
}

impl RelayClock {
    pub fn start() -> Self {
        Self { wall: Timestamp::from_system_time(SystemTime::now()), anchor: Instant::now() }
    }

    pub fn now(&self) -> Timestamp {
        self.wall + self.anchor.elapsed()
    }

    /// The moment at which [`RelayClock::now`] will return `at`; the start for earlier times.
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.anchor + at.since(self.wall)
    }
}

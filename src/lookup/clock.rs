//! The wall clock.

use std::time::SystemTime;

use crate::time::Timestamp;

pub(super) fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

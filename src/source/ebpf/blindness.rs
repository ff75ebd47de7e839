//! Compares the packets that a program saw with the counters of its interface.
//!
//! Only a program that sees nothing is conspicuous. Exact numbers differ without a fault: packets are merged before they
//! arrive here and split after they left.

use std::time::{Duration, Instant};

/// Packets of the interface during which the program saw none, before that is reported. A few packets bypass programs, such
/// as keep-alives of tunnels and those that DHCP clients send by packet sockets.
const MIN_PACKETS: u64 = 50;
/// Minimum time for these packets, so that a counter that is updated late is no evidence.
const MIN_TIME: Duration = Duration::from_secs(4);
/// Maximum time for these packets: keep-alives of an idle tunnel never amount to them.
const MAX_TIME: Duration = Duration::from_secs(60);

/// One direction of an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenCounter {
    seen: u64,
    /// The interface's counter when `seen` changed last.
    carried: u64,
    since: Instant,
    is_reported: bool,
}

/// The packets of an interface of which a program saw none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unseen {
    pub(super) packets: u64,
    pub(super) time: Duration,
}

impl SeenCounter {
    pub(super) const fn new(seen: u64, carried: u64, now: Instant) -> Self {
        Self { seen, carried, since: now, is_reported: false }
    }

    /// Compares the counters of the program (`seen`) and of the interface (`carried`). Reports blindness once, until the
    /// program sees something again.
    pub(super) fn update(&mut self, seen: u64, carried: u64, now: Instant) -> Option<Unseen> {
        // A driver may reset its counters.
        if seen != self.seen || carried < self.carried {
            *self = Self::new(seen, carried, now);
            return None;
        }
        let (packets, time) = (carried - self.carried, now.duration_since(self.since));
        if self.is_reported || time < MIN_TIME {
            return None;
        }
        if packets < MIN_PACKETS {
            if time >= MAX_TIME {
                *self = Self::new(seen, carried, now);
            }
            return None;
        }
        self.is_reported = true;
        Some(Unseen { packets, time })
    }

    /// Blindness was reported and lasts.
    pub(super) const fn is_blind(&self) -> bool {
        self.is_reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blindness_is_reported_once_until_it_ends() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut counter = SeenCounter::new(10, 100, start);
        // Merged packets are no fault.
        assert_eq!(counter.update(11, 1000, at(2)), None);
        // Too few in a minute, then too early.
        assert_eq!(counter.update(11, 1049, at(62)), None);
        assert_eq!(counter.update(11, 1098, at(70)), None);
        assert_eq!(counter.update(12, 1099, at(71)), None);
        assert_eq!(counter.update(12, 5000, at(74)), None);
        assert!(!counter.is_blind());
        let unseen = Unseen { packets: 4901, time: Duration::from_secs(6) };
        assert_eq!(counter.update(12, 6000, at(77)), Some(unseen));
        assert_eq!(counter.update(12, 9000, at(90)), None);
        assert!(counter.is_blind());
        assert_eq!(counter.update(13, 9001, at(92)), None);
        assert!(!counter.is_blind());
        // The driver was restarted.
        assert_eq!(counter.update(13, 60, at(100)), None);
        assert_eq!(counter.update(13, 110, at(104)).map(|unseen| unseen.packets), Some(50));
    }
}

//! Of interfaces that show the same packets, as those of a router do, one is listened to.

use std::time::Duration;

use crate::time::Timestamp;

/// An interface that was silent for longer is not where the packets go any more.
const SILENCE: Duration = Duration::from_secs(1);

/// The interface that first showed one direction of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InterfacePin {
    /// When it showed something last.
    last: Timestamp,
    interface: u32,
    pinned: bool,
}

impl InterfacePin {
    /// Whether what `interface` shows at `now` is taken; what another one shows is a copy of it.
    #[inline]
    pub(super) fn takes(&mut self, interface: u32, now: Timestamp) -> bool {
        if self.interface != interface || !self.pinned {
            if self.pinned && now.since(self.last) <= SILENCE {
                return false;
            }
            (self.interface, self.pinned) = (interface, true);
        }
        self.last = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_show_it_is_listened_to_while_it_speaks() {
        let mut pin = InterfacePin::default();
        let mut takes = |interface, ms: u64| {
            pin.takes(interface, Timestamp::from_nanos(0) + Duration::from_millis(ms))
        };
        assert!(takes(7, 0));
        assert!(!takes(8, 0));
        assert!(takes(7, 900));
        assert!(!takes(8, 1900), "it spoke a second ago");
        assert!(takes(8, 1901), "the route has changed");
        assert!(!takes(7, 1902));
    }
}

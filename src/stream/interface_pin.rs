//! Deduplication of packets that several interfaces capture, as on a router: one interface is used, the others ignored.

use std::time::Duration;

use crate::time::Timestamp;

/// A pinned interface without packets for longer than this is replaced: the route may have changed.
const SILENCE: Duration = Duration::from_secs(1);

/// The interface that captured one direction of a flow first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InterfacePin {
    /// Time of its last packet.
    last: Timestamp,
    interface: u32,
    pinned: bool,
}

impl InterfacePin {
    /// Whether to use a packet of `interface` at `now`; packets of other interfaces are copies.
    #[inline]
    pub(super) fn accepts(&mut self, interface: u32, now: Timestamp) -> bool {
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
    fn the_first_interface_is_used_until_it_is_silent() {
        let mut pin = InterfacePin::default();
        let mut accepts = |interface, ms: u64| {
            pin.accepts(interface, Timestamp::from_nanos(0) + Duration::from_millis(ms))
        };
        assert!(accepts(7, 0));
        assert!(!accepts(8, 0));
        assert!(accepts(7, 900));
        assert!(!accepts(8, 1900), "its last packet is one second old");
        assert!(accepts(8, 1901), "the route has changed");
        assert!(!accepts(7, 1902));
    }
}

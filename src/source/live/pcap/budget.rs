//! Division of one buffer among the rings of all interfaces. libpcap has two rings an interface, and a process maps them.

/// Minimum bytes of the ring for SYNs: a few hundred of them.
const MIN_SYNS: usize = 128 << 10;
/// Enough for SYNs: about ten thousand.
const MAX_SYNS: usize = 4 << 20;
/// Minimum bytes of the ring for other packets: four of libpcap's blocks, so that the kernel fills some while others are read.
const MIN_OTHERS: usize = 4 * BLOCK;
/// A block of `TPACKET_V3` as libpcap chooses it: its maximum snap length. It rounds the size of a ring up to whole blocks.
const BLOCK: usize = 256 << 10;

/// Sizes of the rings of one interface, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingSizes {
    pub(super) syns: usize,
    pub(super) others: usize,
}

impl RingSizes {
    /// An equal share of `buffer` for each interface, but not below the minimum.
    pub(super) fn share(buffer: usize, interfaces: usize) -> Self {
        let share = buffer / interfaces.max(1);
        let syns = (share / 16).clamp(MIN_SYNS, MAX_SYNS);
        let others = share.saturating_sub(syns) / BLOCK * BLOCK;
        Self { syns, others: others.max(MIN_OTHERS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn all_rings_together_stay_within_the_buffer() {
        for buffer in [64 * MIB, 100 * MIB + 12_345, 4096 * MIB] {
            for interfaces in 1..buffer / (MIN_OTHERS + MIN_SYNS) {
                let RingSizes { syns, others } = RingSizes::share(buffer, interfaces);
                let total = interfaces * (syns + others);
                assert!(total <= buffer, "{total} of {buffer} for {interfaces}");
                // No more is left over than a block for each.
                let unused = buffer - total;
                assert!(unused < interfaces * (BLOCK + 1), "{unused} unused, {interfaces}");
            }
        }
    }

    #[test]
    fn each_interface_has_the_minimum() {
        let least = RingSizes { syns: MIN_SYNS, others: MIN_OTHERS };
        assert_eq!(RingSizes::share(64 * MIB, 100), least);
        assert_eq!(RingSizes::share(64 << 10, 1), least);
        assert_eq!(RingSizes::share(64 << 10, 0), least);
        assert_eq!(RingSizes::share(64 * MIB, 1), RingSizes { syns: 4 * MIB, others: 60 * MIB });
    }
}

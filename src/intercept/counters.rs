//! The counters of our rules, added up over the tables that were installed one after the other.

use crate::addr::Family;

/// Packets, by `family as usize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterceptCounters {
    /// SYNs that `tproxy` took.
    pub taken: [u64; 2],
    /// SYNs that passed the input hook on their way to the listener.
    pub arrived: [u64; 2],
    /// Packets that went to the servers because the gateway was not listening.
    pub bypassed: [u64; 2],
    /// SYNs that a closed door refused.
    pub refused: [u64; 2],
    /// Packets of connections that are older than the interception, of both families.
    pub earlier: u64,
}

/// Never goes backwards.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CounterTotals {
    total: InterceptCounters,
    /// As read last from the rules in force.
    last: InterceptCounters,
}

impl CounterTotals {
    pub(super) const fn total(&self) -> InterceptCounters {
        self.total
    }

    /// Adds what the rules counted since the last reading.
    pub(super) fn on_reading(&mut self, now: InterceptCounters) {
        let (total, last) = (&mut self.total, &self.last);
        for family in Family::ALL {
            let of = family as usize;
            total.taken[of] += increase(last.taken[of], now.taken[of]);
            total.arrived[of] += increase(last.arrived[of], now.arrived[of]);
            total.bypassed[of] += increase(last.bypassed[of], now.bypassed[of]);
            total.refused[of] += increase(last.refused[of], now.refused[of]);
        }
        total.earlier += increase(last.earlier, now.earlier);
        self.last = now;
    }

    /// The table is new: its counters start at zero.
    pub(super) fn on_new_table(&mut self) {
        self.last = InterceptCounters::default();
    }

    /// The rules of the family's door are new.
    pub(super) fn on_new_door(&mut self, family: Family) {
        self.last.refused[family as usize] = 0;
    }
}

/// A lower value is that of a new rule.
const fn increase(last: u64, now: u64) -> u64 {
    if now >= last { now - last } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(packets: u64) -> InterceptCounters {
        InterceptCounters { refused: [0, packets], earlier: packets, ..Default::default() }
    }

    #[test]
    fn totals_go_on_over_new_tables_and_doors() {
        let mut totals = CounterTotals::default();
        totals.on_reading(refused(5));
        totals.on_new_table();
        totals.on_reading(refused(5));
        assert_eq!(totals.total(), refused(10));
        totals.on_new_door(Family::Ipv6);
        totals.on_reading(refused(6));
        assert_eq!(totals.total().refused, [0, 16]);
        assert_eq!(totals.total().earlier, 11);
        // Replaced by someone else, unnoticed.
        totals.on_reading(refused(1));
        assert_eq!(totals.total().earlier, 12);
    }
}

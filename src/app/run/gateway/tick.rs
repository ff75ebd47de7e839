//! The work of each second.

use std::net::SocketAddr;

use super::{Gateway, set_addresses};
use crate::addr::Family;
use crate::relay::HostState;

/// Interval, in ticks, at which the addresses of the interfaces are read again.
const OWN_ADDRESSES_EVERY: u32 = 10;
/// Interval, in ticks, at which the files of certificates are examined.
const CERTIFICATES_EVERY: u32 = 2;

impl Gateway {
    pub(super) fn on_tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        if let Some(lookup) = &self.lookup
            && self.ticks.is_multiple_of(OWN_ADDRESSES_EVERY)
        {
            set_addresses(lookup, &self.config, &self.relay.handle());
        }
        if self.ticks.is_multiple_of(CERTIFICATES_EVERY) {
            self.certificates.check_files();
        }
        if let Some(outbound) = &self.outbound {
            outbound.on_tick();
        }
        self.canary.on_tick();
        if let Some(outbound) = &self.outbound {
            outbound.set_canary(self.canary.ipv4_preference());
        }
        self.health.set(self.ready_state());
        self.sources.set_outage(self.outage());
        let upstreams = self.relay.handle().upstream_health();
        for family in Family::ALL {
            // A Unix socket has none, and counts for both.
            let is_of = |address: SocketAddr| Family::of(address.ip()) == family;
            let of_family = upstreams.iter().filter(|known| known.address.is_none_or(is_of));
            let down = of_family.clone().filter(|known| known.up == Some(false)).count();
            self.metrics.set_upstreams(family, of_family.count() - down, down);
        }
        let hosts = self.relay.handle().upstream_hosts();
        let count = |state| hosts.iter().filter(|host| host.state == state).count();
        use HostState::{Resolved, Stale, Unresolved};
        self.metrics.set_upstream_names(count(Resolved), count(Stale), count(Unresolved));
        let notices = self.host_log.changes(&hosts).into_iter();
        for (level, notice) in notices.chain(self.upstream_log.changes(&upstreams)) {
            self.log.notice(level, &notice);
        }
        let missed = self.relay.taps().dropped_bytes();
        self.metrics.add_record_omitted_bytes(missed.saturating_sub(self.missed_bytes));
        self.missed_bytes = missed;
        let status = self.status();
        self.manager.on_tick(status, &self.relay);
    }
}

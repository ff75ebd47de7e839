//! Which addresses are our side: those of this host, which come and go (DHCP, SLAAC, a VIP), and configured networks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::addr::Networks;
use crate::app::host_addresses::ThisHost;

/// How long an address stays ours after this host lost it: its connections are reported when they end, or time out.
const KEPT: Duration = Duration::from_secs(600);

pub(super) struct OwnAddresses {
    configured: Vec<IpNet>,
    /// With the time at which this host had them last.
    addresses: BTreeMap<IpAddr, Instant>,
}

impl OwnAddresses {
    /// Those that this host has now, and `configured`.
    pub(super) fn new(configured: impl IntoIterator<Item = IpNet>) -> Self {
        let configured = configured.into_iter().collect();
        let mut own = Self { configured, addresses: BTreeMap::new() };
        own.update(ThisHost::new().addresses(), Instant::now());
        own
    }

    pub(super) fn networks(&self) -> Networks {
        let addresses = self.addresses.keys().map(|ip| IpNet::from(*ip));
        Networks::new(addresses.chain(self.configured.iter().copied()))
    }

    /// The networks, if they changed since the last call.
    pub(super) fn refreshed(&mut self) -> Option<Networks> {
        self.update(ThisHost::new().addresses(), Instant::now()).then(|| self.networks())
    }

    fn update(&mut self, present: impl Iterator<Item = IpAddr>, now: Instant) -> bool {
        let before = self.addresses.len();
        let mut changed = false;
        for ip in present {
            changed |= self.addresses.insert(ip, now).is_none();
        }
        self.addresses.retain(|_, seen| now.duration_since(*seen) < KEPT);
        changed || self.addresses.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_at_once_and_go_late() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let configured = vec!["2001:db8:2::/64".parse().unwrap()];
        let mut own = OwnAddresses { configured, addresses: BTreeMap::new() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (eth, vip) = (ip("192.0.2.1"), ip("2001:db8:1::9"));
        assert!(own.update([eth].into_iter(), at(0)));
        assert!(!own.update([eth].into_iter(), at(1)));
        assert!(own.update([eth, vip].into_iter(), at(2)));
        assert!(own.networks().contains(vip) && own.networks().contains(ip("2001:db8:2::7")));
        assert!(!own.update([eth].into_iter(), at(600)));
        assert!(own.networks().contains(vip));
        assert!(own.update([eth].into_iter(), at(603)));
        assert!(!own.networks().contains(vip) && own.networks().contains(eth));
    }
}

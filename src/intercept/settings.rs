//! Settings of interception, and the names and numbers by which gatepost's entries are found.

use rustix::thread::CapabilitySet;

use super::error::InterceptError;
use crate::addr::{Family, Networks};

/// Name of the nftables table, family `inet`.
pub const TABLE: &str = "gatepost";

/// Routing protocol number (RTPROT, FRA_PROTOCOL) of our ip rules and routes: `g`, not assigned in iproute2's `rt_protos`.
pub const PROTOCOL: u8 = 103;

/// Priority of our ip rules: after the local table (0), before rules that match all packets (VPNs, main).
pub const PRIORITY: u32 = 100;

/// The capability that interception needs until it is removed, also in nft(8).
pub const REQUIRED_CAPABILITIES: CapabilitySet = CapabilitySet::NET_ADMIN;

/// `[intercept]`, checked by `config/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptSettings {
    /// Destination ports to intercept; never empty.
    pub ports: Vec<u16>,
    /// The mail servers behind this host: only connections to them are intercepted.
    pub destinations: Networks,
    /// Interfaces on which clients arrive; empty means those of the default routes.
    pub interfaces: Vec<String>,
    /// Firewall mark that sends a packet to the local sockets: bits of `mask`, neither none nor all.
    pub mark: u32,
    /// The bits of the firewall mark that are ours.
    pub mask: u32,
    /// Routing table that holds the `local default` routes.
    pub table: u32,
    /// Port of the gateway's transparent listener, per family; `None`: the family is not intercepted.
    pub listen_ipv4: Option<u16>,
    pub listen_ipv6: Option<u16>,
}

impl InterceptSettings {
    pub(super) fn listen(&self, family: Family) -> Option<u16> {
        match family {
            Family::Ipv4 => self.listen_ipv4,
            Family::Ipv6 => self.listen_ipv6,
        }
    }

    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(|&family| self.listen(family).is_some())
    }

    /// Firewall mark of the gateway's own connections: the other bits of the mask.
    pub const fn own_mark(&self) -> u32 {
        self.mask & !self.mark
    }

    /// Checks for settings that are harmful to install, independently of `config/`.
    pub(super) fn check(&self) -> Result<(), InterceptError> {
        if self.ports.is_empty() || self.families().next().is_none() || self.destinations.is_empty()
        {
            return Err(InterceptError::NothingToIntercept);
        }
        if self.mark == 0 || self.mark & !self.mask != 0 || self.own_mark() == 0 {
            return Err(InterceptError::Mark { mark: self.mark, mask: self.mask });
        }
        // unspec, and the kernel's default, main and local
        if matches!(self.table, 0 | 253..=255) {
            return Err(InterceptError::ReservedTable { table: self.table });
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        match self
            .interfaces
            .iter()
            .find(|name| name.is_empty() || name.len() > 15 || !name.chars().all(is_plain))
        {
            Some(name) => Err(InterceptError::InterfaceName { name: name.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::intercept) fn settings() -> InterceptSettings {
        InterceptSettings {
            ports: vec![25, 587],
            destinations: Networks::new(
                ["192.0.2.25/32", "2001:db8::/64"].map(|network| network.parse().unwrap()),
            ),
            interfaces: vec!["eth0".into(), "eth1".into()],
            mark: 0x40,
            mask: 0xc0,
            table: 26480,
            listen_ipv4: Some(2525),
            listen_ipv6: Some(2526),
        }
    }

    #[test]
    fn harmful_settings_are_rejected() {
        assert!(settings().check().is_ok());
        let error = |change: fn(&mut InterceptSettings)| {
            let mut settings = settings();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        assert!(error(|s| s.table = 254).contains("table 254"));
        assert!(error(|s| s.mark = 0).contains("mark 0x0"));
        assert!(error(|s| s.mark = 0xc0).contains("mark 0xc0"));
        assert!(error(|s| s.mask = 0x80).contains("mask 0x80"));
        assert!(error(|s| s.destinations = Networks::default()).contains("nothing to intercept"));
        assert!(error(|s| s.ports.clear()).contains("nothing to intercept"));
        // nft parses this as the name of a set.
        assert!(error(|s| s.interfaces = vec!["@eth0".into()]).contains("`@eth0`"));
    }
}

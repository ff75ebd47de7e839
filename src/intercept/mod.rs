//! InterceptSettings in the kernel: nftables and policy routing for TPROXY, both families. Layer 4.
//!
//! What is installed, and nothing else: one nftables table `inet gatepost`, replaced in one transaction; and for each
//! intercepted family one `ip rule` (`fwmark MARK lookup TABLE`, priority [`PRIORITY`]) with one `local default dev lo`
//! route in TABLE. Only TCP is touched. The order of the rules is the contract, see `ruleset`.
//!
//! **Whose is it?** The table is ours by its name. Rules and routes carry the routing protocol number [`PROTOCOL`] (`ip
//! rule`, `ip route` print `proto 103`), which the kernel stores and iproute2's list assigns to nobody, so that they are
//! found after a kill -9 and a changed configuration, whatever mark and table they were made with. What carries the number but does
//! not have the shape that we make, and whatever lacks the number, is left alone.
//!
//! **Which mail?** New connections to one of `ports` that arrive on one of `interfaces` and are not for an address of
//! this host: mail to the gateway host goes to the host's own listener. Mail that the MTA behind sends out is
//! routed through this host as well; it is intercepted only if it arrives on a named interface. Naming the interfaces
//! that face the clients keeps it out; with none named, mail in both directions is intercepted.
//!
//! Facts: the outcomes were found by experiment on Linux 6.18 with nft 1.0.6, the reasons given are our reading of them.
//! `tests/intercept.rs` holds the passing by, the wildcard listener, strict rp_filter and SYN cookies (always on).
//! - *The gateway is dead and the rules stay* (kill -9): `tproxy` without a listening socket does not match, the packet is
//!   forwarded, and mail goes to the servers directly, in both families. InterceptSettings fails open; the last rules
//!   of chain `intercept` count what passed by. It needs forwarding on: with `ip_forward = 0` intercepted sessions still
//!   work, but nothing passes by a dead gateway.
//! - *Sessions that pass by are reset when the listener comes back*: their packets then meet the listener, which knows no
//!   such connection. Clients see a reset and send again. Matching only SYN would spare them, but a SYN cookie's
//!   ACK belongs to no socket yet, so a small SYN flood would then stop all mail.
//! - *`socket transparent 1` alone also matches wildcard listeners*, and would take other hosts' traffic to the port of our
//!   own listener. Hence `socket wildcard 1` is sent past it.
//! - *`net.ipv4.conf.*.src_valid_mark = 1`* (wg-quick sets it) breaks IPv4 with every value of rp_filter: the source is then
//!   looked up with our mark, found local, and the packet is dropped.
//! - *Strict rp_filter breaks nothing by itself*, neither towards the client nor towards the server. A client whose
//!   way back is another interface is dropped, as it is without the gateway.
//! - *`net.ipv4.tcp_fwmark_accept = 1`* breaks both families (accepted sockets take our mark, so their replies are routed to
//!   this host) unless the listener has a mark of its own (SO_MARK); then all is well. `fwmark_reflect` is harmless.
//! - *An MTA on the gateway host itself as upstream* cannot be given the client's address: its replies are routed to the
//!   client, past the gateway's socket. Use PROXY or XCLIENT there.
//!
//! The listener must be bound to the wildcard address of its family, transparent (IP_TRANSPARENT). At stop: close the
//! listener, let sessions end, then [`remove`]; open sessions need the rules.

pub mod door;
mod error;
mod kernel;
mod nft;
mod report;
mod routing;
mod ruleset;

pub use error::InterceptError;
pub use report::{ChainReport, InterceptReport, RemovalReport, RuleReport, TproxyReport};

use rustix::thread::CapabilitySet;

use crate::addr::Family;
use routing::Routing;

/// Name of the nftables table, family `inet`.
pub const TABLE: &str = "gatepost";

/// Routing protocol number (RTPROT, FRA_PROTOCOL) of our ip rules and routes: `g`, which iproute2's `rt_protos` assigns to nobody.
pub const PROTOCOL: u8 = 103;

/// Priority of our ip rules: behind the local table (0), before whatever looks at all packets (VPNs, main).
pub const PRIORITY: u32 = 100;

/// What interception takes as long as it goes on, for its removal too; also in the programs that it runs, of which nft(8) is one.
pub const REQUIRED_CAPABILITIES: CapabilitySet = CapabilitySet::NET_ADMIN;

/// `[intercept]`, checked by `config/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptSettings {
    /// Destination ports to intercept; never empty.
    pub ports: Vec<u16>,
    /// Interfaces on which clients arrive; empty means every one but loopback.
    pub interfaces: Vec<String>,
    /// Firewall mark that sends a packet to the local sockets; never zero.
    pub mark: u32,
    /// Routing table that holds the `local default` routes.
    pub table: u32,
    /// Port of the gateway's transparent listener, per family; `None`: the family is not intercepted.
    pub listen_ipv4: Option<u16>,
    pub listen_ipv6: Option<u16>,
}

impl InterceptSettings {
    fn listen(&self, family: Family) -> Option<u16> {
        match family {
            Family::Ipv4 => self.listen_ipv4,
            Family::Ipv6 => self.listen_ipv6,
        }
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(|&family| self.listen(family).is_some())
    }

    /// What would be harmful to install, whoever made these settings.
    fn check(&self) -> Result<(), InterceptError> {
        if self.ports.is_empty() || self.families().next().is_none() {
            return Err(InterceptError::NothingToIntercept);
        }
        if self.mark == 0 || self.mark == u32::MAX {
            return Err(InterceptError::Mark { mark: self.mark });
        }
        // unspec, and the kernel's default, main and local
        if matches!(self.table, 0 | 253..=255) {
            return Err(InterceptError::ReservedTable { table: self.table });
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        match self
            .interfaces
            .iter()
            .find(|name| name.is_empty() || name.len() > 15 || !name.chars().all(plain))
        {
            Some(name) => Err(InterceptError::InterfaceName { name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// Installs what `settings` say in place of whatever an earlier run left; installing again changes nothing.
///
/// Routing comes first and the table last, so that no packet is marked before it has a route. On an error the table in
/// force before, if any, stays in force, and what this call added to the routing is taken back. Warnings are in
/// [`show`].
pub async fn install(settings: &InterceptSettings) -> Result<(), InterceptError> {
    settings.check()?;
    let routing = Routing::open()?;
    let mut added = Vec::new();
    let result = match routing.add(settings, &mut added).await {
        Ok(()) => nft::replace(settings).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        // The first error is the one to report.
        for entry in added {
            let _ = routing.delete(entry).await;
        }
        return Err(error);
    }
    for entry in routing.ours().await? {
        if !entry.is_of(settings) {
            routing.delete(entry).await?;
        }
    }
    Ok(())
}

/// Removes all that is ours, whatever configuration it came from. Nothing there is fine.
pub async fn remove() -> Result<RemovalReport, InterceptError> {
    // The table first: a packet marked without a route is worse than a route without packets. An error there must not
    // keep the routing from being cleaned.
    let table = nft::delete().await;
    let routing = Routing::open()?;
    let mut removed = RemovalReport::default();
    for entry in routing.ours().await? {
        let words = entry.to_string();
        routing.delete(entry).await?;
        removed.routing.push(words);
    }
    removed.table = table?;
    Ok(removed)
}

/// What is installed now, with warnings about what keeps it from working.
pub async fn show() -> Result<InterceptReport, InterceptError> {
    let chains = nft::list().await?;
    let routing = Routing::open()?.ours().await?;
    let mut report = InterceptReport::new(chains, &routing);
    report.warnings.extend(kernel::warnings(&report));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn settings() -> InterceptSettings {
        InterceptSettings {
            ports: vec![25, 587],
            interfaces: vec!["eth0".into(), "eth1".into()],
            mark: 0x6770,
            table: 26480,
            listen_ipv4: Some(2525),
            listen_ipv6: Some(2526),
        }
    }

    #[test]
    fn harmful_settings_are_refused() {
        assert!(settings().check().is_ok());
        let refused = |change: fn(&mut InterceptSettings)| {
            let mut settings = settings();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        assert!(refused(|s| s.table = 254).contains("table 254"));
        assert!(refused(|s| s.mark = 0).contains("mark 0x0"));
        assert!(refused(|s| s.mark = u32::MAX).contains("0xffffffff"));
        assert!(refused(|s| s.ports.clear()).contains("nothing to intercept"));
        // nft would read this as the name of a set
        assert!(refused(|s| s.interfaces = vec!["@eth0".into()]).contains("`@eth0`"));
    }
}

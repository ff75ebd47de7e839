//! The network around a router with a gateway: five namespaces in a row.
//!
//! ```text
//!   client ───────── isp ══════════════ router (gatepost) ──────── second ──────────── server
//!   192.0.2.10      203.0.113.1    wan0 203.0.113.2   lan0 10.9.0.1    10.9.0.2     198.51.100.25
//!   2001:db8:1::10  203.0.113.129  wan1 203.0.113.130   2001:db8:9::1  2001:db8:9::2  2001:db8:2::25
//!                   2001:db8:a::1, 2001:db8:b::1 at the ISP, ::2 at the router
//! ```
//!
//! The mail server's addresses are routed to the router over the first uplink, `wan0`. The ISP and the second router are the hops
//! whose next link may have a small MTU.

use std::fs;
use std::net::IpAddr;

use crate::support::{Family, Host, Lab};

/// The smallest MTU that IPv6 allows.
const SMALL_MTU: u32 = 1280;

pub(super) struct Network {
    pub(super) lab: Lab,
    pub(super) isp: Host,
    pub(super) second: Host,
}

impl Network {
    pub(super) fn new() -> Self {
        let lab = Lab::unwired("wan0");
        let (isp, second) = (lab.another_host("isp"), lab.another_host("second"));
        lab.client.link("isp", &isp, "client");
        isp.link("first", &lab.gateway, "wan0");
        isp.link("second", &lab.gateway, "wan1");
        lab.gateway.link("lan0", &second, "router");
        second.link("server", &lab.server, "router");
        for host in [&isp, &lab.gateway, &second] {
            host.forward();
        }
        lab.client.configure(
            "addr add 192.0.2.10/24 dev isp\n\
             addr add 2001:db8:1::10/64 dev isp nodad\n\
             route add default via 192.0.2.1\n\
             route add default via 2001:db8:1::1\n",
        );
        isp.configure(
            "addr add 192.0.2.1/24 dev client\n\
             addr add 2001:db8:1::1/64 dev client nodad\n\
             addr add 203.0.113.1/25 dev first\n\
             addr add 2001:db8:a::1/64 dev first nodad\n\
             addr add 203.0.113.129/25 dev second\n\
             addr add 2001:db8:b::1/64 dev second nodad\n\
             route add 198.51.100.0/24 via 203.0.113.2\n\
             route add 2001:db8:2::/64 via 2001:db8:a::2\n",
        );
        lab.gateway.configure(
            "addr add 203.0.113.2/25 dev wan0\n\
             addr add 2001:db8:a::2/64 dev wan0 nodad\n\
             addr add 203.0.113.130/25 dev wan1\n\
             addr add 2001:db8:b::2/64 dev wan1 nodad\n\
             addr add 10.9.0.1/24 dev lan0\n\
             addr add 2001:db8:9::1/64 dev lan0 nodad\n\
             route add default via 203.0.113.1\n\
             route add default via 2001:db8:a::1\n\
             route add 198.51.100.0/24 via 10.9.0.2\n\
             route add 2001:db8:2::/64 via 2001:db8:9::2\n",
        );
        second.configure(
            "addr add 10.9.0.2/24 dev router\n\
             addr add 2001:db8:9::2/64 dev router nodad\n\
             addr add 198.51.100.1/24 dev server\n\
             addr add 2001:db8:2::1/64 dev server nodad\n\
             route add default via 10.9.0.1\n\
             route add default via 2001:db8:9::1\n",
        );
        lab.server.configure(
            "addr add 198.51.100.25/24 dev router\n\
             addr add 2001:db8:2::25/64 dev router nodad\n\
             route add default via 198.51.100.1\n\
             route add default via 2001:db8:2::1\n",
        );
        Self { lab, isp, second }
    }

    /// The router's address on the first uplink.
    pub(super) fn router_ip(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => "203.0.113.2",
            Family::Ipv6 => "2001:db8:a::2",
        }
        .parse()
        .unwrap()
    }

    /// Routes the mail server's addresses over the second uplink. The ISP accepts their packets on no other, as with BCP 38.
    pub(super) fn use_second_uplink(&self) {
        self.isp.configure(
            "route replace 198.51.100.0/24 via 203.0.113.130\n\
             route replace 2001:db8:2::/64 via 2001:db8:b::2\n",
        );
        self.isp.run([
            "nft",
            "add table inet bcp38
             add chain inet bcp38 forward { type filter hook forward priority 0; }
             add rule inet bcp38 forward iifname first tcp sport 25 drop",
        ]);
    }

    /// Does the work while the last link to the mail server has an MTU of 1280: the second router reports it.
    pub(super) fn with_small_mtu_behind(&self, work: impl FnOnce()) {
        self.with_small_mtu(
            &self.second,
            "server",
            Family::ALL.map(|f| self.lab.server_ip(f)),
            work,
        );
    }

    /// Does the work while the last link to the client has an MTU of 1280: the ISP reports it.
    pub(super) fn with_small_mtu_in_front(&self, work: impl FnOnce()) {
        self.with_small_mtu(&self.isp, "client", Family::ALL.map(|f| self.lab.client_ip(f)), work);
    }

    fn with_small_mtu(&self, hop: &Host, link: &str, to: [IpAddr; 2], work: impl FnOnce()) {
        // What the hosts remember from earlier: they would send nothing too big.
        for host in [&self.lab.client, &self.isp, &self.lab.gateway, &self.second, &self.lab.server]
        {
            for family in ["-4", "-6"] {
                host.run(["ip", family, "route", "flush", "cache"]);
            }
        }
        let before = too_big(hop);
        for ip in to {
            hop.configure(&format!("route add {ip} dev {link} mtu {SMALL_MTU}\n"));
        }
        work();
        for ip in to {
            hop.configure(&format!("route del {ip} dev {link}\n"));
        }
        let after = too_big(hop);
        // Otherwise the work proves nothing.
        assert!(
            before.iter().zip(&after).all(|(before, after)| before < after),
            "no packet exceeded the MTU: errors sent before {before:?}, after {after:?}"
        );
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.isp.remove();
        self.second.remove();
    }
}

/// The number of ICMP errors that a hop has sent: IPv4 of every kind, IPv6 "packet too big".
fn too_big(hop: &Host) -> [u64; 2] {
    [counter(hop, "Icmp", "OutDestUnreachs"), counter(hop, "Icmp6", "OutPktTooBigs")]
}

/// A counter of the kernel's `snmp` files.
pub(super) fn counter(host: &Host, group: &str, name: &str) -> u64 {
    // /proc/net belongs to the first thread of the process.
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
    let value = if group.ends_with('6') {
        let text = host.in_thread(|| read("snmp6"));
        let mut lines =
            text.lines().filter_map(|line| line.strip_prefix(&format!("{group}{name}")));
        lines.next().map(|value| value.trim().to_owned())
    } else {
        let text = host.in_thread(|| read("snmp"));
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{group}: ")));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut pairs = names.split(' ').zip(values.split(' '));
        pairs.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    value.unwrap_or_else(|| panic!("no counter {group} {name}")).parse().unwrap()
}

//! Interception in the kernel: nftables and policy routing for TPROXY. Layer 4.

/// `[intercept]`, checked by `config/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
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

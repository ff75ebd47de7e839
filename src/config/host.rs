//! The host that a configuration is for, as far as its checks depend on it.

use std::net::IpAddr;

/// The addresses of a host. `app` supplies those of this one; `()` is a host of which only loopback is known.
pub trait HostAddresses {
    /// Whether `ip` is an address of the host.
    fn contains(&self, ip: IpAddr) -> bool;

    /// The address from which the host connects to `ip`; `None` if it is not known, or there is no route.
    fn source_to(&self, ip: IpAddr) -> Option<IpAddr>;
}

impl HostAddresses for () {
    fn contains(&self, _: IpAddr) -> bool {
        false
    }

    fn source_to(&self, _: IpAddr) -> Option<IpAddr> {
        None
    }
}

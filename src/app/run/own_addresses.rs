//! This host's own addresses, which no probe may go to: found without `[site]`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::app::host_addresses::ThisHost;
use crate::config::Config;

/// The addresses of all interfaces, of the listeners of `config`, and of `upstreams`. Interfaces and host names change, so it is
/// called regularly.
pub(super) fn own_addresses(config: &Config, upstreams: Vec<SocketAddr>) -> BTreeSet<IpAddr> {
    let configured = config.relay.listen_addresses().chain(upstreams);
    let configured = configured.map(|address| address.ip().to_canonical());
    configured.chain(ThisHost::new().addresses()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_listeners_and_upstreams_are_ours() {
        let text = "[listen]\naddresses = [\"[2001:db8::1]:25\"]\n[upstream]\naddresses = [\"192.0.2.25:25\"]\n";
        let config = Config::parse(text, "test").unwrap();
        let own = own_addresses(&config, vec!["192.0.2.25:25".parse().unwrap()]);
        for ip in ["2001:db8::1", "192.0.2.25", "127.0.0.1"] {
            assert!(own.contains(&ip.parse().unwrap()), "{ip}: {own:?}");
        }
        assert!(!own.contains(&"192.0.2.26".parse().unwrap()));
    }
}

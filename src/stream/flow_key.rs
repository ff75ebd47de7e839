//! The canonical 4-tuple: both directions of a flow share one key.

use std::net::{IpAddr, SocketAddr};

/// The lower endpoint, then the higher one; each is an address (IPv4 as v4-mapped) and a port. A single array, hashed in
/// one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey([u8; 36]);

impl FlowKey {
    /// The key of a segment, and whether its sender is the lower endpoint.
    pub(super) fn of(src: SocketAddr, dst: SocketAddr) -> (Self, bool) {
        let (from, to) = (endpoint(src), endpoint(dst));
        let from_low = from <= to;
        let (low, high) = if from_low { (from, to) } else { (to, from) };
        let mut key = [0; 36];
        let (first, second) = key.split_at_mut(18);
        first.copy_from_slice(&low);
        second.copy_from_slice(&high);
        (Self(key), from_low)
    }
}

fn endpoint(addr: SocketAddr) -> [u8; 18] {
    let ip = match addr.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut bytes = [0; 18];
    let (address, port) = bytes.split_at_mut(16);
    address.copy_from_slice(&ip);
    port.copy_from_slice(&addr.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_share_a_key() {
        let (a, b) = ("192.0.2.1:25".parse().unwrap(), "192.0.2.1:4000".parse().unwrap());
        let ((key, a_low), (same, b_low)) = (FlowKey::of(a, b), FlowKey::of(b, a));
        assert_eq!(key, same);
        assert_ne!(a_low, b_low);
        assert_ne!(key, FlowKey::of(a, "192.0.2.1:4001".parse().unwrap()).0);
        assert_eq!(
            key,
            FlowKey::of("[::ffff:192.0.2.1]:25".parse().unwrap(), b).0,
            "mapped is IPv4"
        );
    }
}

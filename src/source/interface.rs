//! A network interface of this host.

use ipnet::IpNet;

/// A watched interface; [`Packet::interface`](crate::wire::Packet::interface) is its position in
/// [`LiveCapture::interfaces`](super::live::LiveCapture::interfaces).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedInterface {
    pub name: String,
    /// `ifindex`.
    pub index: u32,
    /// With their prefix lengths.
    pub addresses: Vec<IpNet>,
}

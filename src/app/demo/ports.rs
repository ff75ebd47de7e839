//! Free ports for the gateway, with the same number in both families, like port 25.
//!
//! Layer 5. A bound socket that never listens reserves each port. SO_REUSEPORT lets the gateway's listeners bind it too, and
//! no other program's. Where the gateway does not listen, the kernel refuses connections.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::addr::Family;

/// Attempts to find a number that is free in both families.
const ATTEMPTS: usize = 32;

/// A port number that is reserved until this is dropped.
#[derive(Debug)]
pub(super) struct ReservedPort {
    pub port: u16,
    _sockets: Vec<Socket>,
}

impl ReservedPort {
    pub(super) fn new(ipv6: bool) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            match Self::attempt(ipv6) {
                Ok(reserved) => return Ok(reserved),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    fn attempt(ipv6: bool) -> io::Result<Self> {
        let ipv4 = hold((Ipv4Addr::LOCALHOST, 0).into())?;
        let own = ipv4.local_addr()?.as_socket();
        let port = own.ok_or(io::ErrorKind::AddrNotAvailable)?.port();
        let mut sockets = vec![ipv4];
        if ipv6 {
            sockets.push(hold((Ipv6Addr::LOCALHOST, port).into())?);
        }
        Ok(Self { port, _sockets: sockets })
    }
}

fn hold(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    // Only now, so that the kernel chose a port that nobody has. The gateway checks with this option that nobody listens there.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Whether this host has `::1`.
pub(super) fn ipv6_loopback() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// The port that replaces 25 at a site, by family: the clients' only knowledge besides the DNS.
#[derive(Clone, Debug, Default)]
pub(super) struct PortMap(BTreeMap<(&'static str, Family), u16>);

impl PortMap {
    pub(super) fn set(&mut self, domain: &'static str, family: Family, port: u16) {
        self.0.insert((domain, family), port);
    }

    /// `ip` with the port of `domain`, if one is set.
    pub(super) fn destination(&self, domain: &'static str, ip: IpAddr) -> Option<SocketAddr> {
        let port = self.0.get(&(domain, Family::of(ip)))?;
        Some(SocketAddr::new(ip, *port))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn only_reuseport_listeners_get_a_reserved_port() {
        let reserved = ReservedPort::new(false).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, reserved.port));
        let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(stranger.bind(&address.into()).is_err());
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        let gateway = hold(address).unwrap();
        gateway.listen(1).unwrap();
        TcpStream::connect(address).unwrap();
    }
}
